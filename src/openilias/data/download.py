"""Getting the official data: what is asked for, from the portal or its mirror, whole and verified."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from openilias.core.errors import OpenIliasError
from openilias.core.files import sha256_of, write_bytes
from openilias.core.progress import Step, progress, tell
from openilias.data.addresses import guard_of
from openilias.data.digest_records import Records
from openilias.data.download_plan import (
    Planned,
    Wanted,
    checksums_of,
    is_sound,
    is_there,
    plan,
    published_checksums,
    published_files,
)
from openilias.data.fetch import DiskError, Meter, fetch_file
from openilias.data.http import Client, Patience, RequestError, in_a_loop
from openilias.data.ilias import CHECKSUMS
from openilias.data.published_places import (
    CORE,
    CORE_TAR,
    FOLDERS,
    USUAL,
    PublishedFile,
    Source,
    parse_shards,
    source_of,
    whats_of,
)
from openilias.data.unpack import Unpacked, unpack

Status = Literal["fetched", "there", "to fetch", "failed", "sound", "wrong", "unknown"]
MEMBERS = f"{CORE}.sha256"  # what was unpacked, as `sha256sum` writes it
NO_CHECKSUM = "no checksum is published"
_SPARE = 0.05  # of the disk space, for what file systems need beside the bytes
_MB = 1_000_000
_FORESEEN: dict[str, Status] = {"nothing": "there", "give up": "failed"}
_MOST_GIVEN_UP = 8  # files one after the other that no try could get: then it is the server, and not the files


@dataclass(frozen=True)
class FileOutcome:
    """What became of one file.

    Attributes:
        path: below the folder.
        status: ``there``: it was here, and was not read again; ``sound``, ``wrong``, ``unknown``: of a verification.
        size: in bytes, if known.
        sha256: of its bytes, if they were digested now, or what is published.
        published: whether a checksum is published.
        here: bytes that are here from a run that was cut off.
        note: what else is to be known.
        url: where it comes from.
    """

    path: str
    status: Status
    size: int | None = None
    sha256: str | None = None
    published: bool = False
    here: int = 0
    note: str | None = None
    url: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it is not as it should be."""
        return self.status in ("failed", "wrong")


@dataclass(frozen=True)
class Downloaded:
    """The outcome.

    Attributes:
        folder: where everything is.
        files: in the order of what was asked for.
        left: bytes that were to be fetched when it began.
        room, free: bytes that the disk needed, with some to spare, and had.
    """

    folder: Path
    files: tuple[FileOutcome, ...]
    left: int = 0
    room: int = 0
    free: int = 0

    @property
    def failures(self) -> tuple[FileOutcome, ...]:
        """The files that are not as they should be."""
        return tuple(file for file in self.files if file.failed)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        files = [asdict(file) for file in self.files]
        sizes = {"bytes_left": self.left, "bytes_needed": self.room, "bytes_free": self.free}
        return {"folder": str(self.folder), "sound": not self.failures, **sizes, "files": files}


def download(
    out: Path,
    what: Sequence[str] = USUAL,
    *,
    source: str = "portal",
    shards: str | None = None,
    only: str | None = None,
    jobs: int = 4,
    patience: Patience | None = None,
    keep_tar: bool = False,
    dry_run: bool = False,
) -> Downloaded:
    """Download the official data. Killed or repeated, it goes on where it was.

    Files are at their names only when they are whole and have the published SHA-256, if there is one. One that fails
    does not stop the others: see ``failures`` of what is returned.

    Args:
        out: folder to fill, in the layout that everything here reads.
        what: ``core`` (the objects, unpacked), ``ids``, ``mini``, ``shards``, ``features``, ``similarities``,
            ``layers``, ``about`` (rows, licences and datasheet of a set of `ilias build publish`).
        source: ``portal``, ``mirror``, or the URL of a folder that is laid out as the portal is.
        shards: numbers of the shards, ``0-9,20``; all by default.
        only: pattern of the names of features, similarities and layers.
        jobs: files at a time.
        patience: retries and time-outs.
        keep_tar: leave the tar of the objects beside what is unpacked.
        dry_run: only say what would be done; nothing is written.

    Raises:
        OpenIliasError: there is no such thing, the place does not answer, or the disk is too small or fails.
    """
    wanted, place = wanted_of(what, shards=shards, only=only), source_of(source)
    if jobs < 1:
        raise OpenIliasError(f"There must be at least one job, not {jobs}.", fix="Give --jobs 1 or more.")
    if out.exists() and not out.is_dir():
        raise OpenIliasError("The output path is a file.", where=out, fix="Give another --out.")
    work = _download(out, wanted, place, jobs, patience or Patience(), keep_tar=keep_tar, dry_run=dry_run)
    try:
        return in_a_loop(work)
    except ExceptionGroup as several:  # the first of them ended the others
        raise several.exceptions[0] from None


def wanted_of(what: Sequence[str], *, shards: str | None, only: str | None) -> Wanted:
    """Check what is asked for; shards that are named are asked for.

    Raises:
        OpenIliasError: there is no such thing, or a pattern without a folder that it is for.
    """
    words = [*what, "shards"] if shards is not None else list(what)
    wanted = Wanted(whats_of(words), None if shards is None else parse_shards(shards), only)
    if only is not None and not FOLDERS.keys() & set(wanted.whats):
        raise OpenIliasError(f"--only is for {', '.join(FOLDERS)}.", fix="Name one of them, or leave --only out.")
    return wanted


async def _download(
    out: Path, wanted: Wanted, place: Source, jobs: int, patience: Patience, *, keep_tar: bool, dry_run: bool
) -> Downloaded:
    async with Client(guard_of(place.base), patience, connections=2 * jobs) as client:
        text = await published_checksums(client, place)
        checksums = checksums_of(text, place)
        files = await published_files(client, place, wanted, checksums)
        planned = await plan(client, files, out, jobs=jobs, keep_tar=keep_tar)
        left, room = sum(one.left for one in planned), sum(one.room for one in planned)
        room += int(_SPARE * room)
        free = _free(out)
        begun = Downloaded(out, (), left, room, free)
        if dry_run:
            return replace(begun, files=tuple(_foreseen(one) for one in planned))
        if room > free:
            raise OpenIliasError(
                f"The disk is too small: {sized(room)} are needed, {sized(free)} are free, "
                f"{sized(room - free)} are missing.",
                where=out,
                fix="Make room, give another --out, or ask for less; --dry-run shows the sizes.",
            )
        out.mkdir(parents=True, exist_ok=True)
        if text is not None:
            _write_if_other(out / CHECKSUMS, text.encode())
        with progress("download", total=left // _MB or None, unit="MB") as step:
            fetching = _Fetching(client, out, Records(out), _Counter(step, left), keep_tar=keep_tar)
            outcomes: dict[int, FileOutcome] = {}
            queue = iter(enumerate(planned))
            async with asyncio.TaskGroup() as group:
                for _ in range(min(jobs, len(planned))):
                    group.create_task(fetching.work(queue, outcomes))
        return replace(begun, files=tuple(outcomes[number] for number in range(len(planned))))


def _foreseen(one: Planned) -> FileOutcome:
    return _outcome(
        one, _FORESEEN.get(one.todo, "to fetch"), note="here as a tar, to be unpacked" if one.todo == "unpack" else None
    )


def _outcome(one: Planned, status: Status, *, note: str | None = None, sha256: str | None = None) -> FileOutcome:
    file = one.file
    notes = [note or one.problem, None if file.sha256 is not None or status == "failed" else NO_CHECKSUM]
    if status == "there" and not one.digested:
        notes.insert(0, "not digested: ilias data download --verify does that")
    told = "; ".join(word for word in notes if word) or None
    digest = sha256 or file.sha256
    return FileOutcome(file.path, status, file.size, digest, file.sha256 is not None, one.here, told, file.url)


class _Counter:
    """Counts bytes of many threads, and shows megabytes."""

    def __init__(self, step: Step, total: int) -> None:
        self._step, self._total, self._done = step, total, 0
        self._lock = threading.Lock()

    def meter(self, here: int) -> Meter:
        """Return the meter of a file; bytes that were here before it began are not counted."""
        before = here

        def came(count: int) -> None:
            nonlocal before
            known = min(before, count)
            before -= known
            self._came(count - known)

        return Meter(came, self._again)

    def _came(self, count: int) -> None:
        with self._lock:
            whole = self._done // _MB
            self._done += count
            self._step(self._done // _MB - whole)

    def _again(self, count: int) -> None:
        with self._lock:
            self._total += count
            self._step.expect(self._total // _MB or None)


class _Fetching:
    """Does what is planned, file by file."""

    def __init__(self, client: Client, out: Path, records: Records, counter: _Counter, *, keep_tar: bool) -> None:
        self._client, self._out, self._records, self._counter = client, out, records, counter
        self._keep_tar = keep_tar
        self._given_up = 0

    async def work(self, queue: Iterator[tuple[int, Planned]], outcomes: dict[int, FileOutcome]) -> None:
        """Take files until there are none."""
        for number, one in queue:
            if one.todo == "fetch" and self._given_up >= _MOST_GIVEN_UP:
                outcomes[number] = _outcome(one, "failed", note="not tried: the server does not answer any more")
                continue
            try:
                outcomes[number] = await self._do(one)
                if one.todo == "fetch":
                    self._given_up = 0
            except DiskError:
                raise
            except RequestError as error:
                outcomes[number] = _outcome(one, "failed", note=error.what)
                self._given_up += error.tried
            except OpenIliasError as error:
                told = " ".join(word for word in (error.what, error.fix) if word)
                outcomes[number] = _outcome(one, "failed", note=told)
            if outcomes[number].failed:
                tell(f"{one.file.path}: failed: {outcomes[number].note}")

    async def _do(self, one: Planned) -> FileOutcome:
        if one.todo == "give up":
            return _outcome(one, "failed")
        outcome = _outcome(one, "there")
        if one.todo == "unpack" and not one.digested:
            one = await asyncio.to_thread(self._digested, one)
        if one.todo == "fetch":
            outcome = await self._fetch(one)
        if one.file.path == CORE_TAR and one.todo == "nothing":
            self._remove_tar(one.file)
        if one.unpacks and not self._is_unpacked():
            tell(f"{one.file.path}: unpacking")
            count = await asyncio.to_thread(self._unpack, one.file)
            note = "; ".join(word for word in (f"unpacked to {CORE}/, {count} files", outcome.note) if word)
            outcome = replace(outcome, status="fetched", note=note)
        return outcome

    async def _fetch(self, one: Planned) -> FileOutcome:
        file = one.file
        came = await fetch_file(
            self._client,
            file.url,
            self._out / file.path,
            name=file.path,
            sha256=file.sha256,
            size=file.size,
            meter=self._counter.meter(one.here),
            unless=lambda: self._is_there(file) or (one.unpacks and self._is_unpacked()),
        )
        if came is None:
            return _outcome(one, "there", note="brought by another process")
        published = file.sha256 is not None
        await asyncio.to_thread(self._records.write, file.path, came.sha256, published=published, kept=self._keep_tar)
        return replace(_outcome(one, "fetched", sha256=came.sha256), size=came.size)

    def _is_there(self, file: PublishedFile) -> bool:
        """Tell whether another process has brought a file here."""
        known = self._records.of_file(file.path) is not None
        return known and (is_sound(file, self._records) or is_there(file, self._out, self._records))

    def _is_unpacked(self) -> bool:
        return (self._out / CORE).is_dir()

    def _digested(self, one: Planned) -> Planned:
        """Digest a tar that somebody else has put here, before it is unpacked."""
        file = one.file
        digest = sha256_of(self._out / file.path)
        if file.sha256 not in (None, digest):
            return replace(one, todo="fetch")
        self._records.write(file.path, digest, published=file.sha256 is not None, kept=True)
        return replace(one, digested=True)

    def _unpack(self, file: PublishedFile) -> int:
        tar = self._out / file.path

        def list_them(done: list[Unpacked]) -> None:
            lines = "".join(f"{member.sha256}  {member.path}\n" for member in done)
            write_bytes(self._records.folder / MEMBERS, lines.encode())

        count = unpack(tar, self._out / CORE, told=lambda _: None, before=list_them)
        self._remove_tar(file)
        return count

    def _remove_tar(self, file: PublishedFile) -> None:
        """Remove a tar that is unpacked, unless it was there before, or was asked for once."""
        record = self._records.of_file(file.path)
        if not self._keep_tar and record is not None and not record.kept:
            (self._out / file.path).unlink(missing_ok=True)


def _free(out: Path) -> int:
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def _write_if_other(target: Path, data: bytes) -> None:
    if not target.is_file() or target.read_bytes() != data:
        write_bytes(target, data)


def sized(count: int) -> str:
    """Write a number of bytes with a unit."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
