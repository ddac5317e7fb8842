"""Converting: official HDF5 features to a store, a store to official HDF5 features. Both ways are streamed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import atomic_path, is_temporary, made_folder
from openilias.core.fingerprints import fingerprint
from openilias.core.manifests import claim, replacing, write_manifest
from openilias.core.progress import Step, progress
from openilias.descriptors.official import ENDINGS, NOTE, check_ids, escaped, is_official, read_note, reading, unescaped
from openilias.descriptors.store import (
    FILES,
    KIND,
    MANIFEST,
    DescriptorStore,
    Floats,
    Shard,
    finished_shard,
    open_store,
    told_if_full,
    write_blocks,
)

ALGORITHM_VERSION = 1

Dtype = Literal["float16", "float32"]

_CHUNK_BYTES = 1 << 20
_CACHE = 16 * _CHUNK_BYTES  # a chunk that is half written stays here and is packed once
_ID_ROWS = 65_536


@dataclass(frozen=True)
class Converted:
    """What a conversion made: the store folder or the HDF5 files; and how many parts of it were there already."""

    made: tuple[Path, ...]
    rows: int
    dims: int
    kept: int


def convert(
    source: Path,
    out: Path,
    *,
    dtype: Dtype | None = None,
    gzip: int = 0,
    tars_per_file: int = 10,
    overwrite: bool = False,
) -> Converted:
    """Convert official features to a store, or a store to official features; what is finished is kept.

    Args:
        source: an official file, a folder of official files of distractors, or a store.
        out: folder of the store; or folder of the HDF5 files, or one file.
        dtype: of the result; as stored by default.
        gzip: level from 0 (not packed) to 9, of HDF5 files.
        tars_per_file: tars in each HDF5 file of distractors.
        overwrite: replace what was made from something else, or is damaged.

    Raises:
        OpenIliasError: the source is damaged or incomplete, the output is in the way, or the disk is full.
    """
    store = open_store(source)
    if is_official(source):
        if gzip or out.suffix.lower() in ENDINGS:
            raise OpenIliasError(
                "This is official HDF5 already, and becomes a store, which is not packed.",
                where=source,
                fix="Give a folder as --out, and no --gzip.",
            )
        return _to_store(store, out, dtype, overwrite=overwrite)
    if (out / MANIFEST).exists():
        raise OpenIliasError("The output is a store itself.", where=out, fix="Give another --out.")
    return _to_hdf5(store, out, dtype, gzip, tars_per_file, overwrite=overwrite)


def _to_store(source: DescriptorStore, out: Path, dtype: Dtype | None, *, overwrite: bool) -> Converted:
    contents = {
        "algorithm_version": ALGORITHM_VERSION,
        "files": {shard.source: shard.sha256 for shard in source.shards},
        "dtype": dtype or "as stored",
    }
    made_from = source.origin() | {"partition": source.partition, "contents": contents}
    state = claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite, ours=FILES)
    numbers = range(len(source.shards))

    def begun() -> bool:
        return any((out / f"{number:05d}.json").exists() for number in numbers)

    with replacing(out, state, begun=begun):
        try:
            if state != "same":
                sources = [shard.source for shard in source.shards]
                with told_if_full(out / MANIFEST):
                    write_manifest(out / MANIFEST, kind=KIND, made_from=made_from, dims=source.dims, sources=sources)
            left = [number for number in numbers if finished_shard(out, number, check=overwrite) is None]
            if left:
                check_ids(source.shards)
            with progress("convert", total=sum(source.shards[number].rows for number in left), unit="rows") as step:
                for number in left:
                    shard = source.shards[number]
                    _remove_rest(out / f"{number:05d}.npy")
                    write_blocks(
                        out,
                        number,
                        source=shard.source,
                        ids=shard.id_array(),
                        blocks=_counted(shard.blocks(), step),
                        shape=(shard.rows, source.dims),
                        dtype=dtype or shard.dtype,
                        skipped=(),
                    )
        except BaseException:
            if not begun():
                (out / MANIFEST).unlink(missing_ok=True)
            raise
    return Converted((out,), source.rows, source.dims, len(numbers) - len(left))


def _to_hdf5(
    store: DescriptorStore, out: Path, dtype: Dtype | None, gzip: int, tars_per_file: int, *, overwrite: bool
) -> Converted:
    single = out.suffix.lower() in ENDINGS
    distractors = store.partition == "distractors"
    if single and distractors:
        raise OpenIliasError("Distractors make a series of files.", where=out, fix="Give a folder as --out.")
    groups = _groups(store.shards, tars_per_file) if distractors else [store.shards]
    folder = out.parent if single else out
    if folder.exists() and not folder.is_dir():
        raise OpenIliasError("The output path is a file.", where=folder, fix="Give another --out.")
    stem = f"features_{store.partition}"
    names = [f"{stem}_{number:05d}.hdf5" for number in range(len(groups))] if distractors else [f"{stem}.hdf5"]
    targets = [out] if single else [out / name for name in names]
    series = {"algorithm_version": ALGORITHM_VERSION, "store": store.fingerprint, "dtype": dtype, "gzip": gzip}
    notes = [
        {
            "series": fingerprint(series | {"tars": tars_per_file if distractors else None}),
            "file": fingerprint([[shard.sha256, shard.ids_sha256] for shard in group]),
            "files": len(groups),
        }
        for group in groups
    ]
    plan = list(zip(targets, groups, notes, strict=True))
    left = [item for item in plan if overwrite or not _made_before(item[0], item[2])]
    if distractors and folder.exists():
        extra = sorted(path.name for path in folder.glob(f"{stem}_*.hdf5") if path not in targets)
        if extra:
            raise OpenIliasError(
                f"Files of another series are here: {first_few(extra)}.",
                where=folder,
                fix="Move them away, or give another --out.",
            )
    total = sum(shard.rows for _, group, _ in left for shard in group)
    with made_folder(folder), progress("convert", total=total, unit="rows") as step:
        for target, group, note in left:
            for shard in group:
                shard.verify()
            _remove_rest(target)
            with told_if_full(target), atomic_path(target) as temporary:
                _write(temporary, group, store.dims, dtype, gzip, note, step, by_id=not distractors)
    return Converted(tuple(targets), store.rows, store.dims, len(plan) - len(left))


def _groups(shards: Sequence[Shard], tars: int) -> list[Sequence[Shard]]:
    """Put so many shards into each file; a shard that was an official file is one again."""
    groups: list[list[Shard]] = []
    for shard in shards:
        whole = shard.source.endswith(ENDINGS)
        if not groups or whole or len(groups[-1]) == tars:
            groups.append([])
        groups[-1].append(shard)
    return list(groups)


def _made_before(target: Path, note: dict[str, Any]) -> bool:
    if not target.exists():
        return False
    with reading(target) as file:
        found = read_note(file)
    if {key: found.get(key) for key in note} == note:
        return True
    raise OpenIliasError(
        "This file was made from something else.", where=target, fix="Give another --out, or --overwrite to replace it."
    )


def _write(
    path: Path,
    shards: Sequence[Shard],
    dims: int,
    dtype: Dtype | None,
    gzip: int,
    note: dict[str, Any],
    step: Step,
    *,
    by_id: bool,
) -> None:
    """Write one official file; rows that are to be sorted by id and are not are held in memory for it."""
    own = [item for shard in shards for item in shard.ids()]
    ids = [escaped(item) for item in own]
    changed = ids != own
    if changed and [unescaped(item) for item in ids] != own:
        lost = next(item for item, stored in zip(own, ids, strict=True) if unescaped(stored) != item)
        raise OpenIliasError(f"The id {lost} has no ASCII form.", where=shards[0].where, fix="Rename the image.")
    if len(set(ids)) < len(ids):
        raise OpenIliasError("An id of this store stands twice.", where=shards[0].where, fix="Make the store again.")
    kept = np.result_type(dtype) if dtype else np.result_type(*(shard.dtype for shard in shards))
    blocks: Iterable[Floats] = (block for shard in shards for block in shard.blocks())
    if by_id and ids != sorted(ids):
        order = sorted(range(len(ids)), key=ids.__getitem__)
        ids = [ids[row] for row in order]
        blocks = [np.concatenate(list(blocks))[order]]
    with _Patient(path, "w+") as raw, h5py.File(raw, "w", rdcc_nbytes=_CACHE) as file:
        chunk = max(1, min(len(ids), _CHUNK_BYTES // (dims * kept.itemsize)))
        packed = {"chunks": (chunk, dims), "compression": "gzip", "compression_opts": gzip, "shuffle": True}
        file.attrs[NOTE] = json.dumps(note | {"escaped": changed})
        index = file.create_dataset("index", (len(ids),), h5py.string_dtype("ascii"))
        for start in range(0, len(ids), _ID_ROWS):
            index[start : start + _ID_ROWS] = ids[start : start + _ID_ROWS]
        features = file.create_dataset("features", (len(ids), dims), kept, **(packed if gzip and ids else {}))
        start = 0
        for block in _counted(blocks, step):
            if raw.error is not None:
                break
            features[start : start + len(block)] = block.astype(kept, copy=False)
            start += len(block)
    if raw.error is not None:
        raise raw.error


class _Patient(io.FileIO):
    """A file that takes every write: HDF5 may crash the process where one fails. Keeps the first error."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of ``data``, or nothing more of it once the disk is full."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while len(left):
                left = left[super().write(left) :]
        except OSError as error:
            self.error = self.error or error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file, if that is possible."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


def _counted(blocks: Iterable[Floats], step: Step) -> Iterable[Floats]:
    for block in blocks:
        yield block
        step(len(block))


def _remove_rest(target: Path) -> None:
    """Remove what a killed run left of this file."""
    for path in target.parent.iterdir() if target.parent.is_dir() else ():
        if is_temporary(path.name) and path.name.startswith(f".{target.name}."):
            path.unlink(missing_ok=True)
