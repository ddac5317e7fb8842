"""The benchmark as a value: who is asked, what is searched, what is relevant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import overload

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_bytes
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import FOLDER_PREFIX, Partition, distractor_shard, object_of
from openilias.data.lists import Attributes, known, listed_distractors
from openilias.data.taxonomy import Taxonomy
from openilias.images.boxes import Box, coverage, read_boxes
from openilias.images.decode import MOST_BYTES, upright_size
from openilias.images.tar_index import scan_once
from openilias.images.tars import TarIndex, TarMember, Unusable, read_member, whole

FOLDER_SHARD = 1000
"""How many files outside tars make one shard of work."""


@dataclass(frozen=True)
class Item:
    """One image or text: its id and where its bytes are."""

    id: str
    path: Path
    member: TarMember | None = None

    def read(self) -> bytes:
        """Return the bytes of the file or tar member.

        Raises:
            OpenIliasError: it cannot be read.
        """
        try:
            if self.member is not None:
                return read_member(self.path, self.member)
            return read_bytes(self.path, most=MOST_BYTES)
        except OSError as error:
            raise OpenIliasError(
                f"This file of the benchmark cannot be read: {error.strerror}.",
                where=self.path,
                fix="Complete the benchmark.",
            ) from None


class TarItems(Sequence[Item]):
    """The images of one shard as items, made when they are asked for: an index of 100,000 is small, items are not."""

    def __init__(self, name: str, path: Path, index: TarIndex) -> None:
        self._name, self._path, self._index = name, path, index

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self._index)

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        """Return one item, or those of a slice."""
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        member = self._index.member(range(len(self))[place])
        return Item(f"{self._name}/{member.key}", self._path, member)


@dataclass(frozen=True)
class Contents:
    """What a shard of work holds: the items in order, and members of its tar that look like images and are not used."""

    items: Sequence[Item]
    unusable: tuple[Unusable, ...] = ()


@dataclass(frozen=True)
class SourceShard:
    """One piece of work of a partition, in a fixed place and order: a tar, or some files of a folder."""

    name: str
    partition: Partition
    tar: Path | None = None
    files: tuple[Item, ...] = ()

    def contents(self, kept: Path | None = None) -> Contents:
        """Return what the shard holds; for a tar this reads its headers.

        Args:
            kept: a folder that keeps the index of each tar, so that its headers are read once
                (:func:`openilias.images.tar_index.scan_once`).

        Raises:
            OpenIliasError: the tar cannot be read, or is refused as a whole.
        """
        if self.tar is None:
            return Contents(self.files)
        scan = whole(self.tar, scan_once(self.tar, kept))
        return Contents(TarItems(self.name, self.tar, scan.index), scan.unusable)

    def items(self) -> Sequence[Item]:
        """Return the items in order, as :meth:`contents`."""
        return self.contents().items


@dataclass(frozen=True)
class Benchmark:
    """A test set in the ILIAS layout. Ids are sorted; relevance is "of the same object".

    Attributes:
        root: the folder it was read from.
        core: the folder of the objects (may be absent when only ``image_ids`` was downloaded).
        image_queries: ids.
        text_queries: ids.
        positives: ids.
        distractor_shards: sorted by name.
        stated: attributes of the positives as ``positive_ids.txt`` states them; empty if there is none.
        taxonomy: of the objects; empty if there is none.
        id_list: ``distractor_ids.txt.gz``, if there is one.
        checksums: shard file name -> sha256, if there is such a file.
    """

    root: Path
    core: Path
    image_queries: tuple[str, ...]
    text_queries: tuple[str, ...]
    positives: tuple[str, ...]
    distractor_shards: tuple[SourceShard, ...]
    stated: Mapping[str, Attributes] = field(default_factory=dict)
    taxonomy: Taxonomy = field(default_factory=Taxonomy)
    id_list: Path | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def relevance(self) -> dict[str, tuple[str, ...]]:
        """Object -> its positives."""
        grouped: dict[str, list[str]] = {}
        for item in self.positives:
            grouped.setdefault(object_of(item), []).append(item)
        return {name: tuple(items) for name, items in grouped.items()}

    @cached_property
    def attributes(self) -> dict[str, Attributes]:
        """Positive -> attributes; the coverage comes from the boxes where the files do not state it."""
        return {item: self._attributes(item) for item in self.positives}

    def _attributes(self, item: str) -> Attributes:
        stated = known(self.stated, item)
        return stated if stated.coverage is not None else Attributes(self.coverage(item), stated.clutter)

    def coverage(self, item: str) -> float | None:
        """Return the share of a query or positive image inside its boxes, None if it has no boxes.

        Raises:
            OpenIliasError: its boxes or its image cannot be read.
        """
        boxes = self.boxes(item)
        if not boxes:
            return None
        width, height = upright_size(Item(item, self.path_of(item)).read(), where=item)
        return coverage(boxes, width=width, height=height)

    @property
    def absent(self) -> tuple[str, ...]:
        """Shards that the checksums name and that are not here; ``distractors`` if ids are listed and none is here."""
        here = {shard.name for shard in self.distractor_shards}
        named = (name for name in self.checksums if name.endswith(".tar") and name != "ilias_core.tar")
        missing = tuple(sorted(name for name in named if name not in here))
        return missing or (("distractors",) if self.id_list is not None and not here else ())

    def path_of(self, item: str) -> Path:
        """Return where the file of a query or positive id lies."""
        return self.core / item

    def boxes(self, item: str) -> tuple[Box, ...]:
        """Return the boxes of a query or positive image; empty if it has no box file."""
        return read_boxes(box_file(self.path_of(item)))

    def shards(self, partition: Partition) -> tuple[SourceShard, ...]:
        """Return the shards of work of a partition, in order."""
        if partition == "distractors":
            return self.distractor_shards
        ids = {
            "image_queries": self.image_queries,
            "text_queries": self.text_queries,
            "positives": self.positives,
        }.get(partition, ())  # a training split is a set of its own
        return file_shards(partition, [Item(item, self.path_of(item)) for item in ids])

    @cached_property
    def fingerprint(self) -> str:
        """What identifies the benchmark: ids, boxes, and the names, sizes and checksums of the shards."""
        return fingerprint_lines(self._identity())

    @cached_property
    def annotations(self) -> str:
        """Fingerprint of what only groups depend on: stated attributes and taxonomy."""
        attributes = (f"{item} {known.coverage} {known.clutter}" for item, known in sorted(self.stated.items()))
        nodes = (f"{name} {node}" for name, node in sorted(self.taxonomy.nodes.items()))
        return fingerprint_lines((*attributes, *nodes))

    def _identity(self) -> Iterable[str]:
        for item in (*self.image_queries, *self.positives):
            yield f"{item} {[tuple(box) for box in self.boxes(item)]}"
        yield from self.text_queries
        for shard in self.distractor_shards:
            if shard.tar is None:
                yield from (item.id for item in shard.files)
            else:
                yield f"{shard.name} {shard.tar.stat().st_size} {self.checksums.get(shard.name, '')}"

    def unknown(self, ids: Iterable[str]) -> list[str]:
        """Return the ids that are neither positives nor distractors of this benchmark.

        A benchmark without any distractors at hand and without their list cannot tell, and knows them all.
        """
        wanted = sorted(set(ids) - set(self.positives))
        if not self.distractor_shards and self.id_list is None:
            return [item for item in wanted if "/" not in item or object_of(item) in self.relevance]
        in_folder = {item.id for shard in self.distractor_shards for item in shard.files}
        left = set(wanted) - in_folder
        if left and self.id_list is not None:
            for item in listed_distractors(self.id_list):
                left.discard(item)
                if not left:
                    break
        tars = {shard.name: shard for shard in self.distractor_shards if shard.tar is not None}
        for name in {distractor_shard(item) or "" for item in left} & tars.keys():
            left -= {item.id for item in tars[name].items()}
        return sorted(left)


def file_shards(partition: Partition, items: list[Item]) -> tuple[SourceShard, ...]:
    """Cut the files of a partition into shards of :data:`FOLDER_SHARD`, named ``<partition>/00000`` and so on."""
    return tuple(
        SourceShard(
            f"{partition}/{start // FOLDER_SHARD:05d}",
            partition,
            files=tuple(items[start : start + FOLDER_SHARD]),
        )
        for start in range(0, len(items), FOLDER_SHARD)
    )


def box_file(image: Path) -> Path:
    """Return where the boxes of an image are."""
    return image.with_name(f"{image.stem}_bbox.txt")


def folder_item(path: Path) -> Item:
    """Return the item of a distractor that is a file of a folder."""
    return Item(FOLDER_PREFIX + path.name, path)
