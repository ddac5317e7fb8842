"""What happens to one image on its way into a test set: upright, sRGB, 500 px, white balance, JPEG of quality 90.

After the supplement of the paper, "Downloading and storing images". Pure: bytes and settings in, bytes and facts out;
the same for the same input, whichever process does it. ``docs/ingest.md`` says why each step is as it is.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Annotated, Literal

from PIL import Image
from pydantic import BaseModel, Field

from openilias.build.colour import ProfileError, mode_of_profile, to_srgb
from openilias.build.conformity import structural, structure_of
from openilias.build.perceptual import hash_of_file
from openilias.build.white_balance import NEUTRAL, Balance, Gains, white_balanced
from openilias.images.decode import (
    MOST_PIXELS,
    Photograph,
    UnreadableImageError,
    examine,
    read_photograph,
    to_rgb,
)
from openilias.images.resize import longest_size

ALGORITHM_VERSION = 1  # changes when the bytes or facts that come out of the same input and settings change

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


class NormaliseSettings(BaseModel, frozen=True, extra="forbid"):
    """What is done to each image. Everything that changes a byte is here; the defaults are the paper's.

    Attributes:
        longest: larger side of the result at most, in pixels; smaller pictures keep their size.
        resample: how it is made smaller, antialiased as Pillow does. The default is what describes images later.
        balance: white balance.
        quality: of the JPEG, 4:4:4 and baseline always.
        skip_reencode: keep the bytes of a file that conforms and is neutral already.
        damaged: what becomes of a file that decodes although its data are damaged: kept with a note, or refused.
        least_side: pictures with a smaller side are refused: what is smaller is no photograph.
        most_side: pictures with a larger side are refused by their header.
        most_pixels: pictures of more pixels are refused by their header.
    """

    longest: Annotated[int, Field(ge=16, le=16384)] = 500
    resample: Literal["bicubic", "lanczos"] = "bicubic"
    balance: Balance = Balance()
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    skip_reencode: bool = True
    damaged: Literal["keep", "refuse"] = "keep"
    least_side: Annotated[int, Field(ge=1)] = 16
    most_side: Annotated[int, Field(ge=1)] = 65_535
    most_pixels: Annotated[int, Field(ge=1, le=MOST_PIXELS)] = MOST_PIXELS


@dataclass(frozen=True)
class Normalised:
    """An image as it is stored, and what is told of it in the table.

    Attributes:
        jpeg: the bytes of the file.
        width: of the stored picture, in pixels.
        height: of the stored picture, in pixels.
        original_size: (width, height) of the upright original, in pixels.
        format: of the original, by its content.
        camera: model that its EXIF named.
        taken: when, as its EXIF said, ``YYYY-MM-DD HH:MM:SS`` in the time of the camera.
        sha256: of ``jpeg``, hexadecimal.
        hash: perceptual, of ``jpeg``; 64 bits (:mod:`openilias.build.perceptual`).
        reencoded: whether ``jpeg`` differs from the original file.
        gains: of the white balance: red, green, blue.
        notes: what was wrong with the original and did not stop it: a broken profile, damaged data.
    """

    jpeg: bytes
    width: int
    height: int
    original_size: tuple[int, int]
    format: str
    camera: str | None
    taken: str | None
    sha256: str
    hash: int
    reencoded: bool
    gains: Gains
    notes: tuple[str, ...] = ()


def normalise(data: bytes, settings: NormaliseSettings, *, where: str) -> Normalised:
    """Make the stored form of one image.

    Args:
        data: the bytes of a file of any format that :mod:`openilias.images.decode` reads.
        settings: what to do.
        where: its id or URL, for messages.

    Raises:
        UnreadableImageError: it is refused; ``status`` says why in a word.
    """
    photograph = read_photograph(
        data,
        where=where,
        most_pixels=settings.most_pixels,
        most_side=settings.most_side,
        least_side=settings.least_side,
    )
    if _is_cut(data, photograph.format):
        raise _refused("This image is truncated: its end is missing.", where, "truncated")
    damage = examine(data, where=where).damage
    if damage is not None and settings.damaged == "refuse":
        raise _refused(f"The data of this image are damaged: {damage}.", where, "damaged")
    notes = [] if damage is None else [f"its data are damaged: {damage}"]
    original_size = photograph.image.size
    picture = _small_srgb(photograph, settings, notes)
    balanced, gains = white_balanced(picture, settings.balance)
    keep = settings.skip_reencode and gains == NEUTRAL and not notes and _conforms(data, settings)
    jpeg = data if keep else _encoded(balanced, settings.quality)
    return Normalised(
        jpeg=jpeg,
        width=balanced.width,
        height=balanced.height,
        original_size=original_size,
        format=photograph.format,
        camera=photograph.camera,
        taken=photograph.taken,
        sha256=hashlib.sha256(jpeg).hexdigest(),
        hash=hash_of_file(jpeg),
        reencoded=jpeg != data,
        gains=gains,
        notes=tuple(notes),
    )


def _refused(what: str, where: str, status: Literal["truncated", "damaged"]) -> UnreadableImageError:
    return UnreadableImageError(what, where=where, fix="Fetch it again, or leave it out.", status=status)


def _is_cut(data: bytes, form: str) -> bool:
    """Tell whether the end of a file is missing although its picture can be decoded."""
    if form in ("JPEG", "MPO"):
        structure = structure_of(data)
        return structure is None or not structure.ended
    if form == "PNG":
        return data.rfind(b"\0\0\0\0IEND\xaeB`\x82") < 0
    if form == "WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return False


def _conforms(data: bytes, settings: NormaliseSettings) -> bool:
    structure = structure_of(data)
    return structure is not None and not structural(structure, longest=settings.longest, quality=settings.quality)


def _small_srgb(photograph: Photograph, settings: NormaliseSettings, notes: list[str]) -> Image.Image:
    """Make a picture as small as it is stored, and sRGB; what is wrong with its profile becomes a note.

    It is made smaller in its own colours first: profiles are slow, and white stays white in all of them, so that what
    is transparent may be put over white before.
    """
    image = photograph.image
    profile = image.info.get("icc_profile")
    if profile:
        try:
            mode = mode_of_profile(profile)
            if (mode == "CMYK") != (image.mode == "CMYK"):
                raise ProfileError(f"it is for {mode}, and the picture is {image.mode}")
            if mode == "L" and not _is_grey(image):
                raise ProfileError(f"it is for grey, and the picture is {image.mode}")
            own = image if mode == "CMYK" else to_rgb(image)
            return to_srgb(_shrunk(own.getchannel(0) if mode == "L" else own, settings), profile)
        except ProfileError as error:
            notes.append(f"its colour profile is ignored: {error}")
    return _shrunk(to_rgb(image), settings)


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")


def _shrunk(image: Image.Image, settings: NormaliseSettings) -> Image.Image:
    if max(image.size) <= settings.longest:
        return image
    return image.resize(longest_size(*image.size, settings.longest), _RESAMPLING[settings.resample])


def _encoded(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    bare = image.copy()
    bare.info = {}  # Pillow writes the comment that an image carries along
    bare.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
