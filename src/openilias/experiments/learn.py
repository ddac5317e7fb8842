"""Learning the layer of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from openilias.adapt.classifier import Loss
from openilias.adapt.learned import read_layer
from openilias.adapt.linear import LinearMap
from openilias.adapt.methods import USUAL_SIZE
from openilias.adapt.train import Recipe, train
from openilias.adapt.ujcds import Settings
from openilias.data import TrainingSet, read_training_set
from openilias.descriptors.store import DescriptorStore
from openilias.experiments.adapting import AdaptStep


def recipe_of(step: AdaptStep) -> Recipe:
    """Return how the layer of a step is learned.

    Raises:
        ValueError: its method is ``none``.
    """
    if step.method == "none":
        raise ValueError("nothing is learned")
    settings = Settings(
        dim=step.dim,
        epochs=step.epochs,
        batch=step.batch_size,
        rate=step.learning_rate,
        decay=step.weight_decay,
        loss=Loss(step.scale, step.margin, USUAL_SIZE[step.margin] if step.margin_size is None else step.margin_size),
        sampled=step.sampled,
        held_out=step.held_out,
        seed=step.seed,
    )
    return Recipe(step.method, settings, step.domains)


def layer_of(
    step: AdaptStep,
    describe: Callable[[TrainingSet], DescriptorStore],
    origin: dict[str, object],
    out: Path,
    *,
    device: str,
    overwrite: bool,
) -> LinearMap | None:
    """Read the layer of a step, or learn it; None if its method is ``none``.

    Args:
        step: what is wanted.
        describe: describes the training set.
        origin: of the descriptors that are adapted.
        out: folder of a learned layer.
        device: where UJCDS computes.
        overwrite: replace a layer that was learned from something else.

    Raises:
        OpenIliasError: no layer, a training set or descriptors that cannot be used, or a layer of another model.
    """
    if step.file is not None:
        return read_layer(step.file, [origin])
    if step.method == "none" or step.train is None:
        return None
    training = read_training_set(step.train, root=step.images)
    return train(describe(training), training, recipe_of(step), out, device=device, overwrite=overwrite).layer
