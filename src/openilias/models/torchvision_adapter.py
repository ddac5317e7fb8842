"""Any classification model of torchvision."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.protocol import Protocol
from openilias.models.network import LastMap, Network, pad_to, tokens_on_grid
from openilias.models.positions import GridPositions
from openilias.models.spec import ModelSpec
from openilias.models.weights import WeightsSource, fit_state

_AUXILIARY = ("aux1", "aux2", "AuxLogits")  # heads of GoogLeNet and Inception for training only
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d\.)")


def torchvision_spec(name: str) -> ModelSpec:
    """Make the record of ``NAME`` or ``NAME/WEIGHTS`` from what torchvision knows of its weights.

    Raises:
        OpenIliasError: torchvision has no such classification model or weights.
    """
    from torchvision import models

    architecture, _, tag = name.partition("/")
    if architecture not in models.list_models(module=models):
        raise OpenIliasError(
            f"torchvision has no classification model {architecture!r}.",
            fix="See torchvision.models.list_models(module=torchvision.models).",
        )
    known = models.get_model_weights(architecture)
    if tag and tag not in known.__members__:
        raise OpenIliasError(
            f"torchvision has no weights {tag!r} of {architecture}; there are: {first_few(list(known.__members__))}.",
            fix="Choose one of these.",
        )
    weights = known[tag] if tag else known.DEFAULT
    transforms = weights.transforms()
    return ModelSpec(
        name=f"torchvision:{architecture}/{weights.name}",
        library="torchvision",
        architecture=architecture,
        tag=weights.name,
        train_resolution=transforms.crop_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        pooling="gem" if _pools_into_places(architecture) else "head",
        licence=weights.meta.get("license"),
        source=weights.url,
    )


def torchvision_network(spec: ModelSpec, protocol: Protocol, weights: WeightsSource) -> Network:
    """Build a torchvision network without the last layer of its classifier.

    Raises:
        OpenIliasError: the weights are missing or do not fit.
    """
    from torchvision import models

    known = models.get_model_weights(spec.architecture)
    tag = known[spec.tag] if spec.tag else known.DEFAULT
    arguments: dict[str, Any] = dict(spec.arguments)
    if spec.architecture in ("googlenet", "inception_v3"):
        arguments["transform_input"] = True  # torchvision sets it together with the weights only
        if not weights.hub:
            arguments["init_weights"] = True
    if not weights.hub and spec.architecture.startswith(("vit_", "maxvit_")):
        size = tag.meta["min_size"]
        arguments |= {"image_size": size[0]} if spec.architecture.startswith("vit_") else {"input_size": size}
    with weights.building(spec):
        module: nn.Module = models.get_model(spec.architecture, weights=tag if weights.hub else None, **arguments)
    last = _without_classifier(module)
    if weights.file is not None:
        state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in weights.state(weights.file).items()}
        fit_state(module, state, where=weights.file, spare=(last, *_AUXILIARY))
    if isinstance(module, models.VisionTransformer):
        return _transformer(module)
    # Where the smallest size is that of the training, it is what was trained at and not a limit.
    smallest = tag.meta["min_size"] if tag.meta["min_size"][0] < spec.train_resolution else (1, 1)
    find_map = _map_of(module, spec)
    return Network(
        module,
        head=lambda images: module(pad_to(images, *smallest)),
        last_map=lambda images: LastMap(find_map(pad_to(images, *smallest))),
    )


def _pools_into_places(architecture: str) -> bool:
    """AlexNet and VGG pool the last map into places, which their classifier tells apart; the paper takes GeM."""
    return architecture.startswith(("alexnet", "vgg"))


def _without_classifier(module: Any) -> str:
    """Take the last layer of the classifier off, and heads for training only; return its name."""
    for name in _AUXILIARY:
        if hasattr(module, name):
            setattr(module, name, None)
            module.aux_logits = False
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    last: str = layers[-1][0]
    module.set_submodule(last, nn.Identity())
    return last


def _map_of(module: Any, spec: ModelSpec) -> Callable[[Tensor], Tensor]:
    if _pools_into_places(spec.architecture):
        features: Callable[[Tensor], Tensor] = module.features
        return features
    if spec.architecture.startswith("densenet"):
        return lambda images: F.relu(module.features(images))
    return _BeforePooling(module, spec.train_resolution)


class _BeforePooling:
    """Finds the last layer that returns more than one place, which is the one before the global pooling."""

    def __init__(self, module: nn.Module, side: int) -> None:
        self._module = module
        self._side = side
        self._layer: nn.Module | None = None

    def __call__(self, images: Tensor) -> Tensor:
        if self._layer is None:
            like = images.new_zeros(1, 3, self._side, self._side)
            self._layer = self._run(list(self._module.modules()), like)[0]
        return self._run([self._layer], images)[1]

    def _run(self, layers: list[nn.Module], images: Tensor) -> tuple[nn.Module, Tensor]:
        found: list[tuple[nn.Module, Tensor]] = []

        def note(layer: nn.Module, _: object, out: object) -> None:
            if isinstance(out, Tensor) and out.ndim == 4 and (out.shape[2:].numel() > 1 or len(layers) == 1):
                found[:] = [(layer, out)]

        hooks = [layer.register_forward_hook(note) for layer in layers]
        try:
            self._module(images)
        finally:
            for hook in hooks:
                hook.remove()
        return found[0]


def _transformer(module: Any) -> Network:
    """A vision transformer at any size: torchvision's own forward takes one size only."""
    patch: int = module.patch_size
    side = module.image_size // patch
    positions = GridPositions(lambda: module.encoder.pos_embedding[0], (side, side), prefix=1, antialias=True)

    def tokens(images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        maps = module.conv_proj(images)
        grid = (maps.shape[2], maps.shape[3])
        places = maps.flatten(2).transpose(1, 2)
        whole = torch.cat([module.class_token.expand(len(places), -1, -1), places], 1) + positions(grid)
        return module.encoder.ln(module.encoder.layers(whole)), grid

    def last_map(images: Tensor) -> LastMap:
        grid, prefix = tokens_on_grid(*tokens(images), prefix=1)
        return LastMap(grid, prefix, has_class=True, official_skip=1, of_tokens=True)

    return Network(
        module,
        head=lambda images: module.heads(tokens(images)[0][:, 0]),
        last_map=last_map,
        multiple=(patch, patch),
    )
