"""Colour profiles: pictures of any colour space to sRGB, and telling whether a profile is sRGB itself.

Conversion is by LittleCMS (``PIL.ImageCms``): relative colorimetric with black point compensation, which keeps the
colours that sRGB has and maps white to white and black to black.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

MOST_PROFILE = 4 * 2**20
"""Larger profiles are not read: those of printing presses have up to three MiB."""

_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_SAME = 1  # of 255: what rounding does in the tables of profiles that mean sRGB
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


class ProfileError(Exception):
    """A colour profile that cannot be used, and why."""


def mode_of_profile(profile: bytes) -> str:
    """Return the mode of the pictures that a profile is for: ``RGB``, ``L`` or ``CMYK``.

    Raises:
        ProfileError: it is for others, or cannot be read.
    """
    return _transform(profile)[1]


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert a picture of the mode of its profile to RGB in sRGB.

    Raises:
        ProfileError: the profile cannot be used.
    """
    transform, mode = _transform(profile)
    if image.mode != mode:
        raise ProfileError(f"it is for {mode}, and the picture is {image.mode}")
    if mode == "RGB" and is_srgb(profile):
        return image
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:  # only where it converts in place
        raise ProfileError("it cannot be applied")
    return converted


@lru_cache(maxsize=16)
def is_srgb(profile: bytes) -> bool:
    """Tell whether an RGB profile changes no colour by more than rounding; it is tried, names are not believed."""
    try:
        transform, mode = _transform(profile)
    except ProfileError:
        return False
    if mode != "RGB":
        return False
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(64, 64, 3)
    converted = ImageCms.applyTransform(Image.fromarray(cube), transform)
    return bool(np.abs(np.asarray(converted, int) - cube).max() <= _SAME)


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[Any, str]:
    if len(profile) > MOST_PROFILE:
        raise ProfileError(f"it has {len(profile)} bytes")
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = str(opened.profile.xcolor_space)
        if space not in _SPACES:
            raise ProfileError(f"it is for the colour space {space.strip()!r}")
        mode = _SPACES[space]
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(opened, target, mode, "RGB", _INTENT, _FLAGS), mode
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise ProfileError(str(error).rstrip(".").lower() or "it cannot be read") from None
