"""Evaluations by where they are: a run, or a folder of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_json
from openilias.evaluate.evaluation import Evaluation
from openilias.evaluate.results import MANIFEST, read_evaluation


@dataclass(frozen=True, eq=False)
class Result:
    """One evaluation.

    Attributes:
        name: of the model, as it is shown.
        folder: of the run, or of the evaluation alone.
        evaluation: what was found.
        manifest: of the evaluation.
    """

    name: str
    folder: Path
    evaluation: Evaluation
    manifest: dict[str, Any]

    @property
    def benchmark(self) -> str | None:
        """The fingerprint of the benchmark."""
        found = self.manifest["made_from"].get("benchmark")
        return None if found is None else str(found)

    @property
    def about(self) -> dict[str, Any]:
        """``run.json`` of the run; empty without."""
        folder = self.folder if self.folder.name != "evaluation" else self.folder.parent
        return read_json(folder / "run.json") if (folder / "run.json").exists() else {}


def read_results(given: Sequence[str], *, across_benchmarks: bool = False) -> list[Result]:
    """Read evaluations.

    Args:
        given: folders of runs, or of evaluations, or ``NAME=FOLDER``.
        across_benchmarks: accept that they are of several benchmarks.

    Raises:
        OpenIliasError: one is not there or not whole; two have one name; they are not of one benchmark.
    """
    found = [_read(text) for text in given]
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OpenIliasError(f"Several of these are called '{twice[0]}'.", fix="Give them names: NAME=FOLDER.")
    if len({one.benchmark for one in found}) > 1 and not across_benchmarks:
        other = next(one for one in found if one.benchmark != found[0].benchmark)
        raise OpenIliasError(
            f"'{other.name}' is not of the benchmark that '{found[0].name}' is of.",
            where=other.folder,
            fix="Compare evaluations of one benchmark, or accept this with --across-benchmarks.",
        )
    return found


def _read(text: str) -> Result:
    name, sign, rest = text.partition("=")
    labelled = bool(sign) and not Path(text).exists()
    folder = Path(rest if labelled else text)
    inner = folder / "evaluation" if (folder / "evaluation" / MANIFEST).exists() else folder
    if not (inner / MANIFEST).exists():
        raise OpenIliasError(
            "This is no run with an evaluation, and no evaluation.", where=folder, fix="Evaluate first: ilias evaluate."
        )
    evaluation, manifest = read_evaluation(inner)
    own = folder.resolve()
    own = own.parent if own.name == "evaluation" else own
    return Result(name if labelled else own.name, folder, evaluation, manifest)
