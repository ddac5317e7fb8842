"""CVAT for images 1.1: XML with a box as its edges in pixels. A document with a DTD is refused, so nothing can grow."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from openilias.build.collect.annotations.marks import Edges, Mark, Marked, of_points, turned
from openilias.build.collect.annotations.numbers import malformed, number
from openilias.core.errors import OpenIliasError
from openilias.core.files import read_bytes

_MOST_BYTES = 256 * 2**20
_OTHERS = ("mask", "ellipse", "polyline", "points", "cuboid", "skeleton")


@dataclass
class _Reader:
    path: Path
    found: list[Marked] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    depth: int = 0

    def start(self, tag: str, values: dict[str, str]) -> None:
        where = f"{self.path}, image {values.get('name') or len(self.found)}"
        self.depth += 1
        if self.depth == 1 and tag != "annotations":
            raise malformed("This XML is not of CVAT: it does not begin with annotations.", str(self.path))
        if tag == "track":
            raise OpenIliasError(
                "These are tracks of a video, and not boxes of images.",
                where=self.path,
                fix="Export the task as 'CVAT for images 1.1'.",
            )
        if tag == "image":
            if not values.get("name"):
                raise malformed("An image has no name.", where)
            self.marks, self.left_out = [], []
            size = number(values.get("width", "nan"), where), number(values.get("height", "nan"), where)
            self.found.append(Marked(values["name"], where, (), size))
        elif tag in ("box", "polygon"):
            if not self.found:
                raise malformed("A box belongs to no image.", str(self.path))
            at = self.found[-1].where
            self.marks.append(_box(values, at) if tag == "box" else _polygon(values, at))
        elif tag in _OTHERS and self.found:
            self.left_out.append(tag)

    def end(self, tag: str) -> None:
        self.depth -= 1
        if tag == "image":
            last = self.found[-1]
            self.found[-1] = Marked(last.name, last.where, tuple(self.marks), last.size, left_out=tuple(self.left_out))

    def doctype(self, *_: object) -> None:
        raise OpenIliasError(
            "This XML has a document type, which CVAT never writes; it could make itself endlessly large.",
            where=self.path,
            fix="Remove it.",
        )


def read_cvat(path: Path) -> list[Marked]:
    """Read the boxes of an XML file of CVAT; polygons become their bounding rectangles, other shapes are passed over,
    which is told.

    Raises:
        OpenIliasError: it is malformed, of a video, or has a document type.
    """
    reader = _Reader(path)
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    try:
        parser.Parse(read_bytes(path, most=_MOST_BYTES), True)
    except (expat.ExpatError, OSError, ValueError) as error:
        raise malformed(f"This XML cannot be read: {error}.", str(path)) from None
    return reader.found


def _box(values: dict[str, str], where: str) -> Mark:
    left, top, right, bottom = (number(values.get(key, ""), where) for key in ("xtl", "ytl", "xbr", "ybr"))
    edges = Edges(left, top, right, bottom)
    degrees = number(values.get("rotation", "0"), where)
    if degrees == 0:
        return Mark(edges, values.get("label"), where)
    around = turned(edges, degrees, ((left + right) / 2, (top + bottom) / 2))
    return Mark(around, values.get("label"), where, "It is turned, and its bounding rectangle is taken.")


def _polygon(values: dict[str, str], where: str) -> Mark:
    pairs = [pair.split(",") for pair in values.get("points", "").split(";") if pair.strip()]
    if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
        raise malformed("A polygon must have three points and more, 'x,y;x,y;...'.", where)
    points = [(number(x, where), number(y, where)) for x, y in pairs]
    note = "It is an outline, and its bounding rectangle is taken."
    return Mark(of_points(points), values.get("label"), where, note)
