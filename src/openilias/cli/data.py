"""``ilias data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openilias.cli import downloading, inspection, stores
from openilias.cli.options import BenchmarkDir, Json, Overwrite, Processes, emit, say, table

if TYPE_CHECKING:
    from openilias.data.verify import Verification

app = typer.Typer(help="Download, check, count, explain and copy test sets.", no_args_is_help=True)
_SHOWN = 5  # findings printed of each kind


@app.callback()
def _group() -> None:
    """Download, check, count, explain and copy test sets."""


@app.command(epilog="Example: ilias data verify my-ilias --out verified --json findings.json")
def verify(
    benchmark: BenchmarkDir,
    out: Annotated[
        Path | None,
        typer.Option(help="Keeps the work: killed or repeated, unchanged shards are done once."),
    ] = None,
    depth: Annotated[
        str,
        typer.Option(help="pixels: decode every image; bytes: digest every file; headers: read no distractor."),
    ] = "pixels",
    partial: Annotated[
        bool, typer.Option("--partial", help="Listed shards that are not here are expected to be missing.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only every n-th shard, from i = 0 on; then run without it.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="How many findings of each kind to print.")] = _SHOWN,
    workers: Processes = None,
    json: Json = None,
) -> None:
    """Find everything that is wrong with a benchmark. Exit code 1 if there is an error."""
    from typing import get_args

    from openilias.core.shards import parse_share
    from openilias.data.examine import Depth
    from openilias.data.verify import as_json
    from openilias.data.verify import verify as verify_all

    depths = {name: name for name in get_args(Depth)}
    if depth not in depths:
        raise typer.BadParameter(f"'{depth}' is not one of {', '.join(depths)}.", param_hint="--depth")
    share = None if shard is None else parse_share(shard)
    outcome = verify_all(benchmark, out, depth=depths[depth], partial=partial, workers=workers, share=share)
    if outcome is None:
        say(f"{out}: this share is done; when all are, finish with: ilias data verify {benchmark} --out {out}")
        return
    _show(benchmark, outcome, show)
    emit(as_json(outcome), json)
    if not outcome.sound:
        raise typer.Exit(1)


@app.command(epilog="Example: ilias data write my-ilias --out small-ilias --objects 2 --shards 1")
def write(
    benchmark: BenchmarkDir,
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    objects: Annotated[
        str | None,
        typer.Option(help="Names with commas between, a file with a name a line, or how many of the first."),
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="File of the ids to keep, one a line; others go.")
    ] = None,
    shards: Annotated[int | None, typer.Option(min=0, help="Keep the first shards of distractors only.")] = None,
    mini: Annotated[bool, typer.Option("--mini", help="Keep the distractors of the mini list only.")] = False,
    pack: Annotated[
        int | None, typer.Option(min=1, help="Put distractors of a folder into tars of so many; changes their ids.")
    ] = None,
    workers: Processes = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Write a benchmark, or a part of one, in the official layout. Killed, it continues when run again."""
    from openilias.data import read_ilias
    from openilias.data.selection import Selection
    from openilias.data.write import write_benchmark

    selection = Selection(
        objects=None if objects is None else _names(objects),
        ids=None if ids is None else tuple(line.split(",", 1)[0].strip() for line in _words(ids)),
        shards=shards,
        mini=mini,
        pack=pack,
    )
    written = write_benchmark(read_ilias(benchmark), out, selection, workers=workers, overwrite=overwrite)
    made = written.benchmark
    counts = {
        "objects": len(made.relevance),
        "image_queries": len(made.image_queries),
        "text_queries": len(made.text_queries),
        "positives": len(made.positives),
        "distractors": sum(len(shard.items()) for shard in made.distractor_shards),
    }
    say(f"{out}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
    for note in written.notes:
        say(f"  note: {note}")
    emit(counts | {"folder": str(out), "fingerprint": made.fingerprint, "notes": list(written.notes)}, json)


@app.command(epilog="Example: ilias data uned uned/images --splits uned/info_files --out uned/images/uned.txt")
def uned(
    images: Annotated[Path, typer.Argument(help="Folder of the images of all data sets.", metavar="IMAGES")],
    out: Annotated[Path, typer.Option(help="The list: .txt, lines `path,label,domain`; or .parquet.")],
    splits: Annotated[
        Path | None,
        typer.Option(
            help="UnED's split files, DIR/<name>/train.json. Without them the training lists that the data sets "
            "themselves are published with, which are larger."
        ),
    ] = None,
    count: Annotated[int, typer.Option("--sample", min=0, help="Draw so many images, uniformly; 0: all.")] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing.")] = 0,
    domains: Annotated[
        str | None, typer.Option(metavar="D,D,...", help="Only these of cars, sop, inshop, inat, met, gldv2, ...")
    ] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Do not look whether the images are there.")] = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """List the images of UnED that the adaptation is learned from: a sample of its eight training splits.

    The images lie as UnED's README says: cars/car_ims, food2k/Food2k_complete, gldv2/images/train,
    inat/iNaturalist/train_val2018, deepfashion/inshop/img, met/MET, rp2k/all/train, sop/*_final.
    """
    from collections import Counter

    from openilias.core.errors import OpenIliasError
    from openilias.data.training import write_training_set
    from openilias.data.uned import DOMAINS, on_disk, read_uned, sample

    if out.exists() and not overwrite:
        raise OpenIliasError("The list is there already.", where=out, fix="Replace it with --overwrite.")
    only = [] if domains is None else [word.strip() for word in domains.split(",")]
    everything = read_uned(images, splits=splits, only=only)
    drawn = sample(everything, count or len(everything), seed=seed)
    drawn = drawn if missing else on_disk(drawn)
    write_training_set(drawn, out)
    whole, kept = Counter(everything.domains), Counter(drawn.domains)
    classes = Counter(domain for _, domain in drawn.classes)
    published = {domain.name: domain.images for domain in DOMAINS}
    rows = [
        [name, f"{whole[name]:,}", f"{published[name]:,}", f"{kept[name]:,}", f"{classes[name]:,}"] for name in whole
    ]
    say(table(["domain", "images", "UnED has", "drawn", "their classes"], rows))
    say(f"\n{out}: {len(drawn):,} images of {len(drawn.classes):,} classes")
    if splits is not None and any(whole[name] != published[name] for name in whole):
        say("these split files are not those of UnED: other numbers of images")
    counts = {name: {"images": whole[name], "drawn": kept[name], "classes": classes[name]} for name in whole}
    emit({"list": str(out), "images": len(drawn), "classes": len(drawn.classes), "domains": counts}, json)


def _names(text: str) -> tuple[str, ...] | int:
    """Read ``--objects``."""
    if text.isdecimal():
        if int(text) < 1:
            raise typer.BadParameter("There must be at least one object.", param_hint="--objects")
        return int(text)
    if "," not in text and len(text) < 256 and Path(text).is_file():
        return _words(Path(text))
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _words(path: Path) -> tuple[str, ...]:
    from openilias.core.errors import OpenIliasError
    from openilias.core.files import read_bytes

    try:
        return tuple(line.strip() for line in read_bytes(path).decode("utf-8").split("\n") if line.strip())
    except (OSError, ValueError) as error:
        raise OpenIliasError(f"This list cannot be read: {error}.", where=path) from None


def _show(benchmark: Path, outcome: Verification, most: int) -> None:
    counts = (f"{count} {name.replace('_', ' ')}" for name, count in outcome.counts.items() if count)
    say(f"{benchmark}: {', '.join(counts)}")
    totals: dict[str, int] = {"error": 0, "warning": 0, "note": 0}
    for (severity, kind), count in outcome.kinds.items():
        totals[severity] += count
        say(f"\n{severity} {kind}: {count}")
        shown = [one for one in outcome.findings if (one.severity, one.kind) == (severity, kind)][:most]
        for one in shown:
            say(f"  {one.where}\n    {one.what}" + (f" {one.fix}" if one.fix else ""))
        if count > len(shown):
            say(f"  ... {count - len(shown)} more; all are in --json FILE and in findings.jsonl of --out DIR")
    say("\n" + ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in totals.items()))


downloading.register(app)
inspection.register(app)
stores.register(app)
