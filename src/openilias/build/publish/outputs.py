"""The folder that is published, file by file: each whole or absent, and known to be done when work goes on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.core.files import (
    atomic_path,
    open_regular,
    read_json,
    sha256_of,
    sync_folder,
    temporary_beside,
    write_json,
)

MARKERS = ".publishing"
_BLOCK = 2**20


@dataclass(frozen=True)
class Done:
    """A file that is written: its size in bytes, its SHA-256, and what else is known of it."""

    name: str
    size: int
    sha256: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Output:
    """The folder. Processes may share it, each writing other files."""

    folder: Path

    def path(self, name: str) -> Path:
        """Return where a file is."""
        return self.folder / name

    def marker(self, name: str) -> Path:
        """Return where it is written that a file is done."""
        return self.folder / MARKERS / f"{name.replace('/', '--')}.json"

    def done(self, name: str) -> Done | None:
        """Return what is known of a file that is done and still there."""
        marker, path = self.marker(name), self.path(name)
        if not marker.is_file() or not path.is_file():
            return None
        try:
            value = read_json(marker)
            done = Done(name, int(value["size"]), str(value["sha256"]), dict(value["facts"]))
        except (OpenIliasError, TypeError, KeyError, ValueError):
            return None
        return done if path.stat().st_size == done.size else None

    def write(self, name: str, make: Callable[[Path], dict[str, Any] | None]) -> Done:
        """Write a file unless it is done; ``make`` is given a path, and may return facts to be kept."""
        known = self.done(name)
        if known is not None:
            return known
        with atomic_path(self.path(name)) as temporary:
            facts = make(temporary) or {}
            digest = sha256_of(temporary)
        return self.note(name, digest, facts)

    def write_text(self, name: str, text: str) -> Done:
        """Write a text unless it is done."""

        def make(path: Path) -> None:
            path.write_text(text, encoding="utf-8", newline="\n")

        return self.write(name, make)

    def copy(self, name: str, source: Path, sha256: str) -> Done:
        """Copy a file unless that is done; its digest must be as stated.

        Raises:
            OpenIliasError: it changed since it was checked.
        """

        def make(path: Path) -> None:
            digest = hashlib.sha256()
            with open_regular(source) as old, path.open("wb") as new:
                while block := old.read(_BLOCK):
                    digest.update(block)
                    new.write(block)
            if digest.hexdigest() != sha256:
                raise OpenIliasError("This file changed since it was checked.", where=source, fix="Run it again.")

        return self.write(name, make)

    def link(self, name: str, source: Path, sha256: str) -> Done:
        """Give a file a second name here: nothing is copied.

        Raises:
            OpenIliasError: the disk cannot, as where the folder is on another one.
        """
        known = self.done(name)
        if known is not None and self.path(name).samefile(source):
            return known
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(target)
        try:
            os.link(source.resolve(), temporary)
            temporary.replace(target)
            temporary.unlink(missing_ok=True)  # two names of one file are left alone by a renaming
        except OSError as error:
            temporary.unlink(missing_ok=True)
            what = f"This shard cannot have a second name in the published folder: {error.strerror}."
            fix = "Give an --out on the same disk, --shards copy, or --shards leave."
            raise OpenIliasError(what, where=source, fix=fix) from None
        sync_folder(target.parent)
        return self.note(name, sha256, {})

    def note(self, name: str, sha256: str, facts: dict[str, Any]) -> Done:
        """Write down that a file is done."""
        size = self.path(name).stat().st_size
        write_json(self.marker(name), {"size": size, "sha256": sha256, "facts": facts})
        return Done(name, size, sha256, facts)
