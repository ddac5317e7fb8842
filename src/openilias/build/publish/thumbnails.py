"""Small pictures within a page: no other file is asked for."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.images.boxes import Box
from openilias.images.decode import decode

_QUALITY = 78


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URL, with the boxes of the original; or why there is none.

    Attributes:
        url: ``data:image/jpeg;base64,...``.
        width, height: of the small picture, in pixels.
        original: (width, height) of the stored picture.
        boxes: in pixels of the stored picture.
        problem: why there is no picture.
    """

    url: str = ""
    width: int = 1
    height: int = 1
    original: tuple[int, int] = (1, 1)
    boxes: tuple[Box, ...] = ()
    problem: str = ""


def thumbnail(read: Callable[[], bytes], *, where: str, side: int, boxes: tuple[Box, ...] = ()) -> Thumbnail:
    """Make a picture whose larger side has at most ``side`` pixels."""
    try:
        image = decode(read(), where=where)
    except OpenIliasError as error:
        return Thumbnail(problem=error.what)
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.LANCZOS) if scale < 1 else image.copy()
    small.info = {}
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Thumbnail(url, *size, image.size, boxes)
