"""Unpacking a tar that somebody else made: files and folders only, nothing outside, all of it or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import open_regular, resumed_folder
from openilias.images.headers import Damage, Header, read_headers

_BLOCK = 2**20
_MOST_MEMBERS = 1_000_000
_DEEPEST = 16
_LONGEST_NAME = 255  # bytes of a file name, on every system
_OBJECT_FOLDERS = frozenset(("query", "pos"))
_REFUSED = "Do not use it. Download it again from the official portal; if it is the same there, report it."


@dataclass(frozen=True)
class Unpacked:
    """One file that was unpacked: its path below the folder, and its digest."""

    path: str
    size: int
    sha256: str


def read_members(tar: Path) -> list[Header]:
    """Read all headers of a tar and refuse it as a whole if any of them is hostile; names come out plain.

    Returns:
        the files, with their paths relative to where they are to go.

    Raises:
        OpenIliasError: it is damaged, or has a member that is no file or folder, points outside, stands twice, is in
            the way of another, or claims more than is there.
    """
    files: dict[str, Header] = {}
    folders: set[str] = set()
    wrong: list[str] = []
    try:
        with open_regular(tar) as file:
            for count, found in enumerate(read_headers(file.fileno())):
                if isinstance(found, Damage):
                    wrong.append(found.what)
                    break
                if count >= _MOST_MEMBERS:
                    wrong.append(f"it has more than {_MOST_MEMBERS} members")
                    break
                name = found.name.removeprefix("./")
                name = name.removesuffix("/") if found.kind == "folder" else name
                if found.kind == "folder" and name in ("", "."):
                    continue
                reason = _refusal(found, name)
                if reason is None and name in files:
                    reason = "it stands twice"
                if reason is not None:
                    wrong.append(f"{found.shown[:120]!r}: {reason}")
                elif found.kind == "folder":
                    folders.add(name)
                else:
                    files[name] = Header(name, found.kind, found.offset, found.size)
    except OSError as error:
        raise OpenIliasError(f"This tar cannot be read: {error.strerror}.", where=tar) from None
    folders |= {parent for name in files for parent in _parents(name)}
    wrong += [f"{name!r}: it is a file and a folder" for name in sorted(folders & files.keys())]
    wrong += [f"{one!r} and {other!r} {ALIKE}" for one, other in alike(folders | files.keys())]
    if wrong or not files:
        reasons = first_few(wrong) if wrong else "it has no files"
        raise OpenIliasError(f"This tar is refused: {reasons}.", where=tar, fix=_REFUSED)
    return list(files.values())


ALIKE = "differ only in case or in how letters are composed, and would be one on some disks"


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of different names that are the same on disks that ignore case or the form of Unicode."""
    seen: dict[str, str] = {}
    pairs = []
    for name in sorted(set(names)):
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
        first = seen.setdefault(key, name)
        if first != name:
            pairs.append((first, name))
    return pairs


def _refusal(found: Header, name: str) -> str | None:
    if found.kind not in ("file", "folder"):
        return f"it is a {found.kind}"
    if found.problem is not None:
        return found.problem
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or (len(name) > 1 and name[1] == ":"):
        return "it points outside"
    if "" in parts or "." in parts or not name.isprintable():
        return "its name is not plain text"
    if len(parts) > _DEEPEST or max(len(part.encode()) for part in parts) > _LONGEST_NAME:
        return "its name is too long"
    return None


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def leading_folder(names: list[str]) -> str:
    """Return the folder that all objects of a tar lie in, with a slash at its end; nothing if they lie at the top.

    An object is a folder that has ``query`` or ``pos`` in it.
    """
    above = {
        name.split("/")[: place - 1][0] if place > 1 else ""
        for name in names
        for place, part in enumerate(name.split("/"))
        if part in _OBJECT_FOLDERS and place > 0
    }
    if len(above) != 1:
        return ""
    top = above.pop()
    return f"{top}/" if top else ""


def unpack(tar: Path, target: Path, *, told: Callable[[int], object], before: Callable[[list[Unpacked]], None]) -> int:
    """Unpack a tar to a folder that is there when all of it is; what a killed run left is begun anew.

    Args:
        tar: the file. A folder in it that holds all objects is left out.
        target: the folder to make.
        told: how many bytes have been written, now and then.
        before: given all files when they are on the disk, before the folder has its name.

    Returns:
        the number of files.

    Raises:
        OpenIliasError: the tar is refused, there is too little room, or another process is unpacking it.
    """
    members = read_members(tar)
    top = leading_folder([member.name for member in members])
    need, free = sum(member.size for member in members), shutil.disk_usage(target.parent).free
    if need > free:
        raise OpenIliasError(
            f"Unpacked it has {need:,} bytes, {need - free:,} more than are free.",
            where=target.parent,
            fix="Make room.",
        )
    done: list[Unpacked] = []
    try:
        with resumed_folder(target, "0", begun=lambda _: False) as folder, open_regular(tar) as file:
            for left in folder.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            for member in members:
                path = member.name.removeprefix(top)
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                done.append(Unpacked(path, member.size, _copy(file.fileno(), member, folder / path, tar, told)))
            before(done)
    except OSError as error:
        what = f"It cannot be unpacked: {error.strerror or error}."
        raise OpenIliasError(what, where=target, fix="Make room; the same command goes on from there.") from None
    return len(done)


def _copy(source: int, member: Header, target: Path, tar: Path, told: Callable[[int], object]) -> str:
    """Write one file that must not be there yet, as where names differ in case only; return its digest."""
    digest = hashlib.sha256()
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except FileExistsError:
        what = f"This tar is refused: {member.name!r} is in the way of another, on this disk."
        raise OpenIliasError(what, where=tar, fix="Use a disk that tells small letters from capitals.") from None
    with os.fdopen(handle, "wb") as out:
        position, end = member.offset, member.offset + member.size
        while position < end:
            block = os.pread(source, min(_BLOCK, end - position), position)
            if not block:
                raise OpenIliasError("This tar has become shorter.", where=tar, fix="Download it again.")
            out.write(block)
            digest.update(block)
            position += len(block)
            told(len(block))
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()
