"""Images to learn from: ids with labels and domains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import atomic_path, write_bytes
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import Partition
from openilias.data.benchmark import Item, SourceShard, file_shards
from openilias.data.label_files import COLUMNS, from_folders, from_lines, from_parquet
from openilias.images.boxes import Box

LABELS = "labels.parquet"
TRAIN = "train"
"""The folder of a benchmark that holds its training split, if it has one."""


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

    def without(self, ids: Iterable[str]) -> TrainingSet:
        """Return the set without some images."""
        gone = set(ids)
        kept = [place for place, item in enumerate(self.ids) if item not in gone]
        columns = ([column[place] for place in kept] for column in (self.ids, self.labels, self.domains))
        return TrainingSet(self.root, *map(tuple, columns))

    @cached_property
    def fingerprint(self) -> str:
        """Of the images; their labels change no descriptor."""
        return fingerprint_lines(self.ids)

    def shards(self, partition: Partition) -> tuple[SourceShard, ...]:
        """Return the shards of work, in order; there is only the partition ``train``."""
        items = [Item(item, self.path_of(item)) for item in self.ids] if partition == "train" else []
        return file_shards(partition, items)

    def boxes(self, item: str) -> tuple[Box, ...]:
        """Return no boxes: these images have none."""
        return ()


def _is_inside(item: str) -> bool:
    parts = item.split("/")
    return not ({"", ".", ".."} & set(parts) or "\\" in item or "\0" in item or PurePosixPath(item).is_absolute())


def read_training_set(source: Path, *, root: Path | None = None, images: bool = True) -> TrainingSet:
    """Read a training set.

    Args:
        source: ``labels.parquet`` (columns id, label, domain), a list of lines ``path,label,domain`` as that of UnED, a
            CSV file whose first line names the columns (path, label and, if there are several, domain), a folder that
            holds ``labels.parquet`` or ``train/labels.parquet``, or a folder of a folder of images per class, or per
            domain and class.
        root: the folder that the ids are paths in; by default that of the file.
        images: whether the images must be there; their labels alone are enough where they are described already.

    Raises:
        OpenIliasError: no such file, missing columns, nulls, malformed lines, no images, doubled ids, ids that lead
            out of the folder, or files that are not there.
    """
    path = _file_of(Path(source))
    if path.is_dir():
        ids, labels, domains = from_folders(path)
    else:
        ids, labels, domains = from_parquet(path) if path.suffix == ".parquet" else from_lines(path)
    if not ids:
        raise OpenIliasError("This training list names no images.", where=path, fix="Add some.")
    folder = path if path.is_dir() else path.parent
    try:
        made = TrainingSet(folder if root is None else Path(root), ids, labels, domains)
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


def _file_of(source: Path) -> Path:
    """Return the list of a folder, or the folder itself where its folders are the classes."""
    if not source.exists():
        raise OpenIliasError(
            "There is no such training list.",
            where=source,
            fix=f"Give a folder with {LABELS} or a folder per class, or a list of path,label,domain.",
        )
    lists = (source / LABELS, source / TRAIN / LABELS) if source.is_dir() else ()
    return next((path for path in lists if path.is_file()), source)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def write_training_set(training: TrainingSet, path: Path) -> None:
    """Write ids, labels and domains: as ``labels.parquet``, or, by the ending ``.txt``, as lines ``path,label,domain``.

    Raises:
        OpenIliasError: another ending, or a label or domain with a comma in lines.
    """
    if path.suffix == ".txt":
        _write_lines(training, path)
        return
    if path.suffix != ".parquet":
        raise OpenIliasError("A training list is a .txt or .parquet file.", where=path, fix="Give another name.")
    columns = (training.ids, training.labels, training.domains)
    table = pa.table({name: pa.array(values, pa.string()) for name, values in zip(COLUMNS, columns, strict=True)})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def _write_lines(training: TrainingSet, path: Path) -> None:
    for words in training.classes:
        if any("," in word or not word.isprintable() or word != word.strip() for word in words):
            raise OpenIliasError(
                f"Lines of text cannot hold the label {words[0]!r} of {words[1]!r}.",
                where=path,
                fix="Write a .parquet file.",
            )
    strange = [repr(item) for item in training.ids if not item.isprintable() or item != item.strip()]
    if strange:
        raise OpenIliasError(
            f"Lines of text cannot hold these names: {first_few(strange)}.", where=path, fix="Write a .parquet file."
        )
    rows = zip(training.ids, training.labels, training.domains, strict=True)
    write_bytes(path, "".join(f"{item},{label},{domain}\n" for item, label, domain in rows).encode())
