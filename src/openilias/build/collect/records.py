"""Which line of which table holds for an object.

The set's own ``objects.csv`` is written anew each time, so a line in it may be ours or a person's: what was written
last is remembered, and a line that differs from it was edited, and holds from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

from openilias.build.collect.evidence import (
    CUT_OFF,
    HEADER,
    OBJECTS,
    ObjectRecord,
    day_of,
    judged,
    named,
    objects_bytes,
    read_objects,
)
from openilias.core.files import read_json, write_bytes, write_json
from openilias.core.findings import Finding

CutOff = date | Literal["none"] | None
"""A day; ``none`` for no rule; None for what ``objects.csv`` says, or else the paper's."""

_WRITTEN = "objects.written.json"
_Lines = dict[str, list[str]]


def find_records(
    state: Path, given: Path | None, own: Path | None, ids: Mapping[str, str], here: set[str], cut_off: CutOff
) -> tuple[dict[str, ObjectRecord], set[str], list[Finding]]:
    """Return the line that holds for each object, judged by the rule.

    First comes a table that is given, then lines of the set's own table that were edited there, then the collector's,
    then what the set had.

    Args:
        state: folder of the set that holds its table.
        given: table that is given.
        own: table of the collector.
        ids: the collector's name of each object that ever was -> its id.
        here: ids of the objects that are in the folder.
        cut_off: the day that holds.

    Returns:
        id -> line, the ids of the lines that were edited, and what is wrong.

    Raises:
        OpenIliasError: a table is malformed.
    """
    findings: list[Finding] = []

    def read(path: Path | None) -> dict[str, ObjectRecord]:
        if path is None:
            return {}
        records, wrong = named(read_objects(path), ids)
        findings.extend(wrong)
        return records

    kept = read(state / OBJECTS if (state / OBJECTS).exists() else None)
    edited = _edited(state, kept)
    found = kept | read(own if given is None else None) | {item: kept[item] for item in edited} | read(given)
    judged_ones = {}
    for item in sorted(ids.values()):
        record = found.get(item, ObjectRecord(item))
        judged_ones[item] = judged(record, _cut_off(cut_off, record)) if item in here else record
    for item in sorted(here):
        if judged_ones[item].by_rule:
            what = f"It is left out: {judged_ones[item].reason.partition(': ')[2]}."
            fix = f"Write evidence and first_public into {OBJECTS}."
            findings.append(Finding("warning", "evidence", item, what, fix))
    return judged_ones, edited, findings


def _cut_off(asked: CutOff, record: ObjectRecord) -> date | None:
    if isinstance(asked, date):
        return asked
    return None if asked == "none" else day_of(record.cut_off) or CUT_OFF


def _fields(record: ObjectRecord) -> list[str]:
    return [getattr(record, name) for name in HEADER[1:]]


def _written(state: Path) -> tuple[list[_Lines], set[str]]:
    if not (state / _WRITTEN).exists():
        return [], set()
    value: dict[str, Any] = read_json(state / _WRITTEN)
    return value["lines"], set(value["edited"])


def _edited(state: Path, kept: Mapping[str, ObjectRecord]) -> set[str]:
    """Return the lines of the set's table that a person wrote: now, or before."""
    lines, edited = _written(state)
    now = {item for item, one in kept.items() if not any(_fields(one) == some.get(item) for some in lines)}
    return (edited & kept.keys()) | now


def write_records(state: Path, records: Mapping[str, ObjectRecord], edited: set[str]) -> None:
    """Write the set's ``objects.csv``. Killed in the middle, no line of ours is taken for a person's."""
    content = objects_bytes(records.values())
    new: _Lines = {item: _fields(one) for item, one in sorted(records.items())}
    last = {"lines": [new], "edited": sorted(edited)}
    path = state / OBJECTS
    if not path.exists() or path.read_bytes() != content:
        before, _ = _written(state)
        write_json(state / _WRITTEN, last | {"lines": [new, *before]})
        write_bytes(path, content)
    write_json(state / _WRITTEN, last)
