"""Making what a person confirmed unrecognisable, and taking that back."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from openilias.build.anonymise.changes import (
    How,
    Record,
    check_unchanged,
    forget,
    is_done,
    make_change,
    plan_change,
    put_back,
    read_record,
)
from openilias.build.anonymise.find import inside_of
from openilias.build.anonymise.marks import Mark, read_marks, write_marks
from openilias.build.anonymise.place import Place, check_images, images_of, place_of
from openilias.build.perceptual import hash_of_file
from openilias.build.stored import CORE_ROWS, ROWS, StoredImage, read_rows, write_rows
from openilias.core.errors import OpenIliasError
from openilias.core.files import owned, read_bytes, remove_temporaries, write_json
from openilias.core.findings import Finding, refuse
from openilias.core.progress import progress
from openilias.images.decode import upright_size


class ApplySettings(BaseModel, frozen=True, extra="forbid"):
    """What is done to the confirmed boxes.

    Attributes:
        how: None blurs what is new, and leaves what was done as it was done.
        margin: around each box, as a share of its sides; None leaves what was done, :data:`MARGIN` for what is new.
        cells: along the longer side of what is blurred, fewer keep less; None likewise, :data:`CELLS`.
        all_proposed: take proposed boxes for confirmed.
        images: ids or patterns (``*``) of the images to work on; None is all.
    """

    how: How | None = None
    margin: Annotated[float, Field(ge=0, le=2)] | None = None
    cells: Annotated[int, Field(ge=1, le=8)] | None = None
    all_proposed: bool = False
    images: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Applied:
    """What was done.

    Attributes:
        changed: images that were changed by this run.
        kept: images that were as they should be already.
        restored: images that are their originals again.
        how: image -> blur or crop, of all that are not their originals.
        status: how many boxes there are of each status now.
        inside: applied marks that lie mostly in a box of the object.
        without_row: changed images that the table of the core does not name, if there is a table.
    """

    changed: tuple[str, ...]
    kept: tuple[str, ...]
    restored: tuple[str, ...]
    how: dict[str, How]
    status: dict[str, int]
    inside: tuple[Mark, ...]
    without_row: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "changed": list(self.changed),
            "kept": list(self.kept),
            "restored": list(self.restored),
            "how": self.how,
            "status": self.status,
            "inside_objects": [{"image": mark.image, "box": list(mark.box)} for mark in self.inside],
            "without_row": list(self.without_row),
        }


def apply_marks(root: Path, settings: ApplySettings | None = None) -> Applied:
    """Blur or crop the images of confirmed boxes, always from their originals; write rows and statuses.

    Repeated, it changes nothing; after a box was added, rejected or moved it makes the image anew, or puts it back.
    Everything is checked before anything is changed. Killed, the same command completes it.

    Raises:
        OpenIliasError: malformed boxes, images that cannot be cropped (all are named), or an image that somebody
            else changed.
    """
    settings = settings or ApplySettings()
    place = place_of(root)
    with owned(place.folder if place.folder.is_dir() else place.root):
        marks = read_marks(place.boxes)
        check_images(place, marks, images_of(place))
        chosen = _chosen(settings.images, {mark.image for mark in marks} | set(place.changed()))
        goes = {"confirmed", "applied"} | ({"proposed"} if settings.all_proposed else set())
        by_image: dict[str, list[Mark]] = {}
        for mark in marks:
            if mark.status in goes and mark.image in chosen:
                by_image.setdefault(mark.image, []).append(mark)
        back = [item for item in place.changed() if item in chosen and item not in by_image]
        rows = _rows(place)
        plan = _plan(place, by_image, settings, rows, back)
        todo = [item for item, record in plan.items() if not is_done(place, item, record)]
        done = {mark for item in plan for mark in by_image[item]}
        after = [replace(mark, status="applied") if mark in done else mark for mark in marks]
        with _changing(place, "apply"):
            with progress("anonymise", total=len(todo), unit="images") as step:
                for item in todo:
                    make_change(place, item, plan[item])
                    step()
            for item in back:
                put_back(place, item)
            lost = _write_rows(place, rows, [*plan, *back])
            if after != marks:
                write_marks(place.boxes, after)
            for item in back:
                forget(place, item)
    return Applied(
        changed=tuple(todo),
        kept=tuple(item for item in plan if item not in todo),
        restored=tuple(back),
        how={item: record.how for item, record in plan.items()},
        status=_counted(after),
        inside=inside_of(place, sorted(done, key=lambda mark: mark.place)),
        without_row=lost,
    )


def undo_marks(root: Path, images: tuple[str, ...] | None = None) -> Applied:
    """Put originals back byte for byte; their boxes are confirmed again, and not applied.

    Args:
        root: the set.
        images: ids or patterns (``*``) of images; None is all that were changed.

    Raises:
        OpenIliasError: an image was changed by somebody else since.
    """
    place = place_of(root)
    with owned(place.folder if place.folder.is_dir() else place.root):
        marks = read_marks(place.boxes)
        changed = place.changed()
        chosen = _chosen(images, {mark.image for mark in marks} | set(changed))
        back = [item for item in changed if item in chosen]
        _refuse_all(lambda item: check_unchanged(place, item), back)
        undone = {mark for mark in marks if mark.image in chosen and mark.status == "applied"}
        after = [replace(mark, status="confirmed") if mark in undone else mark for mark in marks]
        with _changing(place, "undo"):
            rows = _rows(place)
            for item in back:
                put_back(place, item)
            lost = _write_rows(place, rows, back)
            if after != marks:
                write_marks(place.boxes, after)
            for item in back:
                forget(place, item)
    return Applied((), (), tuple(back), {}, _counted(after), (), lost)


def _counted(marks: list[Mark]) -> dict[str, int]:
    return {str(status): count for status, count in sorted(Counter(mark.status for mark in marks).items())}


def _chosen(patterns: tuple[str, ...] | None, images: set[str]) -> set[str]:
    if patterns is None:
        return images
    found: set[str] = set()
    for pattern in patterns:
        named = {item for item in images if item == pattern or fnmatchcase(item, pattern)}
        if not named:
            raise OpenIliasError("No image with boxes is called so.", where=pattern, fix="Look into boxes.csv.")
        found |= named
    return found


def _plan(
    place: Place,
    by_image: dict[str, list[Mark]],
    settings: ApplySettings,
    rows: dict[str, StoredImage],
    back: list[str],
) -> dict[str, Record]:
    plan: dict[str, Record] = {}

    def one(item: str) -> None:
        if item in back:
            check_unchanged(place, item)
            return
        row = rows.get(item)
        plan[item] = plan_change(
            place,
            item,
            by_image[item],
            how=settings.how,
            margin=settings.margin,
            cells=settings.cells,
            reencoded=None if row is None else row.reencoded,
        )

    _refuse_all(one, [*by_image, *back])
    return plan


def _refuse_all(check: Callable[[str], None], items: Iterable[str]) -> None:
    """Check all before any is changed; the error names the first few of what is wrong."""
    wrong = []
    for item in items:
        try:
            check(item)
        except OpenIliasError as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    refuse(
        [Finding("error", "anonymise", error.where or "", error.what, error.fix) for error in wrong],
        hint="also " + ", ".join(error.where or "" for error in wrong[1:6]),
    )


@contextmanager
def _changing(place: Place, act: str) -> Iterator[None]:
    """Leave a sign while images are being changed: it stays if the run is cut off, and the next one cleans up."""
    others = (place.core, place.root / ROWS) if place.unfinished.exists() else ()
    for folder in (place.folder, *others):  # what was left there may show faces
        remove_temporaries(folder)
    write_json(place.unfinished, {"act": act})
    yield
    place.unfinished.unlink()


def _rows(place: Place) -> dict[str, StoredImage]:
    path = place.root / ROWS / CORE_ROWS
    return {row.id: row for row in read_rows(path)} if path.is_file() else {}


def _write_rows(place: Place, rows: dict[str, StoredImage], items: Iterable[str]) -> tuple[str, ...]:
    """Have the table say what the images are now; return those that it does not name."""
    if not rows:
        return ()
    after, lost = dict(rows), []
    for item in items:
        if item not in rows:
            lost.append(item)
            continue
        data = read_bytes(place.image(item))
        width, height = upright_size(data, where=item)
        record = read_record(place, item)
        original = record is None or hashlib.sha256(data).hexdigest() == record.original
        kept = rows[item].reencoded if record is None else record.reencoded
        after[item] = replace(
            rows[item],
            width=width,
            height=height,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            hash=hash_of_file(data),
            reencoded=kept if original else True,
        )
    if after != rows:
        write_rows(place.root / ROWS / CORE_ROWS, after.values())
    return tuple(lost)
