"""What must hold among the files of the objects: lists, images, boxes, attributes, texts, taxonomy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import is_there, read_bytes
from openilias.core.findings import Finding
from openilias.core.ids import object_of
from openilias.data.benchmark import Benchmark, box_file
from openilias.data.ilias import (
    IMAGE_ENDINGS,
    IMAGE_QUERIES,
    LISTS,
    POSITIVES,
    TAR_FOLDERS,
    TEXT_QUERIES,
    Role,
    taxonomy_file,
    walk_objects,
)
from openilias.data.training import LABELS, TRAIN, read_training_set
from openilias.images.boxes import coverage, find_boxes

_COVERAGE_TOLERANCE = 0.01
_MOST_TEXT = 2**20  # bytes of a text query
Sizes = Mapping[str, tuple[int, int]]
"""Id of a query or positive image -> width and height of the upright image, for those that can be read."""


def check_distractor_folders(benchmark: Benchmark) -> Iterator[Finding]:
    """Name everything that lies beside the distractors and is not used."""
    used = {shard.tar for shard in benchmark.distractor_shards}
    used |= {item.path for shard in benchmark.distractor_shards for item in shard.files}
    for name in TAR_FOLDERS:
        for path in sorted((benchmark.root / name).iterdir()) if (benchmark.root / name).is_dir() else ():
            if path in used or not path.name.isprintable():
                continue
            lost = re.search(r"\.(tar|tgz|tar\..*)$", path.name.lower()) or path.name.lower().endswith(IMAGE_ENDINGS)
            if path.name.startswith("."):
                yield Finding("note", "hidden-file", str(path), "This hidden file has no part in the layout.")
            elif lost:
                what = "This looks like a shard or an image of distractors, and is not used."
                fix = "Shards are called *.tar; images lie in distractors/."
                yield Finding("error", "distractor-unused", str(path), what, fix)
            elif path.is_dir():
                yield Finding("warning", "stray-folder", str(path), "Nothing in this folder takes part.")
            else:
                yield Finding("note", "stray-file", str(path), "This file has no part in the layout.")


def check_training(root: Path) -> Iterator[Finding]:
    """Check the training split of a benchmark, if it has one: its list against its files."""
    folder = root / TRAIN
    if not is_there(folder / LABELS):
        return
    try:
        training = read_training_set(folder)
    except OpenIliasError as error:
        where = error.where or str(folder / LABELS)
        yield Finding("error", "training-malformed", where, error.what, error.fix)
        return
    listed = set(training.ids)
    for path in sorted(folder.rglob("*")):
        item = path.relative_to(folder).as_posix()
        if path.name.lower().endswith(IMAGE_ENDINGS) and item not in listed:
            what = f"{LABELS} does not name this image: it takes no part."
            yield Finding("warning", "training-not-listed", f"{TRAIN}/{item}", what)


def check_core(benchmark: Benchmark, sizes: Sizes) -> list[Finding]:
    """Gather everything that is wrong among the objects of a benchmark."""
    found: dict[Role, list[str]] = {}
    findings = walk_objects(benchmark.core, found)
    if benchmark.core.is_dir():
        findings += _against_lists(benchmark, found)
        findings += _strays(benchmark, found)
        findings += _boxes(benchmark, sizes)
        findings += _texts(benchmark)
    findings += _objects(benchmark)
    findings += _taxonomy(benchmark)
    findings += _names([*benchmark.image_queries, *benchmark.text_queries, *benchmark.positives])
    return findings


def _against_lists(benchmark: Benchmark, found: Mapping[Role, list[str]]) -> Iterator[Finding]:
    roles: tuple[tuple[Role, str, tuple[str, ...]], ...] = (
        ("image_query", IMAGE_QUERIES, benchmark.image_queries),
        ("text_query", TEXT_QUERIES, benchmark.text_queries),
        ("positive", POSITIVES, benchmark.positives),
    )
    for role, name, listed in roles:
        path = benchmark.root / LISTS / name
        if not path.exists():
            continue
        here = set(found.get(role, ()))
        for item in listed:
            # Names of images are looked for when these are read: a listed file may have any name.
            if role == "text_query" and item not in here and not benchmark.path_of(item).is_file():
                yield Finding("error", "text-missing", item, f"This text query of {name} is not here.")
        for item in sorted(here - set(listed)):
            what = f"This file looks like a {role.replace('_', ' ')}, and {name} does not list it: it takes no part."
            yield Finding("warning", "not-listed", item, what, "List it, or move it away.")


def _strays(benchmark: Benchmark, found: Mapping[Role, list[str]]) -> Iterator[Finding]:
    for item in found.get("misnamed image", ()):
        what = "This image is not called Q*.jpg or P*.jpg, and is left out."
        yield Finding("error", "image-misnamed", item, what, "Rename it, or move it away.")
    for item in found.get("stray", ()):
        yield Finding("note", "stray-file", item, "This file has no part in the layout.")
    images = {*found.get("image_query", ()), *found.get("positive", ())}
    for item in found.get("side file", ()):
        stem = item.rsplit("_", 1)[0]
        if f"{stem}.jpg" not in images:
            yield Finding("warning", "side-file-alone", item, "This file belongs to an image that is not here.")
    for directory in sorted(benchmark.core.iterdir()):
        if directory.name.startswith("."):
            yield Finding("note", "hidden-file", str(directory), "This hidden file has no part in the layout.")
        elif not directory.is_dir():
            if directory.name != "taxonomy.json":
                yield Finding("note", "stray-file", str(directory), "This file has no part in the layout.")
        else:
            yield from _inside(directory)


def _inside(directory: Path) -> Iterator[Finding]:
    for path in sorted(directory.iterdir()):
        if path.name not in ("query", "pos"):
            yield Finding("note", "stray-file", str(path), "This has no part in the layout.")
            continue
        if not path.is_dir():
            yield Finding("error", "not-a-folder", str(path), "This must be a folder.")
            continue
        for inner in sorted(path.iterdir()):
            if inner.name.startswith("."):
                yield Finding("note", "hidden-file", str(inner), "This hidden file has no part in the layout.")
            elif inner.is_symlink() and not inner.exists():
                yield Finding("error", "link-dangling", str(inner), "This link leads nowhere.")
            elif inner.is_dir():
                yield Finding("warning", "stray-folder", str(inner), "Nothing in this folder takes part.")


def _boxes(benchmark: Benchmark, sizes: Sizes) -> Iterator[Finding]:
    for item in (*benchmark.image_queries, *benchmark.positives):
        path = box_file(benchmark.path_of(item))
        boxes, findings = find_boxes(path)
        yield from findings
        if not path.exists():
            if benchmark.path_of(item).exists():
                yield Finding("warning", "box-missing", item, "This image has no box file.")
            continue
        if not boxes and not findings:
            yield Finding("warning", "box-missing", str(path), "This box file is empty.")
        for box, count in Counter(boxes).items():
            if count > 1:
                yield Finding("warning", "box-duplicate", str(path), f"The box {_shown(box)} stands {count} times.")
        if item not in sizes:
            continue
        width, height = sizes[item]
        for box in boxes:
            if box.x + box.width > width or box.y + box.height > height:
                turned = box.x + box.width <= height and box.y + box.height <= width
                hint = "; it fits the image before it is turned upright" if turned and width != height else ""
                what = f"The box {_shown(box)} reaches outside the upright image of {width} x {height}{hint}."
                yield Finding("error", "box-outside", str(path), what)
        stated = benchmark.stated.get(item)
        if stated is not None and stated.coverage is not None and boxes:
            found = coverage(boxes, width=width, height=height)
            if abs(found - stated.coverage) > _COVERAGE_TOLERANCE:
                what = f"The area coverage is stated as {stated.coverage:.4f}, the boxes cover {found:.4f}."
                yield Finding("warning", "coverage-differs", item, what)


def _shown(box: Iterable[int]) -> str:
    return "'" + " ".join(map(str, box)) + "'"


def _texts(benchmark: Benchmark) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for item in benchmark.text_queries:
        try:
            text = read_bytes(benchmark.path_of(item), most=_MOST_TEXT).decode("utf-8")
        except UnicodeDecodeError:
            yield Finding("error", "text-not-utf8", item, "This text query is not UTF-8.")
            continue
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                yield Finding("error", "text-unreadable", item, f"This text query cannot be read: {error.strerror}.")
            continue
        words = text.strip()
        if not words:
            yield Finding("error", "text-empty", item, "This text query is empty.")
        elif not words.replace("\n", " ").replace("\t", " ").isprintable():
            yield Finding("warning", "text-control", item, "This text query has control characters.")
        elif object_of(seen.setdefault(words, item)) != object_of(item):
            yield Finding("warning", "text-duplicate", item, f"The text of this query is that of {seen[words]}.")


def _objects(benchmark: Benchmark) -> Iterator[Finding]:
    queries = _asked(benchmark)
    folders = {path.name for path in benchmark.core.iterdir() if path.is_dir()} if benchmark.core.is_dir() else set()
    for name in sorted(benchmark.relevance.keys() - queries):
        what = "This object has positives and no query: nobody asks for it."
        yield Finding("warning", "object-without-queries", name, what)
    for name in sorted(folders - queries - benchmark.relevance.keys()):
        if not name.startswith("."):
            yield Finding("warning", "object-empty", name, "This folder has neither queries nor positives.")


def _asked(benchmark: Benchmark) -> set[str]:
    return {object_of(item) for item in (*benchmark.image_queries, *benchmark.text_queries)}


def _taxonomy(benchmark: Benchmark) -> Iterator[Finding]:
    path = taxonomy_file(benchmark.root, benchmark.core)
    if path is None:
        return
    here = benchmark.relevance.keys() | {
        object_of(item) for item in (*benchmark.image_queries, *benchmark.text_queries)
    }
    for name in sorted(here - benchmark.taxonomy.nodes.keys()):
        yield Finding("warning", "taxonomy-lacks", name, "The taxonomy does not name this object.")
    unknown = sorted(benchmark.taxonomy.nodes.keys() - here)
    if unknown:
        what = f"The taxonomy names {len(unknown)} objects that are not here: {first_few(unknown, most=10)}."
        yield Finding("warning", "taxonomy-unknown", str(path), what)


def _names(items: list[str]) -> Iterator[Finding]:
    for item in items:
        name, _, file = item.split("/")
        number = name.rpartition("_")[2]
        stated = file[1:].partition("_")[0].partition(".")[0]
        if number.isdigit() and stated.isdigit() and number != stated:
            what = f"The number of this file is {stated}, that of its object {number}: was it moved?"
            yield Finding("warning", "number-differs", item, what)
        if not item.isascii():
            what = "This id is not ASCII; ids of ILIAS are, and other programs may fail on it."
            yield Finding("warning", "id-not-ascii", item, what)
