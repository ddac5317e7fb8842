"""What was made of each object, and how its folder takes its place: whole, whenever the work is killed.

``build/collect/objects/<object>.json`` says what was written and from what. A new folder is finished in
``build/collect/ready/<object>`` first; from the moment it has that name it will be in the set, by this run or the next.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_json, remove_temporaries, sha256_of, temporary_beside, write_json
from openilias.images.boxes import Box

CORE = "ilias_core"
COLLECT = "build/collect"
_OBJECTS, _READY = "objects", "ready"
_STATE, _FOLDER = "state.json", "folder"
STORED = "stored"


class ImageState(BaseModel, frozen=True, extra="forbid"):
    """An image as it was made.

    Attributes:
        source: its path in the collector's folder.
        made_from: fingerprint of the original and of what was done to it.
        boxes: in pixels of the stored picture.
        status: ``stored``, or why it is not, in a word.
        why: the same in a sentence.
        background: clutter of the background of a query, in [0, 1].
        facts: what :class:`openilias.build.stored.StoredImage` says of the file, by field.
    """

    source: str
    made_from: str
    boxes: tuple[Box, ...] = ()
    status: str = STORED
    why: str = ""
    background: float | None = None
    facts: dict[str, Any] = {}

    @property
    def stored(self) -> bool:
        """Whether there is a file."""
        return self.status == STORED


class ObjectState(BaseModel, frozen=True, extra="forbid"):
    """An object as it was made.

    Attributes:
        images: id -> image.
        written: each file of its folder that was written, ``query/Q000_00.jpg`` -> SHA-256.
    """

    images: dict[str, ImageState]
    written: dict[str, str]


class States:
    """The states of the objects of a set."""

    def __init__(self, root: Path) -> None:
        self.core, self.folder = root / CORE, root / COLLECT

    def names(self) -> list[str]:
        """Return the objects that were made."""
        folder = self.folder / _OBJECTS
        return sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []

    def read(self, name: str) -> ObjectState | None:
        """Return what was made of an object; None if nothing was.

        Raises:
            OpenIliasError: its state cannot be read.
        """
        path = self.folder / _OBJECTS / f"{name}.json"
        if not path.exists():
            return None
        try:
            return ObjectState.model_validate(read_json(path))
        except ValidationError:
            raise OpenIliasError(
                "This state of an object cannot be read.", where=path, fix="Remove it, and run with --overwrite."
            ) from None

    def begin(self, name: str) -> Path:
        """Return a new empty folder in which the folder of an object is made."""
        target = self.folder / _READY / name
        target.parent.mkdir(parents=True, exist_ok=True)
        begun = temporary_beside(target)
        (begun / _FOLDER).mkdir(parents=True)
        return begun / _FOLDER

    def finish(self, name: str, folder: Path, state: ObjectState) -> None:
        """Put a folder that was made in place of the object's, with its state."""
        begun, ready = folder.parent, self.folder / _READY / name
        write_json(begun / _STATE, state.model_dump(mode="json"))
        begun.replace(ready)
        self._place(name)

    def _place(self, name: str) -> None:
        ready, target = self.folder / _READY / name, self.core / name
        if (ready / _FOLDER).is_dir():
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            (ready / _FOLDER).replace(target)
        state = self.folder / _OBJECTS / f"{name}.json"
        state.parent.mkdir(exist_ok=True)
        if (ready / _STATE).exists():
            (ready / _STATE).replace(state)
        shutil.rmtree(ready)

    def recover(self) -> None:
        """Put into place what a killed run had finished, and remove what it had not."""
        if (self.folder / _READY).is_dir():
            remove_temporaries(self.folder / _READY)
            for path in sorted((self.folder / _READY).iterdir()):
                self._place(path.name)

    def remove(self, name: str) -> None:
        """Take an object out of the set."""
        shutil.rmtree(self.core / name, ignore_errors=True)
        (self.folder / _OBJECTS / f"{name}.json").unlink(missing_ok=True)


def digests_of(folder: Path) -> dict[str, str]:
    """Return the files of the folder of an object, ``query/Q000_00.jpg`` -> SHA-256."""
    paths = (path for inner in ("query", "pos") for path in sorted((folder / inner).glob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths if not path.name.startswith(".")}
