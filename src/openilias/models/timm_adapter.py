"""Any image model of timm."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import sha256_of
from openilias.core.protocol import Protocol
from openilias.images.resize import pad_to, pad_to_multiple, resize
from openilias.models.backbone import Backbone, Floats
from openilias.models.pooling import MapPooling, pool
from openilias.models.spec import ModelSpec
from openilias.models.weights import digest_state, fit_state, read_state


def timm_spec(name: str) -> ModelSpec:
    """Make the record of any timm model from what timm itself knows of it.

    Raises:
        OpenIliasError: timm has no such architecture or pretrained tag.
    """
    import timm
    from timm.models import PretrainedCfg

    architecture, _, _ = name.partition(".")
    try:
        if not timm.is_model(architecture):
            raise OpenIliasError(
                f"There is no model {name!r} in the zoo or in timm.",
                fix="See: ilias models list, and timm.list_models().",
            )
        config = timm.get_pretrained_cfg(name) or PretrainedCfg()
    except RuntimeError:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        raise OpenIliasError(
            f"timm has no weights {name!r}; there are: {first_few(tags, most=8)}.", fix="Choose one of these."
        ) from None
    # A head whose width is that of an embedding is a projection; label sets (1000, 21841, ...) are not.
    projection = 0 < config.num_classes <= 2048 and config.num_classes % 64 == 0
    return ModelSpec(
        name=f"timm:{name}",
        library="timm",
        architecture=name,
        projection=projection,
        quick_gelu=any("natively QuickGELU" in note for note in config.notes or ()),
        train_resolution=config.input_size[-1],
        mean=tuple(config.mean),
        std=tuple(config.std),
        licence=config.license,
        source=f"timm {name}" if not config.hf_hub_id else f"https://huggingface.co/{config.hf_hub_id}",
    )


class TimmBackbone(Backbone):
    """A timm network, its classifier taken off (a projection stays)."""

    def __init__(
        self,
        spec: ModelSpec,
        protocol: Protocol,
        *,
        weights: Path | None,
        random_weights: int | None,
        device: str,
    ) -> None:
        self.spec = spec
        self.protocol = spec.resolve(protocol)
        self.device = device
        network = _build(spec, protocol, pretrained=weights is None and random_weights is None, seed=random_weights)
        if weights is not None:
            config = cast(dict[str, Any], network.pretrained_cfg or {})
            heads = config.get("classifier") or ()
            fit_state(
                network,
                read_state(weights),
                where=weights,
                spare=(heads,) if isinstance(heads, str) else tuple(heads),
            )
        self.weights_from = _origin(spec, weights, random_weights)
        self.weights_digest = digest_state(network.state_dict())
        self._network = network.eval().to(self.device)
        self._patch = _patch_of(network)
        self.dims = self._measure()

    def _measure(self) -> int:
        side = self._patch[0] * 8 if self._patch else self.spec.train_resolution
        return self._forward(torch.zeros(1, 3, side, side)).shape[1]

    def prepare(self, image: Image.Image) -> Floats:
        """Return the normalised (3, H, W) float32 array of a picture."""
        resolution = self.protocol.resolution or self.spec.test_resolution
        pixels = np.asarray(resize(image, self.protocol.resize, resolution), np.float32) / np.float32(255)
        centred = (pixels - np.asarray(self.spec.mean, np.float32)) / np.asarray(self.spec.std, np.float32)
        array: Floats = np.ascontiguousarray(centred.transpose(2, 0, 1))
        if self.protocol.resize == "pad":
            array = pad_to(array, resolution, resolution)
        return pad_to_multiple(array, self._patch) if self._patch else array

    def describe(self, batch: npt.NDArray[Any]) -> Floats:
        """Return (B, dims) float32, not normalised."""
        try:
            return self._forward(torch.from_numpy(batch)).cpu().numpy()
        except (AssertionError, RuntimeError) as error:
            raise OpenIliasError(
                f"{self.spec.name} cannot take images of {batch.shape[2]} x {batch.shape[3]} pixels: "
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}.",
                fix="Its input size may be fixed: try --resize square --resolution "
                f"{self.spec.train_resolution}; or the batch is too large: lower --batch-size.",
            ) from None

    @torch.inference_mode()
    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self.device)
        if self.protocol.pooling == "head":
            return cast(torch.Tensor, self._network(images)).float()
        maps = cast(Any, self._network).forward_features(images)
        if not isinstance(maps, torch.Tensor) or maps.ndim not in (3, 4):
            raise OpenIliasError(f"{self.spec.name} has no last map to pool.", fix="Use --pooling head.")
        if maps.ndim == 3:
            return self._pool_tokens(maps).float()
        if self.protocol.pooling == "cls":
            raise OpenIliasError(f"{self.spec.name} has no class token.", fix="Use another --pooling.")
        if getattr(self._network, "output_fmt", "NCHW") == "NHWC":
            maps = maps.permute(0, 3, 1, 2)
        return self._pool_map(maps.flatten(2)).float()

    def _pool_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        prefix = getattr(self._network, "num_prefix_tokens", 0)
        if self.protocol.pooling == "cls":
            if getattr(self._network, "cls_token", None) is None:
                raise OpenIliasError(f"{self.spec.name} has no class token.", fix="Use another --pooling.")
            return tokens[:, 0]
        # The official code takes only the class token off and pools register tokens along.
        skip = min(prefix, 1) if self.protocol.compat == "official" else prefix
        return self._pool_map(tokens[:, skip:].transpose(1, 2))

    def _pool_map(self, maps: torch.Tensor) -> torch.Tensor:
        return pool(maps, cast(MapPooling, self.protocol.pooling), official=self.protocol.compat == "official")


def _origin(spec: ModelSpec, weights: Path | None, seed: int | None) -> str:
    if seed is not None:
        return f"random, seed {seed}"
    if weights is None:
        return "hub"
    return "published file" if sha256_of(weights) == spec.weights_sha256 else "file"


def _build(spec: ModelSpec, protocol: Protocol, *, pretrained: bool, seed: int | None) -> nn.Module:
    import timm

    arguments = dict(spec.arguments)
    if not spec.projection:
        arguments["num_classes"] = 0
    if spec.quick_gelu and protocol.compat == "paper":
        arguments["act_layer"] = "quick_gelu"
    try:
        with torch.device("meta"):
            plain = timm.create_model(spec.architecture, pretrained=False, **arguments)
        if _takes(plain, "dynamic_img_size"):
            arguments["dynamic_img_size"] = True
        state = torch.random.get_rng_state()
        torch.manual_seed(0 if seed is None else seed)
        network = timm.create_model(spec.architecture, pretrained=pretrained, **arguments)
        torch.random.set_rng_state(state)
    except Exception as error:
        if pretrained:
            raise OpenIliasError(
                f"The weights of {spec.name} could not be loaded: {first_few(str(error).splitlines(), most=1)}.",
                where=spec.source,
                fix="Give a local file with --weights FILE, or use --random-weights SEED to try without.",
            ) from None
        raise OpenIliasError(f"timm cannot build {spec.architecture}: {error}.") from None
    return cast(nn.Module, network)


def _takes(network: nn.Module, argument: str) -> bool:
    return any(argument in inspect.signature(kind).parameters for kind in type(network).__mro__[:-1])


def _patch_of(network: nn.Module) -> tuple[int, int] | None:
    """Return the (height, width) of a token of a network that takes any multiple of it, else None."""
    embed = getattr(network, "patch_embed", None)
    if embed is None or not getattr(network, "dynamic_img_size", False):
        return None
    height, width = embed.feat_ratio(as_scalar=False)
    return int(height), int(width)
