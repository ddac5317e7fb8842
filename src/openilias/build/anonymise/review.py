"""The page on which a person decides: every box in its picture and alone, and the edited table as a download."""

from __future__ import annotations

import base64
import io
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from PIL import Image

from openilias.build.anonymise.find import MOSTLY
from openilias.build.anonymise.marks import COLUMNS, KINDS, Mark, read_marks, write_marks
from openilias.build.anonymise.pixels import upright_srgb
from openilias.build.anonymise.place import Place, check_images, images_of, inside_objects, place_of
from openilias.core.errors import OpenIliasError
from openilias.core.files import owned, read_bytes, write_bytes
from openilias.core.progress import progress
from openilias.data.benchmark import box_file
from openilias.images.boxes import read_boxes
from openilias.images.decode import MOST_BYTES
from openilias.images.resize import longest_size

_LONGEST, _QUALITY = 640, 80


def write_review(root: Path, out: Path | None = None, *, all_images: bool = False) -> Path:
    """Write the page: one file of HTML that needs no network. It shows people; it is not for publishing.

    Args:
        root: the set.
        out: the page; ``SET/build/anonymise/review.html`` by default.
        all_images: also the images without boxes, so that boxes can be drawn where the detector saw nothing.

    Raises:
        OpenIliasError: boxes were not looked for, are malformed, or an image cannot be read.
    """
    place = place_of(root)
    marks = read_marks(place.boxes)
    images = images_of(place)
    check_images(place, marks, images)
    rows: dict[str, list[tuple[int, Mark]]] = {}
    for number, mark in enumerate(marks):
        rows.setdefault(mark.image, []).append((number, mark))
    shown = images if all_images else tuple(item for item in images if item in rows)
    with progress("review", total=len(shown), unit="images") as step:
        cards = []
        for item in shown:
            cards.append(_card(place, item, rows.get(item, [])))
            step()
    source = resources.files("openilias.build.anonymise").joinpath("review.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    table = [[mark.image, mark.kind, *mark.box, mark.score, mark.source, mark.status] for mark in marks]
    page = template.render(
        name=Path(root).resolve().name,
        cards=cards,
        kinds=KINDS,
        looked=len(images),
        data=htmlsafe_json_dumps({"columns": COLUMNS, "rows": table}),
    )
    out = out or place.review
    write_bytes(out, page.encode())
    return out


def take_decisions(root: Path, table: Path) -> tuple[Mark, ...]:
    """Put an edited table in the place of ``boxes.csv``, after it was checked.

    Raises:
        OpenIliasError: it is malformed, is of other images, or lacks boxes that are applied.
    """
    place = place_of(root)
    with owned(place.folder if place.folder.is_dir() else place.root):
        marks = read_marks(table)
        check_images(place, marks, images_of(place))
        before = read_marks(place.boxes) if place.boxes.is_file() else []
        lost = {mark.place for mark in before if mark.status == "applied"} - {mark.place for mark in marks}
        if lost:
            raise OpenIliasError(
                f"{len(lost)} boxes that are applied are not in this table.",
                where=table,
                fix="Reject them there instead, or begin with the present boxes.csv.",
            )
        write_marks(place.boxes, marks)
    return tuple(marks)


def _card(place: Place, item: str, rows: list[tuple[int, Mark]]) -> dict[str, Any]:
    picture = upright_srgb(read_bytes(place.source(item), most=MOST_BYTES), where=item)
    width, height = picture.size
    saved = place.original_boxes(item)
    objects = read_boxes(saved if saved.is_file() else box_file(place.image(item)))
    return {
        "image": item,
        "width": width,
        "height": height,
        "picture": _data_url(picture),
        "objects": [_place(box, width, height) for box in objects],
        "marks": [
            {
                "number": number,
                "mark": mark,
                "at": _place(mark.box, width, height),
                "crop": _crop(mark, width, height),
                "inside": inside_objects(mark, objects) > MOSTLY,
            }
            for number, mark in rows
        ],
    }


def _data_url(picture: Image.Image) -> str:
    small = picture.resize(longest_size(*picture.size, _LONGEST)) if max(picture.size) > _LONGEST else picture
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _place(box: tuple[int, int, int, int], width: int, height: int) -> str:
    """Return the style that lays a box over a picture of any size."""
    x, y, wide, tall = box
    return (
        f"left:{100 * x / width:.3f}%;top:{100 * y / height:.3f}%;"
        f"width:{100 * wide / width:.3f}%;height:{100 * tall / height:.3f}%"
    )


def _crop(mark: Mark, width: int, height: int) -> str:
    """Return the style that shows only a box, 96 pixels at its longer side, of the picture in the background."""
    x, y, wide, tall = mark.box
    scale = 96 / max(wide, tall)
    return (
        f"width:{wide * scale:.1f}px;height:{tall * scale:.1f}px;"
        f"background-size:{width * scale:.1f}px {height * scale:.1f}px;"
        f"background-position:{-x * scale:.1f}px {-y * scale:.1f}px"
    )
