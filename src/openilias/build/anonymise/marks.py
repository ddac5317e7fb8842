"""``boxes.csv``: what is to be made unrecognisable, and what a person decided about it."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_bytes, write_bytes
from openilias.images.boxes import Box

Kind = Literal["face", "plate", "other"]
Status = Literal["proposed", "confirmed", "rejected", "applied"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STATUSES: tuple[Status, ...] = get_args(Status)
COLUMNS = ("image", "kind", "x", "y", "width", "height", "score", "source", "status")
HAND = "hand"
"""The source of boxes that a person drew."""
_ID = re.compile(r"(?!\.{1,2}/)[^/\\]+/(?:query|pos)/[^/\\]+")
_WHOLE = re.compile(r"[0-9]{1,6}")
_MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Mark:
    """A box in one image of the core, and what is decided about it.

    Attributes:
        image: its id.
        kind: what is in the box; ``other`` are things that only a person finds, such as a name at a door.
        box: in pixels of the upright *original* image, also when the image is blurred or cropped by now.
        score: of the detector; scores of different detectors mean different things. None of boxes by hand.
        source: the detector, or :data:`HAND`.
        status: proposed by a detector, confirmed or rejected by a person, or applied to the image.
    """

    image: str
    kind: Kind
    box: Box
    score: float | None
    source: str
    status: Status

    @property
    def place(self) -> tuple[str, int, int, int, int, str]:
        """What orders marks, and no two have in common."""
        return self.image, self.box.y, self.box.x, self.box.height, self.box.width, self.kind


def read_marks(path: Path) -> list[Mark]:
    """Read ``boxes.csv``, as it was written or as a person or a spreadsheet left it; sorted.

    Raises:
        OpenIliasError: it is missing, no UTF-8, or a line is not as it should be; named with its number.
    """
    try:
        text = read_bytes(path, most=_MOST_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        raise OpenIliasError(
            "There are no boxes yet.", where=path, fix="Look for them first: ilias build anonymise find SET"
        ) from None
    except (OSError, ValueError) as error:
        raise OpenIliasError(f"This table cannot be read: {error}.", where=path, fix="Save it as UTF-8.") from None
    marks = sorted(_rows(text, path), key=lambda mark: mark.place)
    twice = [place for place, count in Counter(mark.place for mark in marks).items() if count > 1]
    if twice:
        named = [f"{image} {(x, y, width, height)}" for image, y, x, height, width, _ in twice]
        raise OpenIliasError(f"Boxes stand twice: {first_few(named)}.", where=path, fix="Remove the copies.")
    return marks


def _rows(text: str, path: Path) -> Iterator[Mark]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if tuple(word.strip().lower() for word in header) != COLUMNS:
            raise OpenIliasError(
                f"The first line must be '{','.join(COLUMNS)}', found {','.join(header)[:120]!r}.",
                where=path,
                fix="Keep the columns as they are, with commas between.",
            )
        for words in reader:
            if any(words):
                yield _mark([word.strip() for word in words], f"{path}, line {reader.line_num}")
    except csv.Error as error:
        raise OpenIliasError(
            f"This is no line of CSV: {error}.", where=f"{path}, line {reader.line_num}", fix="Correct it."
        ) from None


def _mark(words: list[str], where: str) -> Mark:
    def wrong(what: str) -> OpenIliasError:
        return OpenIliasError(what, where=where, fix="Correct the line.")

    if len(words) != len(COLUMNS):
        raise wrong(f"Expected {len(COLUMNS)} columns, found {len(words)}.")
    image, kind, *sides, score, source, status = words
    if not _ID.fullmatch(image) or "/../" in image or not image.isprintable():
        raise wrong(f"Expected an image '<object>/query/<file>' or '<object>/pos/<file>', found {image[:120]!r}.")
    if kind not in KINDS:
        raise wrong(f"A kind is one of {', '.join(KINDS)}, not {kind[:40]!r}.")
    if status not in STATUSES:
        raise wrong(f"A status is one of {', '.join(STATUSES)}, not {status[:40]!r}.")
    if not all(_WHOLE.fullmatch(side) for side in sides) or 0 in (int(sides[2]), int(sides[3])):
        raise wrong(f"A box is four whole numbers of pixels with an area, not {' '.join(sides)[:80]!r}.")
    if not source or not source.isprintable():
        raise wrong(f"A source is the name of a detector, or {HAND!r}.")
    return Mark(image, kind, Box(*map(int, sides)), _score(score, wrong), source, status)


def _score(word: str, wrong: Callable[[str], OpenIliasError]) -> float | None:
    if not word:
        return None
    try:
        score = float(word)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise wrong(f"A score is a number or empty, not {word[:40]!r}.")
    return score


def write_marks(path: Path, marks: Iterable[Mark]) -> None:
    """Write ``boxes.csv``, sorted, all or nothing."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for mark in sorted(marks, key=lambda mark: mark.place):
        score = "" if mark.score is None else repr(mark.score)
        writer.writerow((mark.image, mark.kind, *mark.box, score, mark.source, mark.status))
    write_bytes(path, text.getvalue().encode())
