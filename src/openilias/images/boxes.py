"""Object boxes: integers ``x y width height`` in pixels of the upright image, one line per appearance."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from openilias.core.files import read_bytes
from openilias.core.findings import Finding, refuse

MOST_BOXES = 1000
"""More boxes of one image are refused."""
_MOST_BYTES = 10 * 2**20


class Box(NamedTuple):
    """A rectangle in pixels of the upright image; ``x`` and ``y`` are those of its top left corner."""

    x: int
    y: int
    width: int
    height: int


def parse_boxes(text: str, *, where: str) -> tuple[tuple[Box, ...], tuple[Finding, ...]]:
    """Read the lines of a box file; return the good ones and what is wrong with the others."""
    boxes, findings = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        at = f"{where}, line {number}"
        try:
            x, y, width, height = (int(word) for word in line.split())
        except ValueError:
            what = f"A box must be four integers 'x y width height', found {line[:80]!r}."
            findings.append(Finding("error", "box-malformed", at, what))
            continue
        if width <= 0 or height <= 0 or x < 0 or y < 0:
            what = f"This box has no area or begins outside the image: {line[:80]!r}."
            findings.append(Finding("error", "box-empty", at, what))
        else:
            boxes.append(Box(x, y, width, height))
    if len(boxes) > MOST_BOXES:
        what = f"There are {len(boxes)} boxes; more than {MOST_BOXES} are refused."
        findings.append(Finding("error", "box-many", where, what))
        boxes = []
    return tuple(boxes), tuple(findings)


def find_boxes(path: Path) -> tuple[tuple[Box, ...], tuple[Finding, ...]]:
    """Read a box file, gathering all that is wrong with it; a missing one has no boxes."""
    try:
        text = read_bytes(path, most=_MOST_BYTES).decode("ascii")
    except FileNotFoundError:
        return (), ()
    except (OSError, ValueError) as error:
        what = f"This box file cannot be read: {error}."
        return (), (Finding("error", "box-unreadable", str(path), what),)
    return parse_boxes(text, where=str(path))


def read_boxes(path: Path) -> tuple[Box, ...]:
    """Read a box file; a missing one has no boxes.

    Raises:
        OpenIliasError: a line is not four integers, or a box has no area or begins outside the image.
    """
    boxes, findings = find_boxes(path)
    refuse(findings)
    return boxes


def coverage(boxes: tuple[Box, ...], *, width: int, height: int) -> float:
    """Return the share of an image that lies inside at least one box, in [0, 1].

    Overlapping boxes count once; what a box has outside the image does not count.

    Args:
        boxes: the boxes, in pixels.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    xs = sorted({min(max(v, 0), width) for b in boxes for v in (b.x, b.x + b.width)})
    ys = sorted({min(max(v, 0), height) for b in boxes for v in (b.y, b.y + b.height)})
    covered = np.zeros((max(len(ys) - 1, 0), max(len(xs) - 1, 0)), bool)
    for b in boxes:
        rows = slice(*np.searchsorted(ys, np.clip((b.y, b.y + b.height), 0, height)))
        columns = slice(*np.searchsorted(xs, np.clip((b.x, b.x + b.width), 0, width)))
        covered[rows, columns] = True
    area = (covered * np.diff(ys)[:, None] * np.diff(xs)[None, :]).sum() if covered.size else 0
    return float(area) / (width * height)
