"""The table of the images of the core, the id lists, and the taxonomy, as they follow from the objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from openilias.build.collect.evidence import ObjectRecord
from openilias.build.collect.plan import ObjectPlan
from openilias.build.collect.state import COLLECT, CORE, ImageState
from openilias.build.collect.values import Details
from openilias.build.stored import StoredImage
from openilias.core.files import read_json, write_bytes, write_json
from openilias.core.findings import Finding
from openilias.core.fingerprints import fingerprint
from openilias.core.ids import object_of
from openilias.data.ilias import IMAGE_QUERIES, LISTS, POSITIVES, TEXT_QUERIES, role_of
from openilias.data.lists import read_positives
from openilias.data.taxonomy import UNASSIGNED
from openilias.images.boxes import coverage, read_boxes

_LISTED = "listed.json"
_OF_FILE = ("width", "height", "bytes", "sha256", "hash", "reencoded", "notes")  # what another step may change


def row_of(item: str, state: ImageState, details: Details, given: Details, old: StoredImage | None) -> StoredImage:
    """Return the row of an image.

    Args:
        item: its id.
        state: what was made of it.
        details: what the collector says of it.
        given: what holds of images of which nothing is said.
        old: its row so far, if another step changed the file since: what it says of the file stays.
    """
    said = {name: value if value is not None else getattr(given, name) for name, value in vars(details).items()}
    if not state.stored:
        return StoredImage(item, state.status, **said, notes=state.why, where=state.source)
    facts = dict(state.facts)
    for name in ("camera", "taken"):
        said[name] = facts.pop(name) or said[name]
    if old is not None:
        facts |= {name: getattr(old, name) for name in _OF_FILE}
    return StoredImage(item, state.status, **said, **facts, where=state.source)


def write_lists(root: Path, rows: Iterable[StoredImage], states: Mapping[str, ImageState]) -> None:
    """Write the lists of queries and positives.

    The area coverage of a positive is that of its boxes. The number of segments, which another step counts, and the
    coverage that it gives to one without boxes stay as long as neither picture nor boxes change here, and else are
    empty.

    Args:
        root: the set.
        rows: of the images of the core.
        states: id -> what was made of it.
    """
    core, lists = root / CORE, root / LISTS
    stored = sorted((row for row in rows if states[row.id].stored), key=lambda row: row.id)
    queries = [row.id for row in stored if "/query/" in row.id]
    objects = sorted({object_of(row.id) for row in stored})
    texts = [f"{name}/query/{text}" for name in objects for text in _texts(core / name)]
    now = {row.id: _made(states[row.id]) for row in stored if "/pos/" in row.id}
    before = read_json(root / COLLECT / _LISTED) if (root / COLLECT / _LISTED).exists() else {}
    counted = read_positives(lists / POSITIVES).value if (lists / POSITIVES).exists() else {}
    lines = []
    for row in stored:
        if row.id not in now:
            continue
        boxes = read_boxes((core / row.id).with_name(f"{Path(row.id).stem}_bbox.txt"))
        known = counted.get(row.id) if before.get(row.id) == now[row.id] else None
        share = None if known is None else known.coverage  # of an image without boxes, by the step that counts
        if boxes:
            share = coverage(boxes, width=row.width or 1, height=row.height or 1)
        count = None if known is None else known.clutter
        lines.append(f"{row.id},{'' if share is None else repr(share)},{'' if count is None else count}")
    _write_text(lists / POSITIVES, lines)
    write_json(root / COLLECT / _LISTED, now)
    _write_text(lists / IMAGE_QUERIES, (f"{item},{object_of(item)}" for item in queries))
    _write_text(lists / TEXT_QUERIES, texts)


def _made(state: ImageState) -> str:
    return fingerprint([state.made_from, state.boxes])


def _texts(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "query").iterdir() if role_of("query", path.name) == "text_query")


def _write_text(path: Path, lines: Iterable[str]) -> None:
    content = "".join(f"{line}\n" for line in lines).encode()
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)


def details_of(plans: Iterable[ObjectPlan]) -> dict[str, Details]:
    """Return what the collector says of each image, by id."""
    return {image.item: image.details for plan in plans for image in plan.images}


def taxonomy_of(
    nodes: Mapping[str, tuple[str, str, str]], records: Mapping[str, ObjectRecord]
) -> tuple[dict[str, tuple[str, str, str]], list[Finding]]:
    """Add the objects that have a category in ``objects.csv`` to a taxonomy that does not name them.

    Args:
        nodes: object -> (coarse, mid, fine) so far; it holds where the two differ.
        records: the accepted objects.

    Returns:
        the new taxonomy, of accepted objects only, and a warning for each object on which the two differ.
    """
    found = {name: node for name, node in nodes.items() if name in records}
    findings = []
    for name, record in sorted(records.items()):
        if not record.category:
            continue
        parts = [part.strip() for part in record.category.split("/")]
        coarse, mid, fine = (*parts, *[UNASSIGNED] * (3 - len(parts)))
        if found.setdefault(name, (coarse, mid, fine)) != (coarse, mid, fine):
            what = f"Its category in objects.csv is {record.category}, in taxonomy.json {'/'.join(found[name])}."
            findings.append(Finding("warning", "category-differs", name, what, "The taxonomy holds."))
    return found, findings
