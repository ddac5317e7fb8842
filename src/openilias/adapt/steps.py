"""Doing the steps of a training, with its state on disk and its history, so that a killed one goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from openilias.core.files import atomic_path
from openilias.core.memory import memory_kept
from openilias.core.progress import progress, tell

_EVERY_SECONDS, _SHARE = 60.0, 20
_LOOKS = 20
"""How often it is measured how good it has become."""

History = list[dict[str, Any]]


class Steps(Protocol):
    """A training: what it is after some steps follows from its settings and data alone.

    Attributes:
        done: steps so far.
        total: steps in all.
    """

    done: int
    total: int

    @property
    def recent_loss(self) -> float:
        """The mean loss of the last steps."""

    def steps(self) -> Iterator[float]:
        """Do what is left; yield the loss of each step."""

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` goes on from."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same settings and data."""


def do_steps(training: Steps, path: Path, *, measure: Callable[[], float] | None, measured: str, told: str) -> History:
    """Do all steps that are left.

    Args:
        training: what is done; it goes on from the state that lies at ``path``.
        path: file of the state.
        measure: how good it is now, a share; None if nothing was kept back to measure it on.
        measured: name of that number in the history.
        told: what that number is, in words.

    Returns:
        Step, loss and measure, 20 times.
    """
    history: History = []
    _restore(training, history, path)
    looks = {training.total * (look + 1) // _LOOKS for look in range(_LOOKS)}
    saved, cost = time.monotonic(), 0.0
    with progress("learn", total=training.total, unit="steps") as step, memory_kept():
        step(training.done)
        for _ in training.steps():
            step()
            if training.done in looks:
                _look(training, history, measure, measured, told)
            if time.monotonic() - saved >= max(_EVERY_SECONDS, _SHARE * cost):
                begun = time.monotonic()
                _save(training, history, path)
                saved = time.monotonic()
                cost = saved - begun
    return history


def _look(training: Steps, history: History, measure: Callable[[], float] | None, measured: str, told: str) -> None:
    found = None if measure is None else measure()
    loss = training.recent_loss
    history.append({"step": training.done, "loss": loss, measured: found})
    shown = "" if found is None else f", {told} {100 * found:.1f} %"
    tell(f"learn: step {training.done} of {training.total}, loss {loss:.3f}{shown}")


def _save(training: Steps, history: History, path: Path) -> None:
    try:
        with atomic_path(path) as temporary:
            _write({"training": _detached(training.state()), "history": history}, temporary)
    except OSError as error:  # hours of work are worth more than the state they would go on from
        tell(f"learn: its state cannot be kept, killed now it goes on from an earlier one: {error}")


def _restore(training: Steps, history: History, path: Path) -> None:
    if not path.is_file():
        return
    try:
        state = torch.load(path, weights_only=True, mmap=True)  # copied array by array
    except Exception as error:  # whatever a damaged file may raise
        tell(f"learn: the state of the last try cannot be read ({error}); it begins anew")
        return
    training.restore(state["training"])
    history[:] = state["history"]
    tell(f"learn: goes on after step {training.done} of {training.total}")


def _write(state: dict[str, Any], path: Path) -> None:
    """Write a state for ``torch.load``.

    Raises:
        OSError: it cannot be written; torch would say it in words of its own.
    """
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            raise OSError(str(error).splitlines()[0]) from error


def _detached(value: Any) -> Any:
    """Return a state with its tensors on the CPU, for a file."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _detached(part) for key, part in value.items()}
    return [_detached(part) for part in value] if isinstance(value, list) else value
