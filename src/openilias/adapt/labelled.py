"""Labelled descriptors: the rows of a store, each with the number of its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.progress import tell
from openilias.data.training import TrainingSet
from openilias.descriptors.store import DescriptorStore, Floats, Shard

Numbers = npt.NDArray[np.int64]


class Rows:
    """The rows of a store in any order; shards that are no memory-mapped files are read into memory."""

    def __init__(self, store: DescriptorStore) -> None:
        """Open the shards.

        Raises:
            OpenIliasError: one of them cannot be read.
        """
        self._arrays = [_array_of(shard) for shard in store.shards]
        self._ends = np.cumsum([len(array) for array in self._arrays])
        self.dims = store.dims
        self._store = store

    def take(self, rows: Numbers) -> npt.NDArray[np.float32]:
        """Return (n, D) float32 of the given rows of the store.

        Raises:
            OpenIliasError: a number is not finite; the first such row is named.
        """
        out = np.empty((len(rows), self.dims), np.float32)
        shards = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(shards):
            places = np.flatnonzero(shards == number)
            start = self._ends[number] - len(self._arrays[number])
            out[places] = self._arrays[number][rows[places] - start]
        bad = np.flatnonzero(~np.isfinite(out).all(1))
        if len(bad):
            shard = self._store.shards[int(shards[bad[0]])]
            row = int(rows[bad[0]] - self._ends[shards[bad[0]]] + shard.rows)
            raise OpenIliasError(
                "A descriptor is not finite.",
                where=f"{shard.where}, row {row} of {shard.source}, {shard.id_array()[row].as_py()}",
                fix="Describe this image again.",
            )
        return out


def _array_of(shard: Shard) -> Floats:
    blocks = list(shard.blocks(10**12 if shard.mapped else None))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


@dataclass(frozen=True)
class Labelled:
    """Which rows of a store are learned from, and of which class each is.

    Attributes:
        store: the descriptors.
        rows: (N,) int64 rows of the store, in its order.
        classes: (N,) int64 the number of the class of each.
        domains: of each class.
    """

    store: DescriptorStore
    rows: Numbers
    classes: Numbers
    domains: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many classes there are."""
        return len(self.domains)

    @cached_property
    def fingerprint(self) -> str:
        """Of the descriptors, byte by byte, and the classes of the rows."""
        shards = (shard.sha256 for shard in self.store.shards)
        return fingerprint_lines(
            [self.store.fingerprint, *shards, *map("{} {}".format, self.rows, self.classes), *self.domains]
        )

    def of_domains(self, wanted: Sequence[str]) -> Labelled:
        """Return the part that is of some domains, its classes numbered anew in the same order.

        Raises:
            OpenIliasError: there is no such domain.
        """
        unknown = sorted(set(wanted) - set(self.domains))
        if unknown:
            known = first_few(sorted(set(self.domains)), most=20)
            raise OpenIliasError(
                f"There is no domain {first_few(unknown)}; there are: {known}.", fix="Correct --domains."
            )
        keep = np.array([domain in wanted for domain in self.domains])
        numbers = np.cumsum(keep) - 1
        chosen = keep[self.classes]
        domains = tuple(domain for domain, kept in zip(self.domains, keep, strict=True) if kept)
        return replace(
            self, rows=self.rows[chosen], classes=numbers[self.classes[chosen]].astype(np.int64), domains=domains
        )


def label(store: DescriptorStore, training: TrainingSet, *, only_labelled: bool = False) -> Labelled:
    """Give the rows of a store their labels, by id.

    Args:
        store: descriptors of the images.
        training: their labels; a class is a (label, domain) pair. Images that the store has skipped are left out, told.
        only_labelled: leave rows without a label out, instead of refusing them.

    Raises:
        OpenIliasError: labelled images are not in the store, rows have no label, or there is one class only.
    """
    gone = {one.id for one in store.skipped} & set(training.ids)
    if gone:
        tell(f"{len(gone):,} images of the training set were passed over when it was described, and are left out")
        training = training.without(gone)
    number = dict(zip(training.ids, training.class_numbers, strict=True))
    found: list[int] = []
    rows: list[int] = []
    unlabelled: list[str] = []
    row = 0
    for shard in store.shards:
        for item in shard.ids():
            place = number.pop(item, None)
            if place is None:
                unlabelled.append(item)
            else:
                found.append(place)
                rows.append(row)
            row += 1
    if number:
        raise OpenIliasError(
            f"{len(number)} of {len(training)} labelled images are not in the store: {first_few(list(number))}.",
            where=store.folder,
            fix=f"Ids of the store look like {first_few(store.shards[0].ids()[:2]) if store.rows else 'nothing'}; "
            "describe all images of the list, or give the list that belongs to them.",
        )
    if unlabelled and not only_labelled:
        raise OpenIliasError(
            f"{len(unlabelled)} of {row} descriptors have no label: {first_few(unlabelled)}.",
            where=store.folder,
            fix="Complete the list, or leave them out with --only-labelled.",
        )
    # Classes are numbered by their first appearance in the list; all of them occur.
    return Labelled(
        store,
        np.array(rows, np.int64),
        np.array(found, np.int64),
        tuple(domain for _, domain in training.classes),
    )


def check_classes(labelled: Labelled) -> None:
    """Refuse what nothing can be learned from.

    Raises:
        OpenIliasError: there are fewer than two classes.
    """
    if labelled.count < 2:
        raise OpenIliasError(
            f"There is {labelled.count} class: nothing can be told apart.",
            where=labelled.store.folder,
            fix="Give labels of two classes or more.",
        )
