"""Every figure and table of a report, from a generated benchmark and from real photographs, with contact sheets.

    python benchmarks/figures.py --weights DIR --folder DIR --benchmark PHOTOS --docs docs

Runs what each of them needs, with two pretrained networks: resolutions, ways and sizes of linear adaptation (learned
from generated pictures), re-ranking and a sweep of it, boxes, views, queries as text. Writes a report of each
benchmark, and into `--docs` the list of what came from which (`figures.md`) and sheets of what the generated
benchmark gave.

`DIR` of weights holds `mobilenetv2_100_tf_in1k.safetensors` and `tf_efficientnet_lite0_features.safetensors`. All that
is made lies in `--folder`; killed, it goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml
from PIL import Image, ImageDraw, ImageFont

from openilias.build.generated.knobs import Knobs
from openilias.build.generated.synth import SynthSettings, build_synth
from openilias.core.files import write_bytes
from openilias.data.ilias import LISTS, MINI
from openilias.search.ranking import read_ranking

MODELS = {
    "mobilenetv2": ("mobilenetv2_100.tf_in1k", "mobilenetv2_100_tf_in1k.safetensors"),
    "lite0": ("tf_efficientnet_lite0.features", "tf_efficientnet_lite0_features.safetensors"),
}
SETTINGS = SynthSettings(
    objects=60, distractors=1000, size=400, train=120, knobs=Knobs(scale=(0.05, 0.6), clutter=(0, 40), hard=0.3)
)
LESSONS = SynthSettings(objects=1, distractors=0, size=400, train=500, seed=1)
ADAPT = {"held_out": 0, "dim": 64}
RERANK = {
    "method": "none",
    "model": "sift",
    "resolution": 500,
    "most": 600,
    "query_descriptors": 600,
    "descriptors": 600,
    "spatial": {"scales": True, "tolerance": 8},
}
SP = {"rerank.method": "spatial"}
WITH_BOTH = ("resolution", "dimensions", "reranking-models")
STUDIES = {
    "views": {
        "table": "views",
        "protocol.views": "queries",
        "variants": {
            "none": {},
            "scales": {"protocol.scales": [0.707, 1.0, 1.414]},
            "rotations": {"protocol.rotations": [0, 90, 180, 270]},
        },
    },
    "boxes": {
        "table": "boxes",
        "variants": {
            "none": {},
            "mask": {"protocol.positive_boxes": "mask"},
            "crop": {"protocol.positive_boxes": "crop"},
        },
    },
    "resolution": {"table": "C", "matrix": {"protocol.resolution": [224, 384, 512]}},
    "methods": {"table": "D", "adapt": ADAPT, "matrix": {"adapt.method": ["none", "pcaw", "lw", "ujcds"]}},
    "domains": {
        "table": "E",
        "adapt": ADAPT,
        "matrix": {"adapt": [{"method": "none"}, {"domains": ["toys"]}, {"domains": ["packaging"]}, {"domains": None}]},
    },
    "dimensions": {"table": "dimensions", "adapt": ADAPT, "matrix": {"adapt.dim": [16, 32, 64, 128, 256]}},
    "reranking": {
        "table": "4",
        "rerank": RERANK,
        "variants": {
            "global": {},
            **{f"αQE{n}": {"protocol.expand": {"n": n, "alpha": 1.0}} for n in (1, 2, 5)},
            "SP": SP,
        },
    },
    "reranking-models": {"table": "F", "rerank": RERANK, "variants": {"global": {}, "SP": SP}},
}
TEXT = {
    "model": "vit_pe_core_tiny_patch16_384.fb",
    "random_weights": 0,
    "queries": "text",
    "protocol": {"resolution": 96},
}


@dataclass(frozen=True)
class World:
    """A benchmark and what is run on it; `lessons` holds the images that layers are learned from.

    `mix` are the weight of global similarity and the gamma of local similarity that `reranking.py` has found.
    """

    name: str
    benchmark: Path
    folder: Path
    lessons: Path
    weights: Path
    mix: tuple[float, float]

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.folder / "runs" / self.name

    def run(self, name: str, settings: dict[str, object]) -> None:
        """Write an experiment and run it."""
        path = self.folder / "experiments" / f"{self.name}-{name}.yaml"
        value = {"benchmark": str(self.benchmark), "out": str(self.runs / name)} | settings
        write_bytes(path, yaml.safe_dump(value, allow_unicode=True, sort_keys=False).encode())
        ilias("run", path)

    def study(self, name: str, model: str) -> None:
        """Run one study with one model."""
        settings = dict(STUDIES[name])
        views = settings.pop("protocol.views", None)
        protocol = {"resize": "pad", "resolution": 384} | ({} if views is None else {"views": views})
        if "adapt" in settings:
            settings["adapt"] = {"train": str(self.lessons), **ADAPT}
        if "rerank" in settings:
            settings["rerank"] = RERANK | {"global_weight": self.mix[0], "gamma": self.mix[1]}
        architecture, file = MODELS[model]
        where = {} if name in ("resolution", "views", "boxes") else {"stores": str(self.runs / "stores" / model)}
        always = {"model": architecture, "weights": str(self.weights / file), "protocol": protocol} | where
        self.run(f"{name}-{model}", always | settings)


def ilias(*arguments: object) -> None:
    """Run a command; stop if it fails."""
    subprocess.run([Path(sys.executable).with_name("ilias"), *map(str, arguments)], check=True)


def choose_hard(world: World) -> None:
    """List the distractors that a model takes for an object first: the mini list of the benchmark."""
    path = world.benchmark / LISTS / MINI
    if path.exists():
        return
    ranking, _ = read_ranking(world.runs / "resolution-lite0" / "protocol.resolution=384" / "ranking")
    first = {ranking.db_ids[row] for row in ranking.rows[:, :15].ravel().tolist()}
    keys = sorted(item.rsplit("/", 1)[1] for item in first if item.startswith("yfcc100m"))
    write_bytes(path, "".join(f"{key}\n" for key in keys).encode())


def sweep(world: World, model: str) -> None:
    """Re-rank with shortlists and descriptors of several sizes."""
    run = world.runs / f"reranking-{model}" / "SP"
    (local,) = (world.runs / "stores" / model / "local").iterdir()
    stores = [option for part in ("positives", "distractors") for option in ("--database", local / part)]
    ilias(
        "sweep", world.runs / f"reranking-{model}" / "global" / "ranking", "--benchmark", world.benchmark,
        "--method", "spatial", "--scales", "--tolerance", 8, "--queries", local / "image_queries", *stores,
        "--shortlists", "25,100,400,1000", "--descriptors", "50,100,200,400,600", "--out", run / "sweep",
        "--global-weight", world.mix[0], "--gamma", world.mix[1],
    )  # fmt: skip


def place(study: str, path: Path) -> tuple[str, int, str]:
    """Return where a run stands among those of a study: as its variants are listed, else by the number in its name."""
    name = path.parent.name
    variants = list(STUDIES[study].get("variants", {}))
    return path.parent.parent.name, variants.index(name) if name in variants else len(name), name


def report(world: World, others: list[World]) -> list[Path]:
    """Write the reports of the models and of the studies; return the folders of their figures."""
    runs = world.runs
    models = {
        "MobileNetV2": runs / "reranking-mobilenetv2" / "global",
        "EfficientNet-Lite0": runs / "reranking-models-lite0" / "global",
        "MobileNetV2 + UJCDS": runs / "dimensions-mobilenetv2" / "adapt.dim=128",
        "EfficientNet-Lite0 + UJCDS": runs / "dimensions-lite0" / "adapt.dim=128",
        "MobileNetV2 + αQE1": runs / "reranking-mobilenetv2" / "αQE1",
        "MobileNetV2 + SP": runs / "reranking-mobilenetv2" / "SP",
    }
    if (runs / "text").exists():
        models["text, random weights"] = runs / "text"
    beside = {
        f"{name} ({other.name})": other.runs / run.relative_to(runs)
        for other in others
        for name, run in list(models.items())[:4]
    }
    named = [f"{name}={path}" for name, path in (models | beside).items()]
    ilias("report", *named, "--benchmark", world.benchmark, "--out", world.folder / f"report-{world.name}")
    studies = [
        path.parent
        for name in STUDIES
        for path in sorted(runs.glob(f"{name}-*/*/run.json"), key=partial(place, name))
        if path.parent.parent.name.removeprefix(f"{name}-") in MODELS
    ]
    named = [f"{path.parent.name} {path.name}={path}" for path in studies]
    ilias(
        "report",
        *named,
        "--benchmark",
        world.benchmark,
        "--few-pictures",
        "--out",
        world.folder / f"report-{world.name}-studies",
    )
    return [world.folder / f"report-{world.name}{ending}" / "figures" for ending in ("", "-studies")]


OF_STUDIES = ("study", "table-4", "table-c", "figure-g", "figure-h")


def gathered(folders: list[Path]) -> dict[str, Path]:
    """Return name -> Markdown of all figures and tables: of studies from their own report, all else from the other."""
    of_models, of_studies = folders
    paths = [path for path in of_models.glob("*.md") if not path.stem.startswith(OF_STUDIES)]
    paths += [path for path in of_studies.glob("*.md") if path.stem.startswith(OF_STUDIES)]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


FONT, BOLD = "DejaVuSans.ttf", "DejaVuSans-Bold.ttf"


def font(size: int, name: str = FONT) -> ImageFont.FreeTypeFont:
    """Return the font that Matplotlib brings."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / name, size)


def drawn_table(path: Path, most: int = 9) -> Image.Image:
    """Draw the beginning of a table in Markdown."""
    title, *lines = path.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    marks, rows = cells[1], [cells[0], *cells[2:]]
    hidden, rows = len(rows) - 1 - most, rows[: most + 1]
    plain, bold = font(13), font(13, BOLD)
    rows = [[cell.replace("\\|", "|") for cell in row] for row in rows]
    widths = [max(bold.getlength(row[n].replace("**", "")) for row in rows) + 18 for n in range(len(marks))]
    titles = textwrap.wrap(title, max(40, int(sum(widths) / 7.2)))
    height = 22 * (len(rows) + len(titles) + (hidden > 0)) + 24
    image = Image.new("RGB", (int(max(sum(widths), 320)) + 16, height), "white")
    draw = ImageDraw.Draw(image)
    y = 8
    for line in titles:
        draw.text((8, y), line, fill="black", font=plain)
        y += 22
    for number, row in enumerate(rows):
        x = 8.0
        for mark, width, cell in zip(marks, widths, row, strict=True):
            right = mark.endswith(":")
            used = bold if number == 0 or cell.startswith("**") else plain
            place = x + width - 12 if right else x
            draw.text((place, y), cell.replace("**", ""), fill="black", font=used, anchor="ra" if right else "la")
            x += width
        y += 22
        if number == 0:
            draw.line((8, y - 2, x, y - 2), fill="grey")
    if hidden > 0:
        draw.text((8, y), f"and {hidden} more lines", fill="grey", font=plain)
    return image


def sheet(pictures: list[tuple[str, Image.Image]], out: Path, width: int = 1500, columns: int = 3) -> None:
    """Lay pictures out in columns, each into the shortest one, and below them what is too wide for that."""
    cell = width // columns
    heights, places = [8] * columns, []
    for name, picture in sorted(pictures, key=lambda pair: pair[1].width / pair[1].height > 4):
        shown, wide = picture.copy(), picture.width / picture.height > 4
        shown.thumbnail((width if wide else cell - 16, 620), Image.Resampling.LANCZOS)
        column = heights.index(max(heights) if wide else min(heights))
        places.append((8 if wide else column * cell + 8, heights[column], name, shown))
        heights[column] += shown.height + 36
        heights = [heights[column]] * columns if wide else heights
    page = Image.new("RGB", (width, max(heights)), "white")
    draw = ImageDraw.Draw(page)
    for x, y, name, shown in places:
        draw.text((x, y), name, fill="#777777", font=font(12))
        page.paste(shown, (x, y + 18))
    page.save(out, quality=82, optimize=True)


def label(name: str) -> str:
    """Return what a figure or table is in the paper, by the name of its file."""
    kind, _, rest = name.partition("-")
    number = rest.split("-")[0]
    if kind == "study":
        return (
            f"Table {rest.upper()}"
            if len(rest) == 1
            else {"dimensions": "Fig. G", "boxes": "B.1", "views": "B.1"}[rest]
        )
    if name == "table-2-models":
        return "Tables 2, G, H"
    return f"{'Fig.' if kind == 'figure' else 'Table'} {number.upper()}" if kind in ("figure", "table") else ""


PAGE = """# Every figure and table

What `ilias report` writes, from which data. `python benchmarks/figures.py` has made all of it: a generated benchmark
(60 objects in clutter, 1,000 distractors) and real photographs (52 objects, 633 distractors), described by MobileNetV2
and EfficientNet-Lite0 as pretrained on ImageNet; layers learned from generated pictures; spatial verification with
SIFT.
Of the photographs there are no clutter counts, no cameras, no texts and no list of chosen distractors, so what needs
them is not there.

{sheets}

Each is a file of this name as CSV, Markdown and LaTeX, each figure as SVG and PNG too. Galleries (J, L, M, N) show the
pictures of the benchmark.

{table}
"""


def write_list(found: dict[str, dict[str, Path]], sheets: list[str], out: Path) -> None:
    """Write which figure and table came from which benchmark, below the sheets."""
    names = sorted({name for one in found.values() for name in one})
    worlds = list(found)
    lines = [f"| file | paper | what | {' | '.join(worlds)} |", f"|---|---|---{'|:---:' * len(worlds)}|"]
    for name in names:
        path = next(one[name] for one in found.values() if name in one)
        title = path.read_text(encoding="utf-8").splitlines()[0]
        marks = " | ".join("yes" if name in found[world] else "–" for world in worlds)
        lines.append(f"| `{name}` | {label(name)} | {title} | {marks} |")
    shown = "\n\n".join(f"![Figures and tables of the generated benchmark]({sheet})" for sheet in sheets)
    write_bytes(out, PAGE.format(sheets=shown, table="\n".join(lines)).encode())


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--benchmark", type=Path, help="real photographs in the layout of ILIAS")
    parser.add_argument("--docs", type=Path, required=True)
    arguments = parser.parse_args()
    folder, weights = arguments.folder.resolve(), arguments.weights.resolve()
    made = folder / "generated"
    if not made.exists():  # it is whole, and has a mini list since
        build_synth(made, SETTINGS)
    build_synth(folder / "lessons", LESSONS)
    worlds = [World("generated", made, folder, folder / "lessons", weights, (0.1, 0.02))]
    if arguments.benchmark is not None:
        worlds.append(
            World("photographs", arguments.benchmark.resolve(), folder, folder / "lessons", weights, (0.3, 0.01))
        )
    for world in worlds:
        for model in MODELS:
            for study in STUDIES if model == "mobilenetv2" else WITH_BOTH:
                world.study(study, model)
        sweep(world, "mobilenetv2")
    choose_hard(worlds[0])
    worlds[0].run("text", TEXT)
    found = {}
    for world in worlds:
        found[world.name] = gathered(report(world, [other for other in worlds if other is not world]))
    pictures = []
    for name, path in found["generated"].items():
        drawn = path.with_suffix(".png")
        pictures.append((name, Image.open(drawn).convert("RGB") if drawn.exists() else drawn_table(path)))
    count = 3
    each = -(-len(pictures) // count)
    sheets = [f"figures-{number + 1}.jpg" for number in range(count)]
    for number, name in enumerate(sheets):
        sheet(pictures[number * each : (number + 1) * each], arguments.docs / name)
    write_list(found, sheets, arguments.docs / "figures.md")


if __name__ == "__main__":
    main()
