"""Learning AMES from pairs: binary cross-entropy, and for a binary network the similarities of a teacher besides.

As in its paper (Suma et al., ECCV 2024) the pairs are mined from the global ranking, the bits begin as those of ITQ
and learn with the rest (the error function in place of the sign), and a binary network learns what one of full
precision, that may see more descriptors, says of the same pairs. The settings of the optimiser are our own: the
authors have not published theirs as code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from openilias.core.errors import OpenIliasError
from openilias.models.local_features import LocalFeatures
from openilias.rerank.ames import DIMS, LAYERS, WIDE, Ames, Padding
from openilias.rerank.ames_pairs import Mined, Numbers
from openilias.rerank.ames_scores import PRECISIONS
from openilias.rerank.itq import Binarisation
from openilias.rerank.similarities import LocalDatabase

ALGORITHM_VERSION = 1
_SHOWN = 50
"""Steps that the loss shown is the mean of."""


@dataclass(frozen=True)
class AmesSettings:
    """What a network depends on besides pairs, descriptors and teacher.

    Attributes:
        dims: of the tokens of a network of numbers; of a binary one they are its bits.
        layers: of attention.
        wide: of the inner layer.
        epochs: times that each anchor is seen, with another positive and negative each time.
        batch: anchors of a step, each with two pairs; the last ones of an epoch that are fewer are left out.
        rate: learning rate of AdamW; it rises at first and falls to nothing as a cosine.
        decay: weight decay.
        warmup: share of the steps in which the rate rises.
        clip: the norm of the gradient is not larger.
        hard: so many images of other classes of each list are its negatives.
        query_descriptors: of an anchor, those of largest weight.
        descriptors: of the other image.
        fewest: a network for any number of descriptors learns from drawn ones: from this share of them to all.
        distil: weight of what the teacher says; the rest is that of the labels.
        teacher_descriptors: that the teacher sees of the other image; as many as the student by default.
        held_out: so many anchors are kept back to measure on, at most a tenth; 0 learns from all.
        precision: of the layers.
        seed: everything that is drawn follows from it.

    Raises:
        OpenIliasError: on construction, numbers that cannot be.
    """

    dims: int = DIMS
    layers: int = LAYERS
    wide: int = WIDE
    epochs: int = 10
    batch: int = 32
    rate: float = 1e-4
    decay: float = 1e-2
    warmup: float = 0.05
    clip: float = 1.0
    hard: int = 100
    query_descriptors: int = 600
    descriptors: int = 100
    fewest: float = 1.0
    distil: float = 0.5
    teacher_descriptors: int | None = None
    held_out: int = 200
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.dims, self.layers, self.wide, self.epochs, self.batch, self.hard)
        if min(*counts, self.query_descriptors, self.descriptors, self.teacher_descriptors or 1) < 1:
            raise OpenIliasError("Sizes and counts of a training are at least 1.")
        shares = {"warm-up": self.warmup, "fewest": self.fewest, "distil": self.distil}
        bad = [f"{name} {value}" for name, value in shares.items() if not 0 <= value <= 1]
        if bad or self.fewest == 0:
            raise OpenIliasError(f"Shares lie between 0 and 1: {', '.join(bad) or 'fewest 0'}.")
        if not (0 < self.rate <= 1 and 0 <= self.decay <= 1000 and self.clip > 0):
            raise OpenIliasError("Learning rate, weight decay or the norm of the gradient cannot be.")

    def made_from(self, *, teacher: bool) -> dict[str, Any]:
        """Return them as JSON values, without what is not used."""
        unused = set() if teacher else {"distil", "teacher_descriptors"}
        kept = {name: value for name, value in asdict(self).items() if name not in unused}
        return {"algorithm_version": ALGORITHM_VERSION, **kept}


def drawn_network(local_dims: int, settings: AmesSettings, bits: Binarisation | None, teacher: Ames | None) -> Ames:
    """Draw the network that learns.

    Args:
        local_dims: of the descriptors.
        settings: its sizes.
        bits: of a binary network, where its own begin; None makes one of numbers.
        teacher: whose layers it begins with, if they are of the same sizes.

    Raises:
        OpenIliasError: bits of other dimensions, or ones that subtract a mean.
    """
    if bits is not None and bits.mean.any():
        raise OpenIliasError(
            "The bits of AMES are the signs of x W: a binarisation that subtracts a mean is none.",
            fix="Learn one without --centred.",
        )
    if bits is not None and bits.dims != local_dims:
        raise OpenIliasError(
            f"This binarisation takes {bits.dims} dimensions, the descriptors have {local_dims}.",
            fix="Learn one from these descriptors: ilias local itq.",
        )
    dims = settings.dims if bits is None else bits.bits
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Ames(local_dims, binary=bits is not None, dims=dims, layers=settings.layers, wide=settings.wide)
    with torch.no_grad():
        if bits is not None:
            weight: Tensor = network.state_dict()["remap_local.0.W"]
            weight.copy_(torch.from_numpy(bits.weight))
        if teacher is not None:
            theirs, mine = teacher.state_dict(), network.state_dict()
            alike = [n for n in mine if n in theirs and mine[n].shape == theirs[n].shape and "remap" not in n]
            if len(alike) == sum("remap" not in name for name in mine):
                network.load_state_dict({name: theirs[name] for name in alike}, strict=False)
    return network


class Sets(NamedTuple):
    """Sets of descriptors: (B, N, D) of numbers or of signs, where they are padded (B, N), whether they are signs."""

    values: Tensor
    padded: Tensor
    signs: bool

    def tokens(self, network: Ames, *, image: bool) -> Tensor:
        """Return their tokens (B, N, dims)."""
        return network.from_signs(self.values) if self.signs else network.tokens_of(self.values, image=image)

    def first(self, count: int) -> Sets:
        """Return the first descriptors of each set."""
        return Sets(self.values[:, :count], self.padded[:, :count], self.signs)


def sets_of(found: Sequence[LocalFeatures], device: str) -> Sets:
    """Put sets of descriptors together; of an image without any one is padded."""
    width = max(1, *(len(one) for one in found))
    signs = found[0].descriptors.dtype == np.uint8
    dims = found[0].descriptors.shape[1] * (8 if signs else 1)
    values = np.zeros((len(found), width, dims), np.float32)
    padded = np.ones((len(found), width), np.bool_)
    for row, one in enumerate(found):
        these: npt.NDArray[Any] = one.descriptors
        values[row, : len(one)] = 2.0 * np.unpackbits(these, axis=1) - 1 if signs else these
        padded[row, : len(one)] = False
    return Sets(torch.from_numpy(values).to(device), torch.from_numpy(padded).to(device), signs)


def logits_of(network: Ames, query: Sets, images: Sets) -> Tensor:
    """Return (B,) logits of pairs."""
    paddings = [one.padded if bool(one.padded.any()) else None for one in (query, images)]
    out: Tensor = network(query.tokens(network, image=False), images.tokens(network, image=True), Padding(*paddings))
    return out


class AmesTraining:
    """A network while it learns. What it is after some steps follows from its settings and data alone.

    Attributes:
        done: steps so far.
        total: steps in all.
        network: as it is now.
    """

    def __init__(
        self,
        network: Ames,
        mined: Mined,
        database: LocalDatabase,
        settings: AmesSettings,
        *,
        teacher: Ames | None = None,
        device: str = "cpu",
    ) -> None:
        """Begin.

        Raises:
            OpenIliasError: fewer anchors than a batch.
        """
        self._each = len(mined.anchors) // settings.batch
        if not self._each:
            raise OpenIliasError(
                f"{len(mined.anchors)} images are fewer than a batch of {settings.batch}.", fix="Lower --batch-size."
            )
        self.settings, self.network = settings, network.to(device)
        self._mined, self._database, self._device = mined, database, device
        self._teacher = None if teacher is None else teacher.to(device).eval()
        self.done, self.total = 0, settings.epochs * self._each
        self._optimizer = torch.optim.AdamW(self.network.parameters(), lr=settings.rate, weight_decay=settings.decay)
        self._losses: list[float] = []

    def steps(self) -> Iterator[float]:
        """Do what is left; yield the loss of each step."""
        while self.done < self.total:
            epoch, place = divmod(self.done, self._each)
            order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self._mined.anchors))
            for number in range(place, self._each):
                batch = order[number * self.settings.batch : (number + 1) * self.settings.batch]
                yield self._step(batch, np.random.default_rng([self.settings.seed, epoch, number]))

    def _step(self, places: Numbers, rng: np.random.Generator) -> float:
        settings = self.settings
        few = rng.uniform(settings.fewest, 1, 2)
        asked, known = (
            max(1, round(count * share))
            for count, share in zip((settings.query_descriptors, settings.descriptors), few, strict=True)
        )
        query, images = self._pairs(places, rng)
        labels = torch.cat([torch.ones(len(places)), torch.zeros(len(places))]).to(self._device)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.rate * self._share()
        self.network.train()
        with self._autocast():
            logits = logits_of(self.network, query.first(asked), images.first(known)).float()
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        if self._teacher is not None and settings.distil:
            with torch.no_grad(), self._autocast():
                seen = images.first(settings.teacher_descriptors or settings.descriptors)
                told = torch.sigmoid(logits_of(self._teacher, query, seen).float())
            distilled = F.binary_cross_entropy_with_logits(logits, told)
            loss = (1 - settings.distil) * loss + settings.distil * distilled
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        self._optimizer.step()
        if not math.isfinite(value := loss.item()):
            raise OpenIliasError("The loss is not finite any more.", fix="Lower --learning-rate.")
        self.done += 1
        self._losses.append(value)
        return value

    def _pairs(self, places: Numbers, rng: np.random.Generator) -> tuple[Sets, Sets]:
        """Return anchors twice, and their positives, then their negatives."""
        return pairs_of(self._mined, self._database, places, rng, self.settings, self._device)

    def _autocast(self) -> torch.autocast:
        kind = PRECISIONS[self.settings.precision]
        return torch.autocast(self._device.partition(":")[0], dtype=kind, enabled=kind is not None)

    def _share(self) -> float:
        """Return which share of the learning rate this step has."""
        rising = max(1, round(self.settings.warmup * self.total))
        if self.done < rising:
            return (self.done + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (self.done - rising) / max(1, self.total - rising)))

    @property
    def recent_loss(self) -> float:
        """The mean loss of the last steps."""
        return float(np.mean(self._losses[-_SHOWN:])) if self._losses else float("nan")

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` goes on from."""
        return {
            "done": self.done,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "losses": self._losses[-_SHOWN:],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same settings and data."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.done, self._losses = int(state["done"]), list(state["losses"])


def pairs_of(
    mined: Mined,
    database: LocalDatabase,
    places: Numbers,
    rng: np.random.Generator,
    settings: AmesSettings,
    device: str,
) -> tuple[Sets, Sets]:
    """Draw pairs of some anchors, and read their descriptors.

    Returns:
        The anchors twice, and their positives, then their negatives: (2 B, N, D) each.
    """
    anchors, positives, negatives = mined.drawn(places, rng)
    most = max(settings.descriptors, settings.teacher_descriptors or 0)

    def read(images: Sequence[int], count: int) -> list[LocalFeatures]:
        return [database.features(mined.ids[image], count) for image in images]

    query = sets_of(read(anchors.tolist(), settings.query_descriptors), device)
    twice = Sets(torch.cat([query.values] * 2), torch.cat([query.padded] * 2), query.signs)
    return twice, sets_of(read([*positives.tolist(), *negatives.tolist()], most), device)


@torch.no_grad()
def told_apart(network: Ames, mined: Mined, database: LocalDatabase, settings: AmesSettings, device: str) -> float:
    """Return how often the positive of an anchor is more alike than its negative; equal ones count half."""
    network.eval()
    right = 0.0
    for start in range(0, len(mined.anchors), settings.batch):
        places = np.arange(start, min(start + settings.batch, len(mined.anchors)))
        rng = np.random.default_rng([settings.seed, 10**6, start])
        query, images = pairs_of(mined, database, places, rng, settings, device)
        positive, negative = logits_of(network, query, images.first(settings.descriptors)).chunk(2)
        right += float((positive > negative).sum()) + 0.5 * float((positive == negative).sum())
    return right / len(mined.anchors)
