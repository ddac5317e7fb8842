"""Any model of local descriptors by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.models.local_backbone import LocalBackbone, LocalSettings

if TYPE_CHECKING:
    from openilias.models.network import Network

SIFT, ALIKED = "sift", "aliked"


def load_local(
    name: str,
    settings: LocalSettings,
    *,
    weights: Path | None = None,
    detector: Path | None = None,
    random_weights: int | None = None,
    device: str = "cpu",
) -> LocalBackbone:
    """Load a model of local descriptors.

    Args:
        name: ``sift``; ``aliked``; or any model of :func:`openilias.models.zoo.find_model` that has a map:
            ``dinov2_vitb14_reg`` is that of the paper, ``cvnet_resnet101`` is in AMES too (its third stage).
        settings: resolution, scales, how many.
        weights: a local file instead of the published weights.
        detector: a file of the attention detector of AMES; without one the weight of a token is its length.
        random_weights: a seed: no weights at all, for trying things out.
        device: ``cpu``, ``cuda``, ``mps``.

    Raises:
        OpenIliasError: nobody knows the model, it has no map, weights are missing or do not fit.
    """
    if name in (SIFT, ALIKED) and detector is not None:
        raise OpenIliasError(f"{name} has a detector of its own.", fix="Leave --detector out.")
    if name == SIFT:
        if weights is not None or random_weights is not None:
            raise OpenIliasError("sift has no weights.", fix="Leave --weights and --random-weights out.")
        from openilias.models.local_sift import SiftBackbone

        return SiftBackbone(settings)
    if name == ALIKED:
        from openilias.models.local_aliked import load_aliked

        return load_aliked(settings, weights=weights, random_weights=random_weights, device=device)
    from openilias.models.local_network import NetworkBackbone, read_detector
    from openilias.models.network import TorchBackbone
    from openilias.models.zoo import find_model, load_model

    spec = find_model(name)
    if spec.library == "sift_vlad":
        raise OpenIliasError("sift_vlad is a global descriptor.", fix="Its local descriptors are those of sift.")
    loaded = load_model(spec, Protocol(pooling="gap"), weights=weights, random_weights=random_weights, device=device)
    if not isinstance(loaded, TorchBackbone):
        raise OpenIliasError(f"{name} has no map of local descriptors.", fix="Take a transformer or a ResNet.")
    return NetworkBackbone(
        spec,
        _local_network(loaded.network, spec.architecture),
        settings,
        detector=None if detector is None else read_detector(detector),
        weights_from=loaded.weights_from,
        device=device,
    )


def _local_network(network: Network, architecture: str) -> Network:
    """Return a network whose last map is the one that local descriptors are taken from."""
    if architecture != "gem_resnet":
        return network
    from openilias.models.own_networks import third_stage

    return replace(network, last_map=third_stage(network.module))
