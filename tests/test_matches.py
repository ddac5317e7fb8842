"""Matches drawn, and two image files matched from the command line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.report.matches import COLOURS, draw_matches

Ilias = Callable[..., Any]
PAIRS = np.array([[0, 1], [1, 0], [2, 2]])


def grey(height: int, width: int, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def geometry(*places: tuple[float, float]) -> np.ndarray:
    return np.array([(y, x, 1, 1) for y, x in places], np.float32)


QUERY = geometry((0.1, 0.2), (0.5, 0.5), (0.9, 0.8))
IMAGE = geometry((0.5, 0.3), (0.1, 0.6), (0.9, 0.9))


# --- the picture ---


@pytest.mark.parametrize("sizes", list(itertools.product([(60, 90), (200, 50), (1, 400), (300, 1)], repeat=2)))
@pytest.mark.parametrize("side", [40, 173, 1600])
def test_both_are_shown_at_one_height_within_the_side(sizes: Any, side: int) -> None:
    query, image = grey(*sizes[0], 50), grey(*sizes[1], 200)
    drawn = draw_matches(query, image, QUERY, IMAGE, PAIRS[:0], side=side)
    assert drawn.dtype == np.uint8
    assert max(drawn.shape[:2]) <= side
    assert drawn.shape[0] <= max(sizes[0][0], sizes[1][0])
    row = drawn[0, :, 0].tolist()
    widths = [row.count(value) for value in (50, 255, 200)]
    assert row == [50] * widths[0] + [255] * widths[1] + [200] * widths[2]
    assert min(widths) >= 1
    if {*sizes} <= {(60, 90), (200, 50)} and drawn.shape[0] > 20:  # the others are lines
        for width, (high, wide) in zip((widths[0], widths[2]), sizes, strict=True):
            assert width == pytest.approx(drawn.shape[0] * wide / high, abs=1)


def test_lines_go_from_descriptor_to_descriptor() -> None:
    query, image = grey(200, 300), grey(100, 100)
    plain, drawn = (draw_matches(query, image, QUERY, IMAGE, pairs) for pairs in (PAIRS[:0], PAIRS))
    height, width = drawn.shape[:2]
    assert (height, width) == (200, 300 + 2 + 200)
    changed = (plain != drawn).any(2)
    ends = []
    for (one, other), colour in zip(PAIRS, COLOURS, strict=False):  # from top to bottom already
        start = QUERY[one, [1, 0]] * (299, 199)
        end = IMAGE[other, [1, 0]] * (199, 199) + (302, 0)
        for x, y in (start, end):
            assert np.abs(drawn[round(float(y)), round(float(x))].astype(int) - colour).max() <= 2
        middle = (start + end) / 2
        assert changed[round(float(middle[1])) - 1 : round(float(middle[1])) + 2, round(float(middle[0]))].any()
        ends += [start, end]
    # Nothing else is drawn: what has changed lies near one of the three lines.
    places = np.argwhere(changed)[:, ::-1].astype(float)
    near = np.zeros(len(places), bool)
    for start, end in zip(ends[::2], ends[1::2], strict=True):
        along = ((places - start) @ (end - start) / ((end - start) ** 2).sum()).clip(0, 1)
        near |= np.linalg.norm(places - start - along[:, None] * (end - start), axis=1) < 6
    assert near.all()


def test_only_the_first_pairs_are_drawn() -> None:
    picture = grey(100, 100)
    drawn = [draw_matches(picture, picture, QUERY, IMAGE, PAIRS, most=most) for most in (0, 1, 2, 3)]
    for most in range(4):
        assert (drawn[most] == draw_matches(picture, picture, QUERY, IMAGE, PAIRS[:most])).all()
    assert all((one != other).any() for one, other in itertools.pairwise(drawn))


def test_pictures_and_pairs_that_are_none_are_refused() -> None:
    good = grey(9, 9)
    for bad in (good[..., 0], good.astype(np.float32), good[:0], np.zeros((9, 9, 4), np.uint8)):
        with pytest.raises(OpenIliasError, match="is no RGB picture"):
            draw_matches(good, bad, QUERY, IMAGE, PAIRS)
    for pair in ([3, 0], [0, 3], [-1, 0]):
        with pytest.raises(OpenIliasError, match="a descriptor that is not there"):
            draw_matches(good, good, QUERY, IMAGE, np.array([pair]))
