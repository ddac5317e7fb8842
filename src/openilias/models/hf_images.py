"""The image tower of a model of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from openilias.core.errors import OpenIliasError, first_few
from openilias.models.hf_files import of_images, sides_of
from openilias.models.network import LastMap, pad_to, tokens_on_grid
from openilias.models.positions import Key, once
from openilias.models.spec import ModelSpec

_CLASS_TOKENS = ("cls_token", "class_embedding", "class_token")


class ImageTower:
    """The part of a model that takes images, for any size."""

    def __init__(self, module: Any, spec: ModelSpec) -> None:
        """``module`` is the whole model.

        Raises:
            OpenIliasError: it is no model that takes images alone.
        """
        self._dual = hasattr(module, "get_image_features")
        self._module = module
        self._tower = getattr(module, "vision_model", module) if self._dual else module
        self._refuse(spec.name)
        self._has_class = any(name.endswith(_CLASS_TOKENS) for name, _ in self._tower.named_parameters())
        self._patch = (sides_of(of_images(module.config, "patch_size")) * 2)[:2] or (1, 1)
        self._stages = len(of_images(module.config, "depths") or ())
        # Models in stages pad by themselves, or have no need to.
        self.multiple: tuple[int, int] = (1, 1) if self._stages else (self._patch[0], self._patch[1])
        self._step = tuple(side * 2 ** max(self._stages - 1, 0) for side in self._patch)
        # Swin's layers shrink their windows for a small image, and would keep them small for all that follow.
        self._windows = [
            (layer, layer.window_size, layer.shift_size)
            for layer in module.modules()
            if hasattr(layer, "set_shift_and_window_size")
        ]
        window = of_images(module.config, "window_size") if self._windows else 0
        self._smallest = (window * self._step[0], window * self._step[1]) if self._windows else (1, 1)
        for part in module.modules():
            own = getattr(part, "interpolate_pos_encoding", None)
            if callable(own) and [*inspect.signature(own).parameters] == ["embeddings", "height", "width"]:
                part.interpolate_pos_encoding = _PositionsOnce(own)

    def _run(self, function: Any, images: Tensor) -> Any:
        for layer, window, shift in self._windows:
            layer.window_size, layer.shift_size = window, shift
        takes = inspect.signature(getattr(function, "forward", function)).parameters
        anything = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
        return function(pixel_values=images, **anything)

    def _refuse(self, name: str) -> None:
        """Say so if this is no model from images alone to one answer."""
        takes = inspect.signature(self._tower.forward).parameters.values()
        wants = [one.name for one in takes if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
        if "pixel_values" not in {one.name for one in takes} or set(wants) - {"pixel_values"}:
            raise OpenIliasError(
                f"{name} is no model that takes images alone; it takes {first_few([one.name for one in takes])}.",
                fix="Name an image model, or a CLIP-like one.",
            )
        if of_images(self._module.config, "mask_ratio"):
            raise OpenIliasError(f"{name} hides patches at random.", fix="timm has such models without that.")

    def head(self, images: Tensor) -> Tensor:
        """Return (B, D): image features, or the pooled output, or the class token."""
        if self._dual:
            return features_of(self._run(self._module.get_image_features, images))
        out = self._run(self._tower, pad_to(images, *self._smallest))
        pooled = getattr(out, "pooler_output", None)
        if pooled is None and self._has_class and out.last_hidden_state.ndim == 3:
            pooled = out.last_hidden_state[:, 0]
        if pooled is None:
            raise OpenIliasError("This model returns no vector.", fix="Use another --pooling: gem, gap, mac.")
        vectors: Tensor = pooled.flatten(1)
        return vectors

    def last_map(self, images: Tensor) -> LastMap:
        """Return the last hidden state."""
        images = pad_to(images, *self._smallest)
        hidden = self._run(self._tower, images).last_hidden_state
        if hidden.ndim == 4:
            return LastMap(hidden)
        grid = (-(-images.shape[2] // self._step[0]), -(-images.shape[3] // self._step[1]))
        # A class token, its distilled twin, registers; other tokens may stand anywhere, as the detections of YOLOS.
        most = 2 + (of_images(self._module.config, "num_register_tokens") or 0)
        extra = max(hidden.shape[1] - grid[0] * grid[1], 0)
        places, prefix = tokens_on_grid(hidden, grid, prefix=extra if extra <= most else 0)
        has_class = self._has_class and prefix is not None
        return LastMap(places, prefix, has_class=has_class, official_skip=int(has_class), of_tokens=True)


class _PositionsOnce:
    """Takes the place of ``interpolate_pos_encoding``, which looks at nothing of the embeddings but their shape."""

    def __init__(self, original: Callable[[Tensor, int, int], Tensor]) -> None:
        self._original = original
        self._kept: dict[Key, Tensor] = {}

    def __call__(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        key = (*embeddings.shape[1:], height, width, embeddings.dtype, embeddings.device)
        return once(self._kept, key, lambda: self._original(embeddings, height, width))


def features_of(out: Any) -> Tensor:
    """From transformers 5 on an object has them, before it was the tensor itself."""
    features: Tensor = out if isinstance(out, Tensor) else out.pooler_output
    return features
