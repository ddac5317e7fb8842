"""Published checkpoints, from the names of their authors to those of the architectures that take them.

Each layout is a pure function on a state dict. What a file holds beside the model (projection heads of the training, a
classifier, a second encoder) is left out here, by name, so that anything else that does not fit is still noticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from openilias.models.checkpoints_flax import flax_vit

State = dict[str, Tensor]
Layout = Callable[[State], State]

_PYCLS = {"f.a": "conv1", "f.a_bn": "bn1", "f.b": "conv2", "f.b_bn": "bn2", "f.c": "conv3", "f.c_bn": "bn3"}
_PYCLS |= {"proj": "downsample.0", "bn": "downsample.1"}


def swav(state: State) -> State:
    """ResNet of SwAV (facebookresearch/swav, main_swav.py), wrapped for several GPUs, with its projection."""
    return _without(_stripped(state, "module."), "projection_head.", "prototypes.")


def moco_v3(state: State) -> State:
    """Base encoder of MoCo v3 (facebookresearch/moco-v3, moco/builder.py); its last layer is a projection head."""
    own = {name: value for name, value in state.items() if name.startswith("module.base_encoder.")}
    return _without(_stripped(own, "module.base_encoder."), "fc.", "head.")


def dinov2(state: State) -> State:
    """DINOv2 (facebookresearch/dinov2, hub/backbones.py), with or without registers.

    With registers timm gives the class token its position for good, and the others have a table of their own.
    """
    state = _without(state, "mask_token")
    if "register_tokens" in state:
        positions = state.pop("pos_embed")
        state["reg_token"] = state.pop("register_tokens")
        state["cls_token"] = state["cls_token"] + positions[:, :1]
        state["pos_embed"] = positions[:, 1:]
    swiglu = {"mlp.w12.": "mlp.fc1.", "mlp.w3.": "mlp.fc2."}
    return {_renamed(name, swiglu): value for name, value in state.items()}


def cvnet(state: State) -> State:
    """Global network of CVNet (sungonce/CVNet), which SuperGlobal takes too; it was trained on BGR images."""
    state = _without(state, "conv2ds.", "cv_learner.")
    found = {}
    for name, value in _stripped(state, "encoder_q.").items():
        found[_of_pycls(name)] = value
    if "trunk.conv1.weight" in found:
        found["trunk.conv1.weight"] = found["trunk.conv1.weight"].flip(1)
    return found


def unicom(state: State) -> State:
    """Unicom (deepglint/unicom): everything before the head has timm's names; fine-tuned ones were compiled."""
    state = _stripped(state, "_orig_mod.")
    return {name if name.startswith("feature.") else f"trunk.{name}": value for name, value in state.items()}


def unic(state: State) -> State:
    """Encoder of UNIC (naver/unic, modeling/unic.py): a DINOv2 transformer whose blocks are in one chunk."""
    state = {name: value for name, value in _stripped(state, "module.").items() if name.startswith("encoder.")}
    state = _without(_stripped(state, "encoder."), "mask_token")
    return {re.sub(r"^blocks\.0\.(\d+)\.", r"blocks.\1.", name): value for name, value in state.items()}


def recall_at_k(state: State) -> State:
    """Recall@k (yash0307/RecallatK_surrogate, src/netlib.py), ResNet or transformer.

    ``layer_blocks`` is a second name of the same tensors; the transformer has a power for a pooling that it never does.
    """
    pools = "model.last_linear.weight" in state
    heads = {"model.last_linear.": "fc.", "model.head.": "fc.", "model.layer_norm.": "norm.", "gem.p": "p"}
    found = {}
    for name, value in _without(state, "layer_blocks.", *([] if pools else ["gem."])).items():
        new = _renamed(name, heads)
        found[new if new != name else f"trunk.{name.removeprefix('model.')}"] = value
    return found


def hier(state: State) -> State:
    """HIER (tjddus9597/HIER-CVPR23, hier/models/model.py); the layer norm before its head has no weights."""
    return {
        name.replace("last_layer.1.", "fc.").replace("body.", "trunk.", 1): value
        for name, value in _stripped(state, "module.").items()
    }


def _of_pycls(name: str) -> str:
    if name.startswith("head."):
        return {"head.pool.p": "p"}.get(name, name.removeprefix("head."))
    if name.startswith("stem."):
        return "trunk." + name.replace("stem.conv.", "conv1.").replace("stem.bn.", "bn1.")
    parts = re.fullmatch(r"s(\d)\.b(\d+)\.(f\.\w+|proj|bn)\.(\w+)", name)
    if parts is None:
        return name
    stage, block, layer, rest = parts.groups()
    return f"trunk.layer{stage}.{int(block) - 1}.{_PYCLS.get(layer, layer)}.{rest}"


def _stripped(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _without(state: State, *prefixes: str) -> State:
    return {name: value for name, value in state.items() if not name.startswith(prefixes)}


def _renamed(name: str, parts: Mapping[str, str]) -> str:
    for old, new in parts.items():
        name = name.replace(old, new)
    return name


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {layout.__name__: layout for layout in (cvnet, dinov2, flax_vit, hier, moco_v3, recall_at_k, swav, unic, unicom)}
)
"""By the name that a record gives."""
