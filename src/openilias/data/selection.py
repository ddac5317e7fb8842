"""Which part of a benchmark is to be written: the selection, and what it means for objects and shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import is_there, read_bytes
from openilias.core.ids import FOLDER_PREFIX, object_of
from openilias.data.benchmark import Benchmark, Item, SourceShard
from openilias.data.ilias import LISTS, MINI
from openilias.data.training import TRAIN
from openilias.images.tars import image_name

Keys = npt.NDArray[np.bytes_]
_LOOSE = FOLDER_PREFIX.rstrip("/")
_PACKED = ("distractors", "packed", "loose")  # names of the tars that loose files are packed into; the first free one


class Selection(BaseModel, frozen=True, extra="forbid"):
    """Which part of a benchmark; everything by default. Several together keep what each of them keeps.

    Attributes:
        objects: names of the objects to keep, or how many of the first; the distractors stay.
        ids: the queries, positives and distractors to keep; nothing else stays.
        shards: how many of the first shards of distractors to keep.
        mini: keep the distractors of ``mini_ilias_yfcc100m_ids.txt``.
        pack: put distractors that are files of a folder into tars of so many images; their ids become
            ``<tar>/<name without ending>``.
    """

    objects: tuple[str, ...] | Annotated[int, Field(ge=1)] | None = None
    ids: tuple[str, ...] | None = None
    shards: Annotated[int, Field(ge=0)] | None = None
    mini: bool = False
    pack: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class Core:
    """The ids of the objects that stay."""

    image_queries: tuple[str, ...]
    text_queries: tuple[str, ...]
    positives: tuple[str, ...]

    @property
    def objects(self) -> set[str]:
        """The names of the objects."""
        return {object_of(item) for item in (*self.image_queries, *self.text_queries, *self.positives)}


@dataclass(frozen=True, eq=False)
class ShardPlan:
    """One tar to write.

    Attributes:
        shard: where its images come from.
        folder: of the new benchmark that it goes to.
        name: of the tar.
        keep: sorted keys of the images to keep; None keeps the tar as it is, or all files of a folder.
        all_of: every key of ``keep`` must be there.
        sha256: what the source is stated to have; "" if nothing is.
    """

    shard: SourceShard
    folder: str
    name: str
    keep: Keys | None
    all_of: bool
    sha256: str


@dataclass(frozen=True)
class Plan:
    """All that is to be written, and what the user should know of it."""

    core: Core
    shards: tuple[ShardPlan, ...]
    loose: tuple[Item, ...]
    notes: tuple[str, ...]


def make_plan(benchmark: Benchmark, selection: Selection) -> Plan:
    """Say what a selection means; nothing is written.

    Raises:
        OpenIliasError: it names what is not there, leaves queries without positives, or packs files whose names do
            not fit a tar.
    """
    wanted = None if selection.ids is None else _by_shard(benchmark, selection)
    core = _choose_core(benchmark, selection)
    mini = None if not selection.mini else read_keys(benchmark.root / LISTS / MINI)
    shards = benchmark.distractor_shards
    if selection.shards is not None:
        if selection.shards > len(shards):
            raise OpenIliasError(
                f"There are {len(shards)} shards of distractors, not {selection.shards}.", where=benchmark.root
            )
        shards = shards[: selection.shards]
    plans, loose = [], []
    for shard in shards:
        if shard.tar is None:
            loose += _chosen_files(shard.files, wanted, mini)
            continue
        keep = mini
        if wanted is not None:
            keep = _sorted(wanted.get(shard.name, ()))
            keep = keep if mini is None else np.intersect1d(keep, mini)
        strict = wanted is not None and mini is None
        stated = benchmark.checksums.get(shard.name, "")
        plans.append(ShardPlan(shard, shard.tar.parent.name, shard.name, keep, strict, stated))
    if selection.pack is not None and loose:
        plans += _packed(benchmark, loose, selection.pack)
        loose = []
    notes = [f"{name} is not here, and is left out" for name in benchmark.absent]
    unchecked = sum(bool(plan.sha256) and plan.keep is not None for plan in plans)
    if unchecked:
        notes.append(f"{unchecked} tars were read in part, and not compared with their checksums: verify them")
    if is_there(benchmark.root / TRAIN):
        notes.append(f"the training split in {TRAIN}/ is no part of the benchmark, and is left out")
    return Plan(core, tuple(plans), tuple(loose), tuple(notes))


def read_keys(path: Path) -> Keys:
    """Read the keys of a mini list, sorted.

    Raises:
        OpenIliasError: it is not there, or cannot be read.
    """
    if not is_there(path):
        raise OpenIliasError("This benchmark has no mini list.", where=path, fix="Download it.")
    try:
        return _sorted(line.strip() for line in read_bytes(path).split(b"\n"))
    except OSError as error:
        raise OpenIliasError(f"This list cannot be read: {error}.", where=path, fix="Download it again.") from None


def _sorted(keys: Iterable[bytes]) -> Keys:
    # A key of more bytes than a file name may have is in no shard, and would make every row as wide.
    rows = [key for key in keys if 0 < len(key) <= 255]
    return np.unique(np.array(rows, np.bytes_)) if rows else np.zeros(0, "S1")


def _choose_core(benchmark: Benchmark, selection: Selection) -> Core:
    everything = Core(benchmark.image_queries, benchmark.text_queries, benchmark.positives)
    names = everything.objects
    if isinstance(selection.objects, int):
        if selection.objects > len(names):
            raise OpenIliasError(f"There are {len(names)} objects, not {selection.objects}.", where=benchmark.root)
        names = set(sorted(names)[: selection.objects])
    elif selection.objects is not None:
        unknown = sorted(set(selection.objects) - names)
        if unknown:
            raise OpenIliasError(f"These objects are not here: {first_few(unknown)}.", where=benchmark.root)
        names = set(selection.objects)
    wanted = None if selection.ids is None else set(selection.ids)

    def kept(items: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(item for item in items if object_of(item) in names and (wanted is None or item in wanted))

    chosen = Core(kept(everything.image_queries), kept(everything.text_queries), kept(everything.positives))
    queries = {object_of(item) for item in (*chosen.image_queries, *chosen.text_queries)}
    lone = sorted(queries - {object_of(item) for item in chosen.positives})
    if lone or not queries:
        what = f"leaves queries without positives: {first_few(lone)}" if lone else "leaves no queries"
        raise OpenIliasError(f"The selection {what}.", where=benchmark.root, fix="Select their positives too.")
    return chosen


def _by_shard(benchmark: Benchmark, selection: Selection) -> dict[str, list[bytes]]:
    """Return the distractors that are asked for by id: shard -> keys.

    Raises:
        OpenIliasError: some are neither of an object nor of a shard that is here.
    """
    core = {*benchmark.image_queries, *benchmark.text_queries, *benchmark.positives}
    tars = {shard.name for shard in benchmark.distractor_shards if shard.tar is not None}
    loose = {item.id for shard in benchmark.distractor_shards for item in shard.files}
    wanted: dict[str, list[bytes]] = {}
    missing = []
    for item in selection.ids or ():
        shard, _, key = item.partition("/")
        if item in core:
            continue
        if shard in tars or item in loose:
            wanted.setdefault(shard, []).append(key.encode())
        else:
            missing.append(item)
    if missing:
        what = f"{len(missing)} of these ids are not here: {first_few(sorted(missing))}."
        raise OpenIliasError(what, where=benchmark.root, fix="Take them out of the list, or complete the benchmark.")
    return wanted


def _chosen_files(items: Iterable[Item], wanted: Mapping[str, list[bytes]] | None, mini: Keys | None) -> list[Item]:
    chosen = list(items)
    if wanted is not None:
        names = set(wanted.get(_LOOSE, ()))
        chosen = [item for item in chosen if item.path.name.encode() in names]
    if mini is not None:
        keys = set(mini.tolist())
        chosen = [item for item in chosen if item.path.stem.encode() in keys]
    return chosen


def _packed(benchmark: Benchmark, loose: list[Item], size: int) -> list[ShardPlan]:
    """Cut loose distractors into tars whose names are free."""
    stems: dict[str, Path] = {}
    for item in loose:
        first = stems.setdefault(item.path.stem, item.path)
        if first != item.path:
            raise OpenIliasError(
                f"Both would have the key {item.path.stem!r} in a tar: {first.name} and {item.path.name}.",
                where=item.path.parent,
                fix="Rename one of them.",
            )
        try:
            image_name(item.path.stem)
        except OpenIliasError as error:
            raise OpenIliasError(error.what, where=item.path, fix=error.fix) from None
    taken = {shard.name for shard in benchmark.distractor_shards}
    for prefix in _PACKED:
        plans = []
        for start in range(0, len(loose), size):
            name = f"{prefix}_{start // size:04d}.tar"
            shard = SourceShard(name, "distractors", files=tuple(loose[start : start + size]))
            plans.append(ShardPlan(shard, _LOOSE, name, None, False, ""))
        if not taken & {plan.name for plan in plans}:
            return plans
    raise OpenIliasError(f"Tars are called {', '.join(_PACKED)} already.", where=benchmark.root, fix="Rename them.")
