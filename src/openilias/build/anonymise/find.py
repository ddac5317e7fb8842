"""Looking for faces and licence plates in all images of the core; what is found is proposed, never believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field

from openilias.build.anonymise.changes import check_unchanged
from openilias.build.anonymise.decisions import FOUND
from openilias.build.anonymise.detectors import (
    DetectorSpec,
    Sighting,
    Sought,
    clipped,
    distinct,
    load_detector,
    same_thing,
)
from openilias.build.anonymise.marks import HAND, KINDS, Mark, read_marks, write_marks
from openilias.build.anonymise.place import Place, check_images, images_of, inside_objects, place_of
from openilias.build.kept import Kept, kept_results
from openilias.core.errors import OpenIliasError
from openilias.core.executors import ordered_map, usable_cores
from openilias.core.files import owned, sha256_of
from openilias.core.fingerprints import fingerprint
from openilias.core.manifests import write_manifest
from openilias.core.progress import progress
from openilias.core.threads import one_thread_per_worker
from openilias.data.benchmark import Item, box_file
from openilias.images.boxes import Box, read_boxes
from openilias.images.decode import decode

ALGORITHM_VERSION = 1
MOSTLY = 0.5
"""A mark of which more than this share lies in the boxes of the object may be the object itself."""


class FindSettings(BaseModel, frozen=True, extra="forbid"):
    """What is looked for, and with what.

    Attributes:
        faces: detectors of faces (:class:`~openilias.build.anonymise.detectors.DetectorSpec`); none to not look.
        plates: detectors of licence plates.
        least: smallest side of a box, in pixels.
        neighbours: of ``haar``: how many windows must agree; fewer find more, also of what is none.
        angles: of ``haar``: degrees by which pictures are turned too; it knows what is upright within 20 or so.
        threshold: of the other detectors: least score; None is their own.
        device: on which networks compute; no result may depend on it.
    """

    faces: tuple[str, ...] = ("haar",)
    plates: tuple[str, ...] = ("haar",)
    least: Annotated[int, Field(ge=8, le=10_000)] = 20
    neighbours: Annotated[int, Field(ge=1, le=1000)] | None = None
    angles: tuple[Annotated[int, Field(ge=-180, le=180)], ...] = ()
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    device: str = "cpu"

    def specs(self) -> tuple[DetectorSpec, ...]:
        """Return the detectors, each once."""
        pairs: tuple[tuple[Sought, tuple[str, ...]], ...] = (("face", self.faces), ("plate", self.plates))
        named = dict.fromkeys((sought, name) for sought, names in pairs for name in names)
        return tuple(
            DetectorSpec(sought, name, self.least, self.neighbours, self.angles, self.threshold, self.device)
            for sought, name in named
        )


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        images: how many were looked at.
        marks: all boxes there are now, decided ones among them.
        inside: ids and boxes of marks that lie mostly in a box of the object: it may be the object itself.
        path: of the table.
    """

    images: int
    marks: tuple[Mark, ...]
    inside: tuple[Mark, ...]
    path: Path

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "images": self.images,
            "images_with_boxes": len({mark.image for mark in self.marks}),
            "boxes": {kind: sum(mark.kind == kind for mark in self.marks) for kind in KINDS},
            "status": dict(sorted(Counter(mark.status for mark in self.marks).items())),
            "inside_objects": [{"image": mark.image, "box": list(mark.box)} for mark in self.inside],
            "table": str(self.path),
        }


def find_marks(root: Path, settings: FindSettings | None = None, *, workers: int | None = None) -> Found:
    """Look for faces and plates in all queries and positives; write ``boxes.csv`` and a manifest.

    What a person decided, and what a person drew, stays; a new proposal for the same thing is left out. Proposals of
    earlier searches that are not decided are replaced. Killed, it goes on; images that did not change are not looked
    at again. The result does not depend on ``workers``.

    Args:
        root: the set.
        settings: what to look for, and with what.
        workers: processes; networks use one, and its threads.

    Raises:
        OpenIliasError: no set, no such detector, an image that cannot be read, or a table that is malformed.
    """
    settings = settings or FindSettings()
    specs = settings.specs()
    if not specs:
        raise OpenIliasError("There is nothing to look for.", fix="Give a detector of faces or of plates.")
    place = place_of(root)
    images = images_of(place)
    records = [{"sought": spec.sought, "source": spec.source, **load_detector(spec).record} for spec in specs]
    made_from = {"algorithm_version": ALGORITHM_VERSION, "detectors": records}
    place.folder.mkdir(parents=True, exist_ok=True)
    with owned(place.folder):
        before = read_marks(place.boxes) if place.boxes.is_file() else []
        check_images(place, before, images)
        for item in place.changed():
            check_unchanged(place, item)
        if any(spec.is_network for spec in specs):
            workers = 1
        with kept_results(place.folder / "kept", fingerprint(made_from)) as kept:
            digests = _search(place, images, specs, kept, workers or usable_cores())
            new = [mark for item in images for mark in _marks(item, kept[digests[item]])]
        marks = tuple(sorted(_with_decisions(before, new), key=lambda mark: mark.place))
        write_marks(place.boxes, marks)
        write_manifest(place.found, kind=FOUND, made_from=made_from, boxes=len(marks), seen=digests)
    return Found(len(images), marks, inside_of(place, marks), place.boxes)


def _search(
    place: Place, images: tuple[str, ...], specs: tuple[DetectorSpec, ...], kept: Kept, workers: int
) -> dict[str, str]:
    """Look at the images that were not looked at; return the SHA-256 of all."""
    digests: dict[str, str] = {}

    def jobs() -> Iterator[tuple[str, Path, tuple[DetectorSpec, ...]]]:
        begun: set[str] = set()
        for item in images:
            source = place.source(item)
            digest = digests[item] = sha256_of(source)
            if digest not in kept and digest not in begun:
                begun.add(digest)
                yield item, source, specs
            else:
                step()

    with progress("anonymise", total=len(images), unit="images") as step, ordered_map(workers) as run:
        for item, rows in run(_look, jobs()):
            kept.put(digests[item], rows)
            step()
    return digests


def _look(job: tuple[str, Path, tuple[DetectorSpec, ...]]) -> tuple[str, list[list[Any]]]:
    """Return the boxes of an image: kind, four numbers, score, source."""
    item, path, specs = job
    picture = np.array(decode(Item(item, path).read(), where=item))
    rows: list[list[Any]] = []
    with one_thread_per_worker():
        for spec in specs:
            found = []
            for box, score in load_detector(spec).find(picture):
                inside = clipped(box, picture.shape[1], picture.shape[0])
                if inside is not None:
                    found.append(Sighting(inside, round(score, 4)))
            rows += [[spec.sought, *box, score, spec.source] for box, score in distinct(found)]
    return item, rows


def _marks(item: str, rows: list[list[Any]]) -> list[Mark]:
    """Return the marks of an image; of one thing that several detectors found, that of the detector named first."""
    marks: list[Mark] = []
    for kind, x, y, width, height, score, source in rows:
        box = Box(x, y, width, height)
        if not any(kind == mark.kind and same_thing(box, mark.box) for mark in marks):
            marks.append(Mark(item, kind, box, score, source, "proposed"))
    return marks


def _with_decisions(before: Iterable[Mark], new: Iterable[Mark]) -> Iterator[Mark]:
    """Yield what is decided or drawn by hand, and the new marks of other things."""
    decided: dict[str, list[Mark]] = {}
    for mark in before:
        if mark.status != "proposed" or mark.source == HAND:
            decided.setdefault(mark.image, []).append(mark)
            yield mark
    for mark in new:
        if not any(same_thing(mark.box, other.box) for other in decided.get(mark.image, ())):
            yield mark


def inside_of(place: Place, marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """Return the marks that lie mostly in a box of the object, and are not rejected."""
    found = []
    objects: dict[str, tuple[Box, ...]] = {}
    for mark in marks:
        if mark.image not in objects:
            changed = place.original_boxes(mark.image)
            objects[mark.image] = read_boxes(changed if changed.is_file() else box_file(place.image(mark.image)))
        if mark.status != "rejected" and inside_objects(mark, objects[mark.image]) > MOSTLY:
            found.append(mark)
    return tuple(found)
