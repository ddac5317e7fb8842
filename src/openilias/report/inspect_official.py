"""Explaining the small official files: results, id lists, checksums, taxonomy, boxes, and tar shards."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import IO, Any

import numpy as np

from openilias.core.errors import OpenIliasError
from openilias.core.progress import progress
from openilias.data.taxonomy import UNASSIGNED, read_taxonomy
from openilias.evaluate.official import read_official
from openilias.evaluate.pickles import read_arrays
from openilias.images.boxes import coverage, read_boxes
from openilias.images.decode import upright_size
from openilias.images.tars import scan_tar
from openilias.report.inspect_values import KEYS, Explanation, IdCount, Look, numbers, shape_of, some
from openilias.report.tables import count

_CHECKSUM = re.compile(r"\s*[0-9a-fA-F]{64}\s+\S.*")
_BOX = re.compile(r"\s*-?\d+(\s+-?\d+){3}\s*")
_LONGEST_LINE = 2**16
GZIP = b"\x1f\x8b"


def is_pickle(look: Look) -> bool:
    """Tell by the name or the first bytes."""
    return look.ending in (".pkl", ".pickle") or (look.head[:1] == b"\x80" and look.head[1:2] in b"\2\3\4\5")


def explain_pickle(look: Look) -> Explanation:
    """Explain a pickle of arrays; nothing in it is executed.

    Raises:
        OpenIliasError: damaged, or it holds anything but arrays and plain containers.
    """
    value = read_arrays(look.path)
    listed = {name: _form(item) for name, item in value.items()}
    if not {"query_ids", "db_ids", "sims", "ranks"} <= value.keys():
        return Explanation(
            "pickle of arrays",
            f"{len(value)} values; no similarities: those have query_ids, db_ids, sims and ranks",
            {"contents": listed},
            ("ilias cannot use this file.",),
        )
    ranks = np.asarray(value["ranks"])
    if ranks.dtype.kind == "i" and (ranks < 0).any():
        holes = int((ranks < 0).sum())
        raise look.refuse(
            f"{holes:,} ranks are -1: the official search writes them where k exceeds the database.",
            fix="Search again with a k that is not larger than the database.",
        )
    ranking = read_official(look.path)  # refuses what does not belong together, and duplicates
    lists = {
        query: dict(zip(ranking.ids_of(line), ranking.scores[line].tolist(), strict=False))
        for line, query in enumerate(ranking.query_ids)
    }
    sims = np.asarray(value["sims"])
    in_order = not (sims[:, 1:] > sims[:, :-1]).any()
    return _similarities("similarities (pickle)", lists, {"contents": listed}, in_order=in_order)


def _form(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {value.dtype}"
    return f"list of {len(value):,}" if isinstance(value, list) else type(value).__name__


def looks_like_similarities(value: Mapping[str, Any]) -> bool:
    """Tell whether a JSON object is ``{query: {database id: similarity}}``."""
    return bool(value) and all(
        isinstance(found, dict) and not any(isinstance(item, (dict, list)) for item in found.values())
        for found in value.values()
    )


def explain_similarities(look: Look) -> Explanation:
    """Explain ``similarities.json``.

    Raises:
        OpenIliasError: an id stands twice, or a similarity is no number.
    """
    read_official(look.path)
    lists: dict[str, dict[str, float]] = json.loads(look.path.read_bytes())
    rows = (list(found.values()) for found in lists.values())
    in_order = all(earlier >= later for row in rows for earlier, later in pairwise(row))
    return _similarities("similarities (JSON)", lists, {}, in_order=in_order)


def _similarities(
    kind: str, lists: Mapping[str, Mapping[str, float]], extra: dict[str, Any], *, in_order: bool
) -> Explanation:
    lengths = [len(found) for found in lists.values()]
    scores = np.array([score for found in lists.values() for score in found.values()], np.float64)
    ties = sum(len(found) - len(set(found.values())) for found in lists.values())
    entries = Counter(shape_of(item) for found in lists.values() for item in found)
    images = {item for found in lists.values() for item in found}
    queries = Counter(shape_of(query) for query in lists)
    facts = {
        "queries": dict(queries),
        "images_of_a_list": numbers(lengths),
        "different_images": len(images),
        "entries": dict(entries),
        "scores": numbers(scores),
        "best_first": in_order,
        "ties": ties,
        "duplicates": 0,
        **extra,
    }
    warnings = []
    if not in_order:
        warnings.append("The lists are not in order of similarity; ilias sorts them.")
    if len(set(lengths)) > 1:
        warnings.append("The lists differ in length.")
    if strange := queries.keys() - {"image_queries", "text_queries"}:
        warnings.append(f"Some queries look like {some(sorted(strange))}.")
    if len(scores) and np.abs(scores).max() > 1 + 1e-3:
        warnings.append("Similarities beyond 1: these are no cosines.")
    depth = max(lengths, default=0)
    summary = f"{count(len(lists), 'query')}, up to {count(depth, 'image')} each"
    return Explanation(kind, summary, facts, tuple(warnings))


def is_tar(look: Look) -> bool:
    """Tell by the signature, or by the name."""
    return look.ending == ".tar" or look.head[257:262] == b"ustar"


def explain_tar(look: Look) -> Explanation:
    """Explain a tar shard by its headers.

    Raises:
        OpenIliasError: the shard as a whole cannot be used.
    """
    scan = scan_tar(look.path)
    if scan.broken:
        raise look.refuse(f"This tar shard cannot be used: {some(scan.broken)}.", fix="Download or rebuild the shard.")
    images = len(scan.index)
    facts = {
        "images": images,
        "other_members": dict(scan.others),
        "image_bytes": numbers(scan.index.sizes),
        "bytes": look.size,
    }
    if images:
        facts |= {"first": scan.index.key(0), "last": scan.index.key(images - 1)}
    unused = (*scan.unusable, *scan.strange)
    warnings = [f"{item.name} is not used: {item.reason}." for item in unused[:5]]
    if len(unused) > 5:
        warnings.append(f"{len(unused) - 5:,} more members are not used.")
    if not images:
        warnings.append("It holds no image: only members that end in .jpg count.")
    return Explanation("tar shard", f"{count(images, 'image')} in {look.size:,} bytes", facts, tuple(warnings))


def is_gzip(look: Look) -> bool:
    """Tell a gzip file of ids by the signature and the name."""
    return look.ending == ".gz" and look.path.name.endswith((".txt.gz", ".csv.gz"))


def is_text(look: Look) -> bool:
    """Tell whether a file begins like text."""
    try:
        text = look.head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(look.head) - 3 or len(look.head) < 8:
            return False
        text = look.head[: error.start].decode("utf-8")
    return bool(text.strip()) and not any(letter < " " and letter not in "\t\n\r\f\v" for letter in text)


def _first_lines(look: Look) -> list[str]:
    lines = look.head.decode("utf-8", "replace").splitlines()
    # The last line may be cut.
    return [line for line in (lines if look.size <= len(look.head) else lines[:-1]) if line.strip()]


def is_checksums(look: Look) -> bool:
    """Tell by the name, or by a first line that is one."""
    lines = _first_lines(look) if is_text(look) else []
    return look.path.name == "checksums.txt" or (bool(lines) and _CHECKSUM.fullmatch(lines[0]) is not None)


def explain_checksums(look: Look) -> Explanation:
    """Explain ``checksums.txt``.

    Raises:
        OpenIliasError: a line is not ``<sha256>  <file or url>``.
    """
    targets: list[str] = []
    for number, line in _lines(look):
        if _CHECKSUM.fullmatch(line) is None:
            raise OpenIliasError(
                f"Expected '<sha256>  <file or url>', found {line[:80]!r}.", where=f"{look.path}, line {number}"
            )
        targets.append(line.split(maxsplit=1)[1].strip())
    names = [target.rsplit("/", 1)[-1] for target in targets]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    facts = {
        "files": len(names),
        "tars": sum(name.endswith(".tar") for name in names),
        "urls": sum("://" in target for target in targets),
        "first": names[0] if names else "",
        "last": names[-1] if names else "",
    }
    warnings = (f"These files stand there more than once: {some(twice)}.",) if twice else ()
    return Explanation("checksums", f"the SHA-256 of {count(len(names), 'file')}", facts, warnings)


def is_boxes(look: Look) -> bool:
    """Tell by the name, or by lines of four integers."""
    if look.path.name.endswith("_bbox.txt"):
        return True
    lines = _first_lines(look) if is_text(look) else []
    return bool(lines) and all(_BOX.fullmatch(line) for line in lines)


def explain_boxes(look: Look) -> Explanation:
    """Explain a box file, with the image beside it if it is there.

    Raises:
        OpenIliasError: a line is no box, or the image cannot be read.
    """
    boxes = read_boxes(look.path)
    facts: dict[str, Any] = {"boxes": [" ".join(map(str, box)) for box in boxes[:10]]}
    warnings = [] if boxes else ["It holds no box."]
    image = look.path.with_name(f"{look.path.name.removesuffix('_bbox.txt')}.jpg")
    if image.is_file() and image != look.path:
        width, height = upright_size(image.read_bytes(), where=str(image))
        facts |= {"image": image.name, "image_size": f"{width} x {height}"}
        facts["coverage"] = coverage(boxes, width=width, height=height)
        outside = sum(box.x + box.width > width or box.y + box.height > height for box in boxes)
        if outside:
            warnings.append(f"Boxes that reach outside the image: {outside}.")
    return Explanation(
        "boxes of an image",
        f"{count(len(boxes), 'box').replace('boxs', 'boxes')}: x y width height in pixels of the upright image",
        facts,
        tuple(warnings),
    )


def explain_taxonomy(look: Look) -> Explanation:
    """Explain ``taxonomy.json``.

    Raises:
        OpenIliasError: another shape, or an object in two places.
    """
    taxonomy = read_taxonomy(look.path)
    nodes = [len({node[: depth + 1] for node in taxonomy.nodes.values()}) for depth in range(3)]
    objects = Counter(node[0] for node in taxonomy.nodes.values())
    counts = " / ".join(map(str, taxonomy.counts()))
    return Explanation(
        "taxonomy",
        f"{count(len(taxonomy.nodes), 'object')} in {counts} categories, coarse / mid / fine",
        {
            "objects": len(taxonomy.nodes),
            "categories": list(taxonomy.counts()),
            f"nodes_with_{UNASSIGNED}": nodes,
            "objects_of_coarse": dict(objects.most_common()),
        },
    )


def explain_id_list(look: Look) -> Explanation:
    """Explain a list of ids, plain or gzip, of any length: it is streamed.

    Raises:
        OpenIliasError: damaged, or a line that cannot be an id.
    """
    ids, columns, numbers_seen = IdCount(), Counter[int](), 0
    with progress("read ids", total=None, unit="ids") as step:
        batch: list[str] = []
        for _, line in _lines(look):
            words = line.strip().split(",")
            columns[len(words)] += 1
            numbers_seen += len(words) == 3 and words[1].strip().replace(".", "", 1).isdigit()
            batch.append(words[0].strip())
            if len(batch) >= 10_000:
                ids.add(batch)
                step(len(batch))
                batch = []
        ids.add(batch)
    if ids.partition == "unknown" or (ids.count and 2 * ids.shapes["other"] > ids.count):
        raise look.refuse("This text is no list of ids that ilias knows.", fix="Give another file.")
    facts = {**ids.facts(), "columns": {str(width): lines for width, lines in columns.items()}}
    warnings = ids.warnings()
    if numbers_seen:
        facts["with_coverage_and_clutter"] = numbers_seen
    if len(columns) > 1:
        warnings.append("The lines have different numbers of columns.")
    partition = ids.partition.replace("_", " ")
    if partition == KEYS:
        warnings.append("Keys as in mini_ilias_yfcc100m_ids.txt; but any list of words looks like this.")
    return Explanation("id list", f"{count(ids.count, 'id')} of {partition}", facts, tuple(warnings))


def explain_text_query(look: Look) -> Explanation:
    """Explain the text of a text query."""
    text = look.path.read_text(encoding="utf-8")
    return Explanation(
        "text query",
        count(len(text.split()), "word"),
        {
            "words": len(text.split()),
            "characters": len(text),
            "final_newline": text.endswith("\n"),
            "text": text.strip(),
        },
    )


def _lines(look: Look) -> Iterator[tuple[int, str]]:
    """Stream the lines that are not empty, with their numbers."""
    try:
        with (
            gzip.open(look.path, "rb")
            if look.head.startswith(GZIP) or look.ending == ".gz"
            else look.path.open("rb") as handle
        ):
            yield from _decoded(handle, look)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise look.refuse(f"This text file is damaged or truncated: {error}.") from None


def _decoded(handle: IO[bytes] | gzip.GzipFile, look: Look) -> Iterator[tuple[int, str]]:
    number = 0
    while line := handle.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise look.refuse(f"Line {number} is longer than any id.", fix="Give a file of lines.")
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        if text.strip():
            yield number, text
