"""Files of AMES networks: the published ones, key by key, and our own of the same form."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import write_bytes
from openilias.models.quiet import first_line
from openilias.models.weights import digest_state, read_state
from openilias.rerank.ames import HEADS, Ames
from openilias.rerank.itq import Binarisation

_FIX = "Give a checkpoint of AMES: {'state': state dict}."
_LAYER = re.compile(r"decoder\.layers\.(\d+)\.")


def read_ames(path: Path, *, heads: int = HEADS) -> Ames:
    """Read a network; its sizes are those of its tensors. Nothing in the file is executed.

    Args:
        path: ``{'state': state dict}``, or a plain state dict; PyTorch or ``.safetensors``.
        heads: of attention; no tensor tells how many.

    Raises:
        OpenIliasError: the file is missing, damaged, or of another network.
    """
    state = read_state(path)
    layers = [int(found[1]) for name in state if (found := _LAYER.match(name))]
    needed = ["mtc_token", "classifier.weight", "decoder.layers.0.linear1.weight"]
    missing = [name for name in needed if name not in state]
    first = state.get("remap_local.0.W", state.get("remap_local.0.weight"))
    if missing or first is None:
        raise OpenIliasError(f"This is no network of AMES, it holds {first_few(sorted(state))}.", where=path, fix=_FIX)
    if (
        first.ndim != 2
        or state["mtc_token"].numel() == 0
        or state["mtc_token"].ndim < 1
        or state["mtc_token"].shape[-1] % heads
        or state["decoder.layers.0.linear1.weight"].ndim != 2
        or not first.numel()
        or set(layers) != set(range(max(layers) + 1))
    ):
        raise OpenIliasError(
            "The tensors of this network do not have the shapes of AMES, or layers are missing.", where=path, fix=_FIX
        )
    binary = "remap_local.0.W" in state
    network = Ames(
        int(first.shape[0] if binary else first.shape[1]),
        binary=binary,
        dims=int(state["mtc_token"].shape[-1]),
        heads=heads,
        layers=max(layers) + 1,
        wide=int(state["decoder.layers.0.linear1.weight"].shape[0]),
    )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise OpenIliasError(f"This network does not fit: {first_line(error)}.", where=path, fix=_FIX) from None
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise OpenIliasError(f"This network has numbers that are not finite: {first_few(bad)}.", where=path, fix=_FIX)
    return network.eval()


def write_ames(network: Ames, path: Path, *, made_from: dict[str, Any]) -> None:
    """Write a network in the published form, with what it was made from beside the state."""
    state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    packed = io.BytesIO()
    torch.save({"state": state, "made_from": json.dumps(made_from, sort_keys=True)}, packed)
    write_bytes(path, packed.getvalue())


def digest_of(network: Ames) -> str:
    """Return the SHA-256 of all weights."""
    return digest_state(network.state_dict())


def binarisation_of(network: Ames) -> Binarisation:
    """Return how a binary network packs descriptors: stores that are packed so are read by it as they are.

    Raises:
        OpenIliasError: the network is not binary.
    """
    if not network.binary:
        raise OpenIliasError("This network takes descriptors of numbers.", fix="Give a binary one, or do not pack.")
    weight: Tensor = network.state_dict()["remap_local.0.W"]
    values = weight.detach().float().cpu().numpy()
    return Binarisation(np.ascontiguousarray(values), np.zeros(len(values), np.float32))
