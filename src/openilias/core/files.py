"""Files that are either whole or absent."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError

_TEMPORARY = ".partial"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # some file systems of clusters have none


class InUseError(OpenIliasError):
    """Another process is making this output."""


def temporary_beside(target: Path) -> Path:
    """Return a new hidden name in the folder of ``target``."""
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}{_TEMPORARY}")


def temporary_of(target: Path, key: str) -> Path:
    """Return a hidden name beside ``target`` that is the same whenever the key is: a killed run finds it again."""
    target = target.resolve()
    return target.with_name(f".{target.name}.{key}{_TEMPORARY}")


def is_temporary(name: str) -> bool:
    """Tell whether a file name is one of :func:`temporary_beside`, left behind by a killed run."""
    return name.startswith(".") and name.endswith(_TEMPORARY)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target``; rename it to ``target`` only if the block succeeds.

    The data are on disk before the name is. Writers of one target do not meet: each has a random name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``target``; it takes the place of ``target`` only if the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target = target.resolve()
    temporary = temporary_beside(target)
    temporary.mkdir()
    try:
        yield temporary
        old = temporary_beside(target)
        if target.exists():
            target.replace(old)
        temporary.replace(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def resumed_folder(target: Path, key: str, *, begun: Callable[[Path], bool]) -> Iterator[Path]:
    """Give a folder beside ``target`` that becomes ``target`` if the block succeeds; a killed block finds it again.

    Args:
        target: the folder to make; it must not exist, or be empty.
        key: what the folder is made from: a block with another key has a folder of its own.
        begun: asked of the folder after a failure: whether it holds anything worth keeping.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target = target.resolve()
    folder = temporary_of(target, key)
    folder.mkdir(exist_ok=True)
    with owned(folder):
        remove_temporaries(folder)
        try:
            yield folder
            if target.exists():
                target.rmdir()
            folder.replace(target)
        except BaseException:
            if not begun(folder):
                shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def owned(folder: Path, *, shared: bool = False, output: Path | None = None) -> Iterator[None]:
    """Keep a folder to this process, or to those that share it; a dead owner no longer owns it.

    Args:
        folder: the folder.
        shared: others may share it.
        output: what it is kept for, if not for itself: named in the message.

    Raises:
        InUseError: another process owns it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(
                "Another process is making this output.",
                where=output or folder,
                fix="Wait for it, or give another --out.",
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(handle)


def remove_leftovers_of(target: Path) -> None:
    """Remove what killed writers of ``target`` left beside it; what a living one owns stays."""
    ours = re.compile(rf"\.{re.escape(target.resolve().name)}\.[0-9a-f]+{re.escape(_TEMPORARY)}")
    for path in target.resolve().parent.iterdir():
        if not ours.fullmatch(path.name):
            continue
        if not path.is_dir():
            path.unlink(missing_ok=True)
            continue
        with suppress(OpenIliasError, FileNotFoundError), owned(path):
            shutil.rmtree(path, ignore_errors=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left in a folder and below; nobody else may be writing there."""
    for path in sorted(folder.rglob(f".*{_TEMPORARY}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def made_folder(target: Path) -> Iterator[None]:
    """Make ``target`` and its parents; if the block fails, remove those of them that were made and are empty."""
    missing = [folder for folder in (target, *target.parents) if not folder.exists()]
    target.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def open_regular(source: Path) -> io.BufferedReader:
    """Open a regular file to read its bytes; anything else is refused: a pipe would never end.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    # A pipe without a writer must not block either.
    descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(source))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(source: Path, *, most: int | None = None) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: as :func:`open_regular`, or it has more than ``most`` bytes.
    """
    with open_regular(source) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"it has {size} bytes; more than {most} are refused", str(source))
        return file.read()


def state_of_file(source: Path) -> list[int]:
    """Return what changes when a file is replaced or written to, even in place of one of the same size and time.

    Raises:
        OSError: it is not there.
    """
    facts = source.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]


def is_there(path: Path) -> bool:
    """Tell whether something has this name, be it a link that leads nowhere."""
    return path.is_symlink() or path.exists()


def write_bytes(target: Path, data: bytes) -> None:
    """Write ``data`` to ``target`` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_bytes(target, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(source: Path, *, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read a JSON file.

    Args:
        source: the file.
        object_pairs_hook: makes the value of a JSON object from its members, as in :func:`json.loads`.

    Raises:
        OpenIliasError: the file is missing, not JSON, or not UTF-8.
    """
    try:
        return json.loads(read_bytes(source), object_pairs_hook=object_pairs_hook)
    except FileNotFoundError:
        raise OpenIliasError("This file does not exist.", where=source, fix="Check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise OpenIliasError(
            f"This file is not readable JSON: {error}.", where=source, fix="Make it again or remove it."
        ) from None


def sha256_of(source: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with source.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
