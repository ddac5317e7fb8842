"""``objects.csv``: which objects are accepted, and what shows that they are younger than the distractors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

from openilias.build.collect.csv_tables import read_table, table_bytes
from openilias.build.collect.names import slug
from openilias.core.errors import OpenIliasError
from openilias.core.findings import Finding

OBJECTS = "objects.csv"
HEADER = ("object", "status", "reason", "collector", "evidence", "first_public", "cut_off", "category")
CUT_OFF = date(2014, 1, 1)
"""The paper's: YFCC100M was compiled in 2014."""

_RULE = "rule: "  # reasons that begin with it are ours, and are judged anew each time
_STATUSES = ("accepted", "rejected")


@dataclass(frozen=True)
class ObjectRecord:
    """A line of ``objects.csv``.

    Attributes:
        object: its id, ``<name>_<xxx>``; in a table of a collector also the name of its folder.
        status: whether it is in the set.
        reason: why it is rejected.
        collector: who collected it.
        evidence: what shows when it came to be: text or an address.
        first_public: the day before which nobody could have photographed it, ISO; empty if it never was public.
        cut_off: the day from which on it must be, ISO; empty if there is no such rule.
        category: ``coarse``, ``coarse/mid`` or ``coarse/mid/fine``.
    """

    object: str
    status: Literal["accepted", "rejected"] = "accepted"
    reason: str = ""
    collector: str = ""
    evidence: str = ""
    first_public: str = ""
    cut_off: str = ""
    category: str = ""

    @property
    def by_rule(self) -> bool:
        """Whether it is rejected by the rule and not by a person."""
        return self.status == "rejected" and self.reason.startswith(_RULE)


def read_objects(path: Path) -> tuple[tuple[ObjectRecord, str], ...]:
    """Read ``objects.csv``: each line and where it stands. Only the column ``object`` is needed.

    Raises:
        OpenIliasError: a status, a date or a category is none, an object stands twice, or a rejection has no reason.
    """
    found: dict[str, tuple[ObjectRecord, str]] = {}
    for line in read_table(path, required=("object",), optional=HEADER[1:]):
        values = line.values

        def wrong(what: str, fix: str = "Correct it.", where: str = line.where) -> OpenIliasError:
            return OpenIliasError(what, where=where, fix=fix)

        status = values["status"].lower() or "accepted"
        if status not in _STATUSES:
            raise wrong(f"The status must be accepted or rejected, not {values['status']!r}.")
        if status == "rejected" and not values["reason"]:
            raise wrong("This object is rejected, and no reason is given.", "Say why in the column reason.")
        for name in ("first_public", "cut_off"):
            if values[name] and day_of(values[name]) is None:
                raise wrong(f"The {name} must be a day, YYYY-MM-DD, not {values[name]!r}.")
        parts = values["category"].split("/") if values["category"] else []
        if len(parts) > 3 or not all(part.strip() for part in parts):
            raise wrong(f"A category is coarse/mid/fine, not {values['category']!r}.")
        if not values["object"]:
            raise wrong("This line names no object.")
        if values["object"] in found:
            raise wrong(f"The object {values['object']} stands twice.", "Keep one of the lines.")
        texts = {name: values[name] for name in HEADER[2:]} | {"object": values["object"]}
        record = ObjectRecord(status="accepted" if status == "accepted" else "rejected", **texts)
        found[record.object] = record, line.where
    return tuple(found.values())


def day_of(text: str) -> date | None:
    """Return the day that a text YYYY-MM-DD names; None if it names none."""
    try:
        return date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None


def objects_bytes(records: Iterable[ObjectRecord]) -> bytes:
    """Return ``objects.csv``, by the names of the objects."""
    ordered = sorted(records, key=lambda one: one.object)
    return table_bytes(HEADER, ([getattr(one, name) for name in HEADER] for one in ordered))


def named(
    records: Iterable[tuple[ObjectRecord, str]], ids: Mapping[str, str]
) -> tuple[dict[str, ObjectRecord], list[Finding]]:
    """Find the object that each line means, by its id, the collector's name or how that is spelt in ids.

    Args:
        records: lines and where they stand.
        ids: the collector's name of each object -> its id.

    Returns:
        id -> its line, and an error for each that means none.
    """
    spelt = {slug(name): item for name, item in ids.items()}
    known = set(ids.values())
    found: dict[str, ObjectRecord] = {}
    findings = []
    for record, where in records:
        name = record.object
        item = name if name in known else ids.get(name) or spelt.get(slug(name))
        if item is None:
            what = f"There is no object {name!r}."
            findings.append(Finding("error", "object-unknown", where, what, "Correct its name, or remove the line."))
        elif item in found:
            findings.append(Finding("error", "object-twice", where, f"The object {item} stands twice."))
        else:
            found[item] = replace(record, object=item)
    return found, findings


def judged(record: ObjectRecord, cut_off: date | None) -> ObjectRecord:
    """Apply the rule to an object: it needs evidence, and must not have been public before the cut-off date.

    What a person rejected stays so. What the rule rejected once is accepted when the evidence is there.

    Args:
        record: of the object.
        cut_off: the date that holds; None if there is no rule.
    """
    record = replace(record, cut_off="" if cut_off is None else cut_off.isoformat())
    if record.status == "rejected" and not record.by_rule:
        return record
    reason = ""
    if cut_off is not None and not record.evidence:
        reason = f"{_RULE}there is no evidence that it came to be on or after {cut_off}"
    elif cut_off is not None and (public := day_of(record.first_public)) is not None and public < cut_off:
        reason = f"{_RULE}it was public on {public}, before {cut_off}"
    return replace(record, status="rejected" if reason else "accepted", reason=reason)
