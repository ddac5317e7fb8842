"""Digesting what was downloaded once more: what differs from its checksum is named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from openilias.core.errors import OpenIliasError
from openilias.core.files import open_regular, read_bytes
from openilias.core.progress import progress
from openilias.data.digest_records import RECORDS, Records
from openilias.data.download import MEMBERS, Downloaded, FileOutcome, Status, wanted_of
from openilias.data.download_plan import Wanted
from openilias.data.ilias import CHECKSUMS, LISTS
from openilias.data.published_places import (
    ABOUT_FOLDERS,
    CORE,
    CORE_TAR,
    DOCUMENTS,
    FOLDERS,
    PORTAL,
    SHARDS,
    TAXONOMY,
    WHATS,
    is_plain,
    parse_checksums,
    shard_number,
    what_of,
)

_BLOCK = 2**20
_MB = 1_000_000


def rehash(
    out: Path, what: Sequence[str] = (), *, shards: str | None = None, only: str | None = None, jobs: int = 4
) -> Downloaded:
    """Digest the downloaded files that are here again, and compare them with the published checksums.

    Files without a published one are compared with what came when they were fetched. A file that is wrong is fetched
    again by the next download. No network is needed.

    Args:
        out: the folder of a download.
        what: only these kinds of files; all by default.
        shards, only: only these, as in :func:`openilias.data.download.download`.
        jobs: files at a time.

    Raises:
        OpenIliasError: nothing of a download is there, or its list of checksums is damaged.
    """
    wanted = wanted_of(what or ([] if shards is not None else WHATS), shards=shards, only=only)
    if not out.is_dir():
        raise OpenIliasError("There is no such folder.", where=out, fix="Give the --out of a download.")
    records, checksums = Records(out), _checksums(out)
    paths = [path for path in _paths(out) if _asked_for(path, wanted)]
    members = _members(out) if "core" in wanted.whats else {}
    if not paths and not members:
        raise OpenIliasError("Nothing of what is asked for is here.", where=out, fix="Download it first.")
    total = sum((out / path).stat().st_size for path in paths)
    total += sum(path.stat().st_size for name in members if (path := out / CORE / name).is_file())
    with progress("verify", total=total // _MB or None, unit="MB") as step, ThreadPoolExecutor(jobs) as threads:
        told = _Megabytes(step)
        outcomes = list(threads.map(lambda path: _judge(path, out, records, checksums, told), paths))
        if members:
            digests = threads.map(lambda name: _digest(out / CORE / name, told), members)
            outcomes += _core(members, list(digests))
    return Downloaded(out, tuple(outcomes))


def _checksums(out: Path) -> dict[str, str]:
    path = out / CHECKSUMS
    if not path.is_file():
        return {}
    try:
        return parse_checksums(read_bytes(path).decode("utf-8-sig"), PORTAL, where=str(path))
    except (OSError, ValueError) as error:
        raise OpenIliasError(f"This list cannot be read: {error}.", where=path, fix="Download it again.") from None


def _paths(out: Path) -> Iterator[str]:
    """Yield the files that a download brings, as far as they are here."""
    yield from (name for name in (CORE_TAR, TAXONOMY, *DOCUMENTS) if (out / name).is_file())
    for top in (LISTS, SHARDS, *ABOUT_FOLDERS, *FOLDERS.values()):
        for path in sorted((out / top).rglob("*")):
            name = path.relative_to(out).as_posix()
            if path.is_file() and is_plain(name) and what_of(name) is not None:
                yield name


def _asked_for(path: str, wanted: Wanted) -> bool:
    what, number = what_of(path), shard_number(path)
    if what not in wanted.whats:
        return False
    if number is not None and wanted.shards is not None:
        return any(number in numbers for numbers in wanted.shards)
    return what not in FOLDERS or wanted.takes(path, FOLDERS[what])


def _members(out: Path) -> dict[str, str]:
    """Return path -> digest of what was unpacked."""
    path = out / RECORDS / MEMBERS
    if not path.is_file() or not (out / CORE).is_dir():
        return {}
    members = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        members[name] = digest
    return members


class _Megabytes:
    def __init__(self, step: Callable[[int], None]) -> None:
        self._step, self._bytes = step, 0

    def __call__(self, count: int) -> None:
        whole = self._bytes // _MB
        self._bytes += count
        self._step(self._bytes // _MB - whole)


def _digest(path: Path, told: Callable[[int], None]) -> str | None:
    """Return the digest of a file, None if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                told(len(block))
    except OSError:
        return None
    return digest.hexdigest()


def _judge(
    path: str, out: Path, records: Records, checksums: dict[str, str], told: Callable[[int], None]
) -> FileOutcome:
    size = (out / path).stat().st_size
    digest, before = _digest(out / path, told), records.read(path)
    published = checksums.get(path) or (before.sha256 if before is not None and before.published else None)
    expected = published or (before.sha256 if before is not None else None)
    about = FileOutcome(path, "unknown", size, digest, published is not None)
    if digest is None:
        return _with(about, "wrong", "it cannot be read")
    if expected is None:
        return _with(about, "unknown", "no checksum is published, and it was not fetched by ilias data download")
    wrong, kept = digest != expected, before is not None and before.kept
    records.write(path, expected, published=published is not None, wrong=wrong, kept=kept)
    if not wrong:
        return _with(about, "sound", None if published else "no checksum is published; as it was when it came")
    origin = "the published one" if published else "that of when it came"
    return _with(about, "wrong", f"its SHA-256 is not {origin}, {expected}; download it again")


def _with(about: FileOutcome, status: Status, note: str | None) -> FileOutcome:
    return replace(about, status=status, note=note)


def _core(members: dict[str, str], digests: list[str | None]) -> list[FileOutcome]:
    """Judge the unpacked objects: one outcome for those that are sound, one for each that is not."""
    wrong = [
        FileOutcome(f"{CORE}/{name}", "wrong", None, digest, True, note=_damage(digest))
        for (name, expected), digest in zip(members.items(), digests, strict=True)
        if digest != expected
    ]
    sound = len(members) - len(wrong)
    return [FileOutcome(f"{CORE}/", "sound", note=f"{sound} files as in {CORE_TAR}"), *wrong]


def _damage(digest: str | None) -> str:
    what = "it is missing or cannot be read" if digest is None else f"it is not as in {CORE_TAR}"
    return f"{what}; move {CORE} away and download core again"
