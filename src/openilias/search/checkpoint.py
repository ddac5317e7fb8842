"""The state of a search on disk: a killed search goes on at the shard where it was."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.files import atomic_path
from openilias.core.progress import tell
from openilias.core.resume import kept_state

_EVERY_SECONDS, _SHARE = 5.0, 20


class Checkpoint:
    """Where a search keeps its state; one that is killed loses some seconds, and what is searched at once.

    Args:
        path: file of the state.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = time.monotonic()
        self._cost = 0.0

    def of(self, stage: str) -> Checkpoint:
        """Return the checkpoint of a stage that has a state of its own."""
        return Checkpoint(self._path.with_name(f"{self._path.stem}-{stage}{self._path.suffix}"))

    def load(self) -> tuple[list[int], dict[str, npt.NDArray[Any]]]:
        """Return which shards are done, and the state; nothing if there is none, or it cannot be read."""
        if not self._path.exists():
            return [], {}
        try:
            with np.load(self._path, allow_pickle=False) as file:
                state = {name: file[name] for name in file.files}
            return state.pop("done").tolist(), state
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            tell(f"search: the state of the last try cannot be read ({error}); it begins anew")
            return [], {}

    def due(self) -> bool:
        """Whether it is time to save: large states are saved less often, so that it takes little of the time."""
        return time.monotonic() - self._saved >= max(_EVERY_SECONDS, _SHARE * self._cost)

    def save(self, done: list[int], state: dict[str, npt.NDArray[Any]]) -> None:
        """Write the state, whole or not at all.

        Raises:
            OSError: the disk is full.
        """
        begun = time.monotonic()
        with atomic_path(self._path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, done=np.array(done, np.int64), **state)
        self._saved = time.monotonic()
        self._cost = self._saved - begun


@contextmanager
def resumed_search(out: Path, key: str) -> Iterator[Checkpoint]:
    """Give the checkpoint of a search for an output; it is removed when the block succeeds.

    Args:
        out: folder of the ranking.
        key: fingerprint of what it is made from: a search does not go on with the state of another.

    Raises:
        OpenIliasError: another process is making this output.
    """
    with kept_state(out, f"{key}.npz") as path:
        yield Checkpoint(path)
