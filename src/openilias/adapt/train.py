"""Learning a linear adaptation from a store: UJCDS, PCA whitening, learned whitening; resumable."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openilias.adapt import ujcds, whitening
from openilias.adapt.files import write_linear_map
from openilias.adapt.labelled import Labelled, check_classes, label
from openilias.adapt.learned import KIND, LAYER, MANIFEST, Adaptation, read_adaptation
from openilias.adapt.linear import LinearMap, adapt
from openilias.adapt.methods import Method
from openilias.adapt.ujcds import HeldOut, Settings, Training, detached, held_out, planned_bytes, state_bytes
from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path
from openilias.core.fingerprints import fingerprint
from openilias.core.manifests import claim, replacing, write_manifest
from openilias.core.progress import Step, progress, tell
from openilias.core.resume import kept_state
from openilias.data.training import TrainingSet
from openilias.descriptors.store import DescriptorStore

_EVERY_SECONDS, _SHARE = 60.0, 20
_LOOKS = 20
"""How often recall is measured."""


@dataclass(frozen=True)
class Recipe:
    """How a layer is learned.

    Attributes:
        method: ``ujcds``, ``pcaw`` (PCA whitening, no labels) or ``lw`` (learned whitening).
        settings: of UJCDS; the others take its ``dim`` and ``seed``.
        domains: only these; None takes all.
        only_labelled: leave descriptors without a label out.
    """

    method: Method = "ujcds"
    settings: Settings = field(default_factory=Settings)
    domains: tuple[str, ...] | None = None
    only_labelled: bool = False

    def description(self) -> dict[str, Any]:
        """Return what the layer depends on, as JSON values."""
        version = ujcds.ALGORITHM_VERSION if self.method == "ujcds" else whitening.ALGORITHM_VERSION
        settings = asdict(self.settings) if self.method == "ujcds" else {"dim": self.settings.dim}
        if self.method == "lw":
            settings["seed"] = self.settings.seed
        return {"method": self.method, "algorithm_version": version, **settings}


def train(
    store: DescriptorStore,
    training: TrainingSet | None,
    recipe: Recipe,
    out: Path,
    *,
    device: str = "cpu",
    overwrite: bool = False,
) -> Adaptation:
    """Learn a layer and write it into a folder, ``layer.pth`` and ``adaptation.json``; killed, it goes on.

    Args:
        store: descriptors to learn from, not adapted.
        training: their labels; PCA whitening does without.
        recipe: how.
        out: the folder.
        device: where UJCDS computes.
        overwrite: replace a layer that was learned from something else.

    Raises:
        OpenIliasError: no labels, labels that do not match the store, too few classes or images, an output in the way.
    """
    labelled = _labelled(store, training, recipe)
    made_from = {
        **recipe.description(),
        "descriptors": store.origin(),
        "learned_from": labelled.fingerprint,
        "images": len(labelled.rows),
        "classes": labelled.count if training is not None else None,
    }
    state = claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite, ours=r"layer\.pth")
    if state == "same" and (out / LAYER).is_file():
        try:
            return read_adaptation(out)
        except OpenIliasError:
            if not overwrite:
                raise
    with progress("check descriptors", total=store.rows, unit="rows") as step:
        for shard in store.shards:  # what is damaged must not be learned from as if it were what is recorded
            shard.verify()
            step(shard.rows)
    with kept_state(out, f"{fingerprint(made_from)[:16]}.pt") as path:
        layer, history = _learned(labelled, recipe, path, device)
        with replacing(out, state):
            write_linear_map(layer, out / LAYER)
            write_manifest(
                out / MANIFEST, kind=KIND, made_from=made_from, sha256=layer.digest, dims=layer.outputs, history=history
            )
    return read_adaptation(out)


def _labelled(store: DescriptorStore, training: TrainingSet | None, recipe: Recipe) -> Labelled:
    if "adaptation" in store.origin():
        raise OpenIliasError(
            "These descriptors are adapted already.", where=store.folder, fix="Give the store they were made from."
        )
    if training is None:
        if recipe.method != "pcaw" or recipe.domains is not None:
            what = f"--method {recipe.method} learns" if recipe.method != "pcaw" else "Domains are known"
            raise OpenIliasError(f"{what} from labels.", fix="Give --labels FILE.")
        rows = np.arange(store.rows)
        return Labelled(store, rows, np.zeros_like(rows), ("",))
    labelled = label(store, training, only_labelled=recipe.only_labelled)
    if recipe.domains is not None:
        labelled = labelled.of_domains(recipe.domains)
    if recipe.method != "pcaw":
        check_classes(labelled)
    return labelled


def _learned(
    labelled: Labelled, recipe: Recipe, path: Path, device: str
) -> tuple[LinearMap, list[dict[str, float | None]]]:
    settings = recipe.settings
    if recipe.method != "ujcds":
        square = 8 * labelled.store.dims**2 / 2**20
        tell(f"{recipe.method}: {len(labelled.rows):,} images, read in blocks; matrices of {square:.0f} MiB")
    if recipe.method == "pcaw":
        return whitening.pca_whitening(
            whitening.moments_of(labelled), settings.dim, dtype=whitening.dtype_of(labelled)
        ), []
    if recipe.method == "lw":
        return whitening.learned_whitening(labelled, settings.dim, seed=settings.seed), []
    learned, kept = held_out(labelled, settings.held_out, seed=settings.seed)
    settings.check(learned)
    tell(
        f"ujcds: {len(learned.rows):,} images of {learned.count:,} classes, {settings.epochs} epochs; it takes "
        f"about {planned_bytes(learned, settings, device) / 2**30:.1f} GiB beside the mapped descriptors, and on disk "
        f"{2 * state_bytes(learned, settings) / 2**30:.1f} GiB"
    )
    if kept is not None:
        tell(f"learn: {len(kept.queries):,} images are kept back to measure recall on")
    return _Work(Training(learned, settings, device), kept, path).do()


def write_state(state: dict[str, Any], path: Path) -> None:
    """Write a state for ``torch.load``.

    Raises:
        OSError: it cannot be written; torch would say it in words of its own.
    """
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            raise OSError(str(error).splitlines()[0]) from error


class _Work:
    """The steps of a training, with its state on disk and its history."""

    def __init__(self, training: Training, kept: HeldOut | None, path: Path) -> None:
        self._training, self._kept, self._path = training, kept, path
        self._history: list[dict[str, float | None]] = []
        self._saved, self._cost = time.monotonic(), 0.0

    def do(self) -> tuple[LinearMap, list[dict[str, float | None]]]:
        self._restore()
        training = self._training
        looks = {training.total * (look + 1) // _LOOKS for look in range(_LOOKS)}
        with progress("learn", total=training.total, unit="steps") as step:
            step(training.done)
            for _ in training.steps():
                step()
                if training.done in looks:
                    self._look(step)
                if time.monotonic() - self._saved >= max(_EVERY_SECONDS, _SHARE * self._cost):
                    self._save()
        return training.layer(), self._history

    def _look(self, step: Step) -> None:
        layer = self._training.layer()
        recall = None if self._kept is None else self._kept.recall(partial(adapt, layer))
        loss = self._training.recent_loss
        self._history.append({"step": self._training.done, "loss": loss, "recall": recall})
        shown = "" if recall is None else f", recall@1 of images kept back {100 * recall:.1f} %"
        tell(f"learn: step {self._training.done} of {self._training.total}, loss {loss:.3f}{shown}")

    def _save(self) -> None:
        begun = time.monotonic()
        try:
            with atomic_path(self._path) as temporary:
                write_state({"training": detached(self._training.state()), "history": self._history}, temporary)
        except OSError as error:  # hours of work are worth more than the state they would go on from
            tell(f"learn: its state cannot be kept, killed now it goes on from an earlier one: {error}")
        self._saved = time.monotonic()
        self._cost = self._saved - begun

    def _restore(self) -> None:
        if not self._path.is_file():
            return
        try:
            state = torch.load(self._path, weights_only=True, mmap=True)  # copied array by array
        except Exception as error:  # whatever a damaged file may raise
            tell(f"learn: the state of the last try cannot be read ({error}); it begins anew")
            return
        self._training.restore(state["training"])
        self._history = state["history"]
        tell(f"learn: goes on after step {self._training.done} of {self._training.total}")
