"""Vision transformers of scenic (flax), from their names and shapes to those of timm: UDON and USCRR."""

from __future__ import annotations

import re

import torch
from torch import Tensor

State = dict[str, Tensor]

_PLAIN = {
    "cls": "cls_token",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "embedding/kernel": "patch_embed.proj.weight",
    "embedding/bias": "patch_embed.proj.bias",
    "Transformer/encoder_norm/scale": "norm.weight",
    "Transformer/encoder_norm/bias": "norm.bias",
}
_CLIP = {
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "conv1/kernel": "patch_embed.proj.weight",
    "ln_pre/scale": "norm_pre.weight",
    "ln_pre/bias": "norm_pre.bias",
    "ln_post/scale": "norm.weight",
    "ln_post/bias": "norm.bias",
}
_NORMS = {"LayerNorm_0": "norm1", "LayerNorm_1": "norm2", "ln_1": "norm1", "ln_2": "norm2"}
_DENSE = {
    "MlpBlock_0/Dense_0": "mlp.fc1",
    "MlpBlock_0/Dense_1": "mlp.fc2",
    "mlp/c_fc": "mlp.fc1",
    "mlp/c_proj": "mlp.fc2",
}
_ATTENTION = ("MultiHeadDotProductAttention_0", "attn")
_BLOCK = re.compile(r"(?:Transformer/encoderblock_|transformer/resblocks\.)(\d+)/(.+)")


def flax_vit(state: State) -> State:
    """Return a transformer up to its last norm; the heads of the training, and all beside ``params``, are left out."""
    state = {name.removeprefix("params/"): value for name, value in state.items() if name.startswith("params/")}
    names = _CLIP if "class_embedding" in state else _PLAIN
    found: State = {}
    for name, value in state.items():
        part = _BLOCK.fullmatch(name)
        if part is not None:
            found |= _in_block(f"blocks.{part[1]}.", part[2], value)
        elif name in names:
            found[names[name]] = _shaped(names[name], value)
    return _joined(found)


def _shaped(name: str, value: Tensor) -> Tensor:
    if name == "cls_token":
        return value.reshape(1, 1, -1)
    if name == "pos_embed":
        return value.reshape(1, *value.shape[-2:])
    return value.permute(3, 2, 0, 1) if value.ndim == 4 else value  # (h, w, in, out)


def _in_block(block: str, name: str, value: Tensor) -> State:
    """Return what one array of a block becomes; kernels are (in, out), of the attention (in, heads, D) or back."""
    layer, _, kind = name.rpartition("/")
    if layer in _NORMS:
        return {f"{block}{_NORMS[layer]}.{'weight' if kind == 'scale' else 'bias'}": value}
    if layer in _DENSE:
        if kind == "kernel":
            return {f"{block}{_DENSE[layer]}.weight": value.T}
        return {f"{block}{_DENSE[layer]}.bias": value}
    attention, _, part = layer.rpartition("/")
    if attention not in _ATTENTION:
        return {f"{block}{name}": value}
    target = f"{block}attn.{'proj' if part == 'out' else part}.{'weight' if kind == 'kernel' else 'bias'}"
    if kind == "bias":
        return {target: value.reshape(-1)}
    return {target: value.reshape(-1, value.shape[-1]).T if part == "out" else value.reshape(len(value), -1).T}


def _joined(state: State) -> State:
    """Put query, key and value of each block into one."""
    found = {name: value for name, value in state.items() if not re.search(r"attn\.(query|key|value)\.", name)}
    for name in [name for name in state if ".attn.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in state for part in parts):
            found[name.replace(".query.", ".qkv.")] = torch.cat([state[part] for part in parts])
    return found
