"""YOLO: a text file per image, a line ``class x y width height`` per box: centre and size as shares of the picture."""

from __future__ import annotations

from pathlib import Path

from openilias.build.collect.annotations.marks import Edges, Mark, Marked, of_points
from openilias.build.collect.annotations.numbers import malformed, number
from openilias.core.files import read_bytes

_NO_LABELS = (
    "classes.txt", "labels.txt", "obj.names", "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt",
    "readme.dataset.txt", "readme.roboflow.txt",
)  # fmt: skip
_MOST_BYTES = 10 * 2**20
_MOST_CLASSES = 100_000


def label_files(folder: Path) -> list[Path]:
    """Return the files of a folder that may be labels of YOLO."""
    files = sorted(folder.rglob("*.txt"))
    side = ("_bbox.txt", "_url.txt")
    names = ((path, path.name.lower()) for path in files)
    return [path for path, name in names if name not in _NO_LABELS and not name.endswith(side)]


def read_yolo(folder: Path) -> list[Marked]:
    """Read the boxes of a folder of label files, ``labels/`` at the beginning of their paths left out.

    Lines of seven numbers and more are outlines or turned boxes, whose bounding rectangle is taken; a sixth number
    of a box is a confidence and is passed over.

    Raises:
        OpenIliasError: a file is malformed.
    """
    names = _class_names(folder)
    found = []
    for path in label_files(folder):
        parts = path.relative_to(folder).with_suffix("").parts
        name = "/".join(parts[1:] if len(parts) > 1 and parts[0] == "labels" else parts)
        found.append(Marked(name, str(path), tuple(_marks(path, names)), shares=True))
    return found


def _class_names(folder: Path) -> list[str]:
    for name in ("classes.txt", "obj.names"):
        if (folder / name).is_file():
            return [line.strip() for line in _text(folder / name).splitlines()]
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (folder / name).is_file():
            return _yaml_names(folder / name)
    return []


def _yaml_names(path: Path) -> list[str]:
    """Return the ``names`` of a description of a data set: a list, or numbers and names."""
    import yaml

    try:
        value = yaml.safe_load(_text(path))
    except yaml.YAMLError:
        raise malformed("This YAML cannot be read.", str(path)) from None
    names = value.get("names") if isinstance(value, dict) else None
    if isinstance(names, dict) and all(isinstance(key, int) and 0 <= key < _MOST_CLASSES for key in names):
        names = [names.get(number, "") for number in range(max(names, default=-1) + 1)]
    if names is None:
        return []
    if not isinstance(names, list):
        raise malformed("The names of classes must be a list, or numbers and names.", str(path))
    return [str(name) for name in names]


def _text(path: Path) -> str:
    try:
        return read_bytes(path, most=_MOST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise malformed(f"This file cannot be read: {error}.", str(path)) from None


def _marks(path: Path, names: list[str]) -> list[Mark]:
    marks = []
    for place, line in enumerate(_text(path).split("\n"), start=1):
        words = line.split()
        if not words:
            continue
        where = f"{path}, line {place}"
        if not words[0].isdecimal() or len(words) < 5:
            raise malformed(f"Expected 'class x y width height', found {line[:60]!r}.", where)
        values = [number(word, where) for word in words[1:]]
        label = names[int(words[0])] if len(words[0]) < 9 and int(words[0]) < len(names) else None
        if len(values) <= 5:
            x, y, width, height = values[:4]
            marks.append(Mark(Edges(x - width / 2, y - height / 2, x + width / 2, y + height / 2), label, where))
        elif len(values) % 2 == 0:
            edges = of_points(list(zip(values[::2], values[1::2], strict=True)))
            marks.append(Mark(edges, label, where, "It is an outline, and its bounding rectangle is taken."))
        else:
            raise malformed(f"Expected 4 numbers or pairs of them behind the class, found {len(values)}.", where)
    return marks
