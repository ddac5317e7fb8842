"""A network of any library as a backbone: what adapters make, and all that is the same for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openilias.core.errors import OpenIliasError
from openilias.core.ids import Partition
from openilias.core.protocol import Protocol
from openilias.images.prepare import Preparation
from openilias.models.backbone import Backbone, Floats, View
from openilias.models.pooling import MapPooling, pool
from openilias.models.quiet import first_line
from openilias.models.spec import ModelSpec
from openilias.models.views import rotate, scale
from openilias.models.weights import digest_state

_ONE_VIEW: tuple[View, ...] = ((1.0, 0),)
_PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LastMap:
    """The last activations of a network before they are pooled.

    Attributes:
        grid: (B, C, h, w).
        prefix: (B, P, C) tokens beside those of the grid, a class token first; None if there are none.
        has_class: the first of them is a class token.
        official_skip: how many of them the official code leaves out when it pools.
        of_tokens: the grid was made of a row of tokens, whose places the official code does not know.
    """

    grid: Tensor
    prefix: Tensor | None = None
    has_class: bool = False
    official_skip: int = 0
    of_tokens: bool = False


@dataclass(frozen=True)
class Network:
    """A loaded network, as an adapter gives it. Images are (B, 3, H, W) float32, normalised.

    Attributes:
        module: all of its weights, for moving to a device and for the digest.
        head: images -> (B, D), what the network returns; None if it returns no vector.
        last_map: images -> the map to pool; None if it has none.
        multiple: images are padded with zeros to a multiple of this (height, width); the patch of a ViT.
        encode_texts: texts -> (B, D) on the device; None without a text tower.
        encode_tokens: (B, context) numbers of tokens -> (B, D); None if nobody but ``encode_texts`` knows them.
        text_digest: texts -> the SHA-256 of what describes them beside ``module`` and the record: their tokens, and
            weights that are not in ``module``.
    """

    module: nn.Module
    head: Callable[[Tensor], Tensor] | None = None
    last_map: Callable[[Tensor], LastMap] | None = None
    multiple: tuple[int, int] = (1, 1)
    encode_texts: Callable[[list[str]], Tensor] | None = None
    encode_tokens: Callable[[Tensor], Tensor] | None = None
    text_digest: Callable[[list[str]], str] | None = None


class TorchBackbone(Backbone):
    """A :class:`Network`, bound to a resolved protocol."""

    def __init__(
        self, spec: ModelSpec, protocol: Protocol, network: Network, *, weights_from: str, device: str = "cpu"
    ) -> None:
        """Measure the dimension with one small forward pass.

        Raises:
            OpenIliasError: the pooling or the precision is not possible.
        """
        self.spec = spec
        self.protocol = spec.resolve(protocol)
        self.weights_from = weights_from
        self.device = device
        if self.protocol.precision == "float16" and device == "cpu":
            raise OpenIliasError("float16 is computed on GPUs only.", fix="Use --precision bfloat16 or float32.")
        self.weights_digest = digest_state(network.module.state_dict())
        # Convolutions are 1.4 times as fast in this order of the memory (benchmarks/extract.py).
        for parameter in network.module.eval().to(device).parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.network = network
        # Measured (benchmarks/frame.py): larger batches leave the caches, the sooner the larger the maps.
        self.batch_size = 32 if device != "cpu" else 16 if network.multiple != (1, 1) else 8
        self._mean, self._std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
        small = network.multiple[0] * 8 if network.multiple[0] > 1 else spec.train_resolution
        self.dims = self._measured(small, *([spec.train_resolution] if small != spec.train_resolution else []))

    @torch.inference_mode()
    def _measured(self, side: int, *others: int) -> int:
        """Return the length of a descriptor, from an image of ``side`` pixels; others are tried if that fails."""
        try:
            return self._vectors(torch.zeros(1, 3, side, side, device=self.device)).shape[1]
        except OpenIliasError:
            raise
        except Exception as error:  # of any kind of network
            if others:
                return self._measured(*others)
            raise OpenIliasError(
                f"{self.spec.name} cannot describe an image of {side} x {side} pixels: {first_line(error)}.",
                fix="Is it a network from images to vectors or maps? Try another --pooling.",
            ) from None

    def preparation(self, partition: Partition) -> Preparation:
        """Return what makes the (H, W, 3 or 4) uint8 pixels of a picture of this partition."""
        protocol = self.protocol
        return Preparation(
            protocol.resolution or self.spec.test_resolution,
            protocol.resize,
            protocol.resizer,
            protocol.boxes_of(partition),
            protocol.compat,
            self._least,
        )

    def describe(self, batch: npt.NDArray[Any], views: tuple[View, ...]) -> Floats:
        """Return the unit descriptors of the views, combined, (B, dims) float32."""
        return self.begin(list(batch), views)()

    def group_of(self, shape: tuple[int, ...], views: tuple[View, ...]) -> tuple[int, ...]:
        """Return (H, W, C) as the network gets it: images that are padded to the same patches go together."""
        if views != _ONE_VIEW:
            return shape
        return (*self._padded(max(shape[0], self._least), max(shape[1], self._least)), *shape[2:])

    def begin(self, arrays: Sequence[npt.NDArray[Any]], views: tuple[View, ...]) -> Callable[[], Floats]:
        """Start describing (H, W, 3 or 4) uint8 pixels; a GPU goes on while the caller does something else."""
        try:
            out = self._describe(arrays, views)
        except OpenIliasError:
            raise
        except Exception as error:  # networks fail in many ways at sizes that they cannot take
            height, width = arrays[0].shape[:2]
            raise OpenIliasError(
                f"{self.spec.name} cannot take {len(arrays)} images of {height} x {width} pixels: {first_line(error)}.",
                fix="Its input size may be fixed: try --resize square --resolution "
                f"{self.spec.train_resolution}, or --min-size if it is too small; or the batch is too large: lower "
                "--batch-size.",
            ) from None
        return lambda: out.cpu().numpy()

    def encode_texts(self, texts: list[str]) -> Floats:
        """Return L2-normalised descriptors, (B, dims) float32, of B texts.

        Raises:
            OpenIliasError: the model has no text tower.
        """
        encode = self.network.encode_texts
        if encode is None:
            return super().encode_texts(texts)
        if not texts:
            return self.checked(torch.zeros(0, self.dims).numpy(), 0)
        with torch.inference_mode(), self._precision():
            out = [encode(texts[start : start + 64]).float() for start in range(0, len(texts), 64)]
        return self.checked(torch.cat(out).cpu().numpy(), len(texts))

    def text_digest(self, texts: list[str]) -> str | None:
        """Return the SHA-256 of the tokens of texts and of what describes them; it is loaded for that."""
        return None if self.network.text_digest is None else self.network.text_digest(texts)

    @torch.inference_mode()
    def _describe(self, arrays: Sequence[npt.NDArray[Any]], views: tuple[View, ...]) -> Tensor:
        if views == _ONE_VIEW:
            return self._vectors(self._images(arrays))
        official, images = self.protocol.compat == "official", self._images(arrays)
        found = [
            F.normalize(self._vectors(rotate(scale(images, size), angle, official=official))) for size, angle in views
        ]
        stacked = torch.stack(found, 1)
        return stacked.amax(1) if self.protocol.combine == "max" else stacked.mean(1)

    def _images(self, arrays: Sequence[npt.NDArray[Any]]) -> Tensor:
        """Arrays of one group to normalised (B, 3, H, W) float32."""
        shapes = {array.shape for array in arrays}
        if len(shapes) == 1:
            return self._normalised(self._moved(np.stack(arrays)))
        # Of several shapes in one group: padded as the network would do, which they have in common.
        images: list[Tensor] = [torch.empty(0)] * len(arrays)
        for shape in shapes:
            places = [place for place, array in enumerate(arrays) if array.shape == shape]
            some = self._normalised(self._moved(np.stack([arrays[place] for place in places])))
            some = pad_to(some, *self._padded(*some.shape[2:]))
            for place, image in zip(places, some, strict=True):
                images[place] = image
        return torch.stack(images)

    def _moved(self, pixels: npt.NDArray[Any]) -> Tensor:
        moved = torch.from_numpy(pixels)
        if self.device.startswith("cuda"):  # the copy goes on while the next batch is gathered
            return moved.pin_memory().to(self.device, non_blocking=True)
        return moved.to(self.device)

    def _normalised(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3 or 4) uint8 to (B, 3, H, W) float32: normalised, then masked, then zeros around."""
        images = pixels[..., :3].permute(0, 3, 1, 2).float().div(255).sub(self._mean).div(self._std)
        if pixels.shape[3] == 4:
            images = images * pixels[..., 3:].permute(0, 3, 1, 2)
        return pad_to(images, self._least, self._least)

    @property
    def _least(self) -> int:
        """The side up to which zeros are put around, in pixels."""
        return (self.protocol.resolution or 0) if self.protocol.resize == "pad" else self.protocol.min_size

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) that the network gets of an image of this one: whole patches."""
        down, across = self.network.multiple
        return -(-height // down) * down, -(-width // across) * across

    def _vectors(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D) float32."""
        images = pad_to(images, *self._padded(*images.shape[2:]))
        images = images.contiguous(memory_format=torch.channels_last)
        with self._precision():
            return pooled(self.network, self.protocol, images, name=self.spec.name).float()

    def _precision(self) -> AbstractContextManager[Any]:
        dtype = _PRECISIONS.get(self.protocol.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.partition(":")[0], dtype)


def pooled(network: Network, protocol: Protocol, images: Tensor, *, name: str) -> Tensor:
    """Return the (B, D) descriptors of (B, 3, H, W) images that are whole patches, not normalised.

    Raises:
        OpenIliasError: the network has not what the pooling of the protocol needs.
    """
    pooling = protocol.pooling
    if pooling == "head":
        if network.head is None:
            raise OpenIliasError(f"{name} returns no vector.", fix="Use another --pooling: gem, gap, mac.")
        return network.head(images)
    if network.last_map is None:
        raise OpenIliasError(f"{name} has no last map to pool.", fix="Use --pooling head.")
    last = network.last_map(images)
    if pooling == "cls":
        if last.prefix is None or not last.has_class:
            raise OpenIliasError(f"{name} has no class token.", fix="Use another --pooling.")
        return last.prefix[:, 0]
    grid, official = last.grid.float(), protocol.compat == "official"
    if official and last.of_tokens:
        # The official code takes at most the class token off, and loses the places of the others.
        tokens = grid.flatten(2).transpose(1, 2)
        if last.prefix is not None:
            tokens = torch.cat([last.prefix[:, last.official_skip :].float(), tokens], 1)
        grid = tokens.transpose(1, 2)[..., None]
    return pool(grid, cast(MapPooling, pooling), official=official)


def pad_to(images: Tensor, height: int, width: int) -> Tensor:
    """Put zeros around (B, C, H, W) images up to the given size, the odd pixel right and below.

    A side that is larger already is left as it is.
    """
    down, across = max(height - images.shape[2], 0), max(width - images.shape[3], 0)
    if not down and not across:
        return images
    return F.pad(images, (across // 2, across - across // 2, down // 2, down - down // 2))


def tokens_on_grid(tokens: Tensor, grid: tuple[int, int], *, prefix: int) -> tuple[Tensor, Tensor | None]:
    """Split (B, P + h * w, C) tokens into the (B, C, h, w) grid and the (B, P, C) prefix, None if P is 0.

    Raises:
        OpenIliasError: their number is not that of the grid.
    """
    count = tokens.shape[1] - prefix
    if count != grid[0] * grid[1]:
        raise OpenIliasError(
            f"The network returns {count} tokens for a grid of {grid[0]} x {grid[1]}.",
            fix="Use --pooling head or cls.",
        )
    places = tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, *grid)
    return places, tokens[:, :prefix] if prefix else None
