"""What becomes of one image: planned first, for all images, then done so that a killed run can be repeated.

The original is copied before anything changes, the record of what is done is written before the image is. Whatever
was cut off, the same plan gives the same files.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from openilias.build.anonymise.marks import Mark
from openilias.build.anonymise.pixels import blurred, cut_out, encoded, largest_cut, moved, upright_srgb, with_margin
from openilias.build.anonymise.place import Place
from openilias.core.errors import OpenIliasError
from openilias.core.files import read_bytes, read_json, sha256_of, write_bytes, write_json
from openilias.data.benchmark import box_file
from openilias.images.boxes import Box, read_boxes
from openilias.images.decode import MOST_BYTES, upright_size

ALGORITHM_VERSION = 1
MARGIN, CELLS = 0.15, 4
How = Literal["blur", "crop"]


@dataclass(frozen=True)
class Record:
    """What was done to an image; stands beside the originals.

    Attributes:
        original: SHA-256 of the original.
        results: SHA-256 of all that was ever put in its place, the last one last.
        how: blurred or cropped.
        margin: around the boxes, as a share of their sides.
        cells: along the longer side of what is blurred.
        boxes: that were blurred, or are outside now; in pixels of the original.
        cut: what was cut out of the original; None if it is not cropped.
        object_boxes: the text of the object boxes that belongs to the cut.
        reencoded: what the table said of the original.
        earlier_boxes: texts of object boxes that belonged to earlier cuts; they may still be in place.
        version: of what makes the pixels.
    """

    original: str
    results: tuple[str, ...]
    how: How
    margin: float
    cells: int
    boxes: tuple[Box, ...]
    cut: Box | None
    object_boxes: str | None
    reencoded: bool | None
    earlier_boxes: tuple[str, ...] = ()
    version: int = ALGORITHM_VERSION

    @property
    def wanted(self) -> tuple[Any, ...]:
        """What decides about the result."""
        return self.original, self.how, self.margin, self.cells, self.boxes, self.cut, self.version


def read_record(place: Place, item: str) -> Record | None:
    """Return the record of an image; None if there is none.

    Raises:
        OpenIliasError: it is damaged.
    """
    path = place.record(item)
    if not path.is_file():
        return None
    value = read_json(path)
    try:
        value["boxes"] = tuple(Box(*map(int, box)) for box in value["boxes"])
        value["cut"] = None if value["cut"] is None else Box(*map(int, value["cut"]))
        value["results"] = tuple(map(str, value["results"]))
        value["earlier_boxes"] = tuple(map(str, value["earlier_boxes"]))
        return Record(**value)
    except (KeyError, TypeError, ValueError) as error:
        raise OpenIliasError(
            f"This record is damaged: {error}.", where=path, fix="Put it back from a backup; the original is beside it."
        ) from None


def plan_change(
    place: Place,
    item: str,
    marks: list[Mark],
    *,
    how: How | None,
    margin: float | None,
    cells: int | None,
    reencoded: bool | None,
) -> Record:
    """Decide what becomes of an image, without decoding it.

    Args:
        place: of the set.
        item: the image.
        marks: what must go; at least one.
        how: None keeps what was done before, and blurs what is new.
        margin: around the boxes, as a share of their sides; None keeps what was done before, else :data:`MARGIN`.
        cells: along the longer side of what is blurred; None likewise, else :data:`CELLS`.
        reencoded: what the table says of the image now; what a record says of the original comes first.

    Raises:
        OpenIliasError: a box is outside the image, the image can not be cropped, or it is not the one that was seen.
    """
    before = read_record(place, item)
    digest = sha256_of(place.source(item))
    check_unchanged(place, item)
    if margin is None:
        margin = before.margin if before else MARGIN
    if cells is None:
        cells = before.cells if before else CELLS
    width, height = upright_size(read_bytes(place.source(item), most=MOST_BYTES), where=item)
    try:
        regions = tuple(with_margin(mark.box, margin, width, height) for mark in marks)
    except ValueError:
        raise OpenIliasError(
            f"A box is outside of this image of {width} x {height} pixels.", where=item, fix="Correct it in boxes.csv."
        ) from None
    how = how or (before.how if before else "blur")
    cut, text = _planned_cut(place, item, (width, height), regions) if how == "crop" else (None, None)
    record = Record(
        original=digest,
        results=(),
        how=how,
        margin=margin,
        cells=cells,
        boxes=tuple(mark.box for mark in marks),
        cut=cut,
        object_boxes=text,
        reencoded=before.reencoded if before else reencoded,
    )
    return before if before and before.wanted == record.wanted else record


def _planned_cut(place: Place, item: str, size: tuple[int, int], regions: tuple[Box, ...]) -> tuple[Box, str]:
    saved = place.original_boxes(item)
    objects = read_boxes(saved if saved.is_file() else box_file(place.image(item)))
    if not objects:
        raise OpenIliasError(
            "Without boxes of the object nobody knows what may be cut off.", where=item, fix="Blur it, or draw them."
        )
    cut = largest_cut(*size, regions, objects)
    if cut is None:
        raise OpenIliasError(
            "This image cannot be cropped without cutting into the boxes of the object.",
            where=item,
            fix=f"Blur it: ilias build anonymise apply SET --how blur --image {item}",
        )
    return cut, "".join(f"{box.x} {box.y} {box.width} {box.height}\n" for box in moved(objects, cut))


def check_unchanged(place: Place, item: str) -> None:
    """Refuse an image that is neither its original nor what was put in its place: somebody changed it.

    Raises:
        OpenIliasError: somebody did, or the original is gone.
    """
    record, original = read_record(place, item), place.original(item)
    here = sha256_of(place.image(item)) if place.image(item).is_file() else None
    if not original.is_file():
        if record is not None and here != record.original and here in record.results:
            raise OpenIliasError(
                "The original of this image is gone; what is here is blurred or cropped already.",
                where=original,
                fix="Put it back from a backup.",
            )
        return
    if here != sha256_of(original) and (record is None or here not in record.results):
        raise OpenIliasError(
            "This image is neither its original nor what was made of it.",
            where=item,
            fix=f"If it is a new picture, remove {original} and {place.record(item)}, and look at it again; "
            "else put back what was here.",
        )
    saved, boxes = place.original_boxes(item), box_file(place.image(item))
    if saved.is_file() and record is not None:
        ours = [text.encode() for text in (*record.earlier_boxes, record.object_boxes) if text is not None]
        if not boxes.is_file() or read_bytes(boxes) not in (read_bytes(saved), *ours):
            raise OpenIliasError(
                "The boxes of the object were changed after the image was cropped.",
                where=boxes,
                fix=f"Put back those of the crop, {record.object_boxes!r}; undo the crop before you correct them.",
            )


def is_done(place: Place, item: str, record: Record) -> bool:
    """Tell whether an image is what its record says."""
    if not record.results or sha256_of(place.image(item)) != record.results[-1]:
        return False
    saved = place.original_boxes(item)
    if record.object_boxes is None:
        return not saved.is_file()
    return saved.is_file() and read_bytes(box_file(place.image(item))) == record.object_boxes.encode()


def make_change(place: Place, item: str, record: Record) -> None:
    """Make an image what a plan says. May be cut off anywhere, and repeated.

    Raises:
        UnreadableImageError: the original cannot be decoded.
    """
    image, original = place.image(item), place.original(item)
    data = read_bytes(place.source(item), most=MOST_BYTES)
    result = _result(data, item, record)
    if not original.is_file():
        write_bytes(original, data)
    saved, boxes = place.original_boxes(item), box_file(image)
    if record.object_boxes is not None and not saved.is_file():
        write_bytes(saved, read_bytes(boxes))
    write_json(place.record(item), _history(read_record(place, item), record, hashlib.sha256(result).hexdigest()))
    write_bytes(image, result)
    if record.object_boxes is not None:
        write_bytes(boxes, record.object_boxes.encode())
    else:
        _put_back_boxes(place, item)


def _history(before: Record | None, record: Record, digest: str) -> dict[str, Any]:
    """Return a record that knows all that it may still find in the place of the image and its object boxes."""
    results = [one for one in (before.results if before else ()) if one != digest]
    texts = [*before.earlier_boxes, before.object_boxes] if before else []
    earlier = [text for text in dict.fromkeys(texts) if text is not None and text != record.object_boxes]
    return asdict(record) | {"results": [*results, digest], "earlier_boxes": earlier}


def _result(data: bytes, item: str, record: Record) -> bytes:
    picture = np.asarray(upright_srgb(data, where=item))
    if record.cut is not None:
        return encoded(cut_out(picture, record.cut))
    height, width = picture.shape[:2]
    for box in record.boxes:
        picture = blurred(picture, with_margin(box, record.margin, width, height), cells=record.cells)
    return encoded(picture)


def _put_back_boxes(place: Place, item: str) -> None:
    saved = place.original_boxes(item)
    if saved.is_file():
        write_bytes(box_file(place.image(item)), read_bytes(saved))
        saved.unlink()


def put_back(place: Place, item: str) -> None:
    """Put an original back, and its object boxes; the copies stay until :func:`forget`."""
    data = read_bytes(place.original(item), most=MOST_BYTES)
    if read_bytes(place.image(item), most=MOST_BYTES) != data:
        write_bytes(place.image(item), data)
    saved = place.original_boxes(item)
    if saved.is_file():
        write_bytes(box_file(place.image(item)), read_bytes(saved))


def forget(place: Place, item: str) -> None:
    """Remove the copies and the record of an image that is its original again."""
    place.original_boxes(item).unlink(missing_ok=True)
    place.record(item).unlink(missing_ok=True)
    place.original(item).unlink(missing_ok=True)
    for folder in (place.original(item).parent, place.record(item).parent):
        for empty in (folder, folder.parent):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()
