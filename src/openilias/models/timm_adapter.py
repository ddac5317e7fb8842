"""Any image model of timm."""

from __future__ import annotations

import inspect
from math import isqrt
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.protocol import Protocol
from openilias.models.network import LastMap, Network, tokens_on_grid
from openilias.models.positions import PlacedTokens, PositionsOnce
from openilias.models.spec import ModelSpec
from openilias.models.weights import WeightsSource

_UNNOTED = ("vit_base_patch16_clip_224.dfn2b",)  # trained with QuickGELU, which open_clip knows and timm does not
_ANY_SIZE = ("VisionTransformerSAM", "NaFlexVit")  # take any multiple of the patch without being told to


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
        quick_gelu=name in _UNNOTED or any("natively QuickGELU" in note for note in config.notes or ()),
        train_resolution=config.input_size[-1],
        pooling="gem" if architecture.startswith("vgg") else "head",
        mean=tuple(config.mean),
        std=tuple(config.std),
        licence=config.license,
        source=f"timm {name}" if not config.hf_hub_id else f"https://huggingface.co/{config.hf_hub_id}",
    )


def timm_network(spec: ModelSpec, protocol: Protocol, weights: WeightsSource) -> Network:
    """Build a timm network, its classifier taken off (a projection stays).

    Raises:
        OpenIliasError: timm cannot build it, or the weights are missing or do not fit.
    """
    arguments = dict(spec.arguments)
    if not spec.projection:
        arguments["num_classes"] = 0
    if spec.quick_gelu and protocol.compat == "paper":
        arguments["act_layer"] = "quick_gelu"
    with weights.building(spec):
        module = create_for_any_size(spec.architecture, pretrained=weights.hub, **arguments)
    if spec.layout == "unic" and weights.file is not None:
        _take_size(module, weights.state(weights.file), weights.file)
    heads = cast(dict[str, Any], module.pretrained_cfg or {}).get("classifier") or ()
    weights.load(module, spare=(heads,) if isinstance(heads, str) else tuple(heads))
    multiple = patch_of(module)
    if spec.positions != "library":
        cast(Any, module)._pos_embed = PlacedTokens(module, spec.positions)
    return Network(module, head=module, last_map=LastMapOf(module, multiple), multiple=multiple)


def create_for_any_size(name: str, *, pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Call timm's ``create_model``; a transformer that can take images of any size does, with its positions kept."""
    import timm

    with torch.device("meta"):
        plain = timm.create_model(name, pretrained=False, **arguments)
    if _takes(plain, "dynamic_img_size"):
        arguments["dynamic_img_size"] = True
    module: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    if patch_of(module) != (1, 1) and hasattr(module, "_pos_embed"):
        cast(Any, module)._pos_embed = PositionsOnce(cast(Any, module)._pos_embed)
    return module


def _take_size(module: Any, state: dict[str, Tensor], file: Path) -> None:
    """Give the network the grid of the file, which its authors do not state."""
    table = state.get("pos_embed")
    if table is None:
        return
    side = isqrt(max(table.shape[1] - 1, 0)) if table.ndim == 3 else 0
    if side == 0 or table.shape != (1, side * side + 1, module.embed_dim):
        raise OpenIliasError(
            f"pos_embed {tuple(table.shape)} is no square grid of {module.embed_dim} numbers after a class token.",
            where=file,
            fix="Fetch it again, or give another file.",
        )
    module.pos_embed = nn.Parameter(torch.zeros_like(table, dtype=torch.float32))


class LastMapOf:
    """Calls ``forward_features`` and finds its way in what comes out."""

    def __init__(self, module: nn.Module, multiple: tuple[int, int]) -> None:
        """``multiple`` is that of :func:`patch_of`."""
        self._module: Any = module
        self._multiple = multiple

    def __call__(self, images: Tensor) -> LastMap:
        """Return the last map of (B, 3, H, W) images."""
        maps = self._module.forward_features(images)
        if not isinstance(maps, Tensor) or maps.ndim not in (3, 4):
            raise OpenIliasError("This network has no last map to pool.", fix="Use --pooling head.")
        if maps.ndim == 4:
            return LastMap(maps.permute(0, 3, 1, 2) if getattr(self._module, "output_fmt", "") == "NHWC" else maps)
        prefix = getattr(self._module, "num_prefix_tokens", 0)
        if getattr(self._module, "cls_token", None) is not None and not prefix:
            raise OpenIliasError("This network does not say where its class token is.", fix="Use --pooling head.")
        grid, before = tokens_on_grid(maps, self._grid(images, maps.shape[1] - prefix), prefix=prefix)
        return LastMap(
            grid,
            before,
            has_class=getattr(self._module, "cls_token", None) is not None,
            official_skip=int(getattr(self._module, "global_pool", "") == "token"),
            of_tokens=True,
        )

    def _grid(self, images: Tensor, count: int) -> tuple[int, int]:
        """Return (h, w) of the tokens; networks of a fixed input size may merge patches, which keep the proportions."""
        height, width = images.shape[2:]
        if self._multiple != (1, 1):
            return height // self._multiple[0], width // self._multiple[1]
        rows = round((count * height / width) ** 0.5)
        return rows, count // max(rows, 1)


def _takes(network: nn.Module, argument: str) -> bool:
    return any(argument in inspect.signature(kind).parameters for kind in type(network).__mro__[:-1])


def patch_of(network: nn.Module) -> tuple[int, int]:
    """Return the (height, width) of a token of a network that takes any multiple of it, else (1, 1)."""
    embed: Any = getattr(network, "patch_embed", None) or getattr(network, "embeds", None)
    takes_any = getattr(network, "dynamic_img_size", False) or type(network).__name__ in _ANY_SIZE
    if embed is None or not takes_any:
        return 1, 1
    size = embed.feat_ratio(as_scalar=False) if hasattr(embed, "feat_ratio") else getattr(embed, "patch_size", 1)
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(height), int(width)
