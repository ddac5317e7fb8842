"""Files of linear maps: the official ``.pth``, and ``.safetensors``."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from openilias.adapt.linear import LinearMap
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import write_bytes
from openilias.models.weights import read_state

WEIGHT, BIAS = "layer.weight", "layer.bias"
_FIX = f"Give a file with the two tensors {WEIGHT} (out, in) and {BIAS} (out,)."


def read_linear_map(path: Path) -> LinearMap:
    """Read a linear map from a PyTorch or ``.safetensors`` file; nothing is executed.

    Raises:
        OpenIliasError: the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise OpenIliasError("There is no such adaptation file.", where=path, fix="Check --adapt.")
    try:
        state = read_state(path)
    except OpenIliasError as error:
        raise OpenIliasError(
            "This is no linear adaptation: " + error.what.splitlines()[0].rstrip(".:") + ".", where=path, fix=_FIX
        ) from None
    if state.keys() != {WEIGHT, BIAS}:
        raise OpenIliasError(
            f"This is no linear adaptation, it holds {first_few(sorted(map(str, state)))}.", where=path, fix=_FIX
        )
    size = path.stat().st_size
    for name, value in state.items():
        dense = value.layout == torch.strided and value.device.type == "cpu" and value.is_floating_point()
        # A view may repeat a few numbers without end.
        if not dense or value.numel() * value.element_size() > size:
            raise OpenIliasError(
                f"{name} is {tuple(value.shape)} {value.dtype}, and not stored as plain numbers.", where=path, fix=_FIX
            )
    try:
        return LinearMap(*(state[name].detach().float().numpy() for name in (WEIGHT, BIAS)))
    except OpenIliasError as error:
        raise OpenIliasError(error.what, where=path, fix=_FIX) from None


def write_linear_map(linear: LinearMap, path: Path) -> None:
    """Write a linear map, atomically: the official ``.pth``, or ``.safetensors``, by the ending.

    Raises:
        OpenIliasError: another ending, or a folder.
    """
    if path.suffix not in (".pth", ".safetensors") or path.is_dir():
        raise OpenIliasError(
            "A linear adaptation is one file, .pth or .safetensors.", where=path, fix="Give another name."
        )
    state: dict[str, Tensor] = {
        WEIGHT: torch.from_numpy(linear.weight.copy()),
        BIAS: torch.from_numpy(linear.bias.copy()),
    }
    if path.suffix == ".safetensors":
        write_bytes(path, save(state))
        return
    packed = io.BytesIO()
    torch.save(state, packed)
    write_bytes(path, packed.getvalue())
