"""``ilias build collect``: a collector's folder becomes the objects of a set, again and again as it grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openilias.build.collect.alike import stores_of
from openilias.build.collect.cameras import read_models
from openilias.build.collect.evidence import OBJECTS
from openilias.build.collect.finishing import SETTINGS, Checks, Work, finish, old_rows, rejected_of
from openilias.build.collect.inputs import Inputs, Request, read_inputs, refuse_all
from openilias.build.collect.layout import objects_folder
from openilias.build.collect.pairs import PAIRS, read_pairs
from openilias.build.collect.report import Report, as_json, ordered
from openilias.build.collect.state import COLLECT, CORE, States
from openilias.build.collect.writing import Change, Decision, decide
from openilias.build.taxonomy_tools import read_or_none
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import usable_cores
from openilias.core.files import is_there, owned, read_json
from openilias.core.findings import Finding
from openilias.core.fingerprints import differences
from openilias.data.ilias import LISTS, POSITIVES
from openilias.data.lists import read_positives


@dataclass(frozen=True)
class Collected:
    """What was done.

    Attributes:
        folder: the set.
        report: what the set is now.
        changes: object -> what became of it, those that stayed as they were left out.
        dry: nothing was written, and the report holds only what can be told before.
    """

    folder: Path
    report: Report
    changes: Mapping[str, Change]
    dry: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"folder": str(self.folder), "dry_run": self.dry, "changes": dict(self.changes)} | as_json(self.report)


def collect(
    request: Request,
    out: Path,
    checks: Checks | None = None,
    *,
    remove: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    workers: int | None = None,
) -> Collected:
    """Bring a collector's folder into the core layout: ids, pictures, boxes, texts, lists, checks.

    What is there stays as it is; what is new or changed is made. Killed at any moment, it goes on when it is run
    again, and what comes out is the same.

    Args:
        request: what is collected, and how.
        out: the set, which is made or gone on with.
        checks: what is looked for among the pictures.
        remove: objects and images that the folder does not hold any more, or that the rule rejects now, may leave the
            set.
        overwrite: what other steps changed may be replaced, and other settings may make all pictures anew.
        dry_run: only say what would be done.
        workers: processes; all cores by default. Changes no result.

    Raises:
        OpenIliasError: something is wrong with what is given, or with the set; nothing was changed then.
    """
    checks = checks or Checks()
    workers = workers or usable_cores()
    _check_place(request.folder, out)
    models = {} if checks.cameras is None else read_models(checks.cameras)
    if checks.descriptors:
        stores_of(checks.descriptors)
    if dry_run:
        work = _prepare(request, out, remove=remove, overwrite=overwrite, workers=workers, keep=False)
        return Collected(out, _planned(work), work.changes, dry=True)
    fresh = not is_there(out)
    (out / COLLECT).mkdir(parents=True, exist_ok=True)
    try:
        with owned(out / COLLECT, output=out):
            States(out).recover()
            work = _prepare(request, out, remove=remove, overwrite=overwrite, workers=workers, keep=True)
            report = finish(work, checks, models, workers)
            return Collected(out, report, work.changes)
    except OpenIliasError:
        if fresh:
            _remove_empty(out)
        raise


def _check_place(folder: Path, out: Path) -> None:
    root, target = objects_folder(folder).resolve(), out.resolve()
    if target == root or root in target.parents or target == folder.resolve():
        raise OpenIliasError("A set cannot be made within what it is made from.", where=out, fix="Give another --out.")
    if out.exists() and not out.is_dir():
        raise OpenIliasError("The output path is a file.", where=out, fix="Give another --out.")
    if is_there(out / "core"):
        raise OpenIliasError(f"Objects of this set lie in core; they are made in {CORE}.", where=out, fix="Rename it.")


def _remove_empty(out: Path) -> None:
    """Remove the folders that were made for a set of which nothing came; what was found out about files goes too."""
    (out / COLLECT / "seen.json").unlink(missing_ok=True)
    for folder in (out / COLLECT, (out / COLLECT).parent, out):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _prepare(request: Request, out: Path, *, remove: bool, overwrite: bool, workers: int, keep: bool) -> Work:
    """Read everything and decide what is done; nothing is changed but what is known of files."""
    _check_set(out, request.folder)
    _check_settings(request, out, overwrite=overwrite)
    inputs = read_inputs(request, out, workers=workers, keep=keep)
    states = States(out)
    rows = {one.id: one.sha256 for one in old_rows(out).values()}
    decisions, findings = [], list[Finding]()
    for plan in inputs.plans:
        decision, wrong = decide(plan, states, rows, overwrite=overwrite)
        decisions.append(decision)
        findings += wrong
    unknown = _unknown(states, {plan.item for plan in inputs.plans}) if not overwrite else []
    for name in unknown:
        what = "This object of the set was not collected here."
        findings.append(Finding("error", "object-foreign", f"{CORE}/{name}", what, "Give another --out."))
    refuse_all(findings)
    planned = {one.plan.item for one in decisions}
    gone = [name for name in states.names() if name not in planned]
    _check_removal(inputs, decisions, gone, out, remove=remove)
    return Work(out, request, inputs, decisions, gone, list(inputs.findings))


def _check_set(out: Path, folder: Path) -> None:
    """Read what is needed of the set in the end: a mistake in it is told before the work."""
    read_pairs(out / COLLECT / PAIRS)
    for path in (out / "taxonomy.json", folder / "taxonomy.json"):
        if path == out / "taxonomy.json" or objects_folder(folder) != folder:
            read_or_none(path)
    if (out / LISTS / POSITIVES).exists():
        refuse_all(read_positives(out / LISTS / POSITIVES).findings)


def _check_settings(request: Request, out: Path, *, overwrite: bool) -> None:
    path = out / COLLECT / SETTINGS
    if not path.exists() or overwrite:
        return
    changed = differences(read_json(path), request.settings.model_dump(mode="json"))
    if changed:
        raise OpenIliasError(
            "The images of this set were made with other settings:\n    " + "\n    ".join(changed[:12]),
            where=path,
            fix="Give the same settings, or make all images anew with --overwrite.",
        )


def _unknown(states: States, planned: set[str]) -> list[str]:
    """Return the objects of the set that are not ours."""
    here = sorted(path.name for path in states.core.iterdir()) if states.core.is_dir() else []
    ours = set(states.names())
    return [name for name in here if name not in ours and not name.startswith(".") and name not in planned]


def _check_removal(inputs: Inputs, decisions: list[Decision], gone: list[str], out: Path, *, remove: bool) -> None:
    records = inputs.records
    here = {inputs.numbers.objects[one.name] for one in inputs.scan.objects}
    leaving = [name for name in gone if name not in here or name not in records or records[name].by_rule]
    for one in decisions:
        planned = {image.item for image in one.plan.images}
        leaving += [item for item in (one.old.images if one.old else ()) if item not in planned]
    if remove or not leaving:
        return
    by_rule = [name for name in leaving if name in here and name in records]
    if by_rule:
        raise OpenIliasError(
            f"{len(by_rule)} objects of the set are not accepted any more: {first_few(by_rule)}; "
            f"{records[by_rule[0]].reason}.",
            where=out / COLLECT / OBJECTS,
            fix="Give the evidence, or the --cut-off of before, or let them leave the set with --remove.",
        )
    raise OpenIliasError(
        f"{len(leaving)} objects or images of the set are not collected any more: {first_few(leaving)}.",
        where=out,
        fix="Bring them back (is the folder whole?), or let them leave the set with --remove.",
    )


def _planned(work: Work) -> Report:
    plans = work.inputs.plans
    images = [image for plan in plans for image in plan.images]
    counts = {
        "objects": len(plans),
        "image_queries": sum(image.role == "query" for image in images),
        "text_queries": sum(plan.text is not None for plan in plans),
        "positives": sum(image.role == "pos" for image in images),
        "boxes": sum(len(image.boxes) for image in images),
        "rejected": len(rejected_of(work)),
        "to_make": sum(len(one.make) for one in work.decisions),
    }
    settings = work.request.settings.model_dump(mode="json")
    return Report(counts, ordered(work.findings), (), 0, {}, rejected_of(work), (), settings)
