"""Images to learn from: ids with labels and domains, in ``labels.parquet`` or in the text lists of UnED."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import atomic_path

LABELS = "labels.parquet"
TRAIN = "train"
"""The folder of a benchmark that holds its training split, if it has one."""
_COLUMNS = ("id", "label", "domain")


@dataclass(frozen=True)
class TrainingSet:
    """Images to learn from, in a fixed order. A class is a (label, domain) pair: labels recur in other domains.

    Attributes:
        root: the folder that the ids are paths in.
        ids: of the images, ``/`` between folders.
        labels: of each image.
        domains: of each image.

    Raises:
        OpenIliasError: columns of different lengths, an empty or doubled id, an id that leads out of ``root``.
    """

    root: Path
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    domains: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.labels) == len(self.domains):
            raise OpenIliasError(
                f"There are {len(self.ids)} ids, {len(self.labels)} labels and {len(self.domains)} domains.",
                where=self.root,
                fix="Give each image one label and one domain.",
            )
        outside = [item for item in self.ids if not _is_inside(item)]
        if outside:
            raise OpenIliasError(
                f"Ids must be paths inside the folder, not: {first_few([repr(item) for item in outside])}.",
                where=self.root,
                fix="Write them relative to the folder, with / and without '..'.",
            )
        if len(set(self.ids)) < len(self.ids):
            counts = Counter(self.ids)
            twice = sorted(item for item in counts if counts[item] > 1)
            raise OpenIliasError(f"Ids stand twice: {first_few(twice)}.", where=self.root, fix="Remove the copies.")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    @cached_property
    def classes(self) -> tuple[tuple[str, str], ...]:
        """The (label, domain) pairs, in the order in which they first appear."""
        return tuple(dict.fromkeys(zip(self.labels, self.domains, strict=True)))

    @cached_property
    def class_numbers(self) -> tuple[int, ...]:
        """The number of each image's class: its place in :attr:`classes`."""
        number = {pair: place for place, pair in enumerate(self.classes)}
        return tuple(number[pair] for pair in zip(self.labels, self.domains, strict=True))

    def path_of(self, item: str) -> Path:
        """Return where the file of an id lies."""
        return self.root / item


def _is_inside(item: str) -> bool:
    parts = item.split("/")
    return not ({"", ".", ".."} & set(parts) or "\\" in item or "\0" in item or PurePosixPath(item).is_absolute())


def read_training_set(source: Path, *, root: Path | None = None, images: bool = True) -> TrainingSet:
    """Read a training set.

    Args:
        source: ``labels.parquet`` (columns id, label, domain), a folder that holds one, or a text list of lines
            ``path,label,domain``.
        root: the folder that the ids are paths in; by default that of the file.
        images: whether the images must be there; their labels alone are enough where they are described already.

    Raises:
        OpenIliasError: no such file, missing columns, nulls, malformed lines, no images, doubled ids, ids that lead
            out of the folder, or files that are not there.
    """
    source = Path(source)
    path = source / LABELS if source.is_dir() else source
    if not path.is_file():
        raise OpenIliasError(
            "There is no such training list.",
            where=path,
            fix=f"Give a folder with {LABELS}, or a list of path,label,domain.",
        )
    ids, labels, domains = _from_parquet(path) if path.suffix == ".parquet" else _from_lines(path)
    if not ids:
        raise OpenIliasError("This training list names no images.", where=path, fix="Add some.")
    try:
        made = TrainingSet(path.parent if root is None else Path(root), ids, labels, domains)
    except OpenIliasError as error:
        raise OpenIliasError(error.what, where=path, fix=error.fix) from None
    missing = [item for item in made.ids if not _is_file(made.path_of(item))] if images else []
    if missing:
        raise OpenIliasError(
            f"{len(missing)} of {len(made)} images are not there: {first_few(missing)}.",
            where=made.root,
            fix="Complete the folder, or name the right one.",
        )
    return made


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _columns(rows: Sequence[tuple[str, str, str]]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return tuple(row[0] for row in rows), tuple(row[1] for row in rows), tuple(row[2] for row in rows)


def _from_parquet(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise OpenIliasError(f"This file is not readable Parquet: {error}.", where=path, fix="Make it again.") from None
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise OpenIliasError(
            f"These columns are missing: {', '.join(missing)}.", where=path, fix="Give the columns id, label, domain."
        )
    try:
        values = {name: table.column(name).to_pylist() for name in _COLUMNS}
    except ValueError as error:
        raise OpenIliasError(
            f"This file has text that is not UTF-8: {error}.", where=path, fix="Make it again."
        ) from None
    for name, column in values.items():
        for row, value in enumerate(column):
            if value is None or (isinstance(value, str) and not value.strip()) or value != value:
                raise OpenIliasError(f"The {name} is empty.", where=f"{path}, row {row}", fix="Fill it in.")
            whole = isinstance(value, int) and not isinstance(value, bool) and name == "label"
            if not whole and not (isinstance(value, str) and value.isprintable()):
                raise OpenIliasError(
                    f"The {name} must be text, not {value!r}.", where=f"{path}, row {row}", fix="Write text."
                )
    return _columns([(i, str(label), str(d)) for i, label, d in zip(*values.values(), strict=True)])


def _from_lines(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise OpenIliasError(f"This list cannot be read: {error}.", where=path) from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        words = [word.strip() for word in line.rsplit(",", 2)]  # a path may hold commas
        if len(words) != 3 or not all(words):
            raise OpenIliasError(
                f"Expected 'path,label,domain', found {line!r}.", where=f"{path}, line {number}", fix="Correct it."
            )
        rows.append((words[0], words[1], words[2]))
    return _columns(rows)


def write_training_set(training: TrainingSet, path: Path) -> None:
    """Write the ids, labels and domains of a training set to ``path``, as ``labels.parquet``."""
    columns = (training.ids, training.labels, training.domains)
    table = pa.table({name: pa.array(values, pa.string()) for name, values in zip(_COLUMNS, columns, strict=True)})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
