"""From the bytes of an image file to an upright RGB picture."""

from __future__ import annotations

import io

from PIL import Image, ImageOps, UnidentifiedImageError

from openilias.core.errors import OpenIliasError

MOST_PIXELS = 178_956_970
"""Larger pictures are refused as decompression bombs (Pillow's own hard limit at its default setting)."""


class UnreadableImageError(OpenIliasError):
    """An image file that cannot be decoded; the one error that extraction may be told to list and pass over."""


def decode(data: bytes, *, where: str, upright: bool = True) -> Image.Image:
    """Decode an image file to 8-bit RGB.

    Args:
        data: the bytes of the file.
        where: its id or path, for messages.
        upright: turn it as its EXIF orientation says.

    Raises:
        UnreadableImageError: no image, truncated, or larger than :data:`MOST_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UnreadableImageError(
                    f"This image claims {image.width} x {image.height} pixels.",
                    where=where,
                    fix="Make it smaller.",
                )
            image.load()
            turned = ImageOps.exif_transpose(image) if upright else image
            return turned.convert("RGB")
    except UnreadableImageError:
        raise
    except Exception as error:  # Pillow's readers fail in many ways on damaged files
        if isinstance(error, MemoryError):
            raise
        raise UnreadableImageError(
            f"This image cannot be decoded: {_reason(error)}.",
            where=where,
            fix="Replace the file, or pass over such images with --skip-unreadable.",
        ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its format is not known"  # Pillow's own words hold a memory address
    return str(error).rstrip(".") or type(error).__name__


def upright_size(data: bytes, *, where: str) -> tuple[int, int]:
    """Return (width, height) of the upright image from its header, without decoding the pixels."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise UnreadableImageError(f"This image cannot be read: {_reason(error)}.", where=where) from None
    return (height, width) if turned else (width, height)
