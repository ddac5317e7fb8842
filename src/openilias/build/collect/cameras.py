"""Cameras: the paper's rule that query and positives of an object are of different ones, and its Table A."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from openilias.build.collect.csv_tables import read_table
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.findings import Finding
from openilias.core.ids import object_of

CAMERAS = "cameras.csv"
HEADER = ("model", "year", "type", "queries", "positives", "images")


@dataclass(frozen=True)
class CameraLine:
    """A line of the table of cameras.

    Attributes:
        model: as EXIF or the collector names it.
        year: of its release, if it is told.
        type: such as DSLR or phone, if it is told.
        queries: images of the set that are queries.
        positives: images of the set that are positives.
    """

    model: str
    year: str
    type: str
    queries: int
    positives: int

    @property
    def images(self) -> int:
        """How many images of the set it took."""
        return self.queries + self.positives


def read_models(path: Path) -> dict[str, tuple[str, str]]:
    """Read a table ``model,year,type``: model, in one spelling -> year and type.

    Raises:
        OpenIliasError: it is no such table, or a model stands twice.
    """
    found: dict[str, tuple[str, str]] = {}
    for line in read_table(path, required=("model",), optional=("year", "type", "images")):
        key = same(line.values["model"])
        if not key or key in found:
            raise OpenIliasError("A model is empty or stands twice.", where=line.where, fix="Correct it.")
        found[key] = line.values["year"], line.values["type"]
    return found


def same(model: str) -> str:
    """Return a model in a spelling in which equal ones are equal."""
    return " ".join(model.casefold().split())


def camera_table(
    images: Iterable[tuple[str, str | None]], models: Mapping[str, tuple[str, str]]
) -> tuple[CameraLine, ...]:
    """Count the images of each camera (Table A), by falling number and then by name.

    Args:
        images: id and camera of each image.
        models: year and type of the models of which they are known.
    """
    counts: Counter[tuple[str, bool]] = Counter()
    spelt: dict[str, str] = {}
    for item, camera in sorted((item, camera) for item, camera in images if camera):
        counts[same(camera), "/query/" in item] += 1
        spelt.setdefault(same(camera), camera)
    lines = (CameraLine(spelt[key], *models.get(key, ("", "")), counts[key, True], counts[key, False]) for key in spelt)
    return tuple(sorted(lines, key=lambda line: (-line.images, line.model)))


def check_cameras(images: Iterable[tuple[str, str | None]]) -> Iterator[Finding]:
    """Yield the objects whose query and positives share a camera, and those with images of unknown ones.

    Args:
        images: id and camera of each image.
    """
    objects: dict[str, list[tuple[str, str | None]]] = {}
    for item, camera in images:
        objects.setdefault(object_of(item), []).append((item, camera))
    for name, some in sorted(objects.items()):
        queries = {same(camera): camera for item, camera in some if camera and "/query/" in item}
        positives = {same(camera) for item, camera in some if camera and "/pos/" in item}
        shared = sorted(queries[key] for key in queries.keys() & positives)
        if shared:
            what = f"Its queries and its positives are of the same camera: {first_few(shared)}."
            yield Finding("warning", "camera-same", name, what, "Take one of them with another camera.")
        unknown = sorted(item for item, camera in some if not camera)
        if unknown:
            what = f"The camera of {len(unknown)} of {len(some)} images is not known: {first_few(unknown)}."
            yield Finding("warning", "camera-unknown", name, what, "Name it in the column camera of images.csv.")
