"""Explaining HDF5 files: official features, local descriptors of AMES. They are read in blocks, never whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from openilias.core.errors import OpenIliasError
from openilias.core.progress import progress
from openilias.descriptors.official import find_dataset, is_official, open_official
from openilias.report.inspect_values import Explanation, IdCount, Look, NormCount, numbers, some, squares_of
from openilias.report.tables import count

MAGIC = b"\x89HDF\r\n\x1a\n"
ADAPTED_DIMS = 512
"""The published adaptation layers have this many outputs."""

_BLOCK = 32 * 2**20
_GEOMETRY = 5  # y, x, scale, mask, weight


def is_hdf5(look: Look) -> bool:
    """Tell by the signature, or by the name if the signature is damaged."""
    return look.head.startswith(MAGIC) or look.ending in (".hdf5", ".h5")


def explain_hdf5(look: Look) -> Explanation:
    """Explain an HDF5 file.

    Raises:
        OpenIliasError: truncated or damaged, or its parts do not belong together.
    """
    import h5py

    try:
        with h5py.File(look.path, "r", rdcc_nbytes=2 * _BLOCK) as file:
            features = find_dataset(file, "features", look.path)
            if features is None:
                return _unknown(file)
            if features.dtype.kind != "f" or features.ndim not in (2, 3):
                raise look.refuse(f"'features' is {features.shape} {features.dtype}; expected vectors of floats.")
            return _global(file, features, look) if features.ndim == 2 else _local(file, features, look)
    except OpenIliasError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise look.refuse(f"This HDF5 file is damaged or truncated: {_plain(error)}.") from None


def is_series(look: Look) -> bool:
    """Tell a folder of official files of distractors."""
    return look.folder and is_official(look.path)


def explain_series(look: Look) -> Explanation:
    """Explain a folder of official files of distractors, as a search would read them.

    Raises:
        OpenIliasError: a gap in the series, or a file is damaged.
    """
    opened = open_official(look.path)
    norms, ids = NormCount(), IdCount()
    with progress("read features", total=opened.rows, unit="vectors") as step:
        for shard in opened.shards:
            for block in shard.blocks():
                norms.add(block)
                step(len(block))
            ids.add(shard.ids())
    types = some({str(shard.dtype) for shard in opened.shards})
    facts = {"files": len(opened.shards), "rows": opened.rows, "dims": opened.dims, "dtype": types}
    return Explanation(
        "official features (HDF5)",
        f"{count(len(opened.shards), 'file')}, {count(opened.rows, 'descriptor')} of {opened.partition}",
        facts | norms.facts() | ids.facts(),
        tuple(norms.warnings() + ids.warnings()),
    )


def _plain(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _unknown(file: Any) -> Explanation:
    import h5py

    names = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
    listed = {
        name: f"{file[name].shape} {file[name].dtype}" if isinstance(file[name], h5py.Dataset) else "group"
        for name in names
    }
    return Explanation(
        "HDF5 file",
        "neither global features nor local descriptors: it has no dataset 'features'",
        {"contents": listed},
        ("ilias cannot read this file.",),
    )


def _storage(dataset: Any) -> dict[str, Any]:
    return {
        "shape": list(dataset.shape),
        "dtype": str(dataset.dtype),
        "chunks": list(dataset.chunks) if dataset.chunks else "none, contiguous",
        "compression": dataset.compression or "none",
    }


def _steps(length: int, unit: int, chunk: int | None) -> Iterator[slice]:
    """Cut ``length`` items of ``unit`` bytes into blocks that hold whole chunks."""
    step = max(1, _BLOCK // max(unit, 1))
    if chunk:
        step = max(step // chunk, 1) * chunk
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _global(file: Any, features: Any, look: Look) -> Explanation:
    rows, dims = features.shape
    if not dims:
        raise look.refuse("The features have no dimensions.")
    norms = NormCount()
    chunks, size = features.chunks or (None, None), features.dtype.itemsize
    # Chunks that are higher than wide are cut into columns too, so that none is unpacked twice.
    wide = min(dims, max(_BLOCK // max((chunks[0] or 1) * size, 1), 1)) if chunks[0] else dims
    with progress("read features", total=rows, unit="vectors") as step:
        for block in _steps(rows, wide * size, chunks[0]):
            squares = np.zeros(block.stop - block.start)
            for columns in _steps(dims, (block.stop - block.start) * size, chunks[1]):
                squares += squares_of(features[block, columns])
            norms.add_squares(squares)
            step(len(squares))
    ids = _ids(file, rows, look)
    warnings = norms.warnings()
    facts = _storage(features) | norms.facts()
    if ids is None:
        warnings.append("There is no 'index': nothing says whose features these are.")
    else:
        facts |= ids.facts()
        warnings += ids.warnings()
    partition = "unknown" if ids is None else ids.partition
    facts["raw_or_adapted"] = _raw_or_adapted(dims)
    return Explanation(
        "official features (HDF5)",
        f"{count(rows, 'descriptor')} of {dims} dimensions, {features.dtype}, of {partition.replace('_', ' ')}",
        facts,
        tuple(warnings),
    )


def _raw_or_adapted(dims: int) -> str:
    if dims == ADAPTED_DIMS:
        return (
            f"not known: {dims} is the output of the published adaptation layers, and of some models too; "
            "the file does not say which model it is of"
        )
    return f"raw, if of the published ones: those adapted have {ADAPTED_DIMS} dimensions; the file does not say more"


def _ids(file: Any, rows: int, look: Look) -> IdCount | None:
    index = find_dataset(file, "index", look.path)
    if index is None:
        return None
    if index.shape != (rows,):
        raise look.refuse(f"'index' is {index.shape} for {rows:,} rows of features: ids and rows do not match.")
    if index.dtype.kind not in "SO":
        raise look.refuse(f"'index' holds {index.dtype} and not text.")
    ids, text = IdCount(), index.asstr()
    for block in _steps(rows, 64, index.chunks[0] if index.chunks else None):
        ids.add(text[block].tolist())
    return ids


def _local(file: Any, features: Any, look: Look) -> Explanation:
    images, most, width = features.shape
    dims = width - _GEOMETRY
    if dims < 1 or not most:
        raise look.refuse(f"'features' is {features.shape}; expected (images, descriptors, 5 + dims).")
    norms, valid = NormCount(), np.zeros(images, np.int64)
    least, highest = np.full(_GEOMETRY, np.inf), np.full(_GEOMETRY, -np.inf)
    masks, falling, bad_geometry = True, True, 0
    row, chunks = most * width * features.dtype.itemsize, features.chunks or (None, None)
    with progress("read descriptors", total=images, unit="images") as step:
        for block in _steps(images, row, chunks[0]):
            placed = features[block, :, :_GEOMETRY].astype(np.float64)
            here = placed[..., 3] == 0
            masks &= bool((here | (placed[..., 3] == 1)).all())
            valid[block] = here.sum(axis=1)
            geometry = placed[here]
            bad_geometry += int((~np.isfinite(geometry)).any(axis=1).sum())
            if len(geometry):
                least, highest = np.fmin(least, geometry.min(axis=0)), np.fmax(highest, geometry.max(axis=0))
            weights = np.where(here, placed[..., 4], -np.inf)
            falling &= not (here[:, 1:] & (weights[:, 1:] > weights[:, :-1])).any()
            # Chunks that span many images are cut along the descriptors of an image too.
            for part in _steps(most, len(here) * width * features.dtype.itemsize, chunks[1]):
                norms.add(features[block, part, _GEOMETRY:][here[:, part]])
            step(len(here))
    facts: dict[str, Any] = _storage(features) | {
        "images": images,
        "descriptors_of_an_image": numbers(valid),
        "descriptors": int(valid.sum()),
        "dims": dims,
    }
    for place, name in enumerate(("y", "x", "scale", "mask", "weight")):
        if np.isfinite(least[place]) and name != "mask":
            facts[name] = {"least": float(least[place]), "most": float(highest[place])}
    facts |= {"falling_weights": bool(falling), **norms.facts()}
    warnings = norms.warnings()
    if not masks:
        warnings.append("The padding mask holds other values than 0 and 1.")
    if bad_geometry:
        warnings.append(f"{bad_geometry:,} descriptors have a place, scale or weight that is NaN or infinite.")
    if empty := int((valid == 0).sum()):
        warnings.append(f"{empty:,} images have no descriptor that is not padding.")
    ids = _ids(file, images, look)
    if ids is not None:
        facts |= ids.facts()
        warnings += ids.warnings()
    return Explanation(
        "local descriptors of AMES (HDF5)",
        f"{count(images, 'image')} with up to {count(most, 'descriptor')} of {dims} dimensions",
        facts,
        tuple(warnings),
    )
