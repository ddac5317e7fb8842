"""The image towers that are open_clip's own, for images of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from openilias.models.network import LastMap, pad_to, tokens_on_grid
from openilias.models.positions import GridPositions
from openilias.models.timm_adapter import create_for_any_size

_STRIDE = 32  # of the CLIP ResNets


class AnyGrid:
    """Takes the place of ``_embeds`` of open_clip's transformer, which knows one grid only."""

    def __init__(self, visual: Any) -> None:
        """``visual`` is the image tower."""
        self._visual = visual
        # The way open_clip itself resizes them when it loads weights.
        self._positions = GridPositions(
            lambda: visual.positional_embedding, tuple(visual.grid_size), prefix=1, antialias=True
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return the tokens that the first layer takes."""
        maps = self._visual.conv1(images)
        places = maps.flatten(2).transpose(1, 2)
        first = self._visual.class_embedding.to(maps.dtype).expand(len(places), 1, -1)
        tokens = torch.cat([first, places], 1) + self._positions((maps.shape[2], maps.shape[3])).to(maps.dtype)
        normed: Tensor = self._visual.ln_pre(tokens)
        return normed


def last_tokens(visual: Any, images: Tensor) -> LastMap:
    """Return the tokens after the last norm; where an attention pool comes first (CoCa), those that it takes."""
    tokens = visual.transformer(visual._embeds(images))
    if visual.attn_pool is None:
        tokens = visual.ln_post(tokens)
    size = (images.shape[2] // visual.patch_size[0], images.shape[3] // visual.patch_size[1])
    grid, prefix = tokens_on_grid(tokens, size, prefix=1)
    return LastMap(grid, prefix, has_class=True, official_skip=1, of_tokens=True)


class AnySizeResNet:
    """A CLIP ResNet for any size: the first output of its attention pool, which the mean of the map asks."""

    def __init__(self, visual: Any) -> None:
        """``visual`` is the image tower."""
        self._visual = visual
        side = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
        pool = visual.attnpool
        self._positions = GridPositions(
            lambda: pool.positional_embedding, (side // _STRIDE,) * 2, prefix=1, antialias=False
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return (B, D)."""
        maps, pool = self._map(images), self._visual.attnpool
        places = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(1, keepdim=True), places], 1)
        tokens = tokens + self._positions((maps.shape[2], maps.shape[3])).to(maps.dtype)
        query, key, value = (
            part.unflatten(2, (pool.num_heads, -1)).transpose(1, 2)
            for part in (pool.q_proj(tokens[:, :1]), pool.k_proj(tokens), pool.v_proj(tokens))
        )
        found = F.scaled_dot_product_attention(query, key, value)
        vectors: Tensor = pool.c_proj(found.transpose(1, 2).flatten(1))
        return vectors

    def last_map(self, images: Tensor) -> LastMap:
        """Return the map that the attention pool takes."""
        return LastMap(self._map(images))

    def _map(self, images: Tensor) -> Tensor:
        maps: Tensor = self._visual.stem(pad_to(images, _STRIDE, _STRIDE))
        for layer in (self._visual.layer1, self._visual.layer2, self._visual.layer3, self._visual.layer4):
            maps = layer(maps)
        return maps


@contextmanager
def trunks_of_any_size() -> Iterator[None]:
    """Let open_clip build its timm trunks for images of any size; it has no argument for that."""
    import open_clip.timm_model as wrapper

    plain = wrapper.timm
    wrapper.timm = SimpleNamespace(create_model=create_for_any_size)
    try:
        yield
    finally:
        wrapper.timm = plain
