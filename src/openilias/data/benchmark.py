"""The benchmark as a value: who is asked, what is searched, what is relevant."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from openilias.core.errors import OpenIliasError
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import FOLDER_PREFIX, Partition, distractor_shard, object_of
from openilias.data.taxonomy import Taxonomy
from openilias.images.boxes import Box, coverage, read_boxes
from openilias.images.decode import upright_size
from openilias.images.tars import TarMember, index_tar, read_member

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
            return self.path.read_bytes() if self.member is None else read_member(self.path, self.member)
        except OSError as error:
            raise OpenIliasError(
                f"This file of the benchmark cannot be read: {error.strerror}.",
                where=self.path,
                fix="Complete the benchmark.",
            ) from None


@dataclass(frozen=True)
class SourceShard:
    """One piece of work of a partition, in a fixed place and order: a tar, or some files of a folder."""

    name: str
    partition: Partition
    tar: Path | None = None
    files: tuple[Item, ...] = ()

    def items(self) -> list[Item]:
        """Return the items in order; for a tar this reads its headers."""
        if self.tar is None:
            return list(self.files)
        return [Item(f"{self.name}/{member.key}", self.tar, member) for member in index_tar(self.tar)]


@dataclass(frozen=True)
class Attributes:
    """What is known of a positive: the share of the image inside its boxes, and the segments outside them."""

    coverage: float | None
    clutter: int | None


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
        return {item: self.stated.get(item) or Attributes(self._coverage(item), None) for item in self.positives}

    def _coverage(self, item: str) -> float | None:
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
        path = self.path_of(item)
        path = path.with_name(f"{path.stem}_bbox.txt")
        return read_boxes(path) if path.exists() else ()

    def shards(self, partition: Partition) -> tuple[SourceShard, ...]:
        """Return the shards of work of a partition, in order."""
        if partition == "distractors":
            return self.distractor_shards
        ids = {
            "image_queries": self.image_queries,
            "text_queries": self.text_queries,
            "positives": self.positives,
        }[partition]
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
            try:
                with gzip.open(self.id_list, "rt", encoding="utf-8") as lines:
                    for line in lines:
                        left.discard(line.rstrip("\n"))
                        if not left:
                            break
            except (OSError, EOFError, ValueError, zlib.error) as error:
                raise OpenIliasError(
                    f"This id list cannot be read: {error}.", where=self.id_list, fix="Download it again."
                ) from None
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


def folder_item(path: Path) -> Item:
    """Return the item of a distractor that is a file of a folder."""
    return Item(FOLDER_PREFIX + path.name, path)
