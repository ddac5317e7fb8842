"""Whether the background of a query is clean or uniform, as the paper asks ("Queries and positives").

The rule: the picture is made 32 pixels long, so that fine texture (asphalt, cloth) and blur vanish and things stay;
of all pairs of neighbouring pixels outside the boxes, the share that differs by more than 32 of 255 in a channel is
the clutter of the background; above 0.1 it is not clean. ``docs/collect.md`` says how well that does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.images.boxes import Box

SIDE, STEP, THRESHOLD = 32, 32, 0.1
_FEWEST = 20  # pairs from which a share can be told
_MARGIN = 8  # without boxes an eighth of the picture along each side is taken for background


def background_clutter(image: Image.Image, boxes: tuple[Box, ...]) -> float | None:
    """Return the clutter of the background, in [0, 1]; None if too little of the picture lies outside the boxes.

    Args:
        image: RGB.
        boxes: of the object, in its pixels; without any the border of the picture is looked at.
    """
    scale = SIDE / max(image.size)
    width, height = (max(2, round(side * scale)) for side in image.size)
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.int16)
    outside = _outside(boxes, (width / image.width, height / image.height), (height, width))
    across = np.abs(np.diff(small, axis=1)).max(2)[outside[:, 1:] & outside[:, :-1]]
    down = np.abs(np.diff(small, axis=0)).max(2)[outside[1:] & outside[:-1]]
    steps = np.concatenate((across, down))
    return float((steps > STEP).mean()) if len(steps) >= _FEWEST else None


def _outside(boxes: tuple[Box, ...], scale: tuple[float, float], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    outside = np.ones(shape, bool)
    if not boxes:
        tall, wide = (max(1, side // _MARGIN) for side in shape)
        outside[tall : shape[0] - tall, wide : shape[1] - wide] = False
    for box in boxes:
        rows = slice(int(box.y * scale[1]), int(np.ceil((box.y + box.height) * scale[1])))
        outside[rows, int(box.x * scale[0]) : int(np.ceil((box.x + box.width) * scale[0]))] = False
    return outside
