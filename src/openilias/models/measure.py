"""What a model is in numbers: dimensions, parameters, operations; measured without its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from openilias.core.protocol import Protocol
from openilias.images.resize import longest_size
from openilias.models.network import pad_to, pooled
from openilias.models.spec import ModelSpec
from openilias.models.zoo import outline

PICTURE = (500, 375)
"""(width, height) of the picture that operations are counted for."""


@dataclass(frozen=True)
class Measures:
    """What was measured.

    Attributes:
        dims: of a descriptor.
        parameters: of what describes an image.
        gflops: 1e9 multiply-adds of describing one picture at test resolution: products of matrices, convolutions and
            attention.
        text_dims: of the descriptor of a text; None if nothing describes texts.
        text_parameters: of what describes a text.
        context: longest text in tokens.
    """

    dims: int
    parameters: int
    gflops: float
    text_dims: int | None = None
    text_parameters: int | None = None
    context: int | None = None


@torch.no_grad()
def measure(spec: ModelSpec, protocol: Protocol | None = None) -> Measures:
    """Measure a model on tensors that have shapes and no numbers: it takes a second and no memory.

    Raises:
        OpenIliasError: its library cannot outline it.
    """
    from torch.utils.flop_counter import FlopCounterMode

    resolved = spec.resolve(protocol or Protocol())
    network = outline(spec, resolved)
    module = network.module.eval().requires_grad_(False)
    width, height = longest_size(*PICTURE, resolved.resolution or spec.test_resolution)
    down, across = (-(-side // step) * step for side, step in zip((height, width), network.multiple, strict=True))
    images = pad_to(torch.empty(1, 3, height, width, device="meta"), down, across)
    with FlopCounterMode(display=False) as counter:
        dims = pooled(network, resolved, images, name=spec.name).shape[1]
    texts = _of_texts(spec, module)
    whole = sum(parameter.numel() for parameter in module.parameters())
    of_texts = texts[1] if texts is not None and spec.text is None else 0
    return Measures(int(dims), whole - of_texts, counter.get_total_flops() / 2e9, *(texts or (None, None, None)))


def _of_texts(spec: ModelSpec, module: torch.nn.Module) -> tuple[int, int, int] | None:
    """Return the dimensions, the parameters and the context length."""
    from openilias.models.text_towers import measured, measured_within

    if spec.text is not None:
        return measured(spec.text, model=spec)
    return measured_within(module) if spec.library == "open_clip" else None
