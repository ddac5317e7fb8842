"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_EVERY_SECONDS = 10.0


class Step:
    """Called with the number of items just done."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.waited = 0, 0.0
        self.started = self._shown = time.monotonic()

    def __call__(self, items: int = 1) -> None:
        """Count ``items`` more as done."""
        self.done += items
        self.show()

    def expect(self, total: int | None) -> None:
        """Say anew how many items there are in all."""
        self.total = total

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in the block as time in which the work waits for its data."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.waited += time.monotonic() - started

    @property
    def rate(self) -> float:
        """Items per second so far."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def note(self) -> str:
        """Return the rate and, if it was measured, the share of the time spent waiting for data."""
        text = f"{self.rate:.1f} {self.unit}/s"
        if self.waited:
            text += f", {100 * self.waited / max(time.monotonic() - self.started, 1e-9):.0f} % waiting for data"
        return text

    def show(self) -> None:
        """Write a line, if the last one is some time ago."""
        now = time.monotonic()
        if now - self._shown < _EVERY_SECONDS:
            return
        self._shown = now
        left = ""
        if self.total is not None:
            seconds = (self.total - self.done) / max(self.rate, 1e-9)
            left = f" of {self.total}, {_duration(seconds)} left"
        sys.stderr.write(f"{self.label}: {self.done}{left} ({self.note()})\n")
        sys.stderr.flush()


@contextmanager
def progress(label: str, *, total: int | None, unit: str) -> Iterator[Step]:
    """Show the progress of one piece of work on standard error.

    Args:
        label: what is being done.
        total: how many items there are, if known.
        unit: what an item is, in the plural.
    """
    if sys.stderr.isatty():
        yield from _bar(label, total, unit)
    else:
        yield Step(label, total, unit)


def _bar(label: str, total: int | None, unit: str) -> Iterator[Step]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    class OnBar(Step):
        def show(self) -> None:
            bar.update(task, completed=self.done, total=self.total, note=self.note())

    columns = (
        TextColumn(f"{label:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, note="")
        yield OnBar(label, total, unit)


def _duration(seconds: float) -> str:
    """Say how long something takes, roughly."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def tell(line: str) -> None:
    """Write a line about the work on standard error, above the progress."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
