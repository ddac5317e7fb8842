"""How long the steps of a run take."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from openilias.core.files import read_json

T = TypeVar("T")


class Clock:
    """Seconds of each step; a step that had nothing to do keeps the time it once took.

    Attributes:
        times: of the steps so far.
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        """Begin; what the steps took in an earlier try is read."""
        self.times: dict[str, float] = {}
        before: Any = read_json(folder / "run.json") if (folder / "run.json").exists() and not overwrite else {}
        self._before: dict[str, float] = before.get("times", {}) if isinstance(before, dict) else {}

    def time(self, name: str, work: Callable[[], T]) -> T:
        """Do a step, and note how long it takes."""
        started = time.perf_counter()
        result = work()
        self.times[name] = max(time.perf_counter() - started, float(self._before.get(name, 0.0)))
        return result
