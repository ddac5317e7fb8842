"""Boxes as a tool states them, and where they are in the stored picture."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from openilias.build.collect.layout import ROLES
from openilias.core.findings import Finding
from openilias.images.boxes import MOST_BOXES, Box

Frame = Literal["upright", "raw"]
# What tools add to the names of files that are uploaded to them: Label Studio before, Roboflow behind.
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
_EXPORTED = re.compile(r"_(?:jpe?g|png|webp|gif|bmp)\.rf\.[0-9A-Za-z]{16,64}(?=\.[^.]+$|$)", re.IGNORECASE)
_SLACK = 2.0  # pixels of the original that a box may reach outside without a word: rounding of tools
_ASPECT = 0.02  # relative difference of the aspect of a copy that was annotated at another size


class Size(NamedTuple):
    """Of an image as its file says.

    Attributes:
        width: in pixels, before it is turned upright.
        height: in pixels, before it is turned upright.
        orientation: of EXIF, 1 to 8.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the upright picture."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


class Edges(NamedTuple):
    """A rectangle by its edges, in any unit; x to the right, y down."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Mark:
    """A box of a tool.

    Attributes:
        edges: in pixels of the picture of the size that the tool states, or as shares of it.
        label: its class, if it has one.
        note: what was made of it, if it was no upright rectangle.
        where: for messages.
    """

    edges: Edges
    label: str | None
    where: str
    note: str | None = None


@dataclass(frozen=True)
class Marked:
    """What a tool states of one image.

    Attributes:
        name: of the image, as the tool has it: a path or a file name.
        where: for messages.
        marks: its boxes.
        size: width and height that the tool states; None if it states none.
        shares: edges are shares of the picture, 0 to 1, instead of pixels.
        frame: the picture that the tool shows: turned upright, or as it is stored. None: the
            sizes tell, or else upright.
        left_out: what the tool states besides, and no box can be made of: kinds of shapes.
    """

    name: str
    where: str
    marks: tuple[Mark, ...]
    size: tuple[float, float] | None = None
    shares: bool = False
    frame: Frame | None = None
    left_out: tuple[str, ...] = ()


def of_points(points: Sequence[tuple[float, float]]) -> Edges:
    """Return the smallest rectangle around some points."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return Edges(min(xs), min(ys), max(xs), max(ys))


def turned(edges: Edges, degrees: float, about: tuple[float, float]) -> Edges:
    """Return the smallest upright rectangle around one that is turned clockwise about a point."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    corners = [(x - about[0], y - about[1]) for x in (edges.left, edges.right) for y in (edges.top, edges.bottom)]
    return of_points([(about[0] + x * cos - y * sin, about[1] + x * sin + y * cos) for x, y in corners])


def placed(marked: Marked, size: Size, stored: tuple[int, int]) -> tuple[list[Box], list[Finding]]:
    """Return the boxes of an image in pixels of its stored picture, and what is wrong with them.

    Args:
        marked: what the tool states.
        size: of the original.
        stored: width and height of the stored picture, which is upright.
    """
    findings: list[Finding] = []
    if marked.left_out:
        what = f"Shapes of which no box is made are passed over: {', '.join(sorted(set(marked.left_out)))}."
        findings.append(Finding("warning", "box-shape-unknown", marked.where, what, "Draw boxes or polygons instead."))
    frame = _frame(marked, size, findings)
    if frame is None:
        return [], findings
    boxes: list[Box] = []
    for mark in marked.marks:
        edges = _in_upright(mark.edges, marked, frame, size)
        box = _cut(edges, mark, size.upright, stored, findings)
        if box is not None and box not in boxes:
            boxes.append(box)
            if mark.note:
                findings.append(Finding("note", "box-shape", mark.where, mark.note))
    if len(boxes) > MOST_BOXES:
        what = f"There are {len(boxes)} boxes; more than {MOST_BOXES} are refused."
        findings.append(Finding("error", "box-many", marked.where, what))
        boxes = []
    return boxes, findings


def _frame(marked: Marked, size: Size, findings: list[Finding]) -> Frame | None:
    """Tell whether boxes are of the upright picture or of the one as it is stored; None if they are of neither."""
    if marked.size is None:
        return marked.frame or "upright"
    fits: list[Frame] = []
    if _alike(marked.size, size.upright):
        fits.append("upright")
    if _alike(marked.size, (size.width, size.height)):
        fits.append("raw")
    asked = marked.frame
    if not fits or (asked is not None and asked not in fits):
        told = " x ".join(f"{value:g}" for value in marked.size)
        wide, tall = (size.width, size.height) if asked == "raw" else size.upright
        what = f"The boxes are of a picture of {told}, and this one has {wide} x {tall}."
        findings.append(Finding("error", "box-size", marked.where, what, "Is it the right file, and the right frame?"))
        return None
    stated = marked.size
    if len(fits) > 1:  # almost square: both aspects fit, and only one may be it
        real: dict[Frame, tuple[int, int]] = {"upright": size.upright, "raw": (size.width, size.height)}
        fits.sort(key=lambda frame: math.dist(real[frame], stated) > 0)
    return asked or fits[0]


def _alike(stated: tuple[float, float], real: tuple[int, int]) -> bool:
    """Tell whether a picture is another one at any size."""
    if not all(math.isfinite(value) and value > 0 for value in stated):
        return False
    aspect = stated[0] * real[1] / (stated[1] * real[0])
    slack = _ASPECT + 1 / min(stated)  # the shorter side is rounded
    return abs(math.log(aspect)) <= slack


def _in_upright(edges: Edges, marked: Marked, frame: Frame, size: Size) -> Edges:
    """Bring edges to pixels of the upright original."""
    raw = (size.width, size.height)
    width, height = size.upright if frame == "upright" else raw
    if marked.shares:
        scale_x, scale_y = float(width), float(height)
    elif marked.size is not None:
        scale_x, scale_y = width / marked.size[0], height / marked.size[1]
    else:
        scale_x = scale_y = 1.0
    scaled = Edges(edges.left * scale_x, edges.top * scale_y, edges.right * scale_x, edges.bottom * scale_y)
    return scaled if frame == "upright" else turned_upright(scaled, size)


def turned_upright(edges: Edges, size: Size) -> Edges:
    """Bring edges in pixels of a picture as it is stored to where they are when it is turned upright."""
    width, height, orientation = size

    def moved(x: float, y: float) -> tuple[float, float]:
        return {
            1: (x, y), 2: (width - x, y), 3: (width - x, height - y), 4: (x, height - y),
            5: (y, x), 6: (height - y, x), 7: (height - y, width - x), 8: (y, width - x),
        }[orientation]  # fmt: skip

    return of_points([moved(edges.left, edges.top), moved(edges.right, edges.bottom)])


def _cut(
    edges: Edges, mark: Mark, upright: tuple[int, int], stored: tuple[int, int], findings: list[Finding]
) -> Box | None:
    """Cut edges to the picture and bring them to whole pixels of the stored one, at least one."""

    def wrong(kind: str, what: str) -> None:
        findings.append(Finding("error", kind, mark.where, what, "Correct the box, or remove it."))

    width, height = upright
    if not all(map(math.isfinite, edges)):
        wrong("box-not-finite", "A number of this box is not finite.")
        return None
    if edges.right <= edges.left or edges.bottom <= edges.top:
        wrong("box-empty", "This box has no area.")
        return None
    inside = Edges(max(edges.left, 0), max(edges.top, 0), min(edges.right, width), min(edges.bottom, height))
    shown = " ".join(f"{value:.6g}" for value in edges)
    if inside.right <= inside.left or inside.bottom <= inside.top:
        wrong("box-outside", f"This box, {shown} by its edges, lies outside the picture of {width} x {height}.")
        return None
    if max(abs(a - b) for a, b in zip(edges, inside, strict=True)) > _SLACK:
        what = f"This box, {shown} by its edges, reaches outside the picture of {width} x {height}, and is cut."
        findings.append(Finding("warning", "box-cut", mark.where, what))
    left, right = _whole(inside.left, inside.right, stored[0] / width, stored[0])
    top, bottom = _whole(inside.top, inside.bottom, stored[1] / height, stored[1])
    return Box(left, top, right - left, bottom - top)


def _whole(low: float, high: float, scale: float, most: int) -> tuple[int, int]:
    first, last = math.floor(low * scale + 0.5), math.floor(high * scale + 0.5)
    first = min(first, most - 1)
    return first, min(max(last, first + 1), most)


def matched(marked: Iterable[Marked], sources: Iterable[str]) -> tuple[dict[str, Marked], list[Finding]]:
    """Find the image that each name of a tool means: the one that shares the most of the end of its path.

    Args:
        marked: what the tools state.
        sources: paths of the images in the collector's folder.

    Returns:
        what is stated of each image, and an error for each name that means none or several, and for images twice.
    """
    by_name: dict[str, list[str]] = {}
    for source in sources:
        by_name.setdefault(_spelt(source).rpartition("/")[2], []).append(source)
    stems: dict[str, list[str]] = {}
    for name in by_name:
        stems.setdefault(name.rpartition(".")[0], []).extend(by_name[name])
    found: dict[str, Marked] = {}
    findings: list[Finding] = []
    for one in marked:
        candidates = _candidates(one.name, by_name, stems)
        if len(candidates) == 1 and candidates[0] not in found:
            found[candidates[0]] = one
        elif len(candidates) == 1:
            what = f"The boxes of {candidates[0]} are stated twice, also in {found[candidates[0]].where}."
            findings.append(Finding("error", "box-twice", one.where, what, "Keep one of them."))
        elif candidates:
            what = f"{one.name!r} may be any of {len(candidates)} images, such as {candidates[0]} and {candidates[1]}."
            fix = "Name it with its folders, or give the files names of their own."
            findings.append(Finding("error", "box-image-ambiguous", one.where, what, fix))
        elif one.marks:
            what = f"There are boxes of {one.name!r}, and there is no such image."
            findings.append(Finding("error", "box-image-unknown", one.where, what, "Add the image, or remove them."))
    return found, findings


def _candidates(name: str, by_name: dict[str, list[str]], stems: dict[str, list[str]]) -> list[str]:
    parts = [part for part in _spelt(name).replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts:
        return []
    tries = dict.fromkeys((parts[-1], _UPLOADED.sub("", parts[-1], count=1), _EXPORTED.sub("", parts[-1])))
    known = next((found for last in tries if (found := by_name.get(last) or stems.get(last))), None)
    if known is None and (last := list(tries)[-1]) != parts[-1]:
        known = stems.get(last.rpartition(".")[0])  # a picture of Roboflow has another ending than its original
    shared = {source: _shared(parts, _spelt(source).split("/")) for source in known or ()}
    best = max(shared.values(), default=0)
    if best == 1 and len(parts) > 1 and parts[-2].lower() in ROLES:
        return []  # a query of this name is no positive of it
    return sorted(source for source, length in shared.items() if length == best)


def _spelt(path: str) -> str:
    """Return a path with accents as most systems write them: those of a Mac are letters of their own."""
    return unicodedata.normalize("NFC", path)


def _shared(parts: list[str], source: list[str]) -> int:
    """Return how many names of two paths agree from the end; the last ones do, but for an ending."""
    length = 1
    while length < min(len(parts), len(source)) and parts[-1 - length] == source[-1 - length]:
        length += 1
    return length
