"""Where the private state of this step lies in a set, and which images it is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from openilias.build.anonymise.marks import Mark
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.findings import refuse
from openilias.data.benchmark import box_file
from openilias.data.ilias import Role, find_ilias, walk_objects
from openilias.images.boxes import Box, coverage


@dataclass(frozen=True)
class Place:
    """The folder of a set, its core, and the files of this step."""

    root: Path
    core: Path

    @property
    def folder(self) -> Path:
        """Of the private state; never published."""
        return self.root / "build" / "anonymise"

    @property
    def boxes(self) -> Path:
        """The table of boxes."""
        return self.folder / "boxes.csv"

    @property
    def review(self) -> Path:
        """The page on which a person decides."""
        return self.folder / "review.html"

    @property
    def found(self) -> Path:
        """The manifest of what was looked for, and how."""
        return self.folder / "found.json"

    @property
    def unfinished(self) -> Path:
        """Is there while images are being changed."""
        return self.folder / "unfinished.json"

    def image(self, item: str) -> Path:
        """The image of the set."""
        return self.core / item

    def original(self, item: str) -> Path:
        """What the image was before it was changed; not there if it was not."""
        return self.folder / "originals" / item

    def original_boxes(self, item: str) -> Path:
        """The object boxes before the image was cropped; not there if it was not."""
        return box_file(self.original(item))

    def record(self, item: str) -> Path:
        """What was done to the image."""
        return self.folder / "applied" / f"{item}.json"

    def source(self, item: str) -> Path:
        """The original, wherever it is by now."""
        original = self.original(item)
        return original if original.is_file() else self.image(item)

    def changed(self) -> list[str]:
        """Return the ids of the images of the set of which there is an original; one that left the set has none."""
        folder = self.folder / "originals"
        paths = folder.glob("*/*/*") if folder.is_dir() else ()
        items = (
            path.relative_to(folder).as_posix()
            for path in paths
            if not path.name.startswith(".") and not path.name.endswith("_bbox.txt")
        )
        return sorted(item for item in items if self.image(item).is_file())


def place_of(root: Path) -> Place:
    """Return the place of a set.

    Raises:
        OpenIliasError: it is no set with images of objects.
    """
    core = find_ilias(root).benchmark.core
    if not core.is_dir():
        raise OpenIliasError("This set has no images of objects.", where=core, fix="Collect them first.")
    return Place(Path(root), core)


def images_of(place: Place) -> tuple[str, ...]:
    """Return the ids of all query and positive images that are there, whether they are listed or not: all go out.

    Raises:
        OpenIliasError: there is none, or one has a name under which nobody would look at it.
    """
    found: dict[Role, list[str]] = {}
    refuse(walk_objects(place.core, found))
    strange = found.get("misnamed image", [])
    if strange:
        raise OpenIliasError(
            f"These images are not called Q*.jpg or P*.jpg, and would not be looked at: {first_few(sorted(strange))}.",
            where=place.core,
            fix="Rename them, or move them away.",
        )
    images = sorted([*found.get("image_query", ()), *found.get("positive", ())])
    if not images:
        raise OpenIliasError("This set has no images of objects.", where=place.core, fix="Collect them first.")
    return tuple(images)


def check_images(place: Place, marks: Iterable[Mark], images: Iterable[str]) -> None:
    """Refuse boxes of images that are not there.

    Raises:
        OpenIliasError: there are some.
    """
    lost = sorted({mark.image for mark in marks} - set(images))
    if lost:
        raise OpenIliasError(
            f"Boxes are of {len(lost)} images that are not in the set: {first_few(lost)}.",
            where=place.boxes,
            fix="Remove their lines, if the images left the set for good; or bring the images back.",
        )


def inside_objects(mark: Mark, objects: Iterable[Box]) -> float:
    """Return the share of a mark that lies in the boxes of the object; both in pixels of the same image."""
    x, y, width, height = mark.box
    moved = tuple(Box(box.x - x, box.y - y, box.width, box.height) for box in objects)
    return coverage(moved, width=width, height=height)
