"""What an explanation is, and what several explainers need: counting ids and norms block by block."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_json
from openilias.core.ids import SHAPES

HEAD = 4096
"""So many bytes of a file are looked at to recognise it."""

MOST_UNIQUE = 2_000_000
"""Ids that are not sorted are compared with each other up to this number: beyond it memory would not be bounded."""

UNIT = 2e-3
"""Norms this near to 1 are unit norms; float16 rounds by less."""


@dataclass(frozen=True)
class Explanation:
    """What a file is.

    Attributes:
        kind: of file, in a few words.
        summary: one line.
        facts: name -> JSON value, in the order of their weight.
        warnings: what somebody who uses the file should know.
    """

    kind: str
    summary: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """A first look at a path: enough to recognise what it is.

    Attributes:
        path: where it is.
        folder: whether it is a folder.
        names: of the entries of a folder.
        head: the first :data:`HEAD` bytes of a file.
        size: of a file, in bytes.
    """

    path: Path
    folder: bool = False
    names: frozenset[str] = frozenset()
    head: bytes = b""
    size: int = 0

    @property
    def ending(self) -> str:
        """The ending of the name, in small letters."""
        return self.path.suffix.lower()

    def refuse(self, what: str, *, fix: str = "Download it again, or make it again.") -> OpenIliasError:
        """Return the error that says what is wrong with the file."""
        return OpenIliasError(what, where=self.path, fix=fix)


def look_at(path: Path) -> Look:
    """Take a first look.

    Raises:
        OpenIliasError: nothing is there, or neither a file nor a folder.
    """
    if not path.exists():
        raise OpenIliasError("There is no such file or folder.", where=path, fix="Check the path.")
    if path.is_dir():
        return Look(path, folder=True, names=frozenset(entry.name for entry in path.iterdir()))
    if not path.is_file():
        raise OpenIliasError("This is neither a file nor a folder.", where=path, fix="Give a file.")
    with path.open("rb") as handle:
        return Look(path, head=handle.read(HEAD), size=path.stat().st_size)


def same_as(names: Mapping[str, Any], source: Any) -> dict[str, Any]:
    """Pick the values of ``source`` that exist: shown name -> key."""
    if not isinstance(source, dict):
        return {}
    return {shown: source[key] for shown, key in names.items() if source.get(key) is not None}


def model_facts(made_from: Any) -> dict[str, Any]:
    """Return what a manifest says of model and protocol."""
    origin = made_from.get("origin", made_from) if isinstance(made_from, dict) else {}
    facts = same_as({"model": "name", "architecture": "architecture"}, origin.get("model"))
    facts |= same_as({"weights_digest": "weights", "protocol": "protocol", "benchmark": "benchmark"}, origin)
    if "adapt" in origin or "adaptation" in origin:
        facts["adapted"] = origin.get("adapt") or origin.get("adaptation")
    return facts


def json_object(look: Look) -> dict[str, Any]:
    """Read a JSON file that must hold an object."""
    value = read_json(look.path)
    if not isinstance(value, dict):
        raise look.refuse("This JSON file holds no object.")
    return value


KEYS = "keys without a shard"
_SHAPES = {name: re.compile(shape) for name, shape in {**SHAPES, KEYS: r"[\w-]+"}.items()}


def shape_of(item: str) -> str:
    """Return the partition whose ids look like this one, or ``other``."""
    return next((name for name, shape in _SHAPES.items() if shape.fullmatch(item)), "other")


class IdCount:
    """Counts a stream of ids: how they look, their order, duplicates as far as memory allows."""

    def __init__(self) -> None:
        self.count, self.shapes, self.shards = 0, Counter[str](), Counter[str]()
        self.first = self.last = ""
        self.sorted, self.repeats = True, 0
        self._seen: set[str] | None = set()

    def add(self, ids: Iterable[str]) -> None:
        """Count more ids."""
        for item in ids:
            shape = shape_of(item)
            self.shapes[shape] += 1
            if shape == "distractors":
                self.shards[item.split("/", 1)[0]] += 1
            if not self.count:
                self.first = item
            elif item < self.last:
                self.sorted = False
            elif item == self.last and self._seen is None:
                self.repeats += 1
            if self._seen is not None:
                self.repeats += item in self._seen
                self._seen.add(item)
                if len(self._seen) > MOST_UNIQUE:
                    self._seen = None
            self.last = item
            self.count += 1

    @property
    def partition(self) -> str:
        """What most of the ids look like; ``unknown`` if that is none of the partitions."""
        shape = max(self.shapes, key=lambda name: self.shapes[name], default="other")
        return "unknown" if shape == "other" else shape

    def facts(self) -> dict[str, Any]:
        """Return the counts as facts."""
        certain = self._seen is not None or self.sorted
        facts: dict[str, Any] = {
            "ids": self.count,
            "partition": self.partition,
            "evidence": ", ".join(f"{n:,} ids look like {shape}" for shape, n in self.shapes.most_common()) or "no ids",
            "sorted": self.sorted,
            "duplicates": self.repeats if certain else f"not known, {self.count:,} ids are too many to compare",
            "first": self.first,
            "last": self.last,
        }
        if self.shards:
            facts["shards"] = len(self.shards)
            facts["ids_of_a_shard"] = f"{min(self.shards.values()):,} to {max(self.shards.values()):,}"
        return facts

    def warnings(self) -> list[str]:
        """Return what is strange about the ids."""
        found = []
        if self.repeats:
            found.append(f"{self.repeats:,} ids stand there more than once.")
        if len(self.shapes) > 1:
            found.append("The ids are of more than one kind.")
        if self.shapes["other"]:
            found.append(f"{self.shapes['other']:,} ids look like none of the benchmark.")
        if not self.sorted and self.partition in ("image_queries", "text_queries", "positives"):
            found.append("The ids are not sorted; official files of this partition are.")
        return found


class NormCount:
    """Counts a stream of vectors: norms, zeros, values that are not finite."""

    def __init__(self) -> None:
        self.rows, self.not_finite, self.zero = 0, 0, 0
        self.least, self.most, self.total = np.inf, 0.0, 0.0

    def add(self, block: npt.NDArray[Any]) -> None:
        """Count vectors (n, D)."""
        self.add_squares(squares_of(block))

    def add_squares(self, squares: npt.NDArray[np.float64]) -> None:
        """Count vectors by their squared norms (n,); a norm that is not finite is that of a bad vector."""
        norms = np.sqrt(squares)
        good = norms[np.isfinite(norms)]
        self.rows += len(norms)
        self.not_finite += len(norms) - len(good)
        self.zero += int((good == 0).sum())
        if len(good):
            self.least, self.most = min(self.least, float(good.min())), max(self.most, float(good.max()))
            self.total += float(good.sum())

    @property
    def normalised(self) -> bool:
        """Whether all vectors are of unit norm."""
        return self.rows > self.not_finite and abs(self.least - 1) < UNIT and abs(self.most - 1) < UNIT

    def facts(self) -> dict[str, Any]:
        """Return the counts as facts."""
        facts: dict[str, Any] = {"normalised": self.normalised, "vectors_with_nan_or_infinity": self.not_finite}
        if good := self.rows - self.not_finite:
            facts["norms"] = {"least": self.least, "mean": self.total / good, "most": self.most}
        return facts

    def warnings(self) -> list[str]:
        """Return what is strange about the vectors."""
        found = []
        if self.not_finite:
            found.append(f"{self.not_finite:,} vectors have a NaN or an infinity.")
        if self.zero:
            found.append(f"{self.zero:,} vectors are zero.")
        if self.rows > self.not_finite and not self.normalised:
            found.append("The vectors are not of unit norm: inner products of them are no cosines.")
        return found


def squares_of(block: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the squared norms (n,) of vectors (n, D); not finite where a value is not."""
    wide = block.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        squares: npt.NDArray[np.float64] = (wide * wide).sum(axis=1)
    return squares


def numbers(values: npt.ArrayLike) -> dict[str, float] | None:
    """Return least, median and most of some numbers; None of none."""
    array = np.asarray(values, np.float64)
    if not array.size:
        return None
    return {"least": float(array.min()), "median": float(np.median(array)), "most": float(array.max())}


def some(items: Iterable[str], most: int = 3) -> str:
    """Name the first few of some things."""
    return first_few(list(items), most=most)
