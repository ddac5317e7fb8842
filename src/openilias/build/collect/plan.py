"""What is to be made of a collector's folder: everything that can be decided without making a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openilias.build.collect.annotations.marks import Frame, Marked, Size, matched, placed
from openilias.build.collect.annotations.read import Format, read_annotations, read_side_files
from openilias.build.collect.making import Look, stored_size
from openilias.build.collect.names import slug
from openilias.build.collect.numbers import Numbers
from openilias.build.collect.values import Details, Role, SourceImage, SourceObject
from openilias.build.normalise import ALGORITHM_VERSION, NormaliseSettings
from openilias.core.findings import Finding
from openilias.core.fingerprints import fingerprint
from openilias.images.boxes import Box


@dataclass(frozen=True)
class ImagePlan:
    """An image to make.

    Attributes:
        item: its id.
        source: its original.
        sha256: of the original.
        made_from: fingerprint of the original and of what is done to it.
        boxes: in pixels of the stored picture.
    """

    item: str
    source: SourceImage
    sha256: str
    made_from: str
    boxes: tuple[Box, ...]

    @property
    def role(self) -> Role:
        """What it is for."""
        return self.source.role

    @property
    def details(self) -> Details:
        """What is known of it."""
        return self.source.details


@dataclass(frozen=True)
class ObjectPlan:
    """An object to make: its id, its images, and the file of its text, if it has one."""

    item: str
    images: tuple[ImagePlan, ...]
    text: Path | None


@dataclass(frozen=True)
class BoxSource:
    """Where the boxes are.

    Attributes:
        path: a file or folder of a tool; None: only what lies beside the images.
        form: of which tool.
        frame: whether it showed the pictures upright; None: its sizes tell, or else upright.
    """

    path: Path | None = None
    form: Format = "auto"
    frame: Frame | None = None


def marks_of(objects: Sequence[SourceObject], boxes: BoxSource) -> tuple[dict[str, Marked], list[Finding]]:
    """Return what is stated of the boxes of each image: by a tool, or else beside it.

    Raises:
        OpenIliasError: a file of boxes cannot be read.
    """
    sources = [image for one in objects for image in one.images]
    beside, findings = {}, list[Finding]()
    for image in sources:
        if image.boxes is not None:
            marked, wrong = read_side_files([image.boxes])
            beside[image.source] = marked[0]
            findings += wrong
    if boxes.path is None:
        return beside, findings
    stated, wrong = read_annotations(boxes.path, boxes.form, boxes.frame)
    by_tool, more = matched(stated, [image.source for image in sources])
    return beside | by_tool, [*findings, *wrong, *more]


def plan_objects(
    objects: Sequence[SourceObject],
    numbers: Numbers,
    looks: Mapping[str, Look],
    marks: Mapping[str, Marked],
    settings: NormaliseSettings,
) -> tuple[tuple[ObjectPlan, ...], list[Finding]]:
    """Plan the objects, by id, and name what is wrong with their boxes.

    Args:
        objects: those that are accepted.
        numbers: ids.
        looks: by source, what each image is.
        marks: by source, the boxes of the images that have some.
        settings: what is done to images.
    """
    findings: list[Finding] = []
    names = {slug(name): name for name in numbers.objects}
    plans = []
    for one in objects:
        images = []
        for image in one.images:
            seen = looks[image.source]
            boxes: tuple[Box, ...] = ()
            if image.source in marks and seen.size is not None:
                marked = _own(marks[image.source], one.name, names, findings)
                boxes = _boxes(marked, seen.size, settings, findings)
            if not boxes and seen.size is not None:
                what = "This image has no box: its area coverage is not known, and its whole is the object."
                findings.append(Finding("warning", "box-missing", image.source, what))
            made_from = fingerprint([ALGORITHM_VERSION, seen.sha256, settings.model_dump(mode="json")])
            images.append(ImagePlan(numbers.images[image.source], image, seen.sha256, made_from, boxes))
        images.sort(key=lambda plan: plan.item)
        plans.append(ObjectPlan(numbers.objects[one.name], tuple(images), one.text))
    return tuple(sorted(plans, key=lambda plan: plan.item)), findings


def _boxes(marked: Marked, size: Size, settings: NormaliseSettings, findings: list[Finding]) -> tuple[Box, ...]:
    boxes, wrong = placed(marked, size, stored_size(size.upright, settings))
    findings += wrong
    return tuple(boxes)


def _own(marked: Marked, name: str, names: Mapping[str, str], findings: list[Finding]) -> Marked:
    """Leave out the boxes whose label is the name of another object."""
    kept = []
    for mark in marked.marks:
        label = slug(mark.label or "")
        if label in names and names[label] != name:
            what = f"This box is of another object, {names[label]!r}, and is left out."
            findings.append(Finding("warning", "box-of-another", mark.where, what))
        else:
            kept.append(mark)
    return replace(marked, marks=tuple(kept))
