"""Official HDF5 features in place of a descriptor store: read in blocks, and checked while they are read.

A file has two datasets: ``index`` (N,) text, ``features`` (N, D) float16 or float32, rows of unit norm. It does not say
what made it, so files of one dimension go together, and with nothing else.

Official ids are ASCII: the official code writes ``é`` as ``#U00e9``. Ids of official files are taken as they stand;
files that ilias wrote say with an attribute that their ids are escaped so, and get the original ids back.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import sha256_of, state_of_file
from openilias.core.fingerprints import fingerprint
from openilias.core.ids import PARTITIONS, SHAPES, Partition
from openilias.descriptors.store import KIND, MANIFEST, DescriptorStore, Floats, Shard, Skipped, rows_of_block

FORMAT = "official HDF5"
ENDINGS = (".hdf5", ".h5")
NOTE = "openilias"
"""The attribute of files that ilias wrote: ``series`` (what the files of one store share), ``file`` (what this one is
made from), ``files`` (how many there are), ``escaped`` (whether ids are)."""
UNIT = 5e-3
"""A norm may be this far from 1; the rounding of float16 is less."""

_ID_ROWS = 65_536
_MOST_BLOCK = 2 << 30
_INFLATION = 1100  # gzip packs no better
_NAMED = re.compile(r"image_queries|text_queries|positive|distractors|train(?![a-z])")
_ANY = r"(?s:.+)"
_SERIES = re.compile(r"(.*)_distractors_(\d{5,})\.(?:hdf5|h5)")
_AGAIN = "Download it again, or make it again."


@dataclass(frozen=True)
class OfficialShard:
    """One official file; its ``sha256`` is that of the whole file.

    Attributes:
        path: of the file.
        partition: what its name says it holds, or its first id.
        rows: N.
        dims: D.
        dtype: float16 or float32.
        state: of the file when it was opened; it must not change afterwards.
        note: what ilias wrote about it; empty for files that others wrote.
    """

    path: Path
    partition: Partition
    rows: int
    dims: int
    dtype: np.dtype[Any]
    state: tuple[int, ...]
    note: tuple[tuple[str, Any], ...] = ()
    ids_sha256: str = ""
    skipped: tuple[Skipped, ...] = ()

    @property
    def source(self) -> str:
        """The name of the file."""
        return self.path.name

    @property
    def where(self) -> Path:
        """The file."""
        return self.path

    @property
    def mapped(self) -> bool:
        """Blocks are unpacked into memory."""
        return False

    @cached_property
    def sha256(self) -> str:
        """Of the whole file, read when first asked for."""
        return sha256_of(self.path)

    def verify(self) -> None:
        """Check that the file is the one that was opened.

        Raises:
            OpenIliasError: it was replaced or written to.
        """
        if not self.path.is_file() or tuple(state_of_file(self.path)) != self.state:
            raise OpenIliasError("This file has changed while it was read.", where=self.path, fix="Run again.")

    def blocks(self, rows: int | None = None) -> Iterator[Floats]:
        """Yield (n, D) blocks of whole chunks, so that nothing is unpacked twice.

        Raises:
            OpenIliasError: damaged, changed, or a row is not finite or not of unit norm: the first such id is named.
        """
        self.verify()
        with reading(self.path) as file:
            features = dataset(file, "features", self.path)
            chunk = features.chunks[0] if features.chunks else 1
            if chunk * self.dims * self.dtype.itemsize > _MOST_BLOCK:
                raise OpenIliasError(
                    f"This file is packed in chunks of {chunk} rows, too many to unpack in memory.",
                    where=self.path,
                    fix=f"Pack it anew: h5repack -l features:CHUNK=1024x{self.dims} OLD NEW",
                )
            step = max((rows or rows_of_block(self.dims, self.dtype)) // chunk, 1) * chunk
            for start in range(0, self.rows, step):
                block = features[start : start + step]
                self._check(block, start, file)
                yield block
        self.verify()

    def _check(self, block: Floats, start: int, file: Any) -> None:
        norms = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float32))
        bad = np.flatnonzero(~(np.abs(norms - 1) <= UNIT))
        if len(bad):
            finite = np.isfinite(block[bad[0]]).all()
            row = start + int(bad[0])
            item = self._texts(file["index"][row : row + 1])[0].as_py()
            raise OpenIliasError(
                f"The features of {item} are {f'of norm {norms[bad[0]]:.4g}, not 1' if finite else 'not finite'}.",
                where=f"{self.path}, row {row}",
                fix="Normalise the features, or download them again.",
            )

    def ids(self) -> list[str]:
        """Return the ids of the rows, as :meth:`id_array`."""
        ids: list[str] = self.id_array().to_pylist()
        return ids

    def id_array(self) -> Any:
        """Return the ids of the rows as a pyarrow.ChunkedArray of strings.

        Raises:
            OpenIliasError: damaged, not text, or an id that is not of the partition.
        """
        with reading(self.path) as file:
            index = dataset(file, "index", self.path)
            starts = range(0, self.rows, _ID_ROWS)
            parts = [self._texts(index[start : start + _ID_ROWS]) for start in starts]
        ids = pa.chunked_array(parts, pa.string())
        strange = pc.invert(pc.match_substring_regex(ids, rf"\A(?:{SHAPES.get(self.partition, _ANY)})\z"))
        if pc.any(strange).as_py():
            row = pc.index(strange, True).as_py()
            raise OpenIliasError(
                f"{ids[row].as_py()!r} is no id of {self.partition}, which this file holds by its name or first id.",
                where=f"{self.path}, row {row}",
                fix="Give the file the name of its partition, or one file for each partition.",
            )
        return ids

    def _texts(self, values: Any) -> Any:
        texts = pa.array(values.tolist(), pa.binary()).cast(pa.string())
        return pa.array(map(unescaped, texts.to_pylist()), pa.string()) if dict(self.note).get("escaped") else texts


def escaped(item: str) -> str:
    """Return an id as the official code writes it: ``é`` as ``#U00e9``."""
    if item.isascii():
        return item
    return item.encode("unicode-escape").decode("ascii").replace("\\u", "#U").replace("\\x", "#U00")


def unescaped(item: str) -> str:
    """Return the id that :func:`escaped` was given."""
    return re.sub(r"#U([0-9a-f]{4})", r"\\u\1", item).encode("ascii").decode("unicode-escape")


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Open an HDF5 file to read it.

    Raises:
        OpenIliasError: in place of what h5py raises where a file is truncated or damaged.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise OpenIliasError(f"This HDF5 file is damaged or truncated: {reason}.", where=path, fix=_AGAIN) from None


def dataset(file: Any, name: str, path: Path) -> Any:
    """Return a dataset that lies in the file itself.

    Raises:
        OpenIliasError: there is none, or it is none, or its values are elsewhere, or more than the file can hold.
    """
    found = find_dataset(file, name, path)
    if found is None:
        raise OpenIliasError(f"There is no dataset '{name}' in this file.", where=path, fix=_AGAIN)
    return found


def find_dataset(file: Any, name: str, path: Path) -> Any:
    """Return a dataset as :func:`dataset`, None if there is none of this name."""

    def refuse(what: str) -> OpenIliasError:
        return OpenIliasError(what, where=path, fix=_AGAIN)

    if name not in file and file.get(name, getlink=True) is None:
        return None
    # Links and external storage would read other files than the one that was named.
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise refuse(f"'{name}' is a link and not in this file.")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise refuse(f"'{name}' is not a dataset.")
    if found.external or found.is_virtual:
        raise refuse(f"The values of '{name}' are not in this file.")
    if found.shape is None:
        raise refuse(f"'{name}' is empty.")
    size = path.stat().st_size
    if math.prod(found.shape) * found.dtype.itemsize > _INFLATION * size:
        raise refuse(f"'{name}' claims to be {found.shape}, which this file of {size:,} bytes cannot hold.")
    return found


def is_official(path: Path) -> bool:
    """Tell an official file by its ending, or a folder that holds a series of them and is no store."""
    if path.is_dir():
        return not (path / MANIFEST).exists() and any(_SERIES.fullmatch(entry.name) for entry in path.iterdir())
    return path.suffix.lower() in ENDINGS


def open_official(path: Path) -> DescriptorStore:
    """Open one official file, or the distractors of a folder; other files in it are not looked at.

    Only shapes and types are read, and one id where the name does not say the partition.

    Raises:
        OpenIliasError: damaged, malformed, of several dimensions, or a gap in the series.
    """
    shards = [_open(file) for file in (_series(path) if path.is_dir() else [path])]
    for shard in shards[1:]:
        if shard.dims != shards[0].dims:
            raise OpenIliasError(
                f"{shards[0].source} has {shards[0].dims} dimensions, {shard.source} has {shard.dims}.",
                where=path,
                fix="Keep the files of each model in a folder of their own.",
            )
    if path.is_dir():
        _check_series(path, shards)
    made_from = {"format": FORMAT, "dims": shards[0].dims, "partition": shards[0].partition}
    manifest = {"kind": KIND, "made_from": made_from, "fingerprint": fingerprint(made_from), "dims": shards[0].dims}
    return DescriptorStore(path, manifest, tuple(shards))


def _series(folder: Path) -> list[Path]:
    found = {entry: match for entry in folder.iterdir() if (match := _SERIES.fullmatch(entry.name))}
    names = sorted({match[1] for match in found.values()})
    if len(names) > 1:
        raise OpenIliasError(
            f"Here are distractors of several names: {first_few(names)}.",
            where=folder,
            fix="Keep each in a folder of its own, or give the files one by one.",
        )
    files = sorted(found, key=lambda entry: int(found[entry][2]))
    numbers = [int(found[entry][2]) for entry in files]
    lost = next((place for place, number in enumerate(numbers) if place != number), None)
    if lost is not None:
        raise OpenIliasError(
            f"This series has no file number {lost:05d}; there are {len(files)} files up to {numbers[-1]:05d}."
            if numbers[lost] > lost
            else f"This series has the number {numbers[lost]:05d} twice.",
            where=folder,
            fix="Complete it, or give the files one by one to use a part.",
        )
    return files


def _check_series(folder: Path, shards: list[OfficialShard]) -> None:
    notes = [dict(shard.note) for shard in shards]
    if len({note.get("series") for note in notes}) > 1:
        raise OpenIliasError("These files were not made together.", where=folder, fix="Make them again.")
    if notes[0].get("files", len(shards)) != len(shards):
        raise OpenIliasError(
            f"Only {len(shards)} of the {notes[0]['files']} files are here.",
            where=folder,
            fix="Run the same ilias data convert again: it continues where it was.",
        )


def _open(path: Path) -> OfficialShard:
    if not path.is_file():
        raise OpenIliasError("This is no file." if path.exists() else "This file does not exist.", where=path)
    state = tuple(state_of_file(path))
    with reading(path) as file:
        features, index = (dataset(file, name, path) for name in ("features", "index"))
        if features.ndim != 2 or not features.shape[1] or features.dtype not in (np.float16, np.float32):
            raise OpenIliasError(
                f"'features' is {features.shape} {features.dtype}; expected vectors of float16 or float32.",
                where=path,
                fix="Give global features; `ilias data inspect FILE` says what is in it.",
            )
        if h5py.check_string_dtype(index.dtype) is None or index.shape != features.shape[:1]:
            raise OpenIliasError(
                f"'index' {index.shape} {index.dtype} and 'features' {features.shape} do not match.",
                where=path,
                fix=_AGAIN,
            )
        (rows, dims), dtype, note = features.shape, features.dtype, read_note(file)
        named = {word if word != "positive" else "positives" for word in _NAMED.findall(path.name)}
        first = index[:1].tolist()
        partition = next((name for name in PARTITIONS if {name} == named), None) or _partition_of(first)
    if partition is None:
        raise OpenIliasError(
            "Neither the name nor the ids of this file tell its partition.",
            where=path,
            fix="Name it features_PARTITION.hdf5; its ids must be official ones.",
        )
    return OfficialShard(path, partition, rows, dims, dtype, state, tuple(note.items()))


def read_note(file: Any) -> dict[str, Any]:
    """Return what ilias wrote about a file, empty if it did not write it."""
    note = json.loads(file.attrs.get(NOTE, "{}"))
    return note if isinstance(note, dict) else {}


def _partition_of(first: list[bytes]) -> Partition | None:
    text = first[0].decode("utf-8") if first else ""
    return next((name for name in PARTITIONS if name in SHAPES and re.fullmatch(SHAPES[name], text)), None)


def check_ids(shards: Sequence[Shard]) -> list[Counter[str]]:
    """Count the ids of each shard by what stands before their first ``/``: the tar, ``distractors``, or the object.

    Memory: 8 bytes per row of all shards, and the ids of one.

    Raises:
        OpenIliasError: an id stands twice.
    """
    counts: list[Counter[str]] = []
    hashes = np.empty(sum(shard.rows for shard in shards), np.int64)
    start = 0
    for shard in shards:
        heads: Counter[str] = Counter()
        for part in shard.id_array().chunks:
            texts = part.to_pylist()
            heads.update(item.split("/", 1)[0] for item in texts)
            hashes[start : start + len(texts)] = np.fromiter(map(hash, texts), np.int64, len(texts))
            start += len(texts)
        counts.append(heads)
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]][:1000].tolist())
    seen: dict[str, Path] = {}
    for shard in shards if suspects else ():
        for item in shard.ids():
            if hash(item) not in suspects:
                continue
            if item in seen:
                raise OpenIliasError(
                    f"The id {item} stands twice.",
                    where=shard.where if seen[item] == shard.where else f"{seen[item]} and {shard.where}",
                    fix="Give each file once; a file with duplicates must be made again.",
                )
            seen[item] = shard.where
    return counts
