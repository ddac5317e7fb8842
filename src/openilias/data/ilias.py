"""Reading the official ILIAS layout."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.ids import object_of
from openilias.data.benchmark import Attributes, Benchmark, SourceShard, file_shards, folder_item
from openilias.data.taxonomy import Taxonomy, read_taxonomy

_CORES = ("ilias_core", "core")
_TAR_FOLDERS = ("yfcc100m", "distractors")
_QUERY, _TEXT, _POSITIVE = (re.compile(text) for text in (r"Q.*\.jpg", r"T.*\.txt", r"P.*\.jpg"))
_IMAGE_OF = {"query": _QUERY, "pos": _POSITIVE}
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


def read_ilias(root: Path) -> Benchmark:
    """Read a benchmark in the official layout.

    Looked for in ``root``: ``ilias_core`` or ``core`` (objects), ``yfcc100m`` or ``distractors`` (tar shards), and
    ``distractors`` (image files), ``image_ids`` (used where present, else ids come from the files),
    ``taxonomy.json``, ``checksums.txt``.

    Raises:
        OpenIliasError: no such layout, a malformed id file, duplicated ids, or a query without positives.
    """
    root = Path(root)
    if not root.is_dir():
        raise OpenIliasError("There is no such benchmark folder.", where=root, fix="Check the path.")
    core = _core_of(root)
    lists = root / "image_ids"
    if not core.is_dir() and not lists.is_dir():
        raise OpenIliasError(
            "This is not a benchmark in the ILIAS layout: it has neither ilias_core nor core nor image_ids.",
            where=root,
            fix="Give the folder that holds ilias_core, or make one with: ilias build synth --out DIR",
        )
    stated = _positive_list(lists / "positive_ids.txt")
    benchmark = Benchmark(
        root=root,
        core=core,
        image_queries=_ids(lists / "image_query_ids.txt", core, "query", _QUERY),
        text_queries=_ids(lists / "text_query_ids.txt", core, "query", _TEXT),
        positives=tuple(sorted(stated)) if stated else _from_files(core, "pos", _POSITIVE),
        distractor_shards=_distractors(root),
        stated=stated,
        taxonomy=_taxonomy(root, core),
        id_list=path if (path := lists / "distractor_ids.txt.gz").exists() else None,
        checksums=_checksums(root / "checksums.txt"),
    )
    _check(benchmark)
    return benchmark


def _core_of(root: Path) -> Path:
    found = [root / name for name in _CORES if (root / name).is_dir()]
    if len(found) > 1:
        raise OpenIliasError("Both ilias_core and core are here.", where=root, fix="Keep one of them.")
    return found[0] if found else root / _CORES[0]


def _from_files(core: Path, folder: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    """List the files of all objects that match; anything that looks like an image or id and does not is refused."""
    found, strange = [], []
    for directory in sorted(core.iterdir()) if core.is_dir() else []:
        inner = directory / folder
        if not directory.is_dir() or not inner.is_dir():
            continue
        for path in inner.iterdir():
            if path.name.startswith("."):
                continue
            item = f"{directory.name}/{folder}/{path.name}"
            if not item.isprintable() or any(0xD800 <= ord(letter) <= 0xDFFF for letter in item):
                raise OpenIliasError("This file name is not text.", where=repr(str(path)), fix="Rename it.")
            if pattern.fullmatch(path.name):
                found.append(item)
            elif path.suffix.lower() in _IMAGE_ENDINGS and not _IMAGE_OF[folder].fullmatch(path.name):
                strange.append(item)
    if strange:
        raise OpenIliasError(
            f"These images are not called Q*.jpg or P*.jpg, and would be left out: {first_few(sorted(strange))}.",
            where=core,
            fix="Rename them, or move them away.",
        )
    return tuple(sorted(found))


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise OpenIliasError(f"This id file cannot be read: {error}.", where=path) from None
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _ids(path: Path, core: Path, folder: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    if not path.exists():
        return _from_files(core, folder, pattern)
    ids = [line.split(",", 1)[0].strip() for _, line in _lines(path)]
    _check_ids(ids, path, folder)
    return tuple(sorted(ids))


def _positive_list(path: Path) -> dict[str, Attributes]:
    if not path.exists():
        return {}
    stated: dict[str, Attributes] = {}
    ids = []
    for number, line in _lines(path):
        try:
            item, area, clutter = (word.strip() for word in line.split(","))
            stated[item] = Attributes(float(area), int(clutter))
        except ValueError:
            raise OpenIliasError(
                f"Expected 'id,area_coverage,clutter_segments', found {line!r}.",
                where=f"{path}, line {number}",
            ) from None
        if not 0 <= float(area) <= 1 or int(clutter) < 0:
            raise OpenIliasError(f"Coverage or clutter out of range: {line!r}.", where=f"{path}, line {number}")
        ids.append(item)
    _check_ids(ids, path, "pos")
    return stated


def _check_ids(ids: list[str], path: Path, folder: str) -> None:
    """Refuse duplicates, and ids that are not ``<object>/<folder>/<file>`` and could point anywhere."""
    for item in ids:
        parts = item.split("/")
        if len(parts) != 3 or parts[1] != folder or {"", ".", ".."} & set(parts) or "\\" in item or "\0" in item:
            raise OpenIliasError(f"Expected an id '<object>/{folder}/<file>', found {item!r}.", where=path)
    if len(set(ids)) < len(ids):
        counts = Counter(ids)
        twice = sorted({item for item in ids if counts[item] > 1})
        raise OpenIliasError(f"Ids stand twice: {first_few(twice)}.", where=path, fix="Remove the copies.")


def _distractors(root: Path) -> tuple[SourceShard, ...]:
    tars: dict[str, Path] = {}
    images: list[Path] = []
    for name in _TAR_FOLDERS:
        for path in (root / name).iterdir() if (root / name).is_dir() else ():
            if path.suffix == ".tar":
                if path.name in tars:
                    raise OpenIliasError(f"Two shards are called {path.name}.", where=root, fix="Keep one of them.")
                tars[path.name] = path
            elif name == "distractors" and path.suffix.lower() in _IMAGE_ENDINGS:
                images.append(path)
    images.sort()
    shards = [SourceShard(name, "distractors", tar=path) for name, path in tars.items()]
    shards += file_shards("distractors", [folder_item(path) for path in images])
    return tuple(sorted(shards, key=lambda shard: shard.name))


def _taxonomy(root: Path, core: Path) -> Taxonomy:
    for folder in (root, root / "image_ids", core):
        if (folder / "taxonomy.json").exists():
            return read_taxonomy(folder / "taxonomy.json")
    return Taxonomy()


def _checksums(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    words = [line.split(maxsplit=1) for _, line in _lines(path)]
    if any(len(pair) != 2 for pair in words):
        raise OpenIliasError("Expected '<sha256>  <file or url>' on every line.", where=path)
    return {target.rsplit("/", 1)[-1]: digest for digest, target in words}


def _check(benchmark: Benchmark) -> None:
    queries = benchmark.image_queries + benchmark.text_queries
    if not queries:
        raise OpenIliasError("This benchmark has no queries.", where=benchmark.root)
    lone = sorted({object_of(item) for item in queries} - benchmark.relevance.keys())
    if lone:
        raise OpenIliasError(
            f"Objects without positives: {first_few(lone)}.",
            where=benchmark.root,
            fix="Complete the benchmark.",
        )
