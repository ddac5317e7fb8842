"""Learning a linear adaptation from a store: UJCDS, PCA whitening, learned whitening; resumable."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from openilias.adapt import ujcds, whitening
from openilias.adapt.files import write_linear_map
from openilias.adapt.labelled import Labelled, check_classes, label
from openilias.adapt.learned import KIND, LAYER, MANIFEST, Adaptation, read_adaptation
from openilias.adapt.linear import LinearMap, adapt
from openilias.adapt.methods import Method
from openilias.adapt.steps import History, do_steps
from openilias.adapt.ujcds import Settings, Training, held_out, planned_bytes, state_bytes
from openilias.core.errors import OpenIliasError
from openilias.core.fingerprints import fingerprint
from openilias.core.manifests import claim, replacing, write_manifest
from openilias.core.progress import progress, tell
from openilias.core.resume import kept_state
from openilias.data.training import TrainingSet
from openilias.descriptors.store import DescriptorStore


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


def _learned(labelled: Labelled, recipe: Recipe, path: Path, device: str) -> tuple[LinearMap, History]:
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
    training = Training(learned, settings, device)

    def recall() -> float:
        return 0.0 if kept is None else kept.recall(partial(adapt, training.layer()))

    history = do_steps(
        training,
        path,
        measure=None if kept is None else recall,
        measured="recall",
        told="recall@1 of images kept back",
    )
    return training.layer(), history
