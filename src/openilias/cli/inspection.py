"""``ilias data stats`` and ``ilias data inspect``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openilias.cli.options import BenchmarkDir, Json, emit, say, table

if TYPE_CHECKING:
    from openilias.report.inspect_values import Explanation, Look


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    app.command(epilog="Example: ilias data stats my-ilias --out statistics")(stats)
    app.command(epilog="Example: ilias data inspect features_positives.hdf5")(inspect)


def stats(
    benchmark: BenchmarkDir,
    out: Annotated[Path | None, typer.Option(help="Folder of the figures and CSV files; none by default.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Show the paper's numbers of ILIAS beside.")] = False,
    json: Json = None,
) -> None:
    """Count a benchmark: sizes, boxes, coverage, clutter, position, categories, cameras (Figs. 3 and I, Table A)."""
    from openilias.data import read_ilias
    from openilias.data.statistics import measure
    from openilias.report.statistics import as_json, rows, write_statistics

    measured = measure(read_ilias(benchmark))
    header = [measured.name, "", *(["ILIAS as published"] if published else [])]
    say(table(header, [list(row) if published else list(row[:2]) for row in rows(measured)]))
    if out is not None:
        names = write_statistics(measured, out)
        say(f"\n{out}: {len(names)} files")
    emit(as_json(measured), json)


def inspect(
    file: Annotated[Path, typer.Argument(help="Any file or folder of ours or theirs.", metavar="FILE")],
    json: Json = None,
) -> None:
    """Explain a file: features, results, weights, shards, stores, lists, boxes, images. Runs nothing that is in it."""
    from openilias.report.inspect import inspect as inspect_file
    from openilias.report.inspect import lines

    found = inspect_file(file, more=((_is_experiment, _explain_experiment),))
    for line in lines(found):
        say(line)
    emit({"file": str(file), **asdict(found)}, json)


def _is_experiment(look: Look) -> bool:
    return look.ending in (".yaml", ".yml")


def _explain_experiment(look: Look) -> Explanation:
    from openilias.experiments.experiment import read_experiment
    from openilias.report.inspect_values import Explanation

    runs = read_experiment(look.path)
    first = runs[0]
    facts = {
        "model": sorted({run.model for run in runs}),
        "benchmark": str(first.benchmark),
        "queries": first.queries,
        "protocol": first.protocol.model_dump(mode="json"),
        "out": [str(run.out) for run in runs[:5]],
        "runs": len(runs),
    }
    there = first.benchmark.is_dir()
    warnings = () if there else ("Its benchmark is not here.",)
    return Explanation("experiment", f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}", facts, warnings)
