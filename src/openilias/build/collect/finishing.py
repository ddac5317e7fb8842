"""Doing what was decided: making the objects, then all that follows from them, and the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from openilias.build.collect.alike import alike_pairs
from openilias.build.collect.cameras import CAMERAS, HEADER, camera_table, check_cameras
from openilias.build.collect.csv_tables import table_bytes
from openilias.build.collect.evidence import OBJECTS, ObjectRecord
from openilias.build.collect.inputs import Inputs, Request
from openilias.build.collect.lists import details_of, row_of, taxonomy_of, write_lists
from openilias.build.collect.making import Made, make
from openilias.build.collect.near import MOST, near_among, near_distractors
from openilias.build.collect.numbers import IDS
from openilias.build.collect.pairs import PAIRS, By, Pair, check_pairs, decided, pair_of, pairs_bytes, read_pairs
from openilias.build.collect.records import write_records
from openilias.build.collect.report import PAGE, REPORT, Report, as_json, check_backgrounds, ordered, page
from openilias.build.collect.sheets import write_pairs, write_rejected
from openilias.build.collect.state import COLLECT, CORE, ImageState, States
from openilias.build.collect.writing import Change, Decision, jobs_of, write_object
from openilias.build.stored import StoredImage, read_rows, rows_file, write_rows
from openilias.build.taxonomy_tools import read_or_none, write_taxonomy
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import ordered_map
from openilias.core.files import write_bytes, write_json
from openilias.core.findings import Finding
from openilias.core.ids import object_of
from openilias.core.progress import progress
from openilias.data.ilias import LISTS, TEXT_QUERIES

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Checks:
    """What is looked for among the pictures.

    Attributes:
        distance: bits in which the hashes of two images of the core may differ to be a pair for review.
        distractor_distance: the same for an image of the core and a distractor.
        descriptors: stores of descriptors, of the core and of distractors, to be compared too.
        similarity: inner product of descriptors from which on two images are a pair for review.
        cameras: table ``model,year,type`` of cameras.
    """

    distance: int = 8
    distractor_distance: int = 4
    descriptors: Sequence[Path] = ()
    similarity: float = 0.9
    cameras: Path | None = None


@dataclass
class Work:
    """A collection in progress.

    Attributes:
        out: the set.
        request: what is collected, and how.
        inputs: what was read of it.
        decisions: what is done with each object.
        gone: objects of the set that leave it.
        findings: what was found so far.
    """

    out: Path
    request: Request
    inputs: Inputs
    decisions: list[Decision]
    gone: list[str]
    findings: list[Finding] = field(default_factory=list)

    @property
    def changes(self) -> dict[str, Change]:
        """Object -> what becomes of it, by name; those that stay as they are are left out."""
        changed = {one.plan.item: one.change for one in self.decisions if one.change != "same"}
        gone: dict[str, Change] = dict.fromkeys(self.gone, "removed")
        return dict(sorted((changed | gone).items()))


def old_rows(out: Path) -> dict[str, StoredImage]:
    """Return the rows of the core of a set, by id; none if there is no table."""
    path = rows_file(out, "core")
    return {row.id: row for row in read_rows(path)} if path.exists() else {}


def finish(work: Work, checks: Checks, models: Mapping[str, tuple[str, str]], workers: int) -> Report:
    """Write everything, and return what the set is now.

    Raises:
        OpenIliasError: no object is accepted, or a table or a store of the set cannot be read.
    """
    out, inputs = work.out, work.inputs
    state = out / COLLECT
    _write_if_new(state / IDS, inputs.numbers.as_csv())
    write_records(state, inputs.records, set(inputs.edited))
    _drawrejected_of(work)
    if not inputs.plans:
        raise OpenIliasError(
            f"None of the {len(inputs.scan.objects)} objects is accepted; their ids and a table to fill in are there.",
            where=state / OBJECTS,
            fix="Write evidence, first_public and status into it, or pass over the rule with --cut-off none.",
        )
    write_json(state / SETTINGS, work.request.settings.model_dump(mode="json"))
    images = _make_objects(work, workers)
    rows = _rows(work, images)
    write_rows(rows_file(out, "core"), rows)
    write_lists(out, rows, images)
    for name in work.gone:
        States(out).remove(name)
    _write_taxonomy(work, {object_of(row.id) for row in rows if images[row.id].stored})
    pairs = _pairs(out, [row for row in rows if images[row.id].stored], checks, workers)
    _write_if_new(state / PAIRS, pairs_bytes(pairs))
    write_pairs(out, out / CORE, pairs, state / "pairs.jpg")
    report = _report(work, rows, images, pairs, models)
    cameras = ((c.model, c.year, c.type, c.queries, c.positives, c.images) for c in report.cameras)
    _write_if_new(state / CAMERAS, table_bytes(HEADER, cameras))
    write_json(state / REPORT, as_json(report))
    write_bytes(state / PAGE, page(report).encode())
    return report


def _write_if_new(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)


def _make_objects(work: Work, workers: int) -> dict[str, ImageState]:
    """Make what is to be made, and return the state of all images."""
    states = States(work.out)
    todo = [one for one in work.decisions if one.change != "same"]
    total = sum(len(one.make) for one in todo)
    jobs = (job for one in todo for job in jobs_of(one, work.request.settings))
    with ordered_map(workers if total else 1) as run, progress("collect", total=total, unit="images") as step:
        made: Iterator[Made] = iter(run(make, jobs))

        def following() -> Made:
            step()
            return next(made)

        for one in todo:
            write_object(one, states, following)
    images: dict[str, ImageState] = {}
    for one in work.decisions:
        state = states.read(one.plan.item)
        if state is None:
            raise AssertionError(f"{one.plan.item} was not made")
        images |= _complete(one.plan.item, state.images, states, work.findings)
    return images


def _complete(
    name: str, images: Mapping[str, ImageState], states: States, findings: list[Finding]
) -> dict[str, ImageState]:
    """Return the images of an object; without a query or a positive that can be read it is not in the set."""
    for item, one in images.items():
        if not one.stored:
            findings.append(
                Finding("error", f"image-{one.status}", one.source, f"{one.why} It is left out, as {item}.")
            )
    stored = {item.split("/")[1] for item, one in images.items() if one.stored}
    if stored == {"query", "pos"}:
        return dict(images)
    what = "No query or no positive of this object can be read: it is left out."
    findings.append(Finding("error", "object-incomplete", name, what, "Replace its images."))
    states.remove(name)
    out = {"status": "left-out", "why": "its object has no query or no positive that can be read"}
    return {item: one if not one.stored else one.model_copy(update=out) for item, one in images.items()}


def _rows(work: Work, images: Mapping[str, ImageState]) -> list[StoredImage]:
    details = details_of(work.inputs.plans)
    old = old_rows(work.out)
    kept = {f"{one.plan.item}/{path}" for one in work.decisions for path in one.keep}
    return [
        row_of(item, one, details[item], work.request.given, old.get(item) if item in kept else None)
        for item, one in sorted(images.items())
    ]


def _drawrejected_of(work: Work) -> None:
    pictures = {
        work.inputs.numbers.objects[one.name]: (one.of("query") or one.of("pos"))[:1]
        for one in work.inputs.scan.objects
    }
    rejected = [one for one in work.inputs.records.values() if one.status == "rejected" and one.object in pictures]
    tiles = [(one.object, one.reason, next((i.path for i in pictures[one.object]), None)) for one in rejected]
    write_rejected(sorted(tiles, key=lambda tile: tile[0]), work.out / COLLECT / "rejected.jpg")


def _write_taxonomy(work: Work, objects: set[str]) -> None:
    path = work.out / "taxonomy.json"
    accepted = {name: one for name, one in work.inputs.records.items() if name in objects}
    current = read_or_none(path)
    if current is None and work.inputs.scan.root != work.request.folder:
        current = read_or_none(work.request.folder / "taxonomy.json")  # that of a set
    nodes, findings = taxonomy_of({} if current is None else current.nodes, accepted)
    work.findings += findings
    if nodes or current is not None:
        write_taxonomy(path, nodes)


def _pairs(out: Path, rows: Sequence[StoredImage], checks: Checks, workers: int) -> tuple[Pair, ...]:
    ids = [row.id for row in rows]
    hashes = np.array([row.hash or 0 for row in rows], np.uint64)
    found: list[Pair] = []
    for pair in near_among(hashes, checks.distance):
        found.append(pair_of(ids[pair.first], ids[pair.second], "hash", pair.distance))
        if len(found) > MOST:
            what = f"More than {MOST:,} pairs of images of the core look alike."
            raise OpenIliasError(what, where=out, fix="Give a smaller --distance.")
    kept = out / COLLECT / "near"
    for first, item, bits in near_distractors(out, hashes, checks.distractor_distance, kept=kept, workers=workers):
        found.append(pair_of(ids[first], item, "hash", bits))
    here = set(ids)
    if checks.descriptors:
        for one, two, score in alike_pairs(checks.descriptors, checks.similarity):
            alike = pair_of(one, two, "descriptor", score)
            if one in here and (alike.kind == "distractor" or two in here):
                found.append(alike)
    compared: set[By] = {"hash", "descriptor"} if checks.descriptors else {"hash"}
    return decided(found, read_pairs(out / COLLECT / PAIRS), here, by=compared)


def _report(
    work: Work,
    rows: Sequence[StoredImage],
    images: Mapping[str, ImageState],
    pairs: tuple[Pair, ...],
    models: Mapping[str, tuple[str, str]],
) -> Report:
    stored = {item: one for item, one in images.items() if one.stored}
    cameras = [(row.id, row.camera) for row in rows if row.id in stored]
    findings = [*work.findings, *check_backgrounds(stored), *check_cameras(cameras), *check_pairs(pairs)]
    findings += _unlicensed(row for row in rows if row.id in stored)
    queries = [item for item in stored if "/query/" in item]
    lists = work.out / LISTS / TEXT_QUERIES
    counts = {
        "objects": len({object_of(item) for item in stored}),
        "image_queries": len(queries),
        "text_queries": len(lists.read_text(encoding="utf-8").split()),
        "positives": len(stored) - len(queries),
        "boxes": sum(len(one.boxes) for one in stored.values()),
        "rejected": len(rejected_of(work)),
        "refused": len(images) - len(stored),
    }
    return Report(
        counts=counts,
        findings=ordered(findings),
        cameras=camera_table(cameras, models),
        without_camera=sum(camera is None for _, camera in cameras),
        background={item: stored[item].background for item in queries},
        rejected=rejected_of(work),
        pairs=pairs,
        settings=work.request.settings.model_dump(mode="json"),
    )


def rejected_of(work: Work) -> tuple[ObjectRecord, ...]:
    """Return the objects that are left out."""
    return tuple(one for _, one in sorted(work.inputs.records.items()) if one.status == "rejected")


def _unlicensed(rows: Iterable[StoredImage]) -> list[Finding]:
    lacking = [row.id for row in rows if not row.licence]
    if not lacking:
        return []
    what = f"No licence is stated of {len(lacking)} images: {first_few(lacking)}."
    return [Finding("warning", "licence-unknown", "images.csv", what, "Give --licence, or the column licence.")]
