"""Files of boxes of any of the tools: which it is, and what it states."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from openilias.build.collect.annotations.coco import is_coco, read_coco
from openilias.build.collect.annotations.cvat import read_cvat
from openilias.build.collect.annotations.label_studio import is_label_studio, read_label_studio
from openilias.build.collect.annotations.marks import Edges, Frame, Mark, Marked
from openilias.build.collect.annotations.numbers import number
from openilias.build.collect.annotations.yolo import label_files, read_yolo
from openilias.build.collect.csv_tables import read_table
from openilias.core.errors import OpenIliasError
from openilias.core.files import read_json
from openilias.core.findings import Finding
from openilias.images.boxes import find_boxes

Format = Literal["auto", "coco", "yolo", "label-studio", "cvat", "ours"]
_OURS = "_bbox.txt"
_NAMES = {"label-studio": "Label Studio", "coco": "COCO"}


def read_annotations(
    path: Path, form: Format = "auto", frame: Frame | None = None
) -> tuple[list[Marked], list[Finding]]:
    """Read the boxes of a file or folder.

    Args:
        path: a JSON file of COCO or Label Studio, XML of CVAT, CSV of ours, or a folder: of such files, of label files
            of YOLO, or of our ``<image>_bbox.txt``.
        form: of which tool; ``auto`` looks.
        frame: whether the tool showed the pictures upright; None: its sizes tell, or else upright.

    Raises:
        OpenIliasError: there is no such file, it is of no tool, or it is malformed.
    """
    if not path.exists():
        raise OpenIliasError("There is no such file of boxes.", where=path, fix="Check the path.")
    marked, findings = (_folder if path.is_dir() else _file)(path, form)
    # Ours are of the upright picture, whatever the frame of a tool.
    return [one if one.frame else replace(one, frame=frame) for one in marked], findings


def _file(path: Path, form: Format) -> tuple[list[Marked], list[Finding]]:
    ending = path.suffix.lower()
    if form == "cvat" or (form == "auto" and ending == ".xml"):
        return read_cvat(path), []
    if form == "ours" or (form == "auto" and ending == ".csv"):
        return (read_side_files([path])) if path.name.endswith(_OURS) else (_csv(path), [])
    if form == "yolo":
        raise OpenIliasError("Labels of YOLO are a folder of files.", where=path, fix="Give the folder.")
    if form == "auto" and ending != ".json":
        raise OpenIliasError(f"Boxes are not read from {ending or 'a file without ending'}.", where=path, fix=_fix())
    value = read_json(path)
    if form in ("auto", "coco") and is_coco(value):
        return read_coco(value, path), []
    if form in ("auto", "label-studio") and is_label_studio(value):
        return read_label_studio(value, path), []
    expected = "COCO or Label Studio" if form == "auto" else _NAMES[form]
    raise OpenIliasError(f"This JSON is not of {expected}.", where=path, fix=_fix())


def _fix() -> str:
    return "Give JSON of COCO or Label Studio, XML of CVAT, CSV file,x,y,width,height, or a folder of these or of YOLO."


def _folder(path: Path, form: Format) -> tuple[list[Marked], list[Finding]]:
    ours = sorted(path.rglob(f"*{_OURS}")) if form in ("auto", "ours") else []
    endings = {"auto": (".json", ".xml"), "coco": (".json",), "label-studio": (".json",), "cvat": (".xml",)}
    files = sorted(one for one in path.rglob("*") if one.suffix.lower() in endings.get(form, ()) and one.is_file())
    labels = label_files(path) if form in ("auto", "yolo") else []
    if labels and (path / "classes.txt").is_file():
        files = [one for one in files if one.name != "notes.json"]  # Label Studio puts it beside its labels of YOLO
    kinds = [name for name, found in (("ours", ours), ("files of tools", files), ("YOLO", labels)) if found]
    if len(kinds) > 1:
        what = f"This folder holds boxes of several kinds: {', '.join(kinds)}."
        raise OpenIliasError(what, where=path, fix="Say which with --boxes-format.")
    if ours:
        return read_side_files(ours, path)
    if labels:
        return read_yolo(path), []
    if not files:
        raise OpenIliasError("There are no boxes in this folder.", where=path, fix=_fix())
    read = [_file(one, form) for one in files]
    return [one for marked, _ in read for one in marked], [one for _, findings in read for one in findings]


def read_side_files(paths: Iterable[Path], root: Path | None = None) -> tuple[list[Marked], list[Finding]]:
    """Read ``<image>_bbox.txt`` files: lines ``x y width height`` in pixels of the upright image."""
    marked: list[Marked] = []
    findings: list[Finding] = []
    for path in paths:
        boxes, wrong = find_boxes(path)
        findings += wrong
        inside = path.relative_to(root) if root is not None else Path(path.name)
        marks = tuple(Mark(Edges(b.x, b.y, b.x + b.width, b.y + b.height), None, str(path)) for b in boxes)
        name = inside.with_name(inside.name.removesuffix(_OURS)).as_posix()
        marked.append(Marked(name, str(path), marks, frame="upright"))
    return marked, findings


def _csv(path: Path) -> list[Marked]:
    marks: dict[str, list[Mark]] = {}
    for line in read_table(path, required=("file", "x", "y", "width", "height"), optional=("label",)):
        x, y, width, height = (number(line.values[key], line.where) for key in ("x", "y", "width", "height"))
        mark = Mark(Edges(x, y, x + width, y + height), line.values["label"] or None, line.where)
        marks.setdefault(line.values["file"], []).append(mark)
    return [Marked(name, str(path), tuple(some), frame="upright") for name, some in marks.items()]
