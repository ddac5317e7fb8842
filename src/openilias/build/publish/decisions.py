"""What people decided while a set was made, and what they have left open: the tables of the private steps."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from openilias.build.anonymise import open_decisions
from openilias.build.caption import open_decisions as captions_left
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import is_there, read_bytes
from openilias.core.findings import Finding, Severity

BUILD = "build"  # the folder of a set that stays private
BOXES, CAPTIONS = "anonymise/boxes.csv", "caption/captions.csv"
OBJECTS, DUPLICATES, PAIRS = "collect/objects.csv", "collect/duplicates.csv", "collect/pairs.csv"
UNFINISHED = "anonymise/unfinished.json"  # is there while images are being changed
_STATUSES: dict[str, frozenset[str]] = {
    BOXES: frozenset(("proposed", "confirmed", "rejected", "applied")),
    CAPTIONS: frozenset(("draft", "accepted", "rejected")),
    OBJECTS: frozenset(("accepted", "rejected")),
    PAIRS: frozenset(("proposed", "confirmed", "rejected")),
}
_COLUMNS: dict[str, frozenset[str]] = {
    BOXES: frozenset(("image", "kind", "status")),
    CAPTIONS: frozenset(("object", "status")),
    OBJECTS: frozenset(("object", "status")),
    DUPLICATES: frozenset(("status",)),
    PAIRS: frozenset(("first", "second", "kind", "status")),
}
_OPEN: dict[str, tuple[frozenset[str], str]] = {
    BOXES: (
        frozenset(("proposed", "confirmed")),
        "boxes of faces or licence plates are not applied yet, nor rejected",
    ),
    CAPTIONS: (frozenset(("draft",)), "text queries are drafts that nobody has read"),
    DUPLICATES: (frozenset(("open",)), "pairs of near-duplicates are not decided"),
    PAIRS: (frozenset(("proposed",)), "pairs of images that may be the same are not decided"),
}
_MOST_BYTES = 2**30  # of a table
_SHOWN = 20  # findings of a kind that are named one by one


@dataclass(frozen=True)
class Decisions:
    """What is decided, as far as it is published: counts, and nothing that names what was left out.

    Attributes:
        open: what is open -> how often.
        boxes: (kind, status) -> boxes of faces, licence plates and so on.
        captions: status -> text queries.
        objects: status -> objects.
        with_evidence: accepted objects that have evidence of when they were first public.
        dated: accepted objects with the date on which they were first public.
        cut_offs: cut-off date -> accepted objects.
        applied: ids of images that were blurred or cropped.
        tables: the tables that were there.
    """

    open: dict[str, int] = field(default_factory=dict)
    boxes: dict[tuple[str, str], int] = field(default_factory=dict)
    captions: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    with_evidence: int = 0
    dated: int = 0
    cut_offs: dict[str, int] = field(default_factory=dict)
    applied: frozenset[str] = frozenset()
    tables: tuple[Path, ...] = ()


def find_decisions(
    root: Path, objects: set[str], images: set[str], *, allow_open: bool
) -> tuple[Decisions, tuple[Finding, ...]]:
    """Read the tables of a set.

    Args:
        root: the set.
        objects: those that are to be published.
        images: ids of their images.
        allow_open: open decisions are warnings and no errors.
    """
    severity: Severity = "warning" if allow_open else "error"
    findings: list[Finding] = []
    tables = {name: _read(root / BUILD / name, name, findings) for name in _COLUMNS}
    still_open: dict[str, int] = {}
    for name, (statuses, what) in _OPEN.items():
        left = sum(row["status"] in statuses for row in tables[name])
        if left:
            still_open[what] = left
            where = str(root / BUILD / name)
            findings.append(Finding(severity, "decision-open", where, f"{left} {what}.", "Decide, or --allow-open."))
    both = [row for row in tables[PAIRS] if row["status"] == "confirmed" and _both_there(row, images)]
    if both:
        what = "pairs of images are the same, as was confirmed, and both are in the set"
        still_open[what] = len(both)
        shown = f"{both[0]['first']} and {both[0]['second']}"
        findings.append(Finding(severity, "duplicate-kept", shown, f"{len(both)} {what}.", "Take one of them out."))
    if is_there(root / BUILD / UNFINISHED):
        what, fix = "The anonymising of images was cut off.", "Run ilias build anonymise again."
        findings.append(Finding("error", "anonymisation-unfinished", str(root / BUILD / UNFINISHED), what, fix))
    for what, named in _not_looked_at(root, images):
        still_open[what] = len(named) or 1
        shown = f"{len(named)} {what}: {first_few(named)}." if named else f"{what.capitalize()}."
        where, fix = str(root / BUILD / "anonymise"), "ilias build anonymise find, review, apply; or --allow-open."
        findings.append(Finding(severity, "faces-open", where, shown, fix))
    unapplied = _not_applied(root, objects, findings)
    if unapplied:
        what = "text queries are not what was decided about them"
        still_open[what] = len(unapplied)
        shown, fix = f"{len(unapplied)} {what}: {first_few(unapplied)}.", "ilias build caption apply; or --allow-open."
        findings.append(Finding(severity, "decision-open", str(root / BUILD / CAPTIONS), shown, fix))
    rejected = sorted({row["object"] for row in tables[OBJECTS] if row["status"] == "rejected"} & objects)
    if rejected:
        still_open["rejected objects are still among the objects"] = len(rejected)
    for name in rejected[:_SHOWN]:
        what = "This object was rejected, and is still among the objects."
        findings.append(Finding(severity, "object-rejected", name, what, "Take it out, or accept it."))
    known = {row["object"] for row in tables[OBJECTS]}
    for name in sorted(objects - known)[:_SHOWN] if tables[OBJECTS] else ():
        what = f"{OBJECTS} does not name this object."
        findings.append(Finding("warning", "object-unknown", name, what))
    accepted = [row for row in tables[OBJECTS] if row["status"] == "accepted" and row["object"] in objects]
    late = [row["object"] for row in accepted if _early(row)]
    for name in late[:_SHOWN]:
        what = "This object was public before its cut-off date."
        findings.append(Finding("error", "object-early", name, what, "Reject it, or correct its date."))
    decisions = Decisions(
        open=still_open,
        boxes=dict(sorted(Counter((row["kind"], row["status"]) for row in tables[BOXES]).items())),
        captions=dict(sorted(Counter(row["status"] for row in tables[CAPTIONS]).items())),
        objects=dict(sorted(Counter(row["status"] for row in tables[OBJECTS]).items())),
        with_evidence=sum(bool(row.get("evidence", "").strip()) for row in accepted),
        dated=sum(bool(row.get("first_public", "").strip()) for row in accepted),
        cut_offs=dict(sorted(Counter(row.get("cut_off", "").strip() for row in accepted).items())),
        applied=frozenset(row["image"] for row in tables[BOXES] if row["status"] == "applied"),
        tables=tuple(path for name in _COLUMNS if is_there(path := root / BUILD / name)),
    )
    return decisions, tuple(findings)


def _not_looked_at(root: Path, images: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield what is open about faces and licence plates besides boxes, and the images that it is open for."""
    try:
        left = open_decisions(root)
    except OpenIliasError:  # the table of boxes is malformed, which is a finding of its own
        return
    if not left.looked:
        yield "nobody has looked for faces and licence plates", []
    elif left.unseen:
        yield "images were not looked at for faces and licence plates, or changed since", list(left.unseen)
    bare = [item for item in left.bare if item in images]  # an object may have left the set
    if bare:
        yield "images are not what anonymising made of them", bare


def _not_applied(root: Path, objects: set[str], findings: list[Finding]) -> list[str]:
    """Return the objects whose accepted text is not in the set, or whose rejected one still is."""
    table = str(root / BUILD / CAPTIONS)
    named = any(one.kind.startswith("table-") and one.where.startswith(table) for one in findings)
    if named or not is_there(root / BUILD / CAPTIONS):
        return []
    try:
        return sorted(set(captions_left(root).unapplied) & objects)
    except OpenIliasError as error:
        where = error.where or table
        findings.append(Finding("error", "table-malformed", where, error.what, error.fix))
        return []


def _both_there(row: dict[str, str], images: set[str]) -> bool:
    """Tell whether both images of a pair are in the set; views of one object for one use may look the same."""
    distractor = row["kind"] == "distractor"  # those are not known by their ids here
    return row["kind"] != "views" and row["first"] in images and (distractor or row["second"] in images)


def _early(row: dict[str, str]) -> bool:
    """Tell whether an object was public before its cut-off; ISO dates sort as text."""
    first, cut_off = row.get("first_public", "").strip(), row.get("cut_off", "").strip()
    return bool(first and cut_off) and first < cut_off


def _read(path: Path, name: str, findings: list[Finding]) -> list[dict[str, str]]:
    """Read a table strictly; a missing one is empty, a bad line is a finding."""
    if not is_there(path):
        return []
    try:
        text = read_bytes(path, most=_MOST_BYTES).decode("utf-8-sig")
        return list(_rows(text, path, name, findings))
    except (OSError, ValueError, csv.Error) as error:
        what = f"This table cannot be read: {error}."
        findings.append(Finding("error", "table-unreadable", str(path), what, "Make it again."))
        return []


def _rows(text: str, path: Path, name: str, findings: list[Finding]) -> Iterator[dict[str, str]]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = next(lines, [])
    lacking = sorted(_COLUMNS[name] - set(header))
    if lacking or len(set(header)) < len(header):
        what = f"This table has no column {lacking[0]!r}." if lacking else "A column of this table stands twice."
        findings.append(Finding("error", "table-malformed", str(path), what, "Give it its header again."))
        return
    bad = 0
    for line in lines:
        if not any(line):
            continue
        row = dict(zip(header, line, strict=False))
        if "status" in row:
            row["status"] = row["status"].strip().lower() or ("accepted" if name == OBJECTS else "")
        wrong = len(line) != len(header) or row.get("status", "") not in _STATUSES.get(name, {row.get("status")})
        bad += wrong
        if wrong and bad <= _SHOWN:
            shown = ",".join(line)[:80]
            what = f"This line has another number of columns, or a status that there is not: {shown!r}."
            where = f"{path}, line {lines.line_num}"
            findings.append(Finding("error", "table-malformed", where, what, "Correct the line."))
        elif not wrong:
            yield row
