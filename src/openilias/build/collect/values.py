"""What a collector's folder holds, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal["query", "pos"]


@dataclass(frozen=True)
class Details:
    """What a table says of an image; None is not known. Names as in :class:`openilias.build.stored.StoredImage`."""

    licence: str | None = None
    licence_url: str | None = None
    author: str | None = None
    page_url: str | None = None
    url: str | None = None
    camera: str | None = None
    taken: str | None = None


@dataclass(frozen=True)
class SourceImage:
    """An image of a collector.

    Attributes:
        source: its path in the collector's folder, with ``/`` between, which is what it is known by.
        path: where it is.
        role: what it is for.
        boxes: the file of boxes beside it, ``<stem>_bbox.txt``, if there is one.
        details: what is known of it.
    """

    source: str
    path: Path
    role: Role
    boxes: Path | None = None
    details: Details = Details()


@dataclass(frozen=True)
class SourceObject:
    """An object of a collector.

    Attributes:
        name: as the collector calls it.
        images: queries and positives.
        text: the file of its text query, if there is one.
    """

    name: str
    images: tuple[SourceImage, ...]
    text: Path | None = None

    def of(self, role: Role) -> tuple[SourceImage, ...]:
        """Return the images of a role."""
        return tuple(image for image in self.images if image.role == role)
