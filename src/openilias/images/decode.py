"""From the bytes of an image file to an upright RGB picture; ``docs/images.md`` lists what is decided here."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Compat
from openilias.images.refusals import Refusal, reason_of

FORMATS = ("JPEG", "PNG", WebPImageFile.format, "GIF", "BMP")
"""What is read (an MPO is a JPEG with more pictures).

Others are refused, and never handed to the programs that Pillow would call for some of them.
"""
MOST_PIXELS = 178_956_970
"""Larger pictures are refused as decompression bombs (Pillow's own hard limit at its default setting)."""
MOST_BYTES = 256 * 2**20
"""Larger files are refused unread: no photograph is that large."""
MOST_SCANS = 100
"""JPEGs of more scans are refused: each is a pass over all pixels, and ordinary progressive ones have about ten."""

# The limits above take the place of Pillow's warnings, which the user could do nothing about.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_ORIENTATION, _MODEL = 0x0112, 0x0110
_EXIF, _TAKEN, _DIGITISED = 0x8769, 0x9003, 0x9004
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LIBJPEG_GOES_ON = (  # its warnings; its errors are for decode to find
    "Corrupt JPEG data",
    "Premature end of JPEG file",
    "Inconsistent progression sequence",
    "Invalid SOS parameters for sequential JPEG",
)


class UnreadableImageError(OpenIliasError):
    """An image file that cannot be decoded; the one error that extraction may be told to list and pass over.

    Attributes:
        status: why, as one of :data:`~openilias.images.refusals.Refusal`.
    """

    def __init__(
        self, what: str, *, where: str | Path | None = None, fix: str | None = None, status: Refusal = "damaged"
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.status: Refusal = status


@dataclass(frozen=True)
class ImageFacts:
    """What an image file is.

    Attributes:
        format: by its content, one of :data:`FORMATS`, or ``MPO``.
        mode: Pillow's name of its kind of pixels, e.g. ``RGB``, ``CMYK``, ``I;16``.
        size: (width, height) as stored, in pixels.
        upright_size: (width, height) of the upright image, in pixels.
        orientation: of EXIF, 1 to 8.
        has_icc: it carries a colour profile (which is not applied).
        several: it has more pictures than the first, which is the one described.
        progressive: a progressive JPEG.
        damage: what is wrong with a file that nevertheless decodes, e.g. JPEG data that a decoder replaces by grey.
    """

    format: str
    mode: str
    size: tuple[int, int]
    upright_size: tuple[int, int]
    orientation: int
    has_icc: bool
    several: bool
    progressive: bool
    damage: str | None


def decode(data: bytes, *, where: str, upright: bool = True, compat: Compat = "paper") -> Image.Image:
    """Decode an image file (its first picture) to 8-bit RGB. The format is told by the content, never by the name.

    Args:
        data: the bytes of the file.
        where: its id or path, for messages.
        upright: turn it as its EXIF orientation says.
        compat: ``official`` converts as the official code does: transparency dropped, 16-bit grey clipped.

    Raises:
        UnreadableImageError: another format, no image, truncated, or larger than :data:`MOST_PIXELS`.
    """
    with _opened(data, where) as image:
        return to_rgb(_loaded(image, upright=upright), compat=compat)


@dataclass(frozen=True, eq=False)
class Photograph:
    """A decoded image file before anything is converted, and what its metadata say of it.

    Attributes:
        image: upright, in the mode in which it is stored; its colour profile is in ``info["icc_profile"]``.
        format: by its content, one of :data:`FORMATS`, or ``MPO``.
        camera: as :func:`camera_in`.
        taken: as :func:`taken_in`.
    """

    image: Image.Image
    format: str
    camera: str | None
    taken: str | None


def read_photograph(
    data: bytes, *, where: str, most_pixels: int = MOST_PIXELS, most_side: int | None = None, least_side: int = 1
) -> Photograph:
    """Decode an image file without converting its colours, and read its camera and date.

    Args:
        data: the bytes of the file.
        where: its id or path, for messages.
        most_pixels: larger pictures are refused by their header, as by :data:`MOST_PIXELS`.
        most_side: longer pictures are refused by their header.
        least_side: pictures with a smaller side are refused by their header.

    Raises:
        UnreadableImageError: as :func:`decode`, and what is beyond the limits.
    """
    with _opened(data, where) as image:
        width, height = image.size
        if width * height > most_pixels or (most_side is not None and max(width, height) > most_side):
            raise _TooLargeError(f"claims {width} x {height} pixels")
        if min(width, height) < least_side:
            raise _TooSmallError(f"has {width} x {height} pixels; sides of less than {least_side} are refused")
        camera = taken = None
        with suppress(Exception):  # a broken EXIF block says nothing
            exif = image.getexif()
            camera, taken = camera_in(exif), taken_in(exif)
        return Photograph(_loaded(image), str(image.format), camera, taken)


def _loaded(image: ImageFile.ImageFile, *, upright: bool = True) -> Image.Image:
    # A row at a time at least: Pillow's time is quadratic in the number of blocks of a row.
    image.decodermaxblock = max(image.decodermaxblock, 8 * image.width)
    image.load()
    turn = _TURNS.get(_orientation(image)) if upright else None
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image, *, compat: Compat = "paper") -> Image.Image:
    """Convert a decoded picture of any mode to 8-bit RGB as :func:`decode` does; colour profiles are ignored."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    return _over_white(image) if compat == "paper" else _plain(image)


def upright_size(data: bytes, *, where: str) -> tuple[int, int]:
    """Return (width, height) of the upright image from its header, without decoding the pixels of a JPEG.

    Raises:
        UnreadableImageError: as :func:`decode`, for what the header tells.
    """
    with _opened(data, where) as image:
        return _upright(image, _orientation(image))


def camera_of(data: bytes) -> str | None:
    """Return the camera model that an image file names in EXIF; None if it names none or cannot be read."""
    try:
        with _opened(data, "its EXIF") as image:
            return camera_in(image.getexif())
    except UnreadableImageError:  # a broken EXIF block says nothing
        return None


def camera_in(exif: Image.Exif) -> str | None:
    """Return the camera model without surrounding blanks and NULs; None if there is none."""
    value = exif.get(_MODEL)
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return None
    name = value.strip("\0 ").partition("\0")[0]
    return "".join(filter(str.isprintable, name)).strip() or None


def taken_in(exif: Image.Exif) -> str | None:
    """Return when a picture was taken, or else digitised, as ``YYYY-MM-DD HH:MM:SS``; None if that is not known."""
    details = exif.get_ifd(_EXIF)
    for tag in (_TAKEN, _DIGITISED):
        value = details.get(tag)
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if isinstance(value, str):
            # Cameras without a clock write zeros or blanks.
            with suppress(ValueError):
                return str(datetime.strptime(value.strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S"))
    return None


def examine(data: bytes, *, where: str) -> ImageFacts:
    """Tell what an image file is and whether it is damaged in a way that decoders pass over.

    Such damage (a few bytes of a JPEG changed, a chunk of a PNG with a wrong checksum) is accepted by
    :func:`decode`, as by every other decoder: real photographs have it. Not every changed byte can be seen.
    That the file decodes at all is for :func:`decode` to say.

    Raises:
        UnreadableImageError: as :func:`decode`, for what the header tells.
    """
    with _opened(data, where) as image:
        orientation = _orientation(image)
        return ImageFacts(
            format=str(image.format),
            mode=image.mode,
            size=image.size,
            upright_size=_upright(image, orientation),
            orientation=orientation,
            has_icc="icc_profile" in image.info,
            several=_several(image),
            progressive="progressive" in image.info,
            damage=_damage(data, str(image.format)),
        )


class _TooLargeError(Exception):
    pass


class _TooSmallError(Exception):
    pass


@contextmanager
def _opened(data: bytes, where: str) -> Iterator[ImageFile.ImageFile]:
    """Open an image within its limits; whatever fails within becomes an error that names the image."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise OpenIliasError(
            "Pillow was told to fill in what truncated images lack, which would change numbers without a word.",
            fix="Set PIL.ImageFile.LOAD_TRUNCATED_IMAGES to False.",
        )
    try:
        if not data:
            raise ValueError
        if len(data) > MOST_BYTES:
            raise _TooLargeError(f"has {len(data)} bytes; more than {MOST_BYTES} are refused")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise _TooLargeError(f"claims {image.width} x {image.height} pixels")
            if image.format in ("JPEG", "MPO") and _scans(data) > MOST_SCANS:
                raise _TooLargeError(f"has more than {MOST_SCANS} scans")
            yield image
    except MemoryError:
        raise
    except (_TooLargeError, Image.DecompressionBombError) as error:
        what = error if isinstance(error, _TooLargeError) else f"claims more than {MOST_PIXELS} pixels"
        raise UnreadableImageError(f"This image {what}.", where=where, fix="Make it smaller.", status="bomb") from None
    except _TooSmallError as error:
        raise UnreadableImageError(
            f"This image {error}.", where=where, fix="Leave it out.", status="too-small"
        ) from None
    except Exception as error:  # Pillow's readers fail in many ways on damaged files
        status, reason = reason_of(error, data)
        raise UnreadableImageError(
            f"This image cannot be decoded: {reason}.",
            where=where,
            fix="Replace the file, or pass over such images with --skip-unreadable.",
            status=status,
        ) from None


def _scans(data: bytes) -> int:
    """Count the scans of a JPEG up to its end, and no further than is needed; what follows the end is not its own."""
    at, count = 2, 0
    while count <= MOST_SCANS and (found := _MARKER.search(data, at)):
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:
            break
        count += marker == 0xDA
        if marker not in (0x01, 0xD8):
            at += int.from_bytes(data[at : at + 2], "big")
    return count


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return the orientation, 1 to 8; 1 if there is none or its block is broken."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing; the picture is whole
        return 1
    return value if value in _TURNS else 1


def _several(image: ImageFile.ImageFile) -> bool:
    try:
        return int(getattr(image, "n_frames", 1)) > 1
    except Exception:  # a later picture is damaged; there is one
        return True


def _upright(image: ImageFile.ImageFile, orientation: int) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if orientation >= 5 else (width, height)


def _plain(image: Image.Image) -> Image.Image:
    """Convert as ``Image.open(...).convert("RGB")`` does: what is transparent shows its hidden colour."""
    image.info.pop("transparency", None)  # changes no pixel
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB: 16 bits are scaled, and what is transparent lies over white."""
    if image.mode.startswith("I"):  # grey of 16 bits
        values = np.asarray(image).astype(np.uint32)
        grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
        grey[values == image.info.get("transparency", -1)] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image.convert("RGB"), mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def _damage(data: bytes, form: str) -> str | None:
    """Return the first thing that a decoder goes on after, if there is any."""
    if form in ("JPEG", "MPO"):
        import simplejpeg

        try:
            # The smallest picture: its entropy-coded data are read whole nevertheless.
            simplejpeg.decode_jpeg(data, "gray", fastdct=True, min_height=1, min_width=1, min_factor=8, strict=True)
        except ValueError as error:
            return str(error) if str(error).startswith(_LIBJPEG_GOES_ON) else None
    if form == "PNG":
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            try:
                image.verify()
            except Exception as error:
                return str(error).rstrip(".")
    return None
