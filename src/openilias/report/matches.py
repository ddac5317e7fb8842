"""Matches of two images drawn: both side by side, a line for each pair of local descriptors."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.models.local_features import X, Y

Pixels = npt.NDArray[np.uint8]
COLOURS = (
    (119, 170, 221),
    (238, 221, 136),
    (68, 187, 153),
    (238, 136, 102),
    (170, 170, 0),
    (255, 170, 187),
    (153, 221, 255),
)
"""The light ones of Paul Tol: told apart by those who see fewer colours as well."""
_PAPER = 255
_EDGE = (24, 24, 24)
_FINE = 4  # binary digits of a pixel's parts, as OpenCV takes them
_STRENGTH = 0.8  # of lines over the pictures


def draw_matches(
    query: Pixels,
    image: Pixels,
    query_geometry: npt.NDArray[np.floating],
    geometry: npt.NDArray[np.floating],
    pairs: npt.NDArray[np.integer],
    *,
    most: int = 60,
    side: int = 1600,
) -> Pixels:
    """Draw two images side by side at one height, with lines between descriptors that match.

    The lines take colours in turns from top to bottom, so that neighbours differ.

    Args:
        query: (H, W, 3) RGB.
        image: (H', W', 3) RGB, of any other size.
        query_geometry: (N, 4) of its descriptors: y and x in [0, 1], scale, weight.
        geometry: (N', 4) of those of the image.
        pairs: (n, 2) descriptors of query and image, the best ones first.
        most: so many of the first pairs are drawn.
        side: the larger side of what is drawn, in pixels; smaller if both images are.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        OpenIliasError: something that is no RGB picture, or a pair of descriptors that are not there.
    """
    for picture in (query, image):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise OpenIliasError(f"{picture.dtype} of shape {picture.shape} is no RGB picture.")
    shown = np.asarray(pairs[:most], np.int64).reshape(-1, 2)
    if ((shown < 0) | (shown >= (len(query_geometry), len(geometry)))).any():
        raise OpenIliasError("A match is of a descriptor that is not there.")
    left, gap, right = _at_one_height(query, image, side)
    canvas = np.concatenate([left, gap, right], 1)
    starts = _places(query_geometry[shown[:, 0]], left)
    ends = _places(geometry[shown[:, 1]], right)
    ends[:, 0] += left.shape[1] + gap.shape[1]
    order = np.lexsort((starts[:, 0], starts[:, 1]))
    return _drawn(canvas, starts[order], ends[order])


def _at_one_height(query: Pixels, image: Pixels, side: int) -> tuple[Pixels, Pixels, Pixels]:
    """Return the query, a gap, and the image, of the height of the higher one, or less where that is too large."""
    high = max(query.shape[0], image.shape[0])
    wide = sum(high * picture.shape[1] / picture.shape[0] for picture in (query, image))
    height = max(1, int(high * min(1.0, side / max(1.01 * wide + 2, high))))
    gap = max(2, height // 100)
    widths = [max(1, round(height * picture.shape[1] / picture.shape[0])) for picture in (query, image)]
    over = min(1.0, (side - gap) / sum(widths))  # of pictures that are a line, which no height is small enough for
    left, right = (
        np.asarray(Image.fromarray(picture).resize((max(1, int(width * over)), height), Image.Resampling.LANCZOS))
        for picture, width in zip((query, image), widths, strict=True)
    )
    return left, np.full((height, gap, 3), _PAPER, np.uint8), right


def _places(geometry: npt.NDArray[np.floating], picture: Pixels) -> npt.NDArray[np.float64]:
    """Return (n, 2) x and y in a picture, inside it."""
    inside = geometry[:, [X, Y]].astype(np.float64).clip(0, 1)
    places: npt.NDArray[np.float64] = inside * (picture.shape[1] - 1, picture.shape[0] - 1)
    return places


def _drawn(canvas: Pixels, starts: npt.NDArray[np.float64], ends: npt.NDArray[np.float64]) -> Pixels:
    thick = max(1, round(max(canvas.shape[:2]) / 900))
    radius = 2.2 * thick
    fine = 2**_FINE
    starts, ends = (np.rint(places * fine).astype(np.int64) for places in (starts, ends))
    coloured = [
        (one, other, COLOURS[n % len(COLOURS)])
        for n, (one, other) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True))
    ]
    lines = canvas.copy()
    for one, other, colour in coloured:
        cv2.line(lines, one, other, colour, thick, cv2.LINE_AA, _FINE)
    canvas = cv2.addWeighted(lines, _STRENGTH, canvas, 1 - _STRENGTH, 0)
    for one, other, colour in coloured:
        for place in (one, other):  # the dark edge shows a point on any ground
            cv2.circle(canvas, place, round((radius + 0.7 * thick) * fine), _EDGE, cv2.FILLED, cv2.LINE_AA, _FINE)
            cv2.circle(canvas, place, round(radius * fine), colour, cv2.FILLED, cv2.LINE_AA, _FINE)
    return canvas
