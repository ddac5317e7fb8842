"""Which id each object and image has: given once, never changed, never given again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from openilias.build.collect.csv_tables import read_table, table_bytes
from openilias.build.collect.names import natural, slug
from openilias.build.collect.values import SourceObject
from openilias.core.errors import OpenIliasError

IDS = "ids.csv"
_HEADER = ("source", "id")
_OBJECT = re.compile(r"[a-z0-9_]+_(\d{3,})")
_IMAGE = re.compile(r"[a-z0-9_]+_(\d{3,})/(query/Q|pos/P)(\d{3,})_(\d{2,})\.jpg")


@dataclass(frozen=True)
class Numbers:
    """Ids that are given.

    Attributes:
        objects: the collector's name of an object -> ``<name>_<xxx>``.
        images: the path of an image in the collector's folder -> its id.
    """

    objects: dict[str, str]
    images: dict[str, str]

    def as_csv(self) -> bytes:
        """Return the table: objects end with a slash, as they are folders; in the order in which ids were given."""
        rows = [(f"{name}/", item) for name, item in self.objects.items()]
        return table_bytes(_HEADER, [*rows, *self.images.items()])


def read_numbers(path: Path) -> Numbers:
    """Read the ids that are given; none if there is no such file.

    Raises:
        OpenIliasError: it is no such table, or contradicts itself.
    """
    found = Numbers({}, {})
    if not path.exists():
        return found
    used: set[str] = set()
    for line in read_table(path, required=_HEADER, exact=True):
        source, item = line.values["source"], line.values["id"].strip()
        target = found.objects if source.endswith("/") else found.images
        name = source.removesuffix("/")
        pattern = _OBJECT if source.endswith("/") else _IMAGE
        if not pattern.fullmatch(item) or not name:
            raise OpenIliasError(f"This is no id: {item!r}.", where=line.where, fix="Undo the change of this file.")
        if name in target or item in used:
            raise OpenIliasError("A source or an id stands twice.", where=line.where, fix="Undo the change.")
        used.add(item)
        target[name] = item
    numbers = [_number(item) for item in found.objects.values()]
    if len(set(numbers)) < len(numbers):
        raise OpenIliasError("Two objects have one number.", where=path, fix="Undo the change of this file.")
    return found


def _number(item: str) -> int:
    return int(item.rpartition("_")[2])


def assign(objects: Iterable[SourceObject], given: Numbers) -> Numbers:
    """Give ids to what has none: objects by name, images by file name, the next numbers after the last ones given.

    A set that is in the core layout already keeps its names and numbers, also of what is added to it later, as long
    as none of them was given to anything else.

    Raises:
        OpenIliasError: a file that has an id is for another object or role now.
    """
    ordered = sorted(objects, key=lambda one: (slug(one.name), one.name))
    if (kept := _kept(ordered)) is not None and (added := _together(given, kept)) is not None:
        return added
    made = Numbers(dict(given.objects), dict(given.images))
    following = max(map(_number, made.objects.values()), default=-1) + 1
    for one in ordered:
        if one.name not in made.objects:
            made.objects[one.name] = f"{slug(one.name)}_{following:03d}"
            following += 1
    last: dict[str, int] = {}
    for item in made.images.values():
        stem, _, number = item.removesuffix(".jpg").rpartition("_")
        last[stem] = max(last.get(stem, -1), int(number))
    for one in ordered:
        item = made.objects[one.name]
        for image in sorted(one.images, key=lambda image: (natural(image.source.casefold()), image.source)):
            stem = f"{item}/query/Q" if image.role == "query" else f"{item}/pos/P"
            stem += item.rpartition("_")[2]
            if image.source in made.images:
                if made.images[image.source].rpartition("_")[0] != stem:
                    what = f"This file has the id {made.images[image.source]}, and is for something else now."
                    raise OpenIliasError(what, where=image.path, fix="Rename the file: it gets another id then.")
                continue
            last[stem] = last.get(stem, -1) + 1
            made.images[image.source] = f"{stem}_{last[stem]:02d}.jpg"
    return made


def _together(given: Numbers, kept: Numbers) -> Numbers | None:
    """Return ids that were given and those that a set has, in one; None if they contradict each other."""
    both = Numbers(given.objects | kept.objects, given.images | kept.images)
    numbers = {_number(item) for item in both.objects.values()}
    if any(name != item for name, item in both.objects.items()) or len(numbers) < len(both.objects):
        return None
    if any(both.images[source] != item for source, item in given.images.items()):
        return None
    return both if len(set(both.images.values())) == len(both.images) else None


def _kept(ordered: list[SourceObject]) -> Numbers | None:
    """Return the ids that a set in the core layout has; None if it is not one, all through."""
    kept, used = Numbers({}, {}), set[str]()
    for one in ordered:
        match = _OBJECT.fullmatch(one.name)
        if match is None or slug(one.name) != one.name:
            return None
        kept.objects[one.name] = one.name
        for image in one.images:
            item = f"{one.name}/{image.role}/{image.path.stem}.jpg"
            found = _IMAGE.fullmatch(item)
            if found is None or found[1] != match[1] or found[3] != match[1] or item in used:
                return None
            used.add(item)
            kept.images[image.source] = item
    if len({_number(item) for item in kept.objects.values()}) < len(kept.objects):
        return None
    return kept if kept.objects else None
