"""``ilias demo`` and ``ilias run``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openilias.cli.evaluation import show_evaluation
from openilias.cli.options import BatchSize, Device, Json, Overwrite, Timeout, Workers, device_of, emit, say, table

if TYPE_CHECKING:
    from openilias.experiments.run import RunResult


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog="Example: ilias demo")(demo)
    app.command(epilog="Example: ilias run experiment.yaml")(run)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo.")] = Path("ilias-demo"),
    objects: Annotated[int, typer.Option(min=3, max=999, help="How many.")] = 50,
    distractors: Annotated[int, typer.Option(min=10, help="How many.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Everything follows from it.")] = 0,
    workers: Workers = None,
    json: Json = None,
) -> None:
    """Show the whole way, offline: generate a test set, fit, extract, search, evaluate, report."""
    from openilias.experiments.demo import run_demo

    result = run_demo(out, objects=objects, distractors=distractors, seed=seed, workers=workers)
    _show(result)
    emit(_summary(result), json)


def run(
    experiment: Annotated[
        Path, typer.Argument(help="An experiment file, or a ready one: ready:resolution.", metavar="EXPERIMENT.yaml")
    ],
    benchmark: Annotated[Path | None, typer.Option(help="Folder in the ILIAS layout, instead of the file's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs, instead of the file's.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Replace a field of the file: protocol.k=100; repeatable."),
    ] = None,
    device: Device = "cpu",
    batch_size: BatchSize = None,
    workers: Workers = None,
    timeout: Timeout = 300.0,
    retry: Annotated[bool, typer.Option("--retry", help="Try images again that were passed over before.")] = False,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Run an experiment; finished steps are kept, a killed run continues where it was."""
    from openilias.core.files import write_bytes
    from openilias.experiments.experiment import read_experiment
    from openilias.experiments.run import Resources, run_experiment
    from openilias.experiments.study import study_of

    experiments = read_experiment(experiment, _changes(benchmark, out, change or []))
    resources = Resources(device_of(device), batch_size, workers, timeout, retry)
    study = study_of(experiments, [0.0] * len(experiments))  # says at once if there is no such table
    results = [run_experiment(single, resources, overwrite=overwrite) for single in experiments]
    if len(results) == 1:
        _show(results[0])
    else:
        rows = [
            [r.folder.name, f"{100 * r.evaluation.map:.2f}", f"{100 * r.evaluation.oracle:.2f}", str(r.page)]
            for r in results
        ]
        say(table(["run", "mAP", "oracle", "report"], rows))
        found = [result.evaluation for result in results]
        study = study_of(experiments, [one.map for one in found], [one.oracle for one in found])
        if study is not None:
            write_bytes(experiments[0].out.parent / "study.md", study.markdown().encode())
            say(f"\n{study.title}\n")
            say(table(study.header, study.rows))
    emit({"runs": [_summary(result) for result in results]} | ({"table": asdict(study)} if study else {}), json)


def _changes(benchmark: Path | None, out: Path | None, fields: list[str]) -> dict[str, Any]:
    import yaml

    changes: dict[str, Any] = {
        name: str(path.resolve()) for name, path in (("benchmark", benchmark), ("out", out)) if path is not None
    }
    for field in fields:
        name, sign, value = field.partition("=")
        try:
            changes[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            sign = ""
        if not sign or not name:
            raise typer.BadParameter(f"'{field}' is not FIELD=VALUE.", param_hint="--set")
    return changes


def _show(result: RunResult) -> None:
    show_evaluation(result.evaluation)
    say()
    say(table(["step", "seconds"], [[name, f"{seconds:.1f}"] for name, seconds in result.times.items()]))
    say()
    say(f"report: {result.page}")


def _summary(result: RunResult) -> dict[str, Any]:
    from openilias.evaluate.results import as_json

    return {
        "run": str(result.folder),
        "report": str(result.page),
        "seconds": result.times,
        "evaluation": as_json(result.evaluation),
    }
