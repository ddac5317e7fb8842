"""One shard at a time: its bytes, its images and its rows agree, and it holds nothing but images that conform."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openilias.build.conformity import conforms
from openilias.build.publish.rows import UNKNOWN, RowFacts, facts_of_rows
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import Loss
from openilias.core.files import open_regular, read_json, sha256_of, write_json
from openilias.core.findings import Finding
from openilias.core.fingerprints import fingerprint
from openilias.images.decode import upright_size
from openilias.images.headers import BLOCK
from openilias.images.tar_index import scan_once
from openilias.images.tars import TarIndex, TarScan, whole

_VERSION = 1
_MOST_NAMED = 20  # findings of a kind of one shard
_OWNER = slice(265, 329)  # of a header: names of a user and a group


@dataclass(frozen=True)
class ShardJob:
    """A shard to look at.

    Attributes:
        tar: the file.
        rows: its table, there or not.
        kept: folder that keeps what was found.
        longest, quality: what images must conform to.
    """

    tar: Path
    rows: Path
    kept: Path
    longest: int
    quality: int

    @property
    def name(self) -> str:
        """The name of the shard without its ending."""
        return self.tar.name.removesuffix(".tar")

    @property
    def found(self) -> Path:
        """Where what was found is kept."""
        return self.kept / "shards" / f"{self.tar.name}.json"


@dataclass(frozen=True)
class ShardFacts:
    """What was found of a shard.

    Attributes:
        name: of the tar.
        state: what it was found from.
        size: of the tar, in bytes.
        sha256: of the tar.
        rows: SHA-256 of its table, empty without one.
        images: how many there are.
        image_bytes: of all of them.
        lacking: how many of them have no row.
        licences: name, URL, and number of images.
        cameras: camera -> images.
        years: year in which they were taken -> images.
        statuses: status -> rows.
        reencoded: images whose bytes are not those of the original.
        findings: what is wrong.
    """

    name: str
    state: str = ""
    size: int = 0
    sha256: str = ""
    rows: str = ""
    images: int = 0
    image_bytes: int = 0
    lacking: int = 0
    licences: tuple[tuple[str, str, int], ...] = ()
    cameras: dict[str, int] = field(default_factory=dict)
    years: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    reencoded: int = 0
    findings: tuple[Finding, ...] = ()


class Named:
    """Gathers findings, of each kind the first few and how many more there are."""

    def __init__(self, where: str, most: int = _MOST_NAMED) -> None:
        self._where, self._most = where, most
        self._found: list[Finding] = []
        self._counts: dict[str, int] = {}

    def error(self, kind: str, where: str, what: str, fix: str | None = None) -> None:
        """Add an error."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._counts[kind] <= self._most:
            self._found.append(Finding("error", kind, where, what, fix))

    def all(self) -> tuple[Finding, ...]:
        """Return them."""
        more = (
            Finding("error", kind, self._where, f"{count - self._most} more are not named.")
            for kind, count in self._counts.items()
            if count > self._most
        )
        return (*self._found, *more)


def check_shard(job: ShardJob) -> ShardFacts:
    """Look at a shard, or read what was found of this very file and its table before."""
    try:
        state = state_of(job)
    except OSError as error:
        return _unreadable(job, OpenIliasError(f"This shard cannot be read: {error.strerror}.", where=job.tar))
    kept = _read(job, state)
    if kept is not None:
        return kept
    try:
        facts = _check(job, state)
    except OpenIliasError as error:
        return _unreadable(job, error)
    write_json(job.found, asdict(facts) | {"findings": [asdict(one) for one in facts.findings]})
    return facts


def shard_lost(job: ShardJob, loss: Loss) -> ShardFacts:
    """Return what is known of a shard whose process died."""
    what = "The process that looked at this shard died" + ("." if loss == "crash" else ": it took too long.")
    return _unreadable(job, OpenIliasError(what, where=job.tar, fix="Give fewer workers if memory is short."))


def _unreadable(job: ShardJob, error: OpenIliasError) -> ShardFacts:
    finding = Finding("error", "shard-unreadable", error.where or str(job.tar), error.what, error.fix)
    return ShardFacts(job.tar.name, findings=(finding,))


def state_of(job: ShardJob) -> str:
    """Return what changes when a shard or its table does; not the time of the inode, which a hard link changes."""
    states: list[Any] = [_VERSION, job.longest, job.quality]
    for path in (job.tar, job.rows):
        facts = path.stat() if path.exists() or path == job.tar else None
        states.append(None if facts is None else [str(path.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ino])
    return fingerprint(states)


def _read(job: ShardJob, state: str) -> ShardFacts | None:
    if not job.found.exists():
        return None
    try:
        value = read_json(job.found)
        findings = tuple(Finding(**one) for one in value["findings"])
        licences = tuple((name, url, count) for name, url, count in value["licences"])
        facts = ShardFacts(**{**value, "findings": findings, "licences": licences})
    except (OpenIliasError, TypeError, KeyError, ValueError):
        return None  # of another version, or damaged: it is looked at again
    return facts if facts.state == state else None


def _check(job: ShardJob, state: str) -> ShardFacts:
    scan = whole(job.tar, scan_once(job.tar, job.kept / "tar_index"))
    rows = facts_of_rows(job.rows)
    wrong = Named(str(job.tar))
    _strangers(job, scan, wrong)
    digest = hashlib.sha256()
    left = dict(rows.stored)
    image_bytes = lacking = 0
    for key, data in read_all(job.tar, scan.index, digest, wrong):
        where = f"{job.tar.name}/{key}"
        image_bytes += len(data)
        if key in left:
            compare(where, data, left.pop(key), wrong)
        else:
            lacking += 1
        problems = conforms(data, longest=job.longest, quality=job.quality)
        if problems:
            wrong.error("image-nonconforming", where, f"This image does not conform: {'; '.join(problems)}.")
    for key in left:
        what = "This row is of an image that the shard does not have."
        wrong.error("row-without-image", f"{job.tar.name}/{key}", what, "Make the table again.")
    _of_rows(job, rows, wrong)
    return ShardFacts(
        name=job.tar.name,
        state=state,
        size=job.tar.stat().st_size,
        sha256=digest.hexdigest(),
        rows=sha256_of(job.rows) if job.rows.exists() else "",
        images=len(scan.index),
        image_bytes=image_bytes,
        lacking=lacking,
        licences=tuple((name, url, count) for (name, url), count in sorted(rows.licences.items())),
        cameras=dict(sorted(rows.cameras.items())),
        years=dict(sorted(rows.years.items())),
        statuses=dict(sorted(rows.statuses.items())),
        reencoded=rows.reencoded,
        findings=wrong.all(),
    )


def _strangers(job: ShardJob, scan: TarScan, wrong: Named) -> None:
    """Name what a shard has beside images: all of its bytes are published."""
    fix = "Pack it again with images only."
    for member in (*scan.unusable, *scan.strange):
        what = f"This member is no image of the shard: {member.reason}."
        wrong.error("shard-member", f"{job.tar.name}/{member.name}", what, fix)
    others = {ending: count for ending, count in scan.others.items() if ending != "/"}
    if others:
        shown = ", ".join(f"{count} {ending}" for ending, count in others.items())
        wrong.error("shard-side-files", str(job.tar), f"This shard has other files than images: {shown}.", fix)


def read_all(path: Path, index: TarIndex, digest: Any, wrong: Named) -> Iterator[tuple[str, bytes]]:
    """Yield key and bytes of each image in one reading of a tar, whose digest grows by all of its bytes.

    Raises:
        OpenIliasError: the file has become shorter than its index says.
    """
    owner_named = False
    with open_regular(path) as file:
        at = 0
        for member in index:
            between = file.read(member.offset - at)
            digest.update(between)
            owner = between[-BLOCK:][_OWNER].replace(b"\0", b" ").strip()
            if owner and not owner_named:
                owner_named = True
                what = f"The headers of this shard name its owner: {owner.decode('ascii', 'backslashreplace')!r}."
                wrong.error("shard-owner", str(path), what, "Pack it again without owners.")
            data = file.read(member.size)
            if len(data) < member.size:
                raise OpenIliasError("This tar shard is shorter than its index says.", where=path)
            digest.update(data)
            at = member.offset + member.size
            yield member.key, data
        while rest := file.read(2**20):
            digest.update(rest)


def compare(where: str, data: bytes, stated: tuple[str | None, int | None], wrong: Named) -> None:
    """Compare an image with its row."""
    sha256, size = stated
    if sha256 is None or sha256 != hashlib.sha256(data).hexdigest() or (size is not None and size != len(data)):
        wrong.error("row-differs", where, "The bytes of this image are not those of its row.", "Make the row again.")


def _of_rows(job: ShardJob, rows: RowFacts, wrong: Named) -> None:
    if rows.twice:
        wrong.error("row-twice", str(job.rows), f"Rows stand twice: {first_few(list(rows.twice))}.")
    if rows.bad_urls:
        shown = first_few([repr(url[:80]) for url in rows.bad_urls])
        what = f"{rows.bad_url_count} addresses are no public web addresses: {shown}."
        wrong.error("row-address", str(job.rows), what, "Correct them, or leave them empty.")


def unknown_licences(facts: ShardFacts) -> int:
    """Return how many images of a shard have no known licence."""
    return facts.lacking + sum(count for name, _, count in facts.licences if name == UNKNOWN)


def bare_row(item: str, data: bytes) -> dict[str, Any]:
    """Return the row of an image of which only its bytes are known."""
    width, height = upright_size(data, where=item)
    sha256 = hashlib.sha256(data).hexdigest()
    return {"id": item, "status": "stored", "width": width, "height": height, "bytes": len(data), "sha256": sha256}
