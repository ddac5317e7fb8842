"""Label Studio: its JSON and JSON-MIN exports; boxes are shares of the picture in percent, and may be turned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from openilias.build.collect.annotations.marks import Edges, Mark, Marked, of_points, turned
from openilias.build.collect.annotations.numbers import malformed, number, numbers

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio puts this before the names of uploaded files
_IMAGES = re.compile(r"\.(jpe?g|png|webp|gif|bmp)$", re.IGNORECASE)
_LABELS = ("rectanglelabels", "polygonlabels", "labels")
_OTHERS = ("ellipselabels", "brushlabels", "keypointlabels")


def is_label_studio(value: Any) -> bool:
    """Tell whether a JSON value is an export of Label Studio."""
    return isinstance(value, list) and bool(value) and all(isinstance(task, dict) for task in value)


def read_label_studio(value: Any, path: Path) -> list[Marked]:
    """Read the boxes of an export.

    Of a task that several people annotated the last annotation counts, which becomes a note. Polygons become their
    bounding rectangles; other shapes are passed over, which is told.

    Raises:
        OpenIliasError: it is malformed, or an image was turned in the tool.
    """
    return [_task(task, f"{path}, task {place}") for place, task in enumerate(value)]


def _task(task: dict[str, Any], where: str) -> Marked:
    full = isinstance(task.get("annotations"), list)
    data = task.get("data") if full else task
    name = _name(data, where)
    note = None
    if full:
        done = [one for one in task["annotations"] if isinstance(one, dict) and not one.get("was_cancelled")]
        regions = done[-1].get("result") if done else []
        if len(done) > 1:
            note = f"{len(done)} annotations are of this image, and the last one counts."
    else:
        lists = [item for item in task.values() if isinstance(item, list)]
        regions = [
            region
            for one in lists
            for region in one
            if isinstance(region, dict) and {"x", "points", "rle"} & region.keys()
        ]
    if not isinstance(regions, list):
        raise malformed("An annotation must have a list as its result.", where)
    marks, size, left_out = [], None, []
    for region in regions:
        if not isinstance(region, dict):
            raise malformed("A region must be an object.", where)
        value = region.get("value") if full else region
        if not isinstance(value, dict) or not _is_shape(value):
            left_out += [key for key in _OTHERS if isinstance(value, dict) and key in value]
            continue  # a choice, a text, a brush
        if number(region.get("image_rotation") or 0, where) != 0:
            raise malformed("The image was turned in the tool.", where)
        size = _size(region, where) or size
        marks.append(_mark(value, size, where, note))
    return Marked(name, where, tuple(marks), size, shares=True, left_out=tuple(left_out))


def _is_shape(value: dict[str, Any]) -> bool:
    return ("width" in value and "x" in value) or (isinstance(value.get("points"), list) and "polygonlabels" in value)


def _name(data: Any, where: str) -> str:
    texts = [item for item in data.values() if isinstance(item, str)] if isinstance(data, dict) else []
    for text in texts:
        try:
            parts = urlsplit(text)
        except ValueError:
            continue
        inner = parse_qs(parts.query).get("d")
        name = unquote(inner[0] if inner else parts.path)
        if _IMAGES.search(name):
            folder, slash, last = name.rpartition("/")
            return f"{folder}{slash}{_UPLOADED.sub('', last)}" if "/upload/" in name or not slash else name
    raise malformed("This task names no image file.", where)


def _size(region: dict[str, Any], where: str) -> tuple[float, float] | None:
    if region.get("original_width") is None or region.get("original_height") is None:
        return None
    return number(region["original_width"], where), number(region["original_height"], where)


def _mark(value: dict[str, Any], size: tuple[float, float] | None, where: str, note: str | None) -> Mark:
    labels = next((value[key] for key in _LABELS if isinstance(value.get(key), list) and value[key]), [None])
    if "points" in value:
        points = [numbers(point, where, count=2) for point in value["points"]]
        if len(points) < 3:
            raise malformed("A polygon must have three points and more.", where)
        note = "It is an outline, and its bounding rectangle is taken."
        around = of_points([(x / 100, y / 100) for x, y in points])
        return Mark(around, None if labels[0] is None else str(labels[0]), where, note)
    x, y, width, height = (number(value.get(key), where) / 100 for key in ("x", "y", "width", "height"))
    edges = Edges(x, y, x + width, y + height)
    degrees = number(value.get("rotation") or 0, where)
    if degrees:
        if size is None:
            raise malformed("A box is turned, and the size of its picture is not stated.", where)
        # It is turned about its upper left corner, in pixels and not in percent.
        wide, tall = size
        pixels = Edges(edges.left * wide, edges.top * tall, edges.right * wide, edges.bottom * tall)
        around = turned(pixels, degrees, (pixels.left, pixels.top))
        edges = Edges(around.left / wide, around.top / tall, around.right / wide, around.bottom / tall)
        note = "It is turned, and its bounding rectangle is taken."
    return Mark(edges, None if labels[0] is None else str(labels[0]), where, note)
