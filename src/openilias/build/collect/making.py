"""What is done to one image of a collector, in any process: looked at, then made as it is stored."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from openilias.build.collect.annotations.marks import Size
from openilias.build.collect.background import background_clutter
from openilias.build.normalise import Normalised, NormaliseSettings, normalise
from openilias.core.errors import OpenIliasError
from openilias.core.files import read_bytes
from openilias.images.boxes import Box
from openilias.images.decode import MOST_BYTES, UnreadableImageError, examine
from openilias.images.resize import longest_size


@dataclass(frozen=True)
class Look:
    """What a file of a collector is.

    Attributes:
        sha256: of its bytes.
        size: of its picture; None if it cannot be read.
    """

    sha256: str
    size: Size | None


@dataclass(frozen=True)
class MakeJob:
    """An image to make.

    Attributes:
        item: its id.
        path: its original.
        sha256: of the original, as it was looked at.
        settings: what is done.
        boxes: in pixels of the stored picture.
        query: whether its background is measured.
    """

    item: str
    path: Path
    sha256: str
    settings: NormaliseSettings
    boxes: tuple[Box, ...]
    query: bool


@dataclass(frozen=True)
class Made:
    """An image as it is stored, or why it is not.

    Attributes:
        item: its id.
        normalised: the stored form; None if the original is refused.
        clutter: of the background of a query; None if it was not measured.
        status: why it is refused, in a word.
        why: the same in a sentence.
    """

    item: str
    normalised: Normalised | None
    clutter: float | None = None
    status: str = ""
    why: str = ""


def look(path: Path) -> Look:
    """Read a file and tell what it is.

    Raises:
        OpenIliasError: the file itself cannot be read.
    """
    data = _read(path)
    try:
        facts = examine(data, where=str(path))
        size = Size(*facts.size, facts.orientation)
    except UnreadableImageError:
        size = None
    return Look(hashlib.sha256(data).hexdigest(), size)


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, most=MOST_BYTES)
    except OSError as error:
        what = f"This image file cannot be read: {error.strerror}."
        raise OpenIliasError(what, where=path, fix="Replace it, or remove it.") from None


def stored_size(upright: tuple[int, int], settings: NormaliseSettings) -> tuple[int, int]:
    """Return width and height that an upright picture is stored with."""
    return longest_size(*upright, settings.longest) if max(upright) > settings.longest else upright


def make(job: MakeJob) -> Made:
    """Make the stored form of an image.

    Raises:
        OpenIliasError: the file cannot be read, or is another one than was looked at.
    """
    data = _read(job.path)
    if hashlib.sha256(data).hexdigest() != job.sha256:
        raise OpenIliasError("This file was changed meanwhile.", where=job.path, fix="Run the command again.")
    try:
        made = normalise(data, job.settings, where=str(job.path))
    except UnreadableImageError as error:
        return Made(job.item, None, status=error.status, why=error.what)
    clutter = None
    if job.query:
        with Image.open(io.BytesIO(made.jpeg)) as image:
            clutter = background_clutter(image.convert("RGB"), job.boxes)
    return Made(job.item, made, clutter)
