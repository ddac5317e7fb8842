"""ALIKED (Zhao et al., IEEE TIM 2023) as local descriptors, by kornia: ``pip install openilias[local]``."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from openilias.core.errors import OpenIliasError
from openilias.models.local_backbone import LocalBackbone, LocalSettings, PrepareLocal
from openilias.models.local_features import LocalFeatures, ordered
from openilias.models.local_network import MapPreparation
from openilias.models.quiet import first_line
from openilias.models.weights import digest_state, read_state

ARCHITECTURE = "aliked-n16rot"
_NOT_LEARNED = ("num_batches_tracked", "hw_grid")  # a counter, and a fixed grid


def load_aliked(
    settings: LocalSettings, *, weights: Path | None, random_weights: int | None, device: str
) -> LocalBackbone:
    """Load ALIKED.

    Args:
        settings: resolution, scales, how many.
        weights: a local file; by default the published one, which kornia fetches.
        random_weights: a seed: no weights at all.
        device: where it computes.

    Raises:
        OpenIliasError: kornia is not installed, or the weights are missing or do not fit.
    """
    try:
        from kornia.feature import ALIKED
    except ImportError:
        raise OpenIliasError("ALIKED needs kornia.", fix="pip install 'openilias[local]'") from None
    if weights is not None and random_weights is not None:
        raise OpenIliasError("Both --weights and --random-weights were given.", fix="Give one of them.")
    most = settings.most  # a threshold of 0 takes so many of the best local maxima
    if weights is None and random_weights is None:
        try:
            network = ALIKED.from_pretrained(ARCHITECTURE, max_num_keypoints=most, detection_threshold=0.0)
        except Exception as error:  # of any kind: no network, no space, another file
            raise OpenIliasError(
                f"The weights of ALIKED cannot be fetched: {first_line(error)}.",
                fix="Give a local file with --weights.",
            ) from None
        return AlikedBackbone(network, settings, weights_from="published file", device=device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_weights or 0)
        network = ALIKED(ARCHITECTURE, max_num_keypoints=most, detection_threshold=0.0)
    if weights is None:
        return AlikedBackbone(network, settings, weights_from=f"random, seed {random_weights}", device=device)
    state = {name: value.float() for name, value in read_state(weights).items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    left = [name for name in missing if not name.endswith(_NOT_LEARNED)]
    if left or unexpected:
        raise OpenIliasError(
            f"These weights do not fit ALIKED: {len(left)} are missing, {len(unexpected)} are unknown.",
            where=weights,
            fix=f"Give those of {ARCHITECTURE}.",
        )
    return AlikedBackbone(network, settings, weights_from="file", device=device)


class AlikedBackbone(LocalBackbone):
    """Descriptors of 128 dimensions at key points; the weight is the score of the point."""

    def __init__(self, network: Any, settings: LocalSettings, *, weights_from: str, device: str) -> None:
        """Bind the network to the settings."""
        self.name, self.settings, self.dims, self.device = "aliked", settings, 128, device
        self.weights_from, self.weight_from = weights_from, "score"
        self._network = network.eval().to(device)
        state = {name: value for name, value in network.state_dict().items() if not name.endswith(_NOT_LEARNED)}
        self.weights_digest = digest_state(state)
        self.batch_size = 8 if device != "cpu" else 1

    def preparation(self) -> PrepareLocal:
        """Return what resizes a picture."""
        return MapPreparation(self.settings)

    def group_of(self, prepared: Any) -> Hashable:
        """Pictures of the same sizes go together."""
        return tuple(pixels.shape for pixels in prepared)

    def description(self) -> dict[str, Any]:
        """Return what a descriptor depends on."""
        return {"name": self.name, "model": ARCHITECTURE, **self.settings.model_dump(mode="json")}

    @torch.inference_mode()
    def find(self, batch: Sequence[Any]) -> list[LocalFeatures]:
        """Return the descriptors of all scales together."""
        parts: list[list[tuple[Any, Any]]] = [[] for _ in batch]
        for number, scale in enumerate(self.settings.scales):
            pixels = torch.from_numpy(np.stack([pictures[number] for pictures in batch])).to(self.device)
            height, width = pixels.shape[1:3]
            try:
                found = self._network(pixels.permute(0, 3, 1, 2).float().div(255))
            except RuntimeError as error:
                raise OpenIliasError(
                    f"ALIKED cannot take images of {height} x {width} pixels: {first_line(error)}.",
                    fix="Take a larger --resolution, or a smaller --batch-size.",
                ) from None
            for part, one in zip(parts, found, strict=True):
                points = one.keypoints.float()
                size = points.new_tensor([max(width - 1, 1), max(height - 1, 1)])
                places = (points / size).clamp(0, 1).flip(1)
                others = torch.stack([torch.full_like(one.keypoint_scores, 1 / scale), one.keypoint_scores], 1)
                geometry = torch.cat([places, others.float()], 1).cpu().numpy()
                part.append((F.normalize(one.descriptors.float(), dim=1).cpu().numpy(), geometry))
        nearest = min(range(len(self.settings.scales)), key=lambda i: abs(np.log(self.settings.scales[i])))
        return [
            ordered(
                *(np.concatenate(values) for values in zip(*part, strict=True)),
                height=int(pictures[nearest].shape[0]),
                width=int(pictures[nearest].shape[1]),
                most=self.settings.most,
            )
            for part, pictures in zip(parts, batch, strict=True)
        ]
