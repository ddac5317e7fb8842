"""A cosine classifier over very many classes and its Adam, tile by tile.

Plain PyTorch makes the (C, D) gradient, passes it through the normalisation of the class vectors and lets Adam read and
write five arrays of that size: for 191,513 classes of 512 dimensions that is a dozen passes over 400 MB. Here the
gradient of a tile of classes is used while it is in the cache, so each step reads the class vectors twice and each
state once, and the numbers are the same to float32 accuracy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from openilias.adapt.kernels import update_rows
from openilias.adapt.margins import with_margin
from openilias.adapt.methods import LARGEST_MARGIN, Margin
from openilias.core.errors import OpenIliasError

_TILE, _TILE_OF_GPU = 1024, 32768  # in the cache of a core; large enough for a GPU, and small beside the state
_LEAST = 1e-12  # length that a vector is divided by, as F.normalize
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""Of Adam (Kingma and Ba, ICLR 2015), as PyTorch has them."""


@dataclass(frozen=True)
class Loss:
    """Normalized Softmax (Zhai and Wu, BMVC 2019), with an optional margin.

    Attributes:
        scale: of the cosines.
        margin: kind of margin.
        size: of the margin; of the cosine, or in radians.

    Raises:
        OpenIliasError: on construction, a scale or size that cannot be, or a margin without a size, or the reverse.
    """

    scale: float = 16.0
    margin: Margin = "none"
    size: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise OpenIliasError(f"The scale must be a finite number above 0, not {self.scale}.")
        if not 0 <= self.size <= LARGEST_MARGIN:
            raise OpenIliasError(f"A margin lies between 0 and {LARGEST_MARGIN}, not {self.size}.")
        if (self.margin == "none") != (self.size == 0):
            raise OpenIliasError(
                f"A margin of {self.size:g} does not go with the margin {self.margin!r}.",
                fix="Give a kind of margin and a size above 0, or neither.",
            )


class Classifier:
    """Class vectors of any length, of which only the direction counts, and the state of their Adam."""

    def __init__(
        self,
        classes: int,
        dims: int,
        loss: Loss,
        *,
        rate: float,
        decay: float,
        seed: int,
        device: str = "cpu",
        sampled: int | None = None,
    ) -> None:
        """Draw the vectors as PyTorch does for a linear layer: uniform within 1 / sqrt(dims).

        Args:
            classes: how many.
            dims: of the vectors.
            loss: scale and margin.
            rate: learning rate.
            decay: weight decay, added to the gradient.
            seed: of all that is drawn.
            device: where.
            sampled: approximation: a step takes the classes of its images and so many others, drawn uniformly; the
                logits of those are raised by log(others / drawn), and the vectors of the rest are left alone, their
                decay and momentum too.
        """
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(dims)
        weight = torch.empty(classes, dims).uniform_(-bound, bound, generator=generator)
        self.loss = loss
        self.rate, self.decay = rate, decay
        self.sampled, self._seed = sampled, seed
        self.steps = 0
        self.weight = weight.to(device)
        self.first = torch.zeros_like(self.weight)
        self.second = torch.zeros_like(self.weight)
        self.inverse = 1 / self.weight.norm(dim=1).clamp(min=_LEAST)
        self._logits = torch.empty(0)

    def step(self, vectors: Tensor, labels: Tensor) -> tuple[float, Tensor]:
        """Learn from one batch.

        Args:
            vectors: (B, D) float32 of unit length.
            labels: (B,) int64.

        Returns:
            The loss before the step, and its gradient by the vectors, (B, D).
        """
        self.steps += 1
        if self.sampled is None:
            return self._step(_Part(self.weight, self.first, self.second, self.inverse), vectors, labels, None)
        own = torch.unique(labels)
        others = self._drawn(own)
        numbers = torch.cat([own, others])
        part = _Part(*(array[numbers] for array in (self.weight, self.first, self.second, self.inverse)))
        raised = torch.zeros(len(numbers), device=vectors.device)
        raised[len(own) :] = math.log(max(len(self.weight) - len(own), 1) / max(len(others), 1))
        value, gradient = self._step(part, vectors, torch.searchsorted(own, labels), raised)
        for whole, changed in zip((self.weight, self.first, self.second, self.inverse), part, strict=True):
            whole[numbers] = changed
        return value, gradient

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` goes on from."""
        return {"steps": self.steps} | {name: getattr(self, name) for name in _Part._fields}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.steps = int(state["steps"])
        for name in _Part._fields:
            getattr(self, name).copy_(state[name])

    def _drawn(self, own: Tensor) -> Tensor:
        """Return sorted classes that are not those of the batch."""
        rng = np.random.default_rng([self._seed, self.steps])
        drawn = torch.from_numpy(rng.choice(len(self.weight), self.sampled, replace=False)).to(own.device)
        return drawn[~torch.isin(drawn, own)].sort().values

    def _step(self, part: _Part, vectors: Tensor, labels: Tensor, raised: Tensor | None) -> tuple[float, Tensor]:
        value, slopes = self._slopes(part, vectors, labels, raised)
        gradient = torch.zeros_like(vectors)
        step = tile_of(part.weight.device.type)
        for start in range(0, len(part.weight), step):
            tile = _Part(*(array[start : start + step] for array in part))
            by_cosine = slopes[:, start : start + step]
            gradient.addmm_(by_cosine * tile.inverse, tile.weight)
            self._update(tile, by_cosine.T @ vectors)
        return value, gradient

    def _slopes(self, part: _Part, vectors: Tensor, labels: Tensor, raised: Tensor | None) -> tuple[float, Tensor]:
        """Return the loss and its gradient by the cosines, (B, C)."""
        if self._logits.shape != (len(vectors), len(part.weight)):
            self._logits = torch.empty(len(vectors), len(part.weight), device=vectors.device)
        cosines = torch.mm(vectors, part.weight.T, out=self._logits).mul_(part.inverse)
        rows = torch.arange(len(vectors), device=vectors.device)
        own, slope = with_margin(cosines[rows, labels], self.loss.margin, self.loss.size)
        logits = cosines.mul_(self.loss.scale)
        logits[rows, labels] = own * self.loss.scale
        if raised is not None:
            logits += raised
        whole = torch.logsumexp(logits, 1)
        value = float((whole - logits[rows, labels]).mean())
        shares = logits.sub_(whole[:, None]).exp_()
        shares[rows, labels] = (shares[rows, labels] - 1) * slope
        return value, shares.mul_(self.loss.scale / len(vectors))

    def _update(self, part: _Part, gradient: Tensor) -> None:
        first, second = 1 - BETA1**self.steps, 1 - BETA2**self.steps
        if part.weight.device.type == "cpu":
            numbers = np.array(
                [self.rate / first, 1 / math.sqrt(second), BETA1, BETA2, EPS, self.decay, _LEAST], np.float32
            )
            update_rows(*(array.numpy() for array in part[:3]), gradient.numpy(), part.inverse.numpy(), numbers)
            return
        weight, m, v, inverse = part
        along = (weight * gradient).sum(1, keepdim=True) * inverse[:, None] ** 2
        slope = gradient.addcmul_(weight, -along).mul_(inverse[:, None]).add_(weight, alpha=self.decay)
        m.lerp_(slope, 1 - BETA1)
        v.mul_(BETA2).addcmul_(slope, slope, value=1 - BETA2)
        weight.addcdiv_(m, (v.sqrt() / math.sqrt(second)).add_(EPS), value=-self.rate / first)
        inverse.copy_(1 / weight.norm(dim=1).clamp(min=_LEAST))


def tile_of(device: str) -> int:
    """Return how many classes are updated at once on a device."""
    return _TILE if device == "cpu" else _TILE_OF_GPU


class _Part(NamedTuple):
    """Some class vectors with their state."""

    weight: Tensor
    first: Tensor
    second: Tensor
    inverse: Tensor
