"""The page on which a person decides: every object's image and text, and the edited table as a download."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from PIL import Image

from openilias.build.caption.answers import Answer, read_answers, working_on
from openilias.build.caption.apply import check_objects, same_texts
from openilias.build.caption.captions import COLUMNS, DECISIONS, Caption, read_captions, write_captions
from openilias.build.caption.place import Place, place_of
from openilias.build.caption.questions import first_images, image_bytes
from openilias.core.files import write_bytes
from openilias.core.progress import progress
from openilias.images.decode import decode
from openilias.images.resize import longest_size

_LONGEST, _QUALITY = 400, 85


def write_review(root: Path, out: Path | None = None) -> Path:
    """Write the page: one file of HTML that needs no network.

    Args:
        root: the set.
        out: the page; ``SET/build/caption/review.html`` by default.

    Raises:
        OpenIliasError: there are no captions, they are malformed, or an image cannot be read.
    """
    place = place_of(root)
    captions = read_captions(place.captions)
    check_objects(place, captions)
    images, reasons = first_images(place), _reasons(read_answers(place.answers).values())
    with progress("review", total=len(captions), unit="objects") as step:
        cards = []
        for number, caption in enumerate(captions.values()):
            picture = _data_url(place, images[caption.object])
            cards.append({"number": number, "picture": picture, "why": reasons.get(caption.object), "caption": caption})
            step()
    source = resources.files("openilias.build.caption").joinpath("review.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    rows = [[getattr(caption, column) for column in COLUMNS] for caption in captions.values()]
    page = template.render(
        name=place.root.resolve().name,
        cards=cards,
        decisions=DECISIONS,
        data=htmlsafe_json_dumps({"columns": COLUMNS, "rows": rows}),
    )
    out = out or place.review
    write_bytes(out, page.encode())
    return out


def _reasons(answers: Iterable[Answer]) -> dict[str, str]:
    """Return why the latest answer about an object is no text."""
    why: dict[str, str] = {}
    for answer in answers:
        why.pop(answer.object, None)
        if answer.status != "ok":
            why[answer.object] = f"{answer.status}: {answer.error or ''}"
    return why


def _data_url(place: Place, image: str) -> str:
    picture = decode(image_bytes(place, image), where=image)
    if max(picture.size) > _LONGEST:
        picture = picture.resize(longest_size(*picture.size, _LONGEST), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Taken:
    """A table that was taken.

    Attributes:
        captions: all captions of the set now, by object.
        changed: objects whose status or text is another now.
        left: objects that are not in the table, and stay as they were.
        twice: objects with the same accepted text as another one.
    """

    captions: dict[str, Caption]
    changed: tuple[str, ...]
    left: tuple[str, ...]
    twice: tuple[str, ...]


def take_captions(root: Path, table: Path) -> Taken:
    """Take statuses and texts of an edited table into ``captions.csv``, after it was checked.

    What the model was told and said stays as it is here: a spreadsheet may have changed it. Objects that are not in
    the table stay as they are; an object that was not asked about may come with a text of a person.

    Raises:
        OpenIliasError: it is malformed, or of objects that are not in the set; nothing is changed then.
    """
    place = place_of(root)
    edited = read_captions(table)
    check_objects(place, edited, table=table)
    with working_on(place.folder):
        before = read_captions(place.captions) if place.captions.is_file() else {}
        after = dict(before)
        for name, caption in edited.items():
            known = before.get(name, Caption(name))
            after[name] = replace(known, status=caption.status, text=caption.text)
        write_captions(place.captions, after.values())
    return Taken(
        captions=after,
        changed=tuple(sorted(name for name in edited if after[name] != before.get(name))),
        left=tuple(sorted(before.keys() - edited.keys())),
        twice=same_texts(after),
    )
