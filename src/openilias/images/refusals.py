"""Why the bytes of a file are not read as an image: a word for tables, and a reason for people."""

from __future__ import annotations

from typing import Literal

from PIL import UnidentifiedImageError

Refusal = Literal["empty", "not-an-image", "other-format", "truncated", "damaged", "bomb", "too-small"]
"""Why an image file is refused, in a word that tables keep.

``other-format`` is a picture of a kind that is not read; ``bomb`` whatever would take too much memory or time.
"""

_FOREIGN = (  # what is often found under the name of an image
    (b"<html", "an HTML page"),
    (b"<!doctype html", "an HTML page"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"%!ps", "PostScript"),
    (b"%pdf", "PDF"),
    (b"8bps", "Photoshop"),
    (b"ii*\0", "TIFF"),
    (b"mm\0*", "TIFF"),
    (b"ftyp", "HEIF, AVIF or a video"),
)
_PICTURES = frozenset(("Photoshop", "TIFF", "HEIF, AVIF or a video"))
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")  # of what is read
_SHORTEST = 128  # no header of a real picture is shorter


def reason_of(error: Exception, data: bytes) -> tuple[Refusal, str]:
    """Say why a file is no picture, given what the decoder made of it."""
    if not data:
        return "empty", "the file is empty"
    if not isinstance(error, UnidentifiedImageError):
        what = str(error).rstrip(".") or type(error).__name__
        return ("truncated" if "truncated" in what.lower() else "damaged"), what
    # Pillow's own words hold a memory address.
    start = data[:1024].lower()
    name = next((name for word, name in _FOREIGN if word in start), None)
    if name is None and start.lstrip()[:1] in (b"{", b"["):
        name = "JSON"
    told = f"it is {name}" if name else "its format is not known"
    told = f"{told}; JPEG, PNG, WebP, GIF and BMP are read"
    if data.startswith(_MAGIC) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return ("truncated" if len(data) < _SHORTEST else "damaged"), told
    return ("other-format" if name in _PICTURES else "not-an-image"), told
