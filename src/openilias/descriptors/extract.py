"""Describing a partition of a benchmark, shard by shard."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import Partition
from openilias.core.manifests import claim, replacing, write_manifest
from openilias.core.progress import Step, progress
from openilias.core.threads import one_thread_per_worker
from openilias.data import Benchmark, Item, SourceShard
from openilias.descriptors.store import (
    FILES,
    KIND,
    MANIFEST,
    DescriptorStore,
    Skipped,
    open_store,
    read_marker,
    write_shard,
)
from openilias.images.decode import UnreadableImageError, decode
from openilias.models.backbone import Backbone, Floats

ALGORITHM_VERSION = 2
TAR_INDEX = "tar_index"  # folder beside the stores of a run
_PREPARED_BATCHES = 8


def extract(
    benchmark: Benchmark,
    backbone: Backbone,
    partition: Partition,
    out: Path,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    skip_unreadable: bool = False,
    overwrite: bool = False,
) -> DescriptorStore:
    """Describe a partition into a store; finished shards are kept, so a killed run continues.

    The headers of each tar are read once: ``tar_index`` beside the store keeps them for all stores of a run.

    Args:
        benchmark: what to describe.
        backbone: with what, bound to its protocol.
        partition: which part.
        out: folder of the store.
        batch_size: images per forward pass; images of one shape go together. 4 on CPUs, where larger ones are
            slower (their activations leave the caches), 32 elsewhere.
        workers: threads that decode and prepare; all cores by default.
        skip_unreadable: list images that cannot be decoded, and members of a tar that look like images and cannot be
            used, in the marker and go on, instead of stopping.
        overwrite: replace a store made from something else.

    Raises:
        OpenIliasError: nothing to describe, an unreadable image, an output in the way, or a model that fails.
    """
    shards = benchmark.shards(partition)
    if not shards:
        raise OpenIliasError(f"This benchmark has no {partition}.", where=benchmark.root, fix="Complete it.")
    if partition == "text_queries":
        backbone.encode_texts([])  # says at once if the model cannot
    made_from = description_of(benchmark, backbone) | {
        "partition": partition,
        "contents": contents_of(shards),
        "skip_unreadable": skip_unreadable,
    }
    state = claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite, ours=FILES)

    def begun() -> bool:
        return any((out / f"{number:05d}.json").exists() for number in range(len(shards)))

    with replacing(out, state, begun=begun):
        if state != "same":
            sources = [shard.name for shard in shards]
            information = {"dims": backbone.dims, "weights_from": backbone.weights_from, "sources": sources}
            write_manifest(out / MANIFEST, kind=KIND, made_from=made_from, **information)
        left = [(number, shard) for number, shard in enumerate(shards) if not _finished(out, number, check=overwrite)]
        try:
            if left:
                batch = batch_size or (4 if backbone.device == "cpu" else 32)
                _describe(left, backbone, out, batch, workers or os.cpu_count() or 1, skip_unreadable)
        except BaseException:
            if not begun():
                for name in ("00000.npy", "00000.ids.parquet", MANIFEST):
                    (out / name).unlink(missing_ok=True)  # nothing is finished yet, so nothing is worth keeping
            raise
    return open_store(out)


def _finished(out: Path, number: int, *, check: bool) -> bool:
    """Tell whether a shard is finished; with ``check`` a damaged one is taken for not finished."""
    try:
        shard = read_marker(out, number)
        if shard is not None and check:
            shard.verify()
    except OpenIliasError:
        if not check:
            raise
        return False
    return shard is not None


def contents_of(shards: tuple[SourceShard, ...]) -> str:
    """Return the fingerprint of names and sizes of the files to describe: a replaced file is noticed by its size.

    Raises:
        OpenIliasError: a file is missing.
    """
    files = [(item.id, item.path) for shard in shards for item in shard.files]
    files += [(shard.name, shard.tar) for shard in shards if shard.tar is not None]
    try:
        return fingerprint_lines(f"{name} {path.stat().st_size}" for name, path in files)
    except OSError as error:
        raise OpenIliasError(
            f"A file of the benchmark is missing: {error.strerror}.",
            where=error.filename,
            fix="Complete the benchmark.",
        ) from None


def _describe(
    shards: list[tuple[int, SourceShard]],
    backbone: Backbone,
    out: Path,
    batch_size: int,
    workers: int,
    skip_unreadable: bool,
) -> None:
    partition = shards[0][1].partition
    total = None if any(shard.tar for _, shard in shards) else sum(len(shard.files) for _, shard in shards)
    unit = "texts" if partition == "text_queries" else "images"
    with progress(f"describe {partition}", total=total, unit=unit) as step, one_thread_per_worker():
        for number, shard in shards:
            ids, descriptors, skipped = _describe_shard(
                shard, out.parent / TAR_INDEX, backbone, batch_size, workers, skip_unreadable, step
            )
            # Texts are few and kept in full, as the official files have them.
            dtype = "float32" if partition == "text_queries" else backbone.protocol.dtype
            write_shard(
                out,
                number,
                source=shard.name,
                ids=ids,
                descriptors=descriptors.astype(dtype),
                skipped=skipped,
            )


def description_of(benchmark: Benchmark, backbone: Backbone) -> dict[str, Any]:
    """Return everything the descriptors depend on, as JSON values."""
    return {
        "algorithm_version": ALGORITHM_VERSION,
        "benchmark": benchmark.fingerprint,
        "model": backbone.spec.model_dump(mode="json"),
        "weights": backbone.weights_digest,
        "protocol": backbone.protocol.description(),
    }


def _describe_shard(
    shard: SourceShard,
    kept: Path,
    backbone: Backbone,
    batch_size: int,
    workers: int,
    skip_unreadable: bool,
    step: Step,
) -> tuple[list[str], Floats, list[Skipped]]:
    contents = shard.contents(kept)
    items = contents.items
    if contents.unusable and not skip_unreadable:
        names = [f"{member.name} ({member.reason})" for member in contents.unusable]
        raise OpenIliasError(
            f"{len(names)} members of this shard look like images and cannot be used: {first_few(names)}.",
            where=shard.tar,
            fix="Rebuild the shard, or go on without them with --skip-unreadable.",
        )
    passed_over = [Skipped(f"{shard.name}/{member.name}", member.reason) for member in contents.unusable]
    if shard.partition == "text_queries":
        texts = [_text(item) for item in items]
        step(len(items))
        return [item.id for item in items], backbone.encode_texts(texts), []
    upright = shard.tar is None or backbone.protocol.compat == "paper"
    out = np.zeros((len(items), backbone.dims), np.float32)
    skipped: dict[int, Skipped] = {}
    # Closed here and not when it is collected, which may be in one of its own threads.
    with closing(_prepared(items, backbone, workers, upright, most=_PREPARED_BATCHES * batch_size)) as prepared:
        for places, batch in _batches(prepared, batch_size, skip_unreadable, items, skipped, step):
            out[places] = backbone.encode_images(batch)
    described = [place for place in range(len(items)) if place not in skipped]
    return [items[place].id for place in described], out[described], [*passed_over, *skipped.values()]


def _text(item: Item) -> str:
    try:
        return item.read().decode("utf-8")
    except UnicodeDecodeError:
        raise OpenIliasError("This text query is not UTF-8.", where=item.path) from None


def _prepared(
    items: Sequence[Item], backbone: Backbone, workers: int, upright: bool, *, most: int
) -> Generator[tuple[int, npt.NDArray[Any] | UnreadableImageError], None, None]:
    """Yield the prepared array of each item in order, at most ``most`` of them ahead."""

    def prepare(item: Item) -> npt.NDArray[Any]:
        try:
            picture = decode(item.read(), where=item.id, upright=upright, compat=backbone.protocol.compat)
            return backbone.prepare(picture)
        except UnreadableImageError as error:
            error.where = error.where or item.id  # a resize rule does not know it
            raise

    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[int, Future[npt.NDArray[Any]]]] = deque()
        try:
            for place, item in enumerate(items):
                ahead.append((place, pool.submit(prepare, item)))
                if len(ahead) >= most:
                    yield _result(*ahead.popleft())
            while ahead:
                yield _result(*ahead.popleft())
        finally:
            for _, future in ahead:
                future.cancel()


def _result(place: int, future: Future[npt.NDArray[Any]]) -> tuple[int, npt.NDArray[Any] | UnreadableImageError]:
    try:
        return place, future.result()
    except UnreadableImageError as error:
        return place, error


def _batches(
    prepared: Iterable[tuple[int, npt.NDArray[Any] | UnreadableImageError]],
    batch_size: int,
    skip_unreadable: bool,
    items: Sequence[Item],
    skipped: dict[int, Skipped],
    step: Step,
) -> Iterator[tuple[list[int], npt.NDArray[Any]]]:
    """Gather arrays of one shape into batches; which go together depends on the source order alone."""
    waiting: dict[tuple[int, ...], list[tuple[int, npt.NDArray[Any]]]] = {}
    held = 0

    def flush(shape: tuple[int, ...]) -> tuple[list[int], npt.NDArray[Any]]:
        nonlocal held
        group = waiting.pop(shape)
        held -= len(group)
        step(len(group))
        return [place for place, _ in group], np.stack([array for _, array in group])

    for place, array in prepared:
        if isinstance(array, UnreadableImageError):
            if not skip_unreadable:
                raise array
            skipped[place] = Skipped(items[place].id, array.what)
            step()
            continue
        group = waiting.setdefault(array.shape, [])
        group.append((place, array))
        held += 1
        if len(group) == batch_size:
            yield flush(array.shape)
        elif held >= _PREPARED_BATCHES * batch_size:
            yield flush(max(waiting, key=lambda shape: len(waiting[shape])))
    for shape in list(waiting):
        yield flush(shape)
