"""Published networks that no library has: a trunk of timm with what their authors put on top."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.models.network import LastMap, Network
from openilias.models.positions import PlacedTokens
from openilias.models.spec import ModelSpec
from openilias.models.timm_adapter import LastMapOf, create_for_any_size, patch_of
from openilias.models.weights import WeightsSource

_REGION = 5
"""Side of the regions of regional GeM; smaller maps go without."""


class Floor(nn.Module):
    """ReLU that cuts at a small positive value, the "ReLUP" of SuperGlobal (Shao et al., ICCV 2023)."""

    def __init__(self, least: float) -> None:
        """``least`` is what smaller values become."""
        super().__init__()
        self.least = least

    def forward(self, maps: Tensor) -> Tensor:
        """Return the same shape."""
        return maps.clamp(min=self.least)


class GemResNet(nn.Module):
    """A ResNet with generalised-mean pooling and a linear layer: CVNet, SuperGlobal, Recall@k.

    The defaults are those of CVNet (Lee et al., CVPR 2022).
    """

    def __init__(
        self,
        trunk: str,
        dims: int,
        *,
        floor: float = 0.0,
        regional: bool = False,
        power: float | None = None,
        eps: float = 1e-6,
        before: str | None = None,
    ) -> None:
        """Build it.

        Args:
            trunk: its name in timm.
            dims: of the descriptor.
            floor: of the activations of the first stages (:class:`Floor`), 0 for ReLU.
            regional: blend the last map with its regional GeM (SuperGlobal; p = 2.5, regions of 5 x 5).
            power: of the pooling; None takes the one that was learned.
            eps: least value that is pooled.
            before: what is done before the linear layer: ``unit`` length, layer ``norm``, or nothing.
        """
        super().__init__()
        self.trunk = create_for_any_size(trunk, num_classes=0, global_pool="")
        width = int(cast(Any, self.trunk).num_features)
        self.p = nn.Parameter(torch.full((1,), 3.0))
        self.norm = nn.LayerNorm(width) if before == "norm" else nn.Identity()
        self.fc = nn.Linear(width, dims)
        self._regional, self._power, self._eps, self._unit = regional, power, eps, before == "unit"
        if floor:
            _put_floors(self.trunk, floor)

    def last_map(self, images: Tensor) -> LastMap:
        """Return the map that is pooled."""
        maps: Tensor = cast(Any, self.trunk).forward_features(images)
        if self._regional and min(maps.shape[2:]) >= _REGION:
            maps = (maps + regional_gem(maps)) / 2
        return LastMap(maps)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, dims) for (B, 3, H, W) images."""
        power = self.p if self._power is None else self._power
        maps = self.last_map(images).grid.float()
        pooled = maps.clamp(min=self._eps).pow(power).mean((2, 3)).pow(1 / power)
        if self._unit:
            pooled = F.normalize(pooled)
        vectors: Tensor = self.fc(self.norm(pooled))
        return vectors


def third_stage(module: nn.Module) -> Callable[[Tensor], LastMap]:
    """Return what gives the map of the third stage of a :class:`GemResNet`: AMES takes local descriptors from it."""
    if not isinstance(module, GemResNet):
        raise TypeError(f"no GemResNet but {type(module).__name__}")
    trunk: Any = module.trunk

    def third(images: Tensor) -> LastMap:
        x = trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1(images))))
        return LastMap(trunk.layer3(trunk.layer2(trunk.layer1(x))))

    return third


def regional_gem(maps: Tensor, *, p: float = 2.5, side: int = _REGION) -> Tensor:
    """Return the generalised mean of the region around each place, the map reflected at its borders (SuperGlobal)."""
    around = F.pad(maps.float(), (side // 2,) * 4, mode="reflect")
    return F.avg_pool2d(around.pow(p), side, stride=1).pow(1 / p)


def _put_floors(trunk: Any, least: float) -> None:
    """As SuperGlobal does: inside the blocks of the first stage, and after each block of the first three."""
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3):
        for block in stage:
            block.act3 = Floor(least)
    for block in trunk.layer1:
        block.act1, block.act2 = Floor(least), Floor(least)


class Unicom(nn.Module):
    """Unicom (An et al., ICLR 2023): all patch tokens, pooled to the grid of the training, through a large head."""

    def __init__(self, *, side: int, patch: int, width: int, depth: int, heads: int, dims: int) -> None:
        """Build it; ``side`` is that of the training images in pixels."""
        super().__init__()
        self.trunk = create_for_any_size(
            "vit_base_patch16_224",
            img_size=side,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            num_classes=0,
            global_pool="",
            class_token=False,
            qkv_bias=False,
            fc_norm=False,
            act_layer=nn.ReLU6,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
        )
        cast(Any, self.trunk)._pos_embed = PlacedTokens(self.trunk, "bicubic")
        self._grid = (side // patch,) * 2
        self.last_map = LastMapOf(self.trunk, (patch, patch))
        self.feature = nn.Sequential(
            nn.Linear(width * self._grid[0] * self._grid[1], width, bias=False),
            nn.BatchNorm1d(width, eps=2e-5),
            nn.Linear(width, dims, bias=False),
            nn.BatchNorm1d(dims, eps=2e-5),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, dims) for (B, 3, H, W) images."""
        places = F.adaptive_avg_pool2d(self.last_map(images).grid.float(), self._grid)
        vectors: Tensor = self.feature(places.flatten(2).transpose(1, 2).flatten(1))
        return vectors


class HeadedTransformer(nn.Module):
    """A vision transformer of timm whose class token goes through a layer norm and a linear layer: Recall@k, HIER."""

    def __init__(self, trunk: str, dims: int, *, affine: bool = True, eps: float = 1e-5, **arguments: Any) -> None:
        """``affine`` and ``eps`` are those of the layer norm of the head; ``arguments`` those of the trunk."""
        super().__init__()
        self.trunk = create_for_any_size(trunk, num_classes=0, **arguments)
        self.last_map = LastMapOf(self.trunk, patch_of(self.trunk))
        width = int(cast(Any, self.trunk).num_features)
        self.norm = nn.LayerNorm(width, eps=eps, elementwise_affine=affine)
        self.fc = nn.Linear(width, dims)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, dims) for (B, 3, H, W) images."""
        vectors: Tensor = self.fc(self.norm(self.trunk(images)))
        return vectors


_BUILDERS: dict[str, Callable[..., Any]] = {
    "gem_resnet": GemResNet,
    "unicom": Unicom,
    "headed_transformer": HeadedTransformer,
}


def own_network(spec: ModelSpec, protocol: Protocol, weights: WeightsSource) -> Network:
    """Build a network of this module.

    Raises:
        OpenIliasError: there is no such architecture, or the weights do not fit.
    """
    arguments = dict(spec.arguments)
    # CVNet in the official code is built with the floor that belongs to SuperGlobal.
    floor = arguments.pop("official_floor", None)
    if floor is not None and protocol.compat == "official":
        arguments["floor"] = floor
    if spec.architecture not in _BUILDERS:
        raise OpenIliasError(f"There is no architecture {spec.architecture!r} of our own.", fix=", ".join(_BUILDERS))
    with weights.building(spec):
        module: Any = _BUILDERS[spec.architecture](**arguments)
    weights.load(module)
    if spec.positions != "library":
        module.trunk._pos_embed = PlacedTokens(module.trunk, spec.positions)
    return Network(module, head=module, last_map=module.last_map, multiple=patch_of(module.trunk))
