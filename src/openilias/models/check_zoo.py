"""The self-check of a record of the zoo: the true architecture with random weights, no data, no network."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.models.backbone import Floats, normalise
from openilias.models.check import TOLERANCE, CheckLine, check_size, made_up_picture
from openilias.models.measure import PICTURE
from openilias.models.network import TorchBackbone
from openilias.models.record import Record
from openilias.models.zoo import load_model

SIZES = ((150, 101), (97, 150))
"""(width, height) of the pictures that batches are tried with: small, odd, not square."""
_TEXTS = ("a photo of a red cup", "Tower of Hanoi, wooden, eight discs", "")


@dataclass(frozen=True)
class RecordCheck:
    """What came out for one record.

    Attributes:
        name: of the record.
        lines: what was tried.
        dims: of the descriptor, measured.
        parameters: of what describes an image, measured.
        seconds: of describing one picture of 500 x 375 pixels at test resolution, once.
        texts: what described the texts: the ``tokenizer``, made-up ``tokens`` where it cannot be fetched, or nothing.
    """

    name: str
    lines: list[CheckLine]
    dims: int
    parameters: int
    seconds: float
    texts: str

    @property
    def failed(self) -> list[CheckLine]:
        """What did not pass."""
        return [line for line in self.lines if not line.passed]


def check_record(record: Record, *, seed: int = 0, device: str = "cpu") -> RecordCheck:
    """Load a record with random weights and try it.

    One picture at the record's test resolution; small pictures of odd shapes alone, in a batch, and twice; texts.

    Raises:
        OpenIliasError: it cannot be loaded.
    """
    rng = np.random.default_rng(seed)
    backbone = load_model(record.model, Protocol(dtype="float32"), random_weights=seed, device=device)
    if not isinstance(backbone, TorchBackbone):
        raise OpenIliasError(f"{record.name} is not a network.", fix="It is tested where it is fitted.")
    module = backbone.network.module
    parameters = sum(p.numel() for p in module.parameters())
    of_texts = record.text_parameters or 0
    # Both towers in one module: those of the texts are counted apart.
    parameters -= of_texts if record.model.text is None else 0
    picture = backbone.prepare(made_up_picture(rng, *PICTURE))[None]
    started = time.perf_counter()
    vector = backbone.encode_images(picture)
    seconds = time.perf_counter() - started
    norm = abs(float(np.linalg.norm(vector)) - 1)
    lines = [
        CheckLine("dimensions as recorded", vector.shape[1] == record.dims, f"{vector.shape[1]}, {record.dims}"),
        CheckLine("parameters as recorded", parameters == record.parameters, f"{parameters}, {record.parameters}"),
        CheckLine("test resolution, unit norm", norm < TOLERANCE, f"off by {norm:.1e}"),
    ]
    # Eight patches and some pixels; convolutional networks need more for their last map.
    side = 8 * record.patch + 3 if record.patch else 171
    small = copy(backbone)
    small.protocol = record.model.resolve(Protocol(dtype="float32", resolution=side))
    for width, height in SIZES:
        pictures = [made_up_picture(rng, width, height) for _ in range(3)]
        lines += check_size(small, pictures, f"{width}x{height}")
    found, kind = check_texts(backbone, record.context) if record.describes_texts else ([], "")
    return RecordCheck(record.name, lines + found, vector.shape[1], parameters, seconds, kind)


def check_texts(backbone: TorchBackbone, context: int | None) -> tuple[list[CheckLine], str]:
    """Describe some texts in one batch and one by one.

    Args:
        backbone: it may have no text tower: then nothing is done.
        context: how many tokens to make up where its tokenizer cannot be fetched; None does without.

    Returns:
        What was tried, and what made the tokens: the ``tokenizer``, or nobody: ``tokens``.

    Raises:
        OpenIliasError: the tower fails, or its tokenizer is not there and no tokens can be made up.
    """
    network = backbone.network
    if network.encode_texts is None:
        return [], ""
    try:
        if network.text_digest is not None:
            network.text_digest([])
    except OpenIliasError as error:
        if network.encode_tokens is None or context is None or "could not be loaded" not in error.what:
            raise
        return _of_made_up_tokens(network.encode_tokens, context, backbone.dims), "tokens"
    batch = backbone.encode_texts(list(_TEXTS))
    single = np.concatenate([backbone.encode_texts([text]) for text in _TEXTS])
    return _text_lines(batch, single, backbone.dims), "tokenizer"


@torch.inference_mode()
def _of_made_up_tokens(encode: Callable[[Tensor], Tensor], context: int, dims: int) -> list[CheckLine]:
    tokens = torch.randint(2, 1000, (len(_TEXTS), context), generator=torch.Generator().manual_seed(0))
    batch = encode(tokens).float().cpu().numpy()
    single = np.concatenate([encode(token[None]).float().cpu().numpy() for token in tokens])
    return _text_lines(normalise(batch), normalise(single), dims)


def _text_lines(batch: Floats, single: Floats, dims: int) -> list[CheckLine]:
    norms = float(np.abs(np.linalg.norm(batch, axis=1) - 1).max())
    apart = float(np.abs(batch - single).max())
    return [
        CheckLine("texts, dimensions of the images", batch.shape[1] == dims, f"{batch.shape[1]}, {dims}"),
        CheckLine("texts, unit norm and finite", bool(np.isfinite(batch).all()) and norms < TOLERANCE, f"{norms:.1e}"),
        CheckLine("texts, batch of one", apart < TOLERANCE, f"differs by {apart:.1e}"),
    ]
