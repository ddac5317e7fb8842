"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol as Interface

_EVERY_SECONDS = 10.0


class Step(Interface):
    """Called with the number of items just done."""

    def __call__(self, items: int = 1) -> None:
        """Count ``items`` more as done."""


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
        yield from _lines(label, total, unit)


def _bar(label: str, total: int | None, unit: str) -> Iterator[Step]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(f"{label:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda items=1: bar.advance(task, items)


def _lines(label: str, total: int | None, unit: str) -> Iterator[Step]:
    started = last = time.monotonic()
    done = 0

    def step(items: int = 1) -> None:
        nonlocal done, last
        done += items
        now = time.monotonic()
        if now - last >= _EVERY_SECONDS:
            last = now
            rate = done / (now - started)
            left = "" if total is None else f" of {total}, {(total - done) / max(rate, 1e-9):.0f} s left"
            sys.stderr.write(f"{label}: {done}{left} ({rate:.1f} {unit}/s)\n")
            sys.stderr.flush()

    yield step
