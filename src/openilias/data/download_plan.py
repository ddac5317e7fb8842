"""What there is to download, and what of it is here already; nothing is written, and nothing large is read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from openilias.core.errors import OpenIliasError, first_few
from openilias.data.digest_records import Records
from openilias.data.fetch import bytes_here
from openilias.data.http import Client, RequestError
from openilias.data.ilias import CHECKSUMS, LISTS
from openilias.data.listings import files_of_folder, files_of_hub
from openilias.data.published_places import (
    ABOUT_FOLDERS,
    CORE,
    CORE_TAR,
    FILES,
    FOLDERS,
    PORTAL,
    SHARDS,
    PublishedFile,
    Source,
    What,
    also_listed,
    choose_shards,
    parse_checksums,
)

_MOST_LIST = 2**26  # bytes of the list of checksums
_USE_PORTAL = f"Use --source portal ({PORTAL}), which has everything."


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        whats: kinds of files.
        shards: numbers of the shards; None for all.
        only: pattern of the names in the folders of features, similarities and layers.
    """

    whats: tuple[What, ...]
    shards: tuple[range, ...] | None = None
    only: str | None = None

    def takes(self, path: str, below: str) -> bool:
        """Tell whether the pattern takes a file of a folder: its name, or its path below the folder."""
        inner = path.removeprefix(f"{below}/")
        return self.only is None or any(fnmatchcase(name, self.only) for name in (inner, inner.rpartition("/")[2]))


@dataclass(frozen=True)
class Planned:
    """One file, and what is to be done about it.

    Attributes:
        file: what is published.
        todo: ``unpack`` is a tar that is here whole; ``nothing`` is a file that is here.
        here: bytes of it from a run that was cut off.
        digested: what is here has been digested before, and is what is published.
        unpacks: the tar is unpacked when it has come.
        problem: why nothing can be done.
    """

    file: PublishedFile
    todo: Literal["fetch", "unpack", "nothing", "give up"]
    here: int = 0
    digested: bool = False
    unpacks: bool = False
    problem: str | None = None

    @property
    def left(self) -> int:
        """Bytes that are to come, as far as they are known."""
        return max((self.file.size or 0) - self.here, 0) if self.todo == "fetch" else 0

    @property
    def room(self) -> int:
        """Bytes that the disk needs for it: a tar is there beside what it is unpacked to."""
        return self.left + ((self.file.size or 0) if self.unpacks else 0)


async def published_checksums(client: Client, source: Source) -> str | None:
    """Return the list of checksums as text; None if the place has none.

    Raises:
        OpenIliasError: the place does not answer.
    """
    url = source.url(CHECKSUMS)
    try:
        text, _ = await client.text(url, name=CHECKSUMS, most=_MOST_LIST)
    except RequestError as error:
        if error.status == 404:
            return None
        raise _no_answer(error, url) from None
    return text


def _no_answer(error: RequestError, url: str) -> OpenIliasError:
    return OpenIliasError(
        f"The list of what is published could not be fetched: {error.what}.",
        where=url,
        fix="Check the address and the network, or try the other of --source portal and --source mirror.",
    )


async def published_files(
    client: Client, source: Source, wanted: Wanted, checksums: dict[str, str]
) -> list[PublishedFile]:
    """Return what is asked for, as far as it is published.

    Raises:
        OpenIliasError: some of it is not there, or the place does not answer.
    """
    try:
        files = await (_of_hub if source.hub else _of_portal)(client, source, wanted, checksums)
    except RequestError as error:
        raise _no_answer(error, source.base) from None
    return files


async def _of_portal(client: Client, source: Source, wanted: Wanted, checksums: dict[str, str]) -> list[PublishedFile]:
    files: list[PublishedFile] = []
    for what in wanted.whats:
        if what in FOLDERS:
            listed = await files_of_folder(client, source, FOLDERS[what])
            files += _chosen(listed, wanted, FOLDERS[what], source)
            continue
        paths = _paths(what, checksums, list(checksums), wanted, where=source.url(CHECKSUMS))
        files += [PublishedFile(path, source.url(path)) for path in paths]
    return [replace(file, sha256=checksums.get(file.path)) for file in files]


def _paths(what: What, checksums: dict[str, str], listed: list[str], wanted: Wanted, *, where: str) -> list[str]:
    """Return the paths of a kind of files that lie at known places, or that a list of checksums names."""
    if what == "shards":
        return choose_shards(listed, wanted.shards, where=where)
    paths = [*FILES.get(what, ()), *also_listed(what, checksums)]
    if not paths:
        fix = "Only sets that were published with ilias build publish have them."
        raise OpenIliasError("No rows, licences or datasheet are listed there.", where=where, fix=fix)
    return paths


async def _of_hub(client: Client, source: Source, wanted: Wanted, checksums: dict[str, str]) -> list[PublishedFile]:
    needed: dict[str, tuple[str, ...]] = {"core": ("",), "ids": (LISTS,), "mini": (LISTS,), "shards": (SHARDS,)}
    needed |= {"about": ("", *ABOUT_FOLDERS)} | {what: (folder,) for what, folder in FOLDERS.items()}
    there: dict[str, PublishedFile] = {}
    for folder in dict.fromkeys(folder for what in wanted.whats for folder in needed[what]):
        listed = await files_of_hub(client, source, folder, recursive=bool(folder))
        there |= {file.path: file for file in listed}
    files: list[PublishedFile] = []
    missing: list[str] = []
    for what in wanted.whats:
        if what in FOLDERS:
            below = [file for path, file in there.items() if path.startswith(f"{FOLDERS[what]}/")]
            files += _chosen(below, wanted, FOLDERS[what], source)
            continue
        paths = _paths(what, checksums, list(checksums or there), wanted, where=source.base)
        files += [there[path] for path in paths if path in there]
        missing += [path for path in paths if path not in there]
    if missing:
        told = f"{len(missing)} of these files are not on the mirror: {first_few(missing)}."
        raise OpenIliasError(told, where=source.base, fix=_USE_PORTAL)
    others = [file.path for file in files if file.sha256 not in (None, checksums.get(file.path, file.sha256))]
    if others:
        told = f"The mirror has other files than the list of checksums says: {first_few(others)}."
        raise OpenIliasError(told, where=source.base, fix=_USE_PORTAL)
    return [replace(file, sha256=checksums.get(file.path, file.sha256)) for file in files]


def _chosen(listed: list[PublishedFile], wanted: Wanted, folder: str, source: Source) -> list[PublishedFile]:
    if not listed:
        fix = "See what is there in a browser." if not source.hub else _USE_PORTAL
        raise OpenIliasError(f"No files are listed in {folder}/.", where=source.base, fix=fix)
    chosen = [file for file in listed if wanted.takes(file.path, folder)]
    if not chosen:
        names = first_few([file.path.removeprefix(f"{folder}/") for file in listed])
        fix = f"There are {names}."
        raise OpenIliasError(f"--only {wanted.only!r} takes nothing of {folder}/.", where=source.base, fix=fix)
    return chosen


async def plan(
    client: Client, files: Iterable[PublishedFile], out: Path, *, jobs: int, keep_tar: bool
) -> list[Planned]:
    """Compare what is published with what is here, by records, sizes and times; sizes are asked for where needed."""
    records = Records(out)
    limit = asyncio.Semaphore(jobs)

    async def one(file: PublishedFile) -> Planned:
        async with limit:
            if file.path == CORE_TAR:
                return await _plan_core(client, file, out, records, keep_tar=keep_tar)
            return await _plan_file(client, file, out, records)

    return list(await asyncio.gather(*map(one, files)))


async def _plan_file(client: Client, file: PublishedFile, out: Path, records: Records) -> Planned:
    target = out / file.path
    if target.is_dir():
        return Planned(file, "give up", problem="a folder is in its place here; move it away")
    if is_sound(file, records):
        return Planned(_with_size(file, target), "nothing", digested=True)
    if file.size is None:
        try:
            file = replace(file, size=await client.size(file.url, name=file.path))
        except RequestError as error:
            return Planned(file, "give up", problem=error.what)
    if is_there(file, out, records):
        return Planned(file, "nothing", digested=records.of_file(file.path) is not None)
    return Planned(file, "fetch", here=bytes_here(target, file.url, file.sha256))


def _with_size(file: PublishedFile, target: Path) -> PublishedFile:
    return replace(file, size=target.stat().st_size)


def is_sound(file: PublishedFile, records: Records) -> bool:
    """Tell whether the very file that is here was digested, and is what is published."""
    record = records.of_file(file.path)
    return record is not None and file.sha256 is not None and record.sha256 == file.sha256 and not record.wrong


def is_there(file: PublishedFile, out: Path, records: Records) -> bool:
    """Tell whether a file is here with the right size, and nothing is known against it."""
    target = out / file.path
    record = records.of_file(file.path)
    if record is not None and (record.wrong or record.sha256 != (file.sha256 or record.sha256)):
        return False
    if file.size is None:  # nobody knows the right one
        return record is not None
    return target.is_file() and target.stat().st_size == file.size


async def _plan_core(client: Client, file: PublishedFile, out: Path, records: Records, *, keep_tar: bool) -> Planned:
    folder, record = out / CORE, records.read(CORE_TAR)
    unpacked = folder.is_dir() and any(folder.iterdir())
    if unpacked and record is not None and file.sha256 not in (None, record.sha256):
        problem = f"another {CORE_TAR} is published by now; move {CORE} away to have it"
        return Planned(file, "give up", problem=problem)
    if unpacked and not keep_tar:
        return Planned(file, "nothing", digested=record is not None)
    planned = await _plan_file(client, file, out, records)
    if unpacked or planned.todo == "give up":
        return planned
    return replace(planned, todo="unpack" if planned.todo == "nothing" else planned.todo, unpacks=True)


def checksums_of(text: str | None, source: Source) -> dict[str, str]:
    """Return path -> digest of a list of checksums, nothing if there is no list."""
    return {} if text is None else parse_checksums(text, source.base, where=source.url(CHECKSUMS))
