"""What the knobs of the generated benchmark do: mAP of two descriptors along each of them, all else fixed.

    python benchmarks/knobs.py                  one small benchmark per value; numbers and plots into docs/knobs
    python benchmarks/knobs.py --default        the default benchmark with the settings of `ilias demo`

The descriptors are ``sift_vlad``, fitted once, and a plain colour histogram. Every benchmark of a sweep has the same
random numbers: the same things, poses, places and light, but for the knob that moves. The plots show means over three
seeds; ``knobs.csv`` keeps what each seed gave, and a sweep of one seed or knob replaces its own rows.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from openilias.build.generated.knobs import Knobs
from openilias.build.generated.synth import SynthSettings, build_synth
from openilias.core.ids import object_of
from openilias.core.protocol import Protocol
from openilias.core.threads import one_thread_per_worker
from openilias.data import Benchmark, Item, read_ilias
from openilias.evaluate.metrics import average_precision
from openilias.evaluate.results import evaluate_to
from openilias.experiments.demo import run_demo
from openilias.images.decode import decode
from openilias.models.backbone import Backbone
from openilias.models.fit import fit
from openilias.models.sift_vlad import SiftVladSettings
from openilias.models.zoo import find_model, load_model
from openilias.search.exact import topk

SEEDS = (0, 1, 2)
NAMES = ("sift_vlad", "histogram")
Describe = Callable[[Item], np.ndarray]

# Where each knob stands while another one moves.
FIXED = {
    "viewpoint": 15, "scale": 0.3, "occlusion": 0, "illumination": 0.5, "blur": 0.4, "clutter": 12, "crop": 0,
    "closeness": 0.5, "hard": 0.2,
}  # fmt: skip
SWEEPS: dict[str, tuple[float, ...]] = {
    "viewpoint": (0, 20, 40, 60, 75),
    "scale": (0.4, 0.2, 0.1, 0.05, 0.025),
    "occlusion": (0, 0.2, 0.4, 0.6, 0.8),
    "illumination": (0, 1, 2, 3, 4.5),
    "blur": (0, 1, 2, 3, 4.5),
    "clutter": (1, 10, 25, 45, 72),
    "crop": (0, 0.2, 0.4, 0.6, 0.8),
    "closeness": (0, 0.3, 0.6, 0.8, 1),
}
# What else a sweep needs: many hard negatives, so that it matters how close they are.
BESIDE: dict[str, dict[str, float]] = {"closeness": {"hard": 0.8}}
UNITS = {
    "viewpoint": "degrees from the query's view",
    "scale": "share of the picture (log, falling)",
    "occlusion": "share of the thing that is hidden",
    "illumination": "strength",
    "blur": "standard deviation, pixels of 500",
    "clutter": "number of other things",
    "crop": "share of the thing outside the frame",
    "closeness": "traits that hard negatives share",
}


def histogram(item: Item) -> np.ndarray:
    """Describe an image by the square roots of its joint RGB histogram of 8 x 8 x 8 cells, unit length."""
    image = np.asarray(decode(item.read(), where=item.id)) // 32
    cells = np.bincount((image.reshape(-1, 3) @ (64, 8, 1)).astype(int), minlength=512)
    return np.sqrt(cells / cells.sum()).astype(np.float32)


def by_model(backbone: Backbone) -> Describe:
    def describe(item: Item) -> np.ndarray:
        return np.asarray(backbone.encode_images(backbone.prepare(decode(item.read(), where=item.id))[None])[0])

    return describe


def vectors_of(benchmark: Benchmark, partition: str, describe: Describe) -> np.ndarray:
    items = [item for shard in benchmark.shards(partition) for item in shard.items()]
    return np.stack([describe(item) for item in items])


def mean_ap(benchmark: Benchmark, distractors: np.ndarray, describe: Describe) -> float:
    """Return mAP@1000 of the image queries; the descriptors of the distractors (N, D) are given."""
    queries = vectors_of(benchmark, "image_queries", describe)
    database = [vectors_of(benchmark, "positives", describe), distractors]
    rows, scores = topk(queries, database, min(1000, sum(map(len, database))))
    owners = np.array([object_of(item) for item in benchmark.positives] + [""] * len(distractors))
    asked = [object_of(item) for item in benchmark.image_queries]
    relevant = owners[rows] == np.array(asked)[:, None]
    counts = np.array([len(benchmark.relevance[name]) for name in asked])
    return float(average_precision(scores, relevant, counts, k=1000).mean())


@lru_cache(maxsize=1)
def _model(weights: Path, resolution: int) -> Backbone:
    cv2.setNumThreads(1)
    return load_model(find_model("sift_vlad"), Protocol(resolution=resolution), weights=weights)


_KEPT: dict[tuple[str, str], np.ndarray] = {}


def point(job: tuple[Path, SynthSettings, str, float, Path]) -> tuple[str, float, dict[str, float]]:
    """Build the benchmark of one value of a knob, and measure it with both descriptors."""
    folder, settings, knob, value, weights = job
    cv2.setNumThreads(1)
    moved = settings.model_copy(update={"knobs": Knobs.model_validate({**FIXED, **BESIDE.get(knob, {}), knob: value})})
    own = knob == "closeness"  # no other knob touches the distractors
    shown = moved if own else moved.model_copy(update={"distractors": 0})
    made = folder / f"{knob}_{value:g}"
    build_synth(made, shown, workers=1)
    benchmark = read_ilias(made)
    results = {}
    source = benchmark if own else read_ilias(folder / "fixed")
    with one_thread_per_worker():
        for name, describe in (("sift_vlad", by_model(_model(weights, settings.size))), ("histogram", histogram)):
            key = (name, str(source.root))
            if key not in _KEPT:
                _KEPT[key] = vectors_of(source, "distractors", describe)
            results[name] = mean_ap(benchmark, _KEPT[key], describe)
    return knob, value, results


def read_rows(path: Path) -> dict[tuple[str, float, int], dict[str, float]]:
    """Read what earlier sweeps measured: (knob, value, seed) -> mAP of each descriptor."""
    if not path.exists():
        return {}
    with path.open(newline="") as handle:
        return {
            (row["knob"], float(row["value"]), int(row["seed"])): {name: float(row[name]) for name in NAMES}
            for row in csv.DictReader(handle)
        }


def write_rows(rows: dict[tuple[str, float, int], dict[str, float]], path: Path) -> None:
    order = {(knob, float(value)): place for knob in SWEEPS for place, value in enumerate(SWEEPS[knob])}
    keys = sorted(rows, key=lambda key: (list(SWEEPS).index(key[0]), order[key[:2]], key[2]))
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["knob", "value", "seed", *NAMES])
        writer.writerows([k, f"{v:g}", s, *(f"{rows[k, v, s][name]:.4f}" for name in NAMES)] for k, v, s in keys)


def draw(knob: str, rows: dict[tuple[str, float, int], dict[str, float]], out: Path) -> None:
    """Draw the mean over the seeds, and from the least to the most of them."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "openilias"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(3.6, 2.6), layout="constrained")
    values = [float(value) for value in SWEEPS[knob]]
    for name, mark in zip(NAMES, ("o-", "s--"), strict=True):
        found = [[100 * rows[key][name] for key in rows if key[:2] == (knob, value)] for value in values]
        axes.fill_between(values, [min(one) for one in found], [max(one) for one in found], alpha=0.2, linewidth=0)
        axes.plot(values, [sum(one) / len(one) for one in found], mark, label=name, markersize=4)
    if knob == "scale":
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        axes.invert_xaxis()
    axes.set_xlabel(f"{knob}: {UNITS[knob]}", fontsize=8)
    axes.set_ylabel("mAP@1k, %", fontsize=8)
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(out / f"{knob}.svg", metadata={"Date": None})
    pyplot.close(figure)


def sweep(arguments: argparse.Namespace, work: Path) -> None:
    for seed in arguments.seed or SEEDS:
        sweep_seed(arguments, seed, work / str(seed))
    rows = read_rows(arguments.out / "knobs.csv")
    for knob in SWEEPS:
        if all(any(key[:2] == (knob, float(value)) for key in rows) for value in SWEEPS[knob]):
            draw(knob, rows, arguments.out)
            means = [mean_of(rows, knob, value) for value in SWEEPS[knob]]
            falls = "falls" if all(a > b for a, b in pairwise(means)) else "DOES NOT FALL EVERYWHERE"
            print(f"{knob:>12}   {'  '.join(f'{100 * mean:5.1f}' for mean in means)}   {falls}")


def mean_of(rows: dict[tuple[str, float, int], dict[str, float]], knob: str, value: float) -> float:
    found = [rows[key]["sift_vlad"] for key in rows if key[:2] == (knob, float(value))]
    return sum(found) / len(found)


def sweep_seed(arguments: argparse.Namespace, seed: int, work: Path) -> None:
    settings = SynthSettings(
        objects=arguments.objects,
        distractors=arguments.distractors,
        size=arguments.size,
        seed=seed,
        positives=(4, 4),
        knobs=Knobs.model_validate(FIXED),
    )
    build_synth(work / "fixed", settings, workers=2)
    weights = work / "sift.safetensors"
    fitted = SiftVladSettings(words=64, resolution=arguments.size, images=300, word_images=100, dims=256)
    fit(read_ilias(work / "fixed"), "distractors", fitted, weights, workers=2)
    jobs = [
        (work, settings, knob, float(value), weights)
        for knob, values in SWEEPS.items()
        if not arguments.knob or knob in arguments.knob
        for value in values
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = read_rows(arguments.out / "knobs.csv")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for knob, value, results in pool.map(point, jobs):
            rows[knob, value, seed] = results
            shown = "   ".join(f"{n} {100 * m:5.1f} %" for n, m in results.items())
            print(f"seed {seed} {knob:>12} {value:6g}   {shown}", flush=True)
    write_rows(rows, arguments.out / "knobs.csv")


def default(arguments: argparse.Namespace, work: Path) -> None:
    started = time.perf_counter()
    result = run_demo(work / "demo", workers=2, seed=(arguments.seed or [0])[0])
    print(f"ilias demo: {time.perf_counter() - started:.0f} s")
    benchmark = read_ilias(work / "demo" / "benchmark")
    kept = evaluate_to(work / "demo" / "run" / "ranking", benchmark, None)
    if kept.map != result.evaluation.map:
        raise AssertionError("the evaluation differs from that of the run")
    colours = mean_ap(benchmark, vectors_of(benchmark, "distractors", histogram), histogram)
    print(f"sift_vlad {100 * kept.map:.1f} %   histogram {100 * colours:.1f} %")
    if not (0.2 < kept.map < 0.7 and colours < kept.map / 2):
        raise SystemExit("not as intended: sift_vlad within 20 and 70 %, the histogram below half of it")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--default", action="store_true", help="measure the default benchmark")
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--distractors", type=int, default=300)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--seed", type=int, action="append", help="only this one; again for more")
    parser.add_argument("--knob", action="append", choices=list(SWEEPS), help="only this one; again for more")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "knobs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (default if arguments.default else sweep)(arguments, Path(folder))


if __name__ == "__main__":
    main()
