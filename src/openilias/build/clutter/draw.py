"""A picture of the segments over an image: which count, and where the boxes are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from openilias.build.clutter.counts import Segments, outside
from openilias.core.files import write_bytes
from openilias.images.boxes import Box

_COUNTED, _OTHER, _BOX = (255, 60, 40), (120, 120, 255), (40, 230, 90)


def edges_of(segments: Segments, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels on the inner border of at least one of the chosen segments.

    Args:
        segments: (H, W) labels or (S, H, W) masks.
        chosen: (S,) of the labels or masks.

    Returns:
        (H, W).
    """
    if segments.ndim == 2:
        edges = np.zeros(segments.shape, bool)
        edges[:, :-1] |= segments[:, :-1] != segments[:, 1:]
        edges[:-1] |= segments[:-1] != segments[1:]
        labelled: npt.NDArray[np.bool_] = edges & chosen[segments]
        return labelled
    edges = np.zeros(segments.shape[1:], bool)
    for mask in segments[chosen]:
        padded = np.pad(mask, 1, mode="edge")
        core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        edges |= mask & ~core
    return edges


def write_drawing(
    path: Path,
    picture: npt.NDArray[np.uint8],
    boxes: tuple[Box, ...],
    segments: Segments,
    inside: npt.NDArray[np.bool_],
    *,
    most_inside: float,
) -> None:
    """Write a PNG: the image with borders of the segments that count (red) and of the others (blue), boxes green."""
    height, width = segments.shape[-2:]
    scale = max(1, round(640 / max(width, height)))
    counted = outside(segments, inside, most_inside=most_inside)
    drawn = Image.fromarray(picture).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    pixels = np.array(drawn)
    for chosen, colour in ((~counted, _OTHER), (counted, _COUNTED)):
        border = edges_of(segments, chosen).repeat(scale, 0).repeat(scale, 1)
        pixels[border] = colour
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    along, down = image.width / picture.shape[1], image.height / picture.shape[0]
    for x, y, wide, tall in boxes:
        corners = (x * along, y * down, (x + wide) * along - 1, (y + tall) * down - 1)
        draw.rectangle(corners, outline=_BOX, width=3)
    draw.text((6, 4), f"{int(counted.sum())} outside", fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())
