"""Reading the official ILIAS layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import is_there
from openilias.core.findings import Finding, refuse
from openilias.core.ids import object_of
from openilias.core.manifests import read_manifest
from openilias.data.benchmark import Benchmark, SourceShard, file_shards, folder_item
from openilias.data.lists import read_checksums, read_ids, read_positives
from openilias.data.taxonomy import Taxonomy, find_taxonomy

_CORES = ("ilias_core", "core")
TAR_FOLDERS = ("yfcc100m", "distractors")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
LISTS, CHECKSUMS = "image_ids", "checksums.txt"
IMAGE_QUERIES, TEXT_QUERIES, POSITIVES = "image_query_ids.txt", "text_query_ids.txt", "positive_ids.txt"
WRITTEN = "benchmark.json"  # the manifest of a benchmark that we wrote
DISTRACTORS, MINI = "distractor_ids.txt.gz", "mini_ilias_yfcc100m_ids.txt"

Role = Literal["image_query", "text_query", "positive", "side file", "misnamed image", "stray"]
_NAMES: dict[str, tuple[tuple[re.Pattern[str], Role], ...]] = {
    "query": (
        (re.compile(r"Q.*\.jpg"), "image_query"),
        (re.compile(r"T.*\.txt"), "text_query"),
        (re.compile(r"Q.*_(bbox|url)\.txt"), "side file"),
    ),
    "pos": (
        (re.compile(r"P.*\.jpg"), "positive"),
        (re.compile(r"P.*_(bbox|url)\.txt"), "side file"),
    ),
}


@dataclass(frozen=True)
class Reading:
    """What could be read of a benchmark folder, and everything that is wrong with its structure."""

    benchmark: Benchmark
    findings: tuple[Finding, ...]


def read_ilias(root: Path) -> Benchmark:
    """Read a benchmark in the official layout.

    Looked for in ``root``: ``ilias_core`` or ``core`` (objects), ``yfcc100m`` or ``distractors`` (tar shards), and
    ``distractors`` (image files), ``image_ids`` (used where present, else ids come from the files),
    ``taxonomy.json``, ``checksums.txt``.

    Raises:
        OpenIliasError: no such layout, a malformed id file, duplicated ids, or a query without positives.
    """
    reading = find_ilias(root)
    refuse(reading.findings, hint=f"see all with: ilias data verify {root}")
    return reading.benchmark


def find_ilias(root: Path) -> Reading:
    """Read a benchmark in the official layout as far as it can be read, gathering all that is wrong.

    Raises:
        OpenIliasError: there is no such folder, or nothing of the layout in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise OpenIliasError("There is no such benchmark folder.", where=root, fix="Check the path.")
    findings: list[Finding] = []
    core = _core_of(root, findings)
    lists = root / LISTS
    unfinished = _unfinished(root / WRITTEN)
    if not core.is_dir() and not lists.is_dir():
        refuse(unfinished)
        raise OpenIliasError(
            "This is not a benchmark in the ILIAS layout: it has neither ilias_core nor core nor image_ids.",
            where=root,
            fix="Give the folder that holds ilias_core, or make one with: ilias build synth --out DIR",
        )
    findings += unfinished
    stated = read_positives(lists / POSITIVES) if is_there(lists / POSITIVES) else None
    if stated is not None:
        findings += stated.findings
    from_files = _FromFiles(core)
    image_queries = from_files.or_list(lists / IMAGE_QUERIES, "query", "image_query")
    text_queries = from_files.or_list(lists / TEXT_QUERIES, "query", "text_query")
    positives = from_files.ids("positive") if stated is None else tuple(sorted(stated.value))
    checksums = read_checksums(root / CHECKSUMS) if is_there(root / CHECKSUMS) else None
    taxonomy, wrong = _taxonomy(root, core)
    findings += [*from_files.findings, *wrong, *(checksums.findings if checksums else ())]
    benchmark = Benchmark(
        root=root,
        core=core,
        image_queries=image_queries,
        text_queries=text_queries,
        positives=positives,
        distractor_shards=_distractors(root, findings),
        stated={} if stated is None else stated.value,
        taxonomy=taxonomy,
        id_list=path if is_there(path := lists / DISTRACTORS) else None,
        checksums={} if checksums is None else checksums.value,
    )
    _check(benchmark, findings)
    return Reading(benchmark, tuple(findings))


def _core_of(root: Path, findings: list[Finding]) -> Path:
    found = [root / name for name in _CORES if (root / name).is_dir()]
    if len(found) > 1:
        what = "Both ilias_core and core are here."
        findings.append(Finding("error", "two-cores", str(root), what, "Keep one of them."))
    return found[0] if found else root / _CORES[0]


def role_of(folder: str, name: str) -> Role:
    """Tell what a file of an object is by its folder (``query`` or ``pos``) and name."""
    for pattern, role in _NAMES[folder]:
        if pattern.fullmatch(name):
            return role
    return "misnamed image" if name.lower().endswith(IMAGE_ENDINGS) else "stray"


class _FromFiles:
    """The ids that the files of the objects give, listed once and only if a list is missing."""

    def __init__(self, core: Path) -> None:
        self._core = core
        self._found: dict[Role, list[str]] | None = None
        self.findings: list[Finding] = []

    def or_list(self, path: Path, folder: str, role: Role) -> tuple[str, ...]:
        """Return the ids of a list if it is there, else those of the files of a role."""
        if not is_there(path):
            return self.ids(role)
        listed = read_ids(path, folder)
        self.findings += listed.findings
        return listed.value

    def ids(self, role: Role) -> tuple[str, ...]:
        if self._found is None:
            self._found = {}
            self.findings += walk_objects(self._core, self._found)
            strange = sorted(self._found.get("misnamed image", ()))
            if strange:
                what = f"These images are not called Q*.jpg or P*.jpg, and would be left out: {first_few(strange)}."
                fix = "Rename them, or move them away."
                self.findings.append(Finding("error", "image-misnamed", str(self._core), what, fix))
        return tuple(sorted(self._found.get(role, ())))


def walk_objects(core: Path, found: dict[Role, list[str]]) -> list[Finding]:
    """Sort the files of all objects by role into ``found``, as ids; return what has no name that can be used."""
    findings = []
    for directory in sorted(core.iterdir()) if core.is_dir() else []:
        for folder in _NAMES:
            inner = directory / folder
            for name in sorted(path.name for path in inner.iterdir()) if inner.is_dir() else ():
                if name.startswith("."):
                    continue
                item = f"{directory.name}/{folder}/{name}"
                if not item.isprintable():  # nor is a name that is not UTF-8
                    findings.append(_no_text(inner / name))
                else:
                    found.setdefault(role_of(folder, name), []).append(item)
    return findings


def _no_text(path: Path) -> Finding:
    where = ascii(str(path))[1:-1]
    return Finding("error", "name-not-text", where, "This file name is not text.", "Rename it.")


def _unfinished(manifest: Path) -> list[Finding]:
    if not manifest.exists():
        return []
    try:
        complete = read_manifest(manifest, kind="benchmark").get("complete")
    except OpenIliasError as error:
        return [Finding("error", "benchmark-unfinished", str(manifest), error.what, error.fix)]
    if complete:
        return []
    what = "The writing of this benchmark was cut off."
    return [Finding("error", "benchmark-unfinished", str(manifest), what, "Run the same ilias data write again.")]


def _distractors(root: Path, findings: list[Finding]) -> tuple[SourceShard, ...]:
    tars: dict[str, Path] = {}
    images: list[Path] = []
    for name in TAR_FOLDERS:
        for path in sorted((root / name).iterdir()) if (root / name).is_dir() else ():
            if not path.name.isprintable():
                findings.append(_no_text(path))
            elif path.suffix == ".tar":
                if path.name in tars:
                    what = f"Two shards are called {path.name}."
                    findings.append(Finding("error", "shard-duplicate", str(path), what, "Keep one of them."))
                else:
                    tars[path.name] = path
            elif name == "distractors" and path.name.lower().endswith(IMAGE_ENDINGS) and path.name[0] != ".":
                images.append(path)
    images.sort()
    shards = [SourceShard(name, "distractors", tar=path) for name, path in tars.items()]
    shards += file_shards("distractors", [folder_item(path) for path in images])
    return tuple(sorted(shards, key=lambda shard: shard.name))


def taxonomy_file(root: Path, core: Path) -> Path | None:
    """Return where the taxonomy of a benchmark is, None if it has none."""
    places = (folder / "taxonomy.json" for folder in (root, root / LISTS, core))
    return next((path for path in places if is_there(path)), None)


def _taxonomy(root: Path, core: Path) -> tuple[Taxonomy, tuple[Finding, ...]]:
    path = taxonomy_file(root, core)
    return (Taxonomy(), ()) if path is None else find_taxonomy(path)


def _check(benchmark: Benchmark, findings: list[Finding]) -> None:
    queries = benchmark.image_queries + benchmark.text_queries
    if not queries:
        findings.append(Finding("error", "no-queries", str(benchmark.root), "This benchmark has no queries."))
    lone = sorted({object_of(item) for item in queries} - benchmark.relevance.keys())
    if lone:
        what = f"Objects without positives: {first_few(lone, most=10)}."
        where, fix = str(benchmark.root), "Complete the benchmark."
        findings.append(Finding("error", "object-without-positives", where, what, fix))
