"""Where ILIAS is published, and what lies there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import quote, urlsplit

from openilias.core.errors import OpenIliasError, first_few
from openilias.data.addresses import RefusedAddressError, host_of
from openilias.data.ilias import DISTRACTORS, IMAGE_QUERIES, LISTS, MINI, POSITIVES, TEXT_QUERIES

PORTAL = "https://vrg.fel.cvut.cz/ilias_data"
MIRROR = "https://huggingface.co/datasets/vrg-prague/ilias"

What = Literal["core", "ids", "mini", "shards", "features", "similarities", "layers", "about"]
WHATS: tuple[What, ...] = get_args(What)
USUAL: tuple[What, ...] = ("core", "ids")
CORE_TAR = "ilias_core.tar"
CORE = "ilias_core"
SHARDS = "yfcc100m"
FILES: dict[What, tuple[str, ...]] = {
    "core": (CORE_TAR,),
    "ids": tuple(f"{LISTS}/{name}" for name in (IMAGE_QUERIES, TEXT_QUERIES, POSITIVES, DISTRACTORS)),
    "mini": (f"{LISTS}/{MINI}",),
}
FOLDERS: dict[What, str] = {"features": "features", "similarities": "similarities", "layers": "lin_adapt_layers"}
TAXONOMY = "taxonomy.json"
ATTRIBUTION, LICENCES, DATASHEET, CROISSANT = "attribution.csv.gz", "LICENSES.md", "DATASHEET.md", "croissant.json"
DOCUMENTS = (ATTRIBUTION, LICENCES, DATASHEET, CROISSANT)
ROWS, BROWSE = "rows", "browse"
ABOUT_FOLDERS = (ROWS, BROWSE)
"""What `ilias build publish` adds to the official layout; a place has it if its list of checksums names it."""
_SHARD = re.compile(rf"{SHARDS}/[^/]+_(\d{{4,9}})\.tar")
_MINI_LIST = re.compile(rf"{LISTS}/mini[^/]*_ids\.txt")
_HUB = re.compile(r"/datasets/[^/]+/[^/]+")
_LIST_OF_FILES = "ilias_data/"


@dataclass(frozen=True)
class PublishedFile:
    """One file: its path below the root of the data, its URL, and what is known of it before."""

    path: str
    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Source:
    """A place of the data.

    Attributes:
        name: ``portal``, ``mirror``, or the URL.
        base: the URL of the root, without a slash at its end.
        hub: it is a data set of a Hugging Face hub, and no plain folder of a web server.
    """

    name: str
    base: str
    hub: bool

    def url(self, path: str) -> str:
        """Return the URL of a file."""
        return f"{self.base}/{'resolve/main/' if self.hub else ''}{quote(path)}"

    def tree(self, folder: str, *, recursive: bool) -> str:
        """Return the URL of the list of a folder of a hub."""
        parts = urlsplit(self.base)
        below = f"/{quote(folder)}" if folder else ""
        ending = "?recursive=true" if recursive else ""
        return f"{parts.scheme}://{parts.netloc}/api{parts.path}/tree/main{below}{ending}"


def source_of(text: str) -> Source:
    """Return the place that ``--source`` names.

    Raises:
        OpenIliasError: it is neither ``portal`` nor ``mirror`` nor a URL.
    """
    base = {"portal": PORTAL, "mirror": MIRROR}.get(text, text).rstrip("/")
    try:
        host_of(base)
        parts = urlsplit(base)
        if parts.query or parts.fragment:
            raise RefusedAddressError("it has a query or a fragment")
    except RefusedAddressError as error:
        fix = "Give portal, mirror, or the http(s) URL of a folder that is laid out as the portal is."
        raise OpenIliasError(f"This is no source: {error}.", where=text, fix=fix) from None
    return Source(text, base, _HUB.fullmatch(parts.path) is not None)


def whats_of(words: list[str]) -> tuple[What, ...]:
    """Return what is asked for, in the order of the house.

    Raises:
        OpenIliasError: there is no such thing.
    """
    unknown = [word for word in words if word not in WHATS]
    if unknown:
        raise OpenIliasError(f"There is no {first_few(unknown)} to download.", fix=f"Give some of {', '.join(WHATS)}.")
    return tuple(what for what in WHATS if what in words)


def parse_shards(text: str) -> tuple[range, ...]:
    """Read numbers and ranges with commas between: ``0-9,20``.

    Raises:
        OpenIliasError: it is something else.
    """
    ranges = []
    for word in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", word)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            fix = "Give numbers and ranges with commas between, as in --shards 0-9,20."
            raise OpenIliasError(f"{word.strip()!r} is no range of shards.", fix=fix)
        ranges.append(range(int(found[1]), int(found[2] or found[1]) + 1))
    return tuple(ranges)


def shard_number(path: str) -> int | None:
    """Return the number of the shard that a path names, None if it names none."""
    found = _SHARD.fullmatch(path)
    return None if found is None else int(found[1])


def choose_shards(listed: list[str], wanted: tuple[range, ...] | None, *, where: str) -> list[str]:
    """Return the paths of the shards that are asked for, by number; all, if nothing is asked for.

    Raises:
        OpenIliasError: the list has no shards at all, or not all that are asked for.
    """
    shards: dict[int, list[str]] = {}  # sets of several sources have several of one number
    for path in sorted(listed):
        if (number := shard_number(path)) is not None:
            shards.setdefault(number, []).append(path)
    if not shards:
        raise OpenIliasError("No shards are listed there.", where=where, fix="Use --source portal.")
    if wanted is None:
        return [path for number in sorted(shards) for path in shards[number]]
    # A range of a billion is not gone through.
    chosen = sorted(number for number in shards if any(number in numbers for numbers in wanted))
    asked = sum(map(len, wanted))
    missing = [number for numbers in wanted for number in numbers if number not in shards] if asked < 1e6 else []
    if missing or asked >= 1e6:
        first = next(iter(shards.values()))[0].rpartition("/")[2]
        named = [re.sub(r"\d+\.tar$", f"{number:04d}.tar", first) for number in missing]
        shown = first_few(named) if named else "most of them"
        fix = f"The shards are {min(shards)} to {max(shards)}."
        raise OpenIliasError(f"These shards are not listed: {shown}.", where=where, fix=fix)
    return [path for number in chosen for path in shards[number]]


def parse_checksums(text: str, base: str, *, where: str) -> dict[str, str]:
    """Read ``<sha256>  <url>`` lines: path below the root of the data -> digest.

    The URLs are those of the place that the list was made for, wherever it lies now: of the portal, or of wherever
    ``ilias_core.tar`` is. Those of other places, and not below ``base``, are left out.

    Raises:
        OpenIliasError: a line is something else, or contradicts another.
    """
    found: dict[str, str] = {}
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    cores = (line for _, line in lines if line.endswith(f"/{CORE_TAR}") and "://" in line)
    bases = [base, *(line.partition(" ")[2].strip().removesuffix(f"/{CORE_TAR}") for line in cores)]
    for number, line in lines:
        digest, _, target = line.partition(" ")
        digest, target = digest.lower(), target.strip()
        if not target or re.fullmatch(r"[0-9a-f]{64}", digest) is None:
            raise OpenIliasError(
                f"Expected '<sha256>  <url>', found {line[:80]!r}.",
                where=f"{where}, line {number}",
                fix="This is no list of checksums: is it the right place, and not a page of a proxy?",
            )
        path = _below(target, bases)
        if path is not None and found.setdefault(path, digest) != digest:
            what = f"Two different checksums are stated of {path}."
            raise OpenIliasError(what, where=f"{where}, line {number}", fix="Report it to those who publish it.")
    return found


def _below(target: str, bases: list[str]) -> str | None:
    below = next((base for base in bases if target.startswith(f"{base}/")), None)
    if below is not None:
        path = target.removeprefix(f"{below}/")
    elif _LIST_OF_FILES in target:
        path = target.partition(_LIST_OF_FILES)[2]
    elif "://" in target:
        return None
    else:
        path = target.removeprefix("*").removeprefix("./")
    return path if is_plain(path) else None


def is_plain(path: str) -> bool:
    """Tell whether a path of a server may be one below a folder here: no way out, nothing hidden, plain text."""
    parts = path.split("/")
    return (
        path.isprintable()
        and "\\" not in path
        and len(parts) <= 16
        and all(part and not part.startswith(".") and len(part.encode()) <= 200 for part in parts)
    )


def what_of(path: str) -> What | None:
    """Tell what a path below the root of the data belongs to."""
    for what, files in FILES.items():
        if path in files or (what == "core" and path.startswith(f"{CORE}/")):
            return what
    if shard_number(path) is not None:
        return "shards"
    if path == TAXONOMY:
        return "core"
    if _MINI_LIST.fullmatch(path):
        return "mini"
    top, inner, _ = path.partition("/")
    if path in DOCUMENTS or (top in ABOUT_FOLDERS and inner):
        return "about"
    return next((what for what, folder in FOLDERS.items() if folder == top and "/" in path), None)


def also_listed(what: What, listed: Iterable[str]) -> list[str]:
    """Return what a list of checksums names of a kind beside the files that every place has."""
    usual = FILES.get(what, ())
    return sorted(
        path for path in listed if what_of(path) == what and path not in usual and not path.startswith(f"{CORE}/")
    )
