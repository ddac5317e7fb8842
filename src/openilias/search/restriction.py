"""Searching only some of the images: lists of ids, with or without the name of their tar."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_bytes
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import FOLDER_PREFIX, SHAPES, Partition

Keys = npt.NDArray[np.bytes_]
Mask = npt.NDArray[np.bool_]
_FOLDER = FOLDER_PREFIX.encode()


class IdList:
    """Ids of database images, and which of them were met so far.

    Args:
        path: the file they come from.
        positives: ids of positives.
        distractors: ids of distractors.
        bare: keys of distractors without the name of the tar, as in the official lists of mini-ILIAS.
    """

    def __init__(self, path: Path, *, positives: list[bytes], distractors: list[bytes], bare: list[bytes]) -> None:
        self.path = path
        parts = {"positives": positives, "distractors": distractors, "bare": bare}
        self._known: dict[str, Keys] = {name: np.unique(np.array(ids, np.bytes_)) for name, ids in parts.items()}
        self._met: dict[str, Mask] = {name: np.zeros(len(ids), np.bool_) for name, ids in self._known.items()}

    @property
    def digest(self) -> str:
        """Of the ids, whatever their order in the file."""
        return fingerprint_lines(item.decode() for ids in self._known.values() for item in ids.tolist())

    def names_any_of(self, partition: Partition) -> bool:
        """Whether an id of a partition is among them."""
        kinds = ("positives",) if partition == "positives" else ("distractors", "bare")
        return any(len(self._known[kind]) for kind in kinds)

    def members(self, names: Keys, partition: Partition) -> Mask:
        """Return which of these (N,) ids of a partition are among them."""
        if partition == "positives":
            return self._among(names, "positives")
        found = self._among(names, "distractors")
        if len(self._known["bare"]):
            keys = np.array([name.split(b"/", 1)[-1] for name in names.tolist()], np.bytes_)
            found |= self._among(keys, "bare")
            # Mini lists name a file of a folder without its ending too.
            stems = [name.rpartition(b".")[0] if name.startswith(_FOLDER) else b"" for name in names.tolist()]
            found |= self._among(np.array([stem.removeprefix(_FOLDER) for stem in stems], np.bytes_), "bare")
        return found

    def counts(self) -> dict[str, int]:
        """Return how many ids are listed, and how many were met."""
        listed, met = (sum(map(len, self._known.values())), sum(int(mask.sum()) for mask in self._met.values()))
        return {"listed": listed, "met": met}

    def missing(self) -> list[str]:
        """Return the ids that were not met."""
        return [item.decode() for kind, ids in self._known.items() for item in ids[~self._met[kind]].tolist()]

    def _among(self, names: Keys, kind: str) -> Mask:
        known = self._known[kind]
        if not len(known) or not len(names):
            return np.zeros(len(names), np.bool_)
        places = np.minimum(np.searchsorted(known, names), len(known) - 1)
        found: Mask = known[places] == names
        self._met[kind][places[found]] = True
        return found


def read_ids(path: Path) -> IdList:
    """Read a text file with one id per line; what stands after a comma is not looked at.

    Raises:
        OpenIliasError: the file cannot be read, is empty, or a line is neither an id of the database nor a key.
    """
    try:
        lines = read_bytes(path).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OpenIliasError(f"This list of ids cannot be read: {error}.", where=path) from None
    parts: dict[str, list[bytes]] = {"positives": [], "distractors": [], "bare": []}
    shapes = {name: re.compile(SHAPES[name]) for name in ("positives", "distractors")}
    for number, line in enumerate(lines, 1):
        item = line.split(",", 1)[0].strip()
        if not item:
            continue
        kind = next((name for name, shape in shapes.items() if shape.fullmatch(item)), "bare")
        if kind == "bare" and "/" in item:
            raise OpenIliasError(
                f"{item!r} is no id of a database image.",
                where=f"{path}, line {number}",
                fix="Give ids as in positive_ids.txt or distractor_ids.txt, or keys as in the mini list.",
            )
        parts[kind].append(item.encode())
    if not any(parts.values()):
        raise OpenIliasError("This list of ids is empty.", where=path)
    return IdList(path, **parts)


@dataclass(frozen=True)
class Restriction:
    """Which images of the database are searched.

    Attributes:
        only: what is searched; a partition of which it names no image is searched whole.
        without: what is not searched.
        partial: lists may name images that the database does not hold.
    """

    only: IdList | None = None
    without: IdList | None = None
    partial: bool = False

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.only is None and self.without is None

    def made_from(self) -> dict[str, str]:
        """Return what a result depends on."""
        lists = {"only": self.only, "without": self.without}
        return {name: found.digest for name, found in lists.items() if found is not None}

    def counts(self) -> dict[str, dict[str, int | bool]]:
        """Return of each list how many ids were met: :func:`openilias.search.merge.merge_to` adds them up."""
        lists = {"ids": self.only, "exclude": self.without}
        return {name: {**ids.counts(), "partial": self.partial} for name, ids in lists.items() if ids is not None}

    def masks(
        self, ids: Sequence[Callable[[], Any]], partitions: Sequence[Partition], *, whole: bool
    ) -> list[npt.NDArray[np.uint8]]:
        """Return which images of each shard are searched, as packed bits.

        Args:
            ids: of each shard, called in turn: a pyarrow array of strings.
            partitions: of each shard.
            whole: these are all shards of the database, so that what they do not hold is not there.

        Raises:
            OpenIliasError: listed ids are not there.
        """
        masks = []
        for read, partition in zip(ids, partitions, strict=True):
            names = np.array([item.encode() for item in read().to_pylist()], np.bytes_)
            kept = np.ones(len(names), np.bool_)
            if self.only is not None and self.only.names_any_of(partition):
                kept = self.only.members(names, partition)
            if self.without is not None:
                kept &= ~self.without.members(names, partition)
            masks.append(np.packbits(kept))
        for listed in (self.only, self.without):
            missing = listed.missing() if listed is not None and whole and not self.partial else []
            if listed is not None and missing:
                raise OpenIliasError(
                    f"{len(missing)} listed ids are not in the database: {first_few(missing)}.",
                    where=listed.path,
                    fix="Search the stores that hold them too, or go on without them with --partial-database.",
                )
        return masks
