"""UJCDS (Ypsilantis et al., ICCV 2023): a linear layer, learned with one cosine classifier over all classes.

The settings are those of the paper (supplement A): a layer to 512 dimensions, Normalized Softmax with a scale of 16,
Adam with 1e-3 and a weight decay of 1e-6, batches of 128, two epochs, no balance between domains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from openilias.adapt.classifier import Classifier, Loss, tile_of
from openilias.adapt.labelled import Labelled, Numbers, Rows
from openilias.adapt.linear import LinearMap
from openilias.core.errors import OpenIliasError

ALGORITHM_VERSION = 2
_MOST = 1000.0  # beyond, Adam leaves the range of float32
_SHOWN = 50
"""Steps that the loss shown is the mean of."""


@dataclass(frozen=True)
class Settings:
    """What the layer depends on besides the descriptors and their labels.

    Attributes:
        dim: of the adapted descriptors.
        epochs: times that each image is seen.
        batch: images of a step; the last ones of an epoch that are fewer are left out.
        rate: learning rate.
        decay: weight decay, added to the gradient.
        loss: scale and margin.
        sampled: classes of a step: all, or those of its images and so many others drawn at random (an approximation).
        held_out: images kept back to measure recall on; 0 learns from all.
        seed: everything that is drawn follows from it.

    Raises:
        OpenIliasError: on construction, a rate or decay that cannot be.
    """

    dim: int = 512
    epochs: int = 2
    batch: int = 128
    rate: float = 1e-3
    decay: float = 1e-6
    loss: Loss = field(default_factory=Loss)
    sampled: int | None = None
    held_out: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.rate <= _MOST and 0 <= self.decay <= _MOST):
            raise OpenIliasError(
                f"Learning rate and weight decay lie between 0 and {_MOST:g}, not {self.rate} and {self.decay}."
            )

    def check(self, labelled: Labelled) -> None:
        """Refuse what cannot be.

        Raises:
            OpenIliasError: more dimensions than the descriptors have, fewer images than a batch, too few classes.
        """
        if self.dim > labelled.store.dims:
            raise OpenIliasError(
                f"{self.dim} dimensions are more than the {labelled.store.dims} of the descriptors.",
                where=labelled.store.folder,
                fix=f"Give --dim {labelled.store.dims} or less.",
            )
        if len(labelled.rows) < self.batch:
            raise OpenIliasError(
                f"{len(labelled.rows)} images are fewer than a batch of {self.batch}.", fix="Lower --batch-size."
            )
        if self.sampled is not None and self.sampled >= labelled.count:
            raise OpenIliasError(
                f"{self.sampled} classes cannot be drawn from {labelled.count}.", fix="Leave --sampled out."
            )


class Training:
    """A layer while it is learned. What it is after some steps follows from the settings and the data alone.

    Attributes:
        done: steps so far.
        total: steps in all.
    """

    def __init__(self, labelled: Labelled, settings: Settings, device: str = "cpu") -> None:
        """Draw the layer and the class vectors.

        Raises:
            OpenIliasError: as :meth:`Settings.check`.
        """
        settings.check(labelled)
        self.settings = settings
        self._rows = Rows(labelled.store)
        self._labelled = labelled
        self._device = device
        self._each = len(labelled.rows) // settings.batch
        self.done, self.total = 0, settings.epochs * self._each
        generator = torch.Generator().manual_seed(settings.seed)
        weight = torch.empty(settings.dim, labelled.store.dims)
        nn.init.xavier_uniform_(weight, generator=generator)
        self._weight = weight.to(device).requires_grad_()
        self._bias = torch.zeros(settings.dim, device=device, requires_grad=True)
        self._optimizer = torch.optim.Adam([self._weight, self._bias], lr=settings.rate, weight_decay=settings.decay)
        self._classifier = Classifier(
            labelled.count,
            settings.dim,
            settings.loss,
            rate=settings.rate,
            decay=settings.decay,
            sampled=settings.sampled,
            seed=settings.seed + 1,
            device=device,
        )
        self._losses: list[float] = []

    def steps(self) -> Iterator[float]:
        """Learn what is left; yield the loss of each step before it is made."""
        while self.done < self.total:
            epoch, place = divmod(self.done, self._each)
            order = self._order(epoch)
            for start in range(place * self.settings.batch, self._each * self.settings.batch, self.settings.batch):
                yield self._step(order[start : start + self.settings.batch])

    def _order(self, epoch: int) -> Numbers:
        return np.random.default_rng([self.settings.seed, epoch]).permutation(len(self._labelled.rows))

    def _step(self, places: Numbers) -> float:
        inputs = torch.from_numpy(self._rows.take(self._labelled.rows[places])).to(self._device)
        labels = torch.from_numpy(self._labelled.classes[places]).to(self._device)
        vectors = F.normalize(F.linear(inputs, self._weight, self._bias))
        loss, gradient = self._classifier.step(vectors.detach(), labels)
        self._optimizer.zero_grad()
        torch.autograd.backward(vectors, gradient)
        self._optimizer.step()
        if not np.isfinite(loss):
            raise OpenIliasError("The loss is not finite any more.", fix="Lower --learning-rate.")
        self.done += 1
        self._losses.append(loss)
        return loss

    @property
    def recent_loss(self) -> float:
        """The mean loss of the last steps."""
        return float(np.mean(self._losses[-_SHOWN:])) if self._losses else float("nan")

    def layer(self) -> LinearMap:
        """Return the layer as it is now."""
        return LinearMap(self._weight.detach().cpu().numpy(), self._bias.detach().cpu().numpy())

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` goes on from."""
        return {
            "done": self.done,
            "weight": self._weight.detach(),
            "bias": self._bias.detach(),
            "optimizer": self._optimizer.state_dict(),
            "classifier": self._classifier.state(),
            "losses": self._losses[-_SHOWN:],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same settings and data."""
        with torch.no_grad():
            self._weight.copy_(state["weight"])
            self._bias.copy_(state["bias"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._classifier.restore(state["classifier"])
        self.done, self._losses = int(state["done"]), list(state["losses"])


def planned_bytes(labelled: Labelled, settings: Settings, device: str = "cpu") -> int:
    """Return the bytes that training takes: its state, logits, what lives for a moment, descriptors held in memory.

    Descriptors of a store are mapped from their files, and not counted.
    """
    dims, wide = labelled.store.dims, labelled.count
    if settings.sampled is not None:
        wide = min(wide, settings.sampled + settings.batch)
    read = sum(shard.rows * dims * shard.dtype.itemsize for shard in labelled.store.shards if not shard.mapped)
    passing = 3 * settings.batch * wide + 4 * min(tile_of(device), wide) * settings.dim
    return read + state_bytes(labelled, settings) + 4 * passing


def state_bytes(labelled: Labelled, settings: Settings) -> int:
    """Return the bytes of class vectors and layer, with both states of their Adam."""
    return 4 * 3 * settings.dim * (labelled.count + labelled.store.dims)


@dataclass(frozen=True)
class HeldOut:
    """Images kept back: each is looked for among all of them and images that are learned from.

    Attributes:
        queries: (Q, D) float32 descriptors of images kept back.
        query_classes: (Q,) of each.
        gallery: (G, D) float32 descriptors of images that are learned from.
        gallery_classes: (G,) of each.
    """

    queries: npt.NDArray[np.float32]
    query_classes: Numbers
    gallery: npt.NDArray[np.float32]
    gallery_classes: Numbers

    def recall(self, adapt: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> float:
        """Return the share of queries whose nearest image is of their class."""
        queries, gallery = adapt(self.queries), adapt(self.gallery)
        nearest = np.concatenate([(queries[i : i + 256] @ gallery.T).argmax(1) for i in range(0, len(queries), 256)])
        return float((self.gallery_classes[nearest] == self.query_classes).mean())


def held_out(labelled: Labelled, count: int, *, seed: int) -> tuple[Labelled, HeldOut | None]:
    """Keep images back, at most one of a hundred and one of a class, of classes with three images or more.

    Returns:
        What is learned from, and what was kept back; None if there is nothing to keep back.
    """
    rng = np.random.default_rng([seed, 10**6])
    sizes = np.bincount(labelled.classes, minlength=labelled.count)
    order = rng.permutation(len(labelled.rows))
    order = order[sizes[labelled.classes[order]] >= 3]
    _, first = np.unique(labelled.classes[order], return_index=True)
    chosen = order[np.sort(first)][: min(count, len(labelled.rows) // 100)]
    if not len(chosen):
        return labelled, None
    kept = np.zeros(len(labelled.rows), bool)
    kept[chosen] = True
    learned = Labelled(labelled.store, labelled.rows[~kept], labelled.classes[~kept], labelled.domains)
    # Their own classes, and others to be told apart from.
    same = np.flatnonzero(np.isin(learned.classes, labelled.classes[chosen]))
    others = rng.permutation(len(learned.rows))[: 10 * len(chosen)]
    gallery = np.unique(np.concatenate([rng.permutation(same)[: 10 * len(chosen)], others]))
    rows = Rows(labelled.store)
    return learned, HeldOut(
        rows.take(labelled.rows[chosen]),
        labelled.classes[chosen],
        rows.take(learned.rows[gallery]),
        learned.classes[gallery],
    )
