"""Counting the segments outside boxes. Pure: arrays and boxes in, numbers out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.images.boxes import Box

Segments = npt.NDArray[Any]
"""(H, W) whole numbers: a label per pixel, from 0 on; or (S, H, W) bool: a mask per segment, which may overlap."""


def inside_boxes(boxes: tuple[Box, ...], size: tuple[int, int], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which pixels of a picture of another size lie in at least one box: those whose centre does.

    Args:
        boxes: in pixels of the image.
        size: (width, height) of the image.
        shape: (H, W) of the picture.

    Returns:
        (H, W).
    """
    ys = (np.arange(shape[0]) + 0.5) * (size[1] / shape[0])
    xs = (np.arange(shape[1]) + 0.5) * (size[0] / shape[1])
    inside = np.zeros(shape, bool)
    for x, y, width, height in boxes:
        inside |= ((y <= ys) & (ys < y + height))[:, None] & ((x <= xs) & (xs < x + width))[None, :]
    return inside


def areas(segments: Segments, inside: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the pixels of each segment, and those of them inside the boxes.

    Args:
        segments: (H, W) labels or (S, H, W) masks.
        inside: (H, W).
    """
    if segments.ndim == 2:
        labels = segments.reshape(-1)
        count = int(labels.max()) + 1
        whole = np.bincount(labels, minlength=count)
        within = np.bincount(labels[inside.reshape(-1)], minlength=count)
        return whole.astype(np.int64), within.astype(np.int64)
    return segments.sum((1, 2), np.int64), (segments & inside).sum((1, 2), np.int64)


def outside(segments: Segments, inside: npt.NDArray[np.bool_], *, most_inside: float) -> npt.NDArray[np.bool_]:
    """Return which segments count: those that have pixels, and less than a share of them inside the boxes.

    Args:
        segments: (H, W) labels or (S, H, W) masks.
        inside: (H, W).
        most_inside: the share, in (0, 1].
    """
    whole, within = areas(segments, inside)
    counted: npt.NDArray[np.bool_] = (whole > 0) & (within < most_inside * whole)
    return counted


def count_outside(segments: Segments, inside: npt.NDArray[np.bool_], *, most_inside: float = 0.5) -> int:
    """Return how many segments count, as :func:`outside`."""
    return int(outside(segments, inside, most_inside=most_inside).sum())
