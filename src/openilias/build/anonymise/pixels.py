"""What is done to the pixels: a region without detail, or a picture cut so that the region is outside.

Pure: arrays and boxes in, arrays and boxes out.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.build.anonymise.detectors import Picture, clipped, overlap
from openilias.build.colour import ProfileError, mode_of_profile, to_srgb
from openilias.images.boxes import Box
from openilias.images.decode import read_photograph, to_rgb

QUALITY = 90
LEAST_SIDE = 16
"""A picture is not cropped to less, in pixels."""


def upright_srgb(data: bytes, *, where: str) -> Image.Image:
    """Decode an image as it is to be seen: upright, in sRGB; a profile that cannot be used is ignored.

    Raises:
        UnreadableImageError: it cannot be decoded.
    """
    image = read_photograph(data, where=where).image
    profile = image.info.get("icc_profile")
    if profile:
        try:
            return to_srgb(image if image.mode == mode_of_profile(profile) else to_rgb(image), profile)
        except ProfileError:
            return to_rgb(image)
    return to_rgb(image)


def encoded(picture: Picture) -> bytes:
    """Return a picture as sets store it: baseline JPEG of quality 90, 4:4:4, nothing else in the file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def with_margin(box: Box, margin: float, width: int, height: int) -> Box:
    """Return a box that is larger on each side by a share of its own side, inside the picture; at least a pixel.

    Raises:
        ValueError: nothing of the box is inside the picture.
    """
    inside = clipped(box, width, height)
    if inside is None:
        raise ValueError("nothing of this box is inside the picture")
    wide, tall = (-int(-margin * side // 1) for side in (inside.width, inside.height))
    larger = Box(inside.x - wide, inside.y - tall, inside.width + 2 * wide, inside.height + 2 * tall)
    return clipped(larger, width, height) or inside


def blurred(picture: Picture, region: Box, *, cells: int) -> Picture:
    """Return a picture whose region is made from the mean colours of a few cells, and from nothing else.

    The means are spread over their cells and smoothed, so that no edges of cells distract. What was in the region
    cannot be had back: two regions with the same means give the same pixels.

    Args:
        picture: (H, W, 3) RGB.
        region: inside it.
        cells: along the longer side of the region; along the shorter one in proportion.
    """
    import cv2

    x, y, width, height = region
    longer = max(width, height)
    edges = [
        np.linspace(0, side, min(side, max(1, round(cells * side / longer))) + 1).round().astype(int)
        for side in (height, width)
    ]
    values = picture[y : y + height, x : x + width].astype(np.int64)
    sums = np.add.reduceat(np.add.reduceat(values, edges[0][:-1], 0), edges[1][:-1], 1)
    heights, widths = np.diff(edges[0]), np.diff(edges[1])
    sizes = np.multiply.outer(heights, widths)[..., None]
    means = ((2 * sums + sizes) // (2 * sizes)).astype(np.uint8)
    flat = means.repeat(heights, 0).repeat(widths, 1)
    deviation = longer / cells / 2
    out = picture.copy()
    out[y : y + height, x : x + width] = cv2.GaussianBlur(flat, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE)
    return out


def moved(boxes: Iterable[Box], cut: Box) -> tuple[Box, ...]:
    """Return boxes in pixels of what was cut out; what is outside of it is cut off."""
    shifted = (clipped(box._replace(x=box.x - cut.x, y=box.y - cut.y), cut.width, cut.height) for box in boxes)
    return tuple(box for box in shifted if box is not None)


def largest_cut(width: int, height: int, regions: Sequence[Box], objects: Sequence[Box]) -> Box | None:
    """Return the largest part of a picture that holds all objects and nothing of the regions; None if there is none.

    Of equal ones it is the one furthest left, then up.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        regions: what must be outside.
        objects: what must be inside, as far as it is in the picture; at least one.
    """
    inside = [box for box in (clipped(box, width, height) for box in objects) if box is not None]
    if not inside:
        return None
    left, top = min(box.x for box in inside), min(box.y for box in inside)
    right, bottom = max(box.x + box.width for box in inside), max(box.y + box.height for box in inside)
    core = Box(left, top, right - left, bottom - top)
    if any(overlap(core, region) for region in regions):
        return None
    best: tuple[int, int, int, Box] | None = None
    for x in {0, *(r.x + r.width for r in regions if r.x + r.width <= left)}:
        for end in {width, *(r.x for r in regions if r.x >= right)}:
            met = [r for r in regions if r.x < end and r.x + r.width > x]
            if any(r.y < bottom and r.y + r.height > top for r in met):
                continue
            y = max((r.y + r.height for r in met if r.y + r.height <= top), default=0)
            stop = min((r.y for r in met if r.y >= bottom), default=height)
            cut = Box(x, y, end - x, stop - y)
            rank = (-cut.width * cut.height, x, y, cut)
            best = rank if best is None or rank < best else best
    if best is None or min(best[3].width, best[3].height) < LEAST_SIDE:
        return None
    return best[3]


def cut_out(picture: Picture, cut: Box) -> npt.NDArray[np.uint8]:
    """Return a part of a picture."""
    return picture[cut.y : cut.y + cut.height, cut.x : cut.x + cut.width]
