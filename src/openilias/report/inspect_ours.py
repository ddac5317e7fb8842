"""Explaining what ilias writes: stores, rankings, evaluations, runs; and benchmarks, tables and images."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from openilias.core.errors import OpenIliasError
from openilias.core.manifests import read_manifest
from openilias.core.progress import progress
from openilias.data import read_ilias
from openilias.descriptors import store
from openilias.evaluate import results
from openilias.images.decode import camera_in, decode
from openilias.report.inspect_rankings import explain_mix, explain_ranking
from openilias.report.inspect_values import (
    Explanation,
    IdCount,
    Look,
    NormCount,
    json_object,
    look_at,
    model_facts,
    numbers,
    same_as,
    some,
)
from openilias.report.tables import count
from openilias.rerank import tuning
from openilias.search import ranking as rankings

RUN = "run.json"
_SHARD_FILE = re.compile(r"(\d{5,})(\.npy|\.ids\.parquet|\.json)")
_BLOCK_ROWS = 16_384


def explain_store(look: Look) -> Explanation:
    """Explain a descriptor store, finished or not; its descriptors are streamed.

    Raises:
        OpenIliasError: a manifest, marker or finished shard is damaged.
    """
    manifest = read_manifest(look.path / store.MANIFEST, kind=store.KIND)
    made_from, sources = manifest["made_from"], manifest.get("sources")
    if not isinstance(sources, list):
        raise look.refuse("The manifest of this store lists no sources.", fix="Extract again with --overwrite.")
    found = [store.read_marker(look.path, number) for number in range(len(sources))]
    shards = [shard for shard in found if shard is not None]
    rows, norms, types, ids = sum(shard.rows for shard in shards), NormCount(), Counter[str](), IdCount()
    dims = Counter[int]()
    with progress("read descriptors", total=rows, unit="vectors") as step:
        for shard in shards:
            array = shard.descriptors()
            types[str(array.dtype)] += 1
            dims[array.shape[1]] += 1
            for start in range(0, len(array), _BLOCK_ROWS):
                norms.add(array[start : start + _BLOCK_ROWS])
                step(min(_BLOCK_ROWS, len(array) - start))
            ids.add(shard.ids())
    skipped = [item for shard in shards for item in shard.skipped]
    partition = str(made_from.get("partition", "unknown"))
    facts = {
        "partition": partition,
        "rows": rows,
        "dims": next(iter(dims)) if len(dims) == 1 else manifest.get("dims"),
        "dtype": some(types),
        "shards": f"{len(shards)} of {len(sources)} finished",
        "skipped": len(skipped),
        **same_as({"imported_from": "format"}, made_from),
        **model_facts(made_from),
        **norms.facts(),
        **{name: value for name, value in ids.facts().items() if name in ("duplicates", "first", "last")},
        "fingerprint": manifest.get("fingerprint"),
    }
    warnings = norms.warnings()
    if len(shards) < len(sources):
        warnings.insert(0, "This store is not finished: run the command that makes it again, and it continues.")
    if skipped:
        warnings.append(f"Skipped: {some(f'{item.id} ({item.reason})' for item in skipped)}.")
    if ids.repeats:
        warnings.append(f"{ids.repeats:,} ids stand there more than once.")
    if len(dims) > 1 or len(types) > 1:
        warnings.append("The shards differ in dimensions or dtype.")
    kind = partition.replace("_", " ")
    return Explanation("descriptor store", f"{count(rows, 'descriptor')} of {kind}", facts, tuple(warnings))


def is_part_of_store(look: Look) -> bool:
    """Tell a file of a store: a shard's, or the manifest."""
    folder = look.path.parent
    named = look.path.name == store.MANIFEST or _SHARD_FILE.fullmatch(look.path.name) is not None
    return named and (folder / store.MANIFEST).is_file()


def explain_part_of_store(look: Look) -> Explanation:
    """Explain one file of a store: its shard is compared with the marker.

    Raises:
        OpenIliasError: the shard is damaged.
    """
    match = _SHARD_FILE.fullmatch(look.path.name)
    if match is None:
        return explain_store(look_at(look.path.parent))
    number = int(match[1])
    shard = store.read_marker(look.path.parent, number)
    if shard is None:
        raise look.refuse(
            "This shard has no done marker: it was not finished.", fix="Run the command that makes the store again."
        )
    shard.verify()
    array, norms, ids = shard.descriptors(), NormCount(), IdCount()
    for start in range(0, len(array), _BLOCK_ROWS):
        norms.add(array[start : start + _BLOCK_ROWS])
    ids.add(shard.ids())
    part = {".npy": "descriptors", ".json": "done marker"}.get(match[2], "ids")
    facts = {
        "shard": number,
        "source": shard.source,
        "rows": shard.rows,
        "dims": array.shape[1],
        "dtype": str(array.dtype),
        "as_written": True,
        "skipped": [f"{item.id}: {item.reason}" for item in shard.skipped[:5]],
        **norms.facts(),
        **ids.facts(),
    }
    return Explanation(
        f"{part} of a descriptor store", f"shard {number}, {count(shard.rows, 'row')}", facts, tuple(norms.warnings())
    )


def explain_evaluation(look: Look) -> Explanation:
    """Explain an evaluation folder.

    Raises:
        OpenIliasError: not whole, or not valid.
    """
    found, manifest = results.read_evaluation(look.path)
    k = found.protocol.k
    facts = {
        f"mAP@{k}": found.map,
        "oracle": found.oracle,
        "queries": len(found.queries),
        "compat": found.compat,
        "protocol": results.protocol_of(found),
        "categories": {group.name: group.map for group in found.categories},
        "fingerprint": manifest.get("fingerprint"),
    }
    warnings = []
    if found.missing:
        warnings.append(f"{len(found.missing)} queries are not answered: {some(found.missing)}.")
    if found.unsearched:
        warnings.append(f"{len(found.unsearched)} parts of the benchmark were not searched.")
    if found.depth < k:
        warnings.append(f"The longest list has {found.depth} images, fewer than k.")
    summary = f"mAP@{k} {100 * found.map:.2f}, oracle {100 * found.oracle:.2f}, {count(len(found.queries), 'query')}"
    return Explanation("evaluation", summary, facts, tuple(warnings))


def explain_run(look: Look) -> Explanation:
    """Explain a run folder by its ``run.json``.

    Raises:
        OpenIliasError: the manifest or the evaluation is damaged.
    """
    manifest = read_manifest(look.path / RUN, kind="run")
    made_from = manifest["made_from"]
    facts = model_facts(made_from) | {
        "steps": made_from.get("steps", {}),
        "parts": sorted(path.name for path in look.path.iterdir() if path.is_dir()),
        "times": manifest.get("times", {}),
    }
    summary = str(facts.get("model", "a model that is not named"))
    if (look.path / "evaluation" / results.MANIFEST).is_file():
        inner = explain_evaluation(look_at(look.path / "evaluation"))
        return Explanation("run", f"{summary}: {inner.summary}", facts, inner.warnings)
    return Explanation("run", f"{summary}, not evaluated", facts, ("There is no evaluation in this run.",))


def explain_benchmark(look: Look) -> Explanation:
    """Explain a benchmark folder in short; ``ilias data stats`` says more.

    Raises:
        OpenIliasError: malformed.
    """
    read = read_ilias(look.path)
    facts = {
        "objects": len(read.relevance),
        "image_queries": len(read.image_queries),
        "text_queries": len(read.text_queries),
        "positives": len(read.positives),
        "distractor_shards": len(read.distractor_shards),
        "list_of_distractors": read.id_list is not None,
        "images_here": read.core.is_dir(),
        "categories": list(read.taxonomy.counts()),
        "fingerprint": read.fingerprint,
    }
    warnings = []
    if read.absent:
        warnings.append(f"Distractors that are listed are not here: {some(read.absent)}.")
    summary = (
        f"{count(len(read.relevance), 'object')}, {count(len(read.positives), 'positive')}; more: ilias data stats"
    )
    return Explanation("benchmark in the ILIAS layout", summary, facts, tuple(warnings))


def explain_npy(look: Look) -> Explanation:
    """Explain an array file that belongs to no store.

    Raises:
        OpenIliasError: truncated, or it holds objects.
    """
    try:
        array = np.load(look.path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise look.refuse(f"This array cannot be read: {error}.") from None
    facts: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    warnings = ["It belongs to no descriptor store: nothing says what its rows are."]
    if array.ndim == 2 and array.dtype.kind == "f":
        norms = NormCount()
        for start in range(0, len(array), _BLOCK_ROWS):
            norms.add(array[start : start + _BLOCK_ROWS])
        facts |= norms.facts()
        warnings += norms.warnings()
    return Explanation("array (.npy)", f"{array.shape} {array.dtype}", facts, tuple(warnings))


def explain_parquet(look: Look) -> Explanation:
    """Explain a Parquet file: a table of ours in its folder, training labels, or columns.

    Raises:
        OpenIliasError: damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = look.path.parent
    if look.path.name == rankings.TABLE and (folder / rankings.MANIFEST).is_file():
        return explain_ranking(look_at(folder))
    if look.path.name == results.TABLE and (folder / results.MANIFEST).is_file():
        return explain_evaluation(look_at(folder))
    try:
        with pq.ParquetFile(look.path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
            facts = {"rows": rows, "columns": {name: str(schema.field(name).type) for name in schema.names}}
            if {"label", "domain"} <= set(schema.names):
                return _labels(file, facts)
            for batch in file.iter_batches():  # a damaged column is found only by reading it
                batch.validate()
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise look.refuse(f"This Parquet file is damaged: {error}.") from None
    kind = "ids (Parquet)" if schema.names == ["id"] else "table (Parquet)"
    return Explanation(kind, f"{rows:,} rows, columns {some(schema.names, most=8)}", facts)


def _labels(file: Any, facts: Mapping[str, Any]) -> Explanation:
    domains, classes, rows = Counter[str](), Counter[tuple[str, str]](), 0
    for batch in file.iter_batches(columns=["label", "domain"]):
        pairs = [
            (str(label), str(domain))
            for label, domain in zip(batch["label"].to_pylist(), batch["domain"].to_pylist(), strict=True)
        ]
        classes.update(pairs)
        domains.update(domain for _, domain in pairs)
        rows += len(pairs)
    single = sum(images == 1 for images in classes.values())
    more = {
        "classes": len(classes),
        "images_of_a_class": numbers(list(classes.values())),
        "images_of_domains": dict(domains.most_common()),
    }
    warnings = (f"{single:,} classes have a single image.",) if single else ()
    summary = f"{rows:,} images of {len(classes):,} classes in {len(domains)} domains"
    return Explanation("training labels", summary, {**facts, **more}, warnings)


def explain_our_json(look: Look) -> Explanation | None:
    """Explain a manifest that lies in its folder, or alone; None if the JSON is no manifest."""
    folder, name = look.path.parent, look.path.name
    value = json_object(look)
    kind = value.get("kind")
    if not isinstance(kind, str):
        return None
    whole = {rankings.MANIFEST: explain_ranking, results.MANIFEST: explain_evaluation, RUN: explain_run}
    if name in whole:
        return whole[name](look_at(folder))
    if kind == tuning.KIND:
        return explain_mix(look)
    facts = {key: item for key, item in value.items() if isinstance(item, (str, int, float)) and key != "kind"}
    summary = f"says how a {kind} was made" if "made_from" in value else f"{kind}, written by ilias"
    return Explanation(f"{kind} (JSON)", summary, facts | model_facts(value.get("made_from")))


_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_ORIENTATION, _GPS = 0x0112, 0x8825


def is_image(look: Look) -> bool:
    """Tell by the signature, or by the name."""
    webp = look.head[:4] == b"RIFF" and look.head[8:12] == b"WEBP"
    return webp or look.head.startswith(_IMAGES) or look.ending in _IMAGE_ENDINGS


def explain_image(look: Look) -> Explanation:
    """Explain an image; it is decoded, so that damage is found.

    Raises:
        OpenIliasError: it cannot be decoded.
    """
    from PIL import Image

    data = look.path.read_bytes()
    try:
        upright = decode(data, where=str(look.path))
    except OpenIliasError as error:
        raise look.refuse(error.what, fix="Replace the file.") from None
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        facts = {
            "format": image.format,
            "mode": image.mode,
            "stored": f"{image.width} x {image.height}",
            "upright": f"{upright.width} x {upright.height}",
            "orientation": int(exif.get(_ORIENTATION, 1)),
            "progressive": bool(image.info.get("progressive") or image.info.get("progression")),
            "colour_profile": "icc_profile" in image.info,
            "frames": int(getattr(image, "n_frames", 1)),
            "camera": camera_in(exif),
            "bytes": look.size,
        }
        located = bool(exif.get_ifd(_GPS))
    warnings = []
    if facts["orientation"] != 1:
        warnings.append("It is stored turned; boxes and descriptors are those of the upright image.")
    if facts["mode"] != "RGB":
        warnings.append(f"It is stored as {facts['mode']} and is converted to RGB.")
    if facts["frames"] != 1:
        warnings.append("It has several frames; only the first is used.")
    if located:
        warnings.append("It says where it was taken (GPS).")
    summary = f"{facts['format']}, {facts['upright']} pixels, {look.size:,} bytes"
    return Explanation("image", summary, facts, tuple(warnings))


def has(name: str) -> Callable[[Look], bool]:
    """Return a recogniser of folders that hold an entry of this name."""
    return lambda look: name in look.names


def is_benchmark(look: Look) -> bool:
    """Tell a benchmark by its folders."""
    return bool(look.names & {"ilias_core", "core", "image_ids"})
