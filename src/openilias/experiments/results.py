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
        folder: of the run; of an evaluation alone what it lies in.
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
        return read_json(self.folder / "run.json") if (self.folder / "run.json").exists() else {}


def read_results(given: Sequence[str], *, across_benchmarks: bool = False) -> list[Result]:
    """Read evaluations.

    Args:
        given: folders of runs, or of evaluations, or ``NAME=FOLDER``.
        across_benchmarks: accept that they are of several benchmarks, or parts of one.

    Raises:
        OpenIliasError: one is not there or not whole; two have one name; they are not of one database.
    """
    found = [_read(text) for text in given]
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OpenIliasError(f"Several of these are called '{twice[0]}'.", fix="Give them names: NAME=FOLDER.")
    for one in () if across_benchmarks else found[1:]:
        what = None
        if one.benchmark != found[0].benchmark:
            what = f"'{one.name}' is not of the benchmark that '{found[0].name}' is of."
        elif one.evaluation.unsearched != found[0].evaluation.unsearched:
            what = f"'{one.name}' was searched in other parts of the benchmark than '{found[0].name}'."
        if what is not None:
            fix = "Compare searches of one database, or accept this with --across-benchmarks."
            raise OpenIliasError(what, where=one.folder, fix=fix)
    return found


def _named(text: str) -> tuple[str, str, str]:
    """Split at the first ``=`` that a folder follows: names and folders may have one too; else at the first."""
    places = [place for place, letter in enumerate(text) if letter == "="]
    for place in places:
        if text[place + 1 :] and Path(text[place + 1 :]).is_dir():
            return text[:place], "=", text[place + 1 :]
    return text.partition("=")


def _read(text: str) -> Result:
    name, sign, rest = _named(text)
    labelled = bool(sign) and not Path(text).exists()
    if labelled and not name.strip():
        raise OpenIliasError(f"'{text}' has no name before the '='.", fix="Give NAME=FOLDER.")
    given = Path(rest if labelled else text)
    folder = given.resolve()
    inner = folder / "evaluation" if (folder / "evaluation" / MANIFEST).exists() else folder
    if not (inner / MANIFEST).exists():
        raise OpenIliasError(
            "This is no run with an evaluation, and no evaluation.", where=given, fix="Evaluate first: ilias evaluate."
        )
    evaluation, manifest = read_evaluation(inner)
    run = folder.parent if folder.name == "evaluation" else folder
    return Result(name if labelled else run.name, run, evaluation, manifest)
