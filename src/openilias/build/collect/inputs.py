"""Everything that a collection is made from, read and checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from openilias.build.collect.evidence import OBJECTS, ObjectRecord
from openilias.build.collect.images_table import scan_with_table
from openilias.build.collect.layout import Scan, check_complete
from openilias.build.collect.looks import look_at
from openilias.build.collect.making import Look
from openilias.build.collect.numbers import IDS, Numbers, assign, read_numbers
from openilias.build.collect.plan import BoxSource, ObjectPlan, marks_of, plan_objects
from openilias.build.collect.records import CutOff, find_records
from openilias.build.collect.state import COLLECT
from openilias.build.collect.values import Details
from openilias.build.normalise import NormaliseSettings
from openilias.core.errors import OpenIliasError
from openilias.core.findings import Finding

_SHOWN = 12  # errors named at once


@dataclass(frozen=True)
class Request:
    """What is collected, and how.

    Attributes:
        folder: of the collector.
        boxes: where the boxes are.
        objects: table of evidence, instead of ``objects.csv`` in the folder.
        images: table of the files, instead of ``images.csv`` in the folder.
        cut_off: the day from which on objects must be.
        given: licence, author and so on of images of which no table says any.
        settings: what is done to images.
    """

    folder: Path
    boxes: BoxSource = field(default_factory=BoxSource)
    objects: Path | None = None
    images: Path | None = None
    cut_off: CutOff = None
    given: Details = field(default_factory=Details)
    settings: NormaliseSettings = field(default_factory=NormaliseSettings)


@dataclass(frozen=True)
class Inputs:
    """What was read.

    Attributes:
        scan: the collector's folder.
        numbers: ids, those that are new among them.
        records: id -> line of ``objects.csv``, of all objects, judged.
        edited: ids of the lines of the set's own table that a person wrote.
        plans: the accepted objects.
        findings: warnings and notes.
    """

    scan: Scan
    numbers: Numbers
    records: dict[str, ObjectRecord]
    edited: frozenset[str]
    plans: tuple[ObjectPlan, ...]
    findings: tuple[Finding, ...]


def refuse_all(findings: Iterable[Finding]) -> None:
    """Raise an error that names the errors among some findings.

    Raises:
        OpenIliasError: there are some.
    """
    errors = [one for one in findings if one.severity == "error"]
    if not errors:
        return
    if len(errors) == 1:
        raise OpenIliasError(errors[0].what, where=errors[0].where, fix=errors[0].fix)
    lines = [f"{one.where}: {one.what}" + (f" {one.fix}" if one.fix else "") for one in errors[:_SHOWN]]
    more = [f"and {len(errors) - _SHOWN} more"] if len(errors) > _SHOWN else []
    raise OpenIliasError(
        f"There are {len(errors)} things to correct first; nothing was written.\n    " + "\n    ".join(lines + more),
        fix="Correct them, and run the command again.",
    )


def read_inputs(request: Request, out: Path, *, workers: int, keep: bool) -> Inputs:
    """Read and check a collector's folder and its tables.

    Args:
        request: what is collected.
        out: the set, whose ids and decisions are gone on with.
        workers: processes.
        keep: keep what is found out about files.

    Raises:
        OpenIliasError: something is wrong with them; all of it is named.
    """
    state = out / COLLECT
    scan = scan_with_table(request.folder, request.images)
    refuse_all(scan.findings)
    numbers = assign(scan.objects, read_numbers(state / IDS))
    here = {numbers.objects[one.name] for one in scan.objects}
    own = request.folder / OBJECTS
    records, edited, findings = find_records(
        state, request.objects, own if own.is_file() else None, numbers.objects, here, request.cut_off
    )
    refuse_all(findings)
    rejected = {name for name, item in numbers.objects.items() if records[item].status == "rejected"}
    check_complete(scan, rejected)
    refuse_all(scan.findings)
    accepted = [one for one in scan.objects if one.name not in rejected]
    marks, wrong = marks_of(scan.objects, request.boxes)
    findings += wrong
    refuse_all(findings)
    images = [image for one in accepted for image in one.images]
    looks: dict[str, Look] = look_at(images, state / "seen.json", workers=workers, keep=keep)
    plans, wrong = plan_objects(accepted, numbers, looks, marks, request.settings)
    findings += wrong
    refuse_all(findings)
    return Inputs(scan, numbers, records, frozenset(edited), plans, (*scan.findings, *findings))
