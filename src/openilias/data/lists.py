"""The text files of the official layout: ids, attributes, checksums. Every bad line is found, not just the first."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import open_regular, read_bytes
from openilias.core.findings import Finding

T = TypeVar("T")

_LONGEST = 255  # bytes of a file name, on every system


@dataclass(frozen=True)
class Attributes:
    """What is known of a positive: the share of the image inside its boxes, and the segments outside them."""

    coverage: float | None
    clutter: int | None


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """What could be read of a file, and what could not."""

    value: T
    findings: tuple[Finding, ...] = ()


def _lines(path: Path) -> Parsed[list[tuple[int, str]]]:
    """Return the lines that are not empty with their numbers from 1."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        finding = Finding("error", "list-unreadable", str(path), f"This id file cannot be read: {error}.")
        return Parsed([], (finding,))
    lines = text.split("\n")
    return Parsed([(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()])


def read_ids(path: Path, folder: str) -> Parsed[tuple[str, ...]]:
    """Read ids, one a line; further columns behind a comma are left to others.

    Args:
        path: the list.
        folder: the middle part that every id must have: ``query`` or ``pos``.
    """
    lines = _lines(path)
    ids = [(number, line.split(",", 1)[0].strip()) for number, line in lines.value]
    good, findings = _sound(ids, path, folder)
    return Parsed(tuple(sorted(good)), lines.findings + findings)


def read_positives(path: Path) -> Parsed[dict[str, Attributes]]:
    """Read ``id,area_coverage,clutter_segments``; an empty field is not known."""
    lines = _lines(path)
    stated: dict[str, Attributes] = {}
    ids, findings = [], list(lines.findings)
    for number, line in lines.value:
        where = f"{path}, line {number}"
        try:
            item, area, clutter = (word.strip() for word in line.split(","))
            known = Attributes(float(area) if area else None, int(clutter) if clutter else None)
        except ValueError:
            what = f"Expected 'id,area_coverage,clutter_segments', found {line!r}."
            findings.append(Finding("error", "attribute-malformed", where, what))
            continue
        if not (known.coverage is None or 0 <= known.coverage <= 1) or (known.clutter or 0) < 0:
            what = f"Coverage or clutter out of range: {line!r}."
            findings.append(Finding("error", "attribute-range", where, what))
            continue
        stated[item] = known
        ids.append((number, item))
    good, more = _sound(ids, path, "pos")
    return Parsed({item: stated[item] for item in good}, (*findings, *more))


def _sound(ids: list[tuple[int, str]], path: Path, folder: str) -> tuple[list[str], tuple[Finding, ...]]:
    """Take out ids that are not ``<object>/<folder>/<file>`` and could point anywhere, and copies of ids."""
    good, findings = [], []
    for number, item in ids:
        parts = item.split("/")
        named = len(parts) == 3 and parts[1] == folder and not {"", ".", ".."} & set(parts)
        if not named or "\\" in item or "\0" in item or max(len(part.encode()) for part in parts) > _LONGEST:
            item = item if len(item) <= 120 else f"{item[:100]}... of {len(item)} characters"
            what = f"Expected an id '<object>/{folder}/<file>', found {item!r}."
            findings.append(Finding("error", "id-malformed", f"{path}, line {number}", what))
        else:
            good.append(item)
    twice = sorted(item for item, count in Counter(good).items() if count > 1)
    if twice:
        what = f"Ids stand twice: {first_few(twice, most=10)}."
        findings.append(Finding("error", "id-duplicate", str(path), what, "Remove the copies."))
    return sorted(set(good)), tuple(findings)


def read_checksums(path: Path) -> Parsed[dict[str, str]]:
    """Read ``<sha256>  <file or url>`` lines: file name -> digest."""
    lines = _lines(path)
    found: dict[str, str] = {}
    findings = list(lines.findings)
    for number, line in lines.value:
        digest, _, target = line.partition(" ")
        name = target.strip().rsplit("/", 1)[-1]
        digest = digest.lower()
        where = f"{path}, line {number}"
        if not name or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            what = f"Expected '<sha256>  <file or url>', found {line[:120]!r}."
            findings.append(Finding("error", "checksum-malformed", where, what))
        elif found.get(name, digest) != digest:
            what = f"Two different checksums are stated of {name}."
            findings.append(Finding("error", "checksum-contradiction", where, what))
        else:
            found[name] = digest
    return Parsed(found, tuple(findings))


def listed_distractors(path: Path) -> Iterator[str]:
    """Yield the ids of ``distractor_ids.txt.gz`` one by one, never holding them all.

    Raises:
        OpenIliasError: the file is damaged or not text.
    """
    try:
        with open_regular(path) as packed, gzip.open(packed, "rt", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                item = line.strip()
                if item:
                    yield item
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise OpenIliasError(f"This id list cannot be read: {error}.", where=path, fix="Download it again.") from None


def known(stated: Mapping[str, Attributes], item: str) -> Attributes:
    """Return what a list states of a positive; nothing, if it does not name it."""
    return stated.get(item, Attributes(None, None))
