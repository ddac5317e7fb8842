"""The records of known models, and loading any model by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.models.backbone import Backbone
from openilias.models.spec import Library, ModelSpec

if TYPE_CHECKING:
    from openilias.models.network import Network
    from openilias.models.weights import WeightsSource

_HALF = (0.5, 0.5, 0.5)

ZOO: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name="sift_vlad",
            library="sift_vlad",
            architecture="RootSIFT + VLAD + PCA whitening",
            weights="fit",
            train_resolution=724,
            test=724,
            licence="Apache-2.0",
            source="fitted on your own images: ilias models fit sift_vlad",
        ),
        ModelSpec(
            name="mobilenetv2_100.tf_in1k",
            library="timm",
            architecture="mobilenetv2_100",
            arguments={"pad_type": "same"},
            weights="file",
            weights_sha256="d92e1936f1dcc7dc8662df66a41e551aace11939a7aa7750e6abf91202adee3c",
            mean=_HALF,
            std=_HALF,
            pooling="gem",
            licence="Apache-2.0",
            source="TensorFlow slim, MobileNetV2 1.0 224 (tflite_11_05_08), ImageNet-1k",
        ),
        ModelSpec(
            name="tf_efficientnet_lite0.features",
            library="timm",
            architecture="tf_efficientnet_lite0",
            weights="file",
            weights_sha256="94d54fb578fb60702859b8651b1ffa461094e8b7c75883e3c7e278c9a55b2316",
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
            pooling="gem",
            licence="Apache-2.0",
            source="TensorFlow Hub feature vector EfficientNet-Lite0, ImageNet-1k",
        ),
        ModelSpec(
            name="resnet50.tv_in1k",
            library="timm",
            architecture="resnet50.tv_in1k",
            licence="bsd-3-clause",
            source="https://huggingface.co/timm/resnet50.tv_in1k",
        ),
        ModelSpec(
            name="vit_base_patch14_dinov2.lvd142m",
            library="timm",
            architecture="vit_base_patch14_dinov2.lvd142m",
            train_resolution=518,
            licence="apache-2.0",
            source="https://huggingface.co/timm/vit_base_patch14_dinov2.lvd142m",
        ),
        ModelSpec(
            name="vit_large_patch16_siglip_384.webli",
            library="timm",
            architecture="vit_large_patch16_siglip_384.webli",
            train_resolution=384,
            mean=_HALF,
            std=_HALF,
            licence="apache-2.0",
            source="https://huggingface.co/timm/ViT-L-16-SigLIP-384",
        ),
    )
}
"""Models by name. Others go by ``LIBRARY:NAME``; a plain name that is not here is one of timm."""


def find_model(name: str) -> ModelSpec:
    """Return the record of a model.

    Args:
        name: of the zoo; ``timm:NAME`` or a plain timm name; ``torchvision:NAME``; ``open_clip:NAME/TAG``; ``hf:NAME``
            or ``hf:FOLDER``; ``path.py:function``, your own code.

    Raises:
        OpenIliasError: nobody knows it.
    """
    if name.removeprefix("timm:") in ZOO:
        return ZOO[name.removeprefix("timm:")]
    library, colon, rest = name.partition(":")
    if library.endswith(".py") and colon:
        from openilias.models.python_adapter import python_spec

        return python_spec(name)
    if library == "torchvision":
        from openilias.models.torchvision_adapter import torchvision_spec

        return torchvision_spec(rest)
    if library == "open_clip":
        from openilias.models.open_clip_adapter import open_clip_spec

        return open_clip_spec(rest)
    if library == "hf":
        from openilias.models.hf_adapter import hf_spec

        return hf_spec(rest)
    from openilias.models.timm_adapter import timm_spec

    return timm_spec(name.removeprefix("timm:"))


def load_model(
    spec: ModelSpec,
    protocol: Protocol,
    *,
    weights: Path | None = None,
    random_weights: int | None = None,
    device: str = "cpu",
) -> Backbone:
    """Load a model and bind it to a protocol.

    Args:
        spec: its record.
        protocol: what it leaves open is filled in from the record.
        weights: a local file instead of the published weights.
        random_weights: a seed: no weights at all, for trying things out.
        device: ``cpu``, ``cuda``, ``mps``.

    Raises:
        OpenIliasError: weights are missing, do not fit or cannot be fetched.
    """
    if weights is not None and random_weights is not None:
        raise OpenIliasError("Both --weights and --random-weights were given.", fix="Give one of them.")
    if spec.library == "sift_vlad":
        from openilias.models.sift_vlad import SiftVladBackbone

        if weights is None:
            raise OpenIliasError(
                "sift_vlad has to be fitted first.",
                fix="ilias models fit sift_vlad --benchmark DIR --out FILE, then --weights FILE",
            )
        return SiftVladBackbone(spec, protocol, weights=weights)
    if spec.weights == "file" and weights is None and random_weights is None:
        raise OpenIliasError(
            f"The weights of {spec.name} are a local file.",
            where=spec.source,
            fix="Give it with --weights FILE.",
        )
    from openilias.models.network import TorchBackbone
    from openilias.models.weights import WeightsSource

    source = WeightsSource(weights, random_weights)
    network = _builder(spec.library)(spec, spec.resolve(protocol), source)
    return TorchBackbone(spec, protocol, network, weights_from=source.describe(spec), device=device)


def _builder(library: Library) -> Callable[[ModelSpec, Protocol, WeightsSource], Network]:
    if library == "torchvision":
        from openilias.models.torchvision_adapter import torchvision_network as build
    elif library == "open_clip":
        from openilias.models.open_clip_adapter import open_clip_network as build
    elif library == "hf":
        from openilias.models.hf_adapter import hf_network as build
    elif library == "python":
        from openilias.models.python_adapter import python_network as build
    else:
        from openilias.models.timm_adapter import timm_network as build
    return build
