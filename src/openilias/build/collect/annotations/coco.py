"""COCO: ``{"images": [...], "annotations": [...], "categories": [...]}``; boxes are x, y, width, height in pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openilias.build.collect.annotations.marks import Edges, Mark, Marked, of_points
from openilias.build.collect.annotations.numbers import malformed, number, numbers


def is_coco(value: Any) -> bool:
    """Tell whether a JSON value is of COCO."""
    return isinstance(value, dict) and isinstance(value.get("images"), list)


def read_coco(value: Any, path: Path) -> list[Marked]:
    """Read the boxes of a JSON file of COCO.

    Raises:
        OpenIliasError: it is malformed.
    """
    images: dict[Any, dict[str, Any]] = {}
    for place, image in enumerate(value["images"]):
        where = f"{path}, image {place}"
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            raise malformed("An image must have a file_name.", where)
        if not isinstance(image.get("id"), int | str) or image["id"] in images:
            raise malformed("An image must have an id of its own.", where)
        images[image["id"]] = image
    labels = {}
    for one in value.get("categories") or ():
        if isinstance(one, dict) and isinstance(one.get("id"), int | str):
            labels[one["id"]] = str(one.get("name", one["id"]))
    annotations = value.get("annotations")
    if not isinstance(annotations, list):
        raise malformed("There is no list of annotations.", str(path))
    marks: dict[Any, list[Mark]] = {key: [] for key in images}
    for place, one in enumerate(annotations):
        where = f"{path}, annotation {place}"
        if not isinstance(one, dict) or not isinstance(one.get("image_id"), int | str):
            raise malformed("An annotation must have an image_id.", where)
        if one["image_id"] not in images:
            raise malformed(f"There is no image of the id {one['image_id']!r}.", where)
        edges, note = _edges(one, where)
        label = one.get("category_id")
        name = labels.get(label) if isinstance(label, int | str) else None
        marks[one["image_id"]].append(Mark(edges, name, where, note))
    return [
        Marked(image["file_name"], str(path), tuple(marks[key]), _size(image, str(path)))
        for key, image in images.items()
    ]


def _edges(one: dict[str, Any], where: str) -> tuple[Edges, str | None]:
    if one.get("bbox"):
        x, y, width, height = numbers(one["bbox"], where, count=4)
        return Edges(x, y, x + width, y + height), None
    polygons = one.get("segmentation")
    if isinstance(polygons, list) and polygons and all(isinstance(part, list) for part in polygons):
        flat = [value for part in polygons for value in numbers(part, where)]
        if len(flat) >= 6 and len(flat) % 2 == 0:
            note = "It is an outline, and its bounding rectangle is taken."
            return of_points(list(zip(flat[::2], flat[1::2], strict=True))), note
    raise malformed("An annotation must have a bbox of four numbers, or an outline.", where)


def _size(image: dict[str, Any], where: str) -> tuple[float, float] | None:
    if image.get("width") is None or image.get("height") is None:
        return None
    return number(image["width"], where), number(image["height"], where)
