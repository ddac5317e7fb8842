"""Explaining stores of local descriptors: how many, where in their images, how large, and what made them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_json
from openilias.core.manifests import read_manifest
from openilias.core.progress import Step, progress
from openilias.descriptors.local_store import FILES, KIND, LocalShard, read_local_marker
from openilias.descriptors.store import MANIFEST
from openilias.models.local_features import WEIGHT
from openilias.report.inspect_values import Explanation, IdCount, Look, NormCount, look_at, model_facts, same_as, some
from openilias.report.tables import count

_ROWS = 65_536  # descriptors at a time
_GEOMETRY = ("y", "x", "scale", "weight")
_FIX = "Run the command that makes it again, with --overwrite."
_PARTS = {"desc.npy": "descriptors", "ids.parquet": "ids", "json": "done marker"}


class _Count:
    """Counts shards: descriptors of an image, bits or norms, where they are. It does not grow with them."""

    def __init__(self) -> None:
        self.images, self.descriptors = 0, 0
        self.of_an_image, self.kinds = Counter[int](), Counter[tuple[str, int]]()
        self.norms = NormCount()
        self.ever = self.always = np.zeros(0, np.uint8)
        self.least, self.most = np.full(4, np.inf), np.full(4, -np.inf)
        self.not_finite, self.outside, self.falling = 0, 0, True

    def add(self, shard: LocalShard, step: Step) -> None:
        """Count a shard; its arrays are streamed.

        Raises:
            OpenIliasError: a file is missing or damaged.
        """
        offsets, descriptors, geometry = shard.offsets, shard.descriptors, shard.geometry
        self._add_offsets(offsets, shard)
        self.kinds[str(descriptors.dtype), descriptors.shape[1]] += 1
        self.images, self.descriptors = self.images + shard.images, self.descriptors + shard.count
        before = np.inf
        for start in range(0, shard.count, _ROWS):
            values = descriptors[start : start + _ROWS]
            if values.dtype == np.uint8:
                self._add_bits(np.asarray(values))
            else:
                self.norms.add(values)
            end = start + len(values)
            first = np.searchsorted(offsets, [start, end])
            before = self._add_geometry(np.asarray(geometry[start:end]), offsets[first[0] : first[1]] - start, before)
            step(len(values))

    def _add_offsets(self, offsets: npt.NDArray[np.int64], shard: LocalShard) -> None:
        for start in range(0, shard.images, _ROWS):
            lengths = np.diff(offsets[start : start + _ROWS + 1])
            if (lengths < 0).any():
                break
            for length, images in zip(*np.unique(lengths, return_counts=True), strict=True):
                self.of_an_image[int(length)] += int(images)
        else:
            if (offsets[0], offsets[-1]) == (0, shard.count):
                return
        raise OpenIliasError("These offsets are damaged.", where=shard.path("offsets.npy"), fix=_FIX)

    def _add_bits(self, values: npt.NDArray[np.uint8]) -> None:
        ever, always = np.bitwise_or.reduce(values), np.bitwise_and.reduce(values)
        if self.ever.shape != ever.shape:
            self.ever, self.always = ever, always
        self.ever, self.always = self.ever | ever, self.always & always

    def _add_geometry(self, geometry: npt.NDArray[np.float32], begins: npt.NDArray[np.int64], before: float) -> float:
        """Count where descriptors are; those at ``begins`` are the first of an image. Return the last weight."""
        bad = ~np.isfinite(geometry).all(axis=1)
        self.not_finite += int(bad.sum())
        self.outside += int(((geometry[:, :2] < 0) | (geometry[:, :2] > 1)).any(axis=1).sum())
        good = geometry[~bad]
        if len(good):
            self.least, self.most = np.minimum(self.least, good.min(0)), np.maximum(self.most, good.max(0))
        with np.errstate(invalid="ignore"):  # of infinities
            rising = np.diff(geometry[:, WEIGHT], prepend=np.float32(before)) > 0
        rising[begins] = False
        self.falling &= not rising.any()
        return float(geometry[-1, WEIGHT])

    def lengths(self) -> dict[str, float] | None:
        """Return least, median and most descriptors of an image."""
        if not self.of_an_image:
            return None
        values = np.array(sorted(self.of_an_image))
        ends = np.cumsum([self.of_an_image[int(value)] for value in values])
        middle = values[np.searchsorted(ends, [(self.images - 1) // 2, self.images // 2], side="right")]
        return {"least": float(values[0]), "median": float(middle.mean()), "most": float(values[-1])}

    def facts(self) -> dict[str, Any]:
        """Return the counts as facts."""
        places = {
            name: {"least": float(self.least[place]), "most": float(self.most[place])}
            for place, name in enumerate(_GEOMETRY)
            if np.isfinite(self.least[place])
        }
        norms = self.norms.facts() if self.norms.rows else {}
        return {**places, "falling_weights": bool(self.falling), **norms}

    def warnings(self) -> list[str]:
        """Return what is strange about them."""
        found = self.norms.warnings()
        if self.not_finite:
            found.append(f"{self.not_finite:,} descriptors have a place, scale or weight that is NaN or infinite.")
        if self.outside:
            found.append(f"{self.outside:,} descriptors lie outside their image.")
        if not self.falling:
            found.append("Descriptors of an image are not in the order of their weight: the first are not the best.")
        same = int(np.unpackbits(~self.ever | self.always).sum())
        if same and self.descriptors > 1:
            found.append(f"{same} of {8 * len(self.ever)} bits are the same in all descriptors: they tell nothing.")
        if len(self.kinds) > 1:
            found.append("The shards differ in dimensions or dtype.")
        return found


def is_local_store(look: Look) -> bool:
    """Tell a folder by the kind that its manifest states."""
    return MANIFEST in look.names and _is_local(look.path)


def is_part_of_local_store(look: Look) -> bool:
    """Tell a file of a store: a shard's, or the manifest."""
    named = look.path.name == MANIFEST or re.fullmatch(FILES, look.path.name) is not None
    return named and _is_local(look.path.parent)


def _is_local(folder: Path) -> bool:
    if not (folder / MANIFEST).is_file():
        return False
    try:
        manifest = read_json(folder / MANIFEST)
    except OpenIliasError:
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def explain_local_store(look: Look) -> Explanation:
    """Explain a store of local descriptors, finished or not; they are streamed.

    Raises:
        OpenIliasError: a manifest, marker or finished shard is damaged.
    """
    manifest = read_manifest(look.path / MANIFEST, kind=KIND)
    made_from, sources = manifest["made_from"], manifest.get("sources")
    if not isinstance(sources, list):
        raise look.refuse("The manifest of this store lists no sources.", fix=_FIX)
    found = [read_local_marker(look.path, number) for number in range(len(sources))]
    shards = [shard for shard in found if shard is not None]
    counted, ids = _Count(), IdCount()
    with progress("read descriptors", total=sum(shard.count for shard in shards), unit="descriptors") as step:
        for shard in shards:
            counted.add(shard, step)
            ids.add(shard.id_array().to_pylist())
    missing = [str(source) for source, shard in zip(sources, found, strict=True) if shard is None]
    skipped = [item for shard in shards for item in shard.skipped]
    partition = str(made_from.get("partition", "unknown"))
    facts = {
        "partition": partition,
        "images": counted.images,
        "descriptors": counted.descriptors,
        **_form(manifest),
        "descriptors_of_an_image": counted.lengths(),
        "images_without_descriptors": counted.of_an_image[0],
        "bytes_of_an_image": _bytes(shards, counted.images),
        "shards": f"{len(shards)} of {len(sources)} finished",
        "missing": some(missing) if missing else None,
        "skipped": len(skipped),
        **_origin(manifest),
        **counted.facts(),
        **{name: value for name, value in ids.facts().items() if name in ("duplicates", "first", "last")},
        "fingerprint": manifest.get("fingerprint"),
    }
    warnings = counted.warnings()
    if missing:
        warnings.insert(0, "This store is not finished: run the command that makes it again, and it continues.")
    if skipped:
        warnings.append(f"Skipped: {some(f'{item.id} ({item.reason})' for item in skipped)}.")
    if ids.repeats:
        warnings.append(f"{ids.repeats:,} ids stand there more than once.")
    if any(kind != _stated(manifest) for kind in counted.kinds):
        warnings.append(f"The manifest states other descriptors than there are: {some(_names(counted))}.")
    what = f"{count(counted.descriptors, 'local descriptor')} of {_length(manifest)}"
    summary = f"{what}, of {count(counted.images, 'image')} of {partition.replace('_', ' ')}"
    return Explanation("local descriptor store", summary, facts, tuple(warnings))


def explain_part_of_local_store(look: Look) -> Explanation:
    """Explain one file of a store: its shard is compared with the marker.

    Raises:
        OpenIliasError: the shard is damaged.
    """
    if look.path.name == MANIFEST:
        return explain_local_store(look_at(look.path.parent))
    number, _, part = look.path.name.partition(".")
    manifest = read_manifest(look.path.parent / MANIFEST, kind=KIND)
    shard = read_local_marker(look.path.parent, int(number))
    if shard is None:
        raise look.refuse(
            "This shard has no done marker: it was not finished.", fix="Run the command that makes the store again."
        )
    shard.verify()
    counted, ids = _Count(), IdCount()
    with progress("read descriptors", total=shard.count, unit="descriptors") as step:
        counted.add(shard, step)
    ids.add(shard.id_array().to_pylist())
    facts = {
        "shard": int(number),
        "source": shard.source,
        "images": shard.images,
        "descriptors": shard.count,
        **_form(manifest),
        "descriptors_of_an_image": counted.lengths(),
        "bytes_of_an_image": _bytes([shard], shard.images),
        "as_written": True,
        "skipped": [f"{item.id}: {item.reason}" for item in shard.skipped[:5]],
        **counted.facts(),
        **ids.facts(),
    }
    summary = f"shard {int(number)}, {count(shard.count, 'descriptor')} of {count(shard.images, 'image')}"
    kind = f"{_PARTS.get(part, part.removesuffix('.npy'))} of a local descriptor store"
    return Explanation(kind, summary, facts, tuple(counted.warnings()))


def _length(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['bits']} bits" if manifest.get("bits") else f"{manifest.get('dims')} dimensions"


def _form(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return same_as({"bits": "bits"} if manifest.get("bits") else {"dims": "dims"}, manifest) | {
        "dtype": manifest.get("dtype")
    }


def _stated(manifest: Mapping[str, Any]) -> tuple[Any, Any]:
    bits, dims = manifest.get("bits"), manifest.get("dims")
    return manifest.get("dtype"), bits // 8 if isinstance(bits, int) else dims


def _names(counted: _Count) -> list[str]:
    return [f"{dtype}, {width} to a row" for dtype, width in counted.kinds]


def _bytes(shards: list[LocalShard], images: int) -> dict[str, float] | None:
    """Return what an image takes on disk on average."""
    if not images:
        return None
    names = {"descriptors": "desc.npy", "geometry": "geometry.npy", "offsets": "offsets.npy", "ids": "ids.parquet"}
    sizes = {shown: sum(shard.path(name).stat().st_size for shard in shards) / images for shown, name in names.items()}
    return sizes | {"together": sum(sizes.values())}


def _origin(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of the model, of bits, and of what was left out."""
    made_from = manifest["made_from"]
    local = made_from.get("local") if isinstance(made_from.get("local"), dict) else {}
    settings = {name: value for name, value in local.items() if name not in ("name", "model", "format", "weight")}
    model = local.get("model")
    bits = made_from.get("binarisation")
    return {
        **same_as({"model": "name", "imported_from": "format"}, local),
        "architecture": model.get("architecture") if isinstance(model, dict) else model,
        "settings": settings or None,
        **same_as({"weights_from": "weights_from", "weight_of_a_descriptor": "weight_from"}, manifest),
        **{name: value for name, value in model_facts(made_from).items() if name in ("weights_digest", "benchmark")},
        **same_as({"compat": "compat", "kept_of_an_image": "most", "of_a_shortlist": "shortlist"}, made_from),
        "packed_by": f"binarisation {bits.get('sha256')}" if isinstance(bits, dict) else None,
        **same_as({"packed_from": "from"}, made_from.get("packed")),
    }
