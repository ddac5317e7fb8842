"""Networks of published checkpoints against plain twins that work on the names and shapes of their authors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from openilias.core.protocol import Protocol
from openilias.models.spec import ModelSpec
from openilias.models.zoo import find_model, load_model
from test_checkpoints import flax_file

pytestmark = pytest.mark.usefixtures("quick_networks")

State = dict[str, Tensor]
Twin = Callable[[Tensor], Tensor]
Means = tuple[tuple[float, ...], tuple[float, ...]]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BGR = (0.406, 0.456, 0.485), (0.225, 0.224, 0.229)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALVES = (0.5,) * 3, (0.5,) * 3
FOLDER = Path(__file__).parent / "checkpoints"
PICTURES = ((301, 203), (151, 290))
TORCHVISION = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1")
PYCLS = ("f.a", "f.a_bn", "f.b", "f.b_bn", "f.c", "f.c_bn", "proj", "bn")
BLOCK = re.compile(r"(?:(?<!layer_)blocks\.(?:0\.)?|encoderblock_)(\d+)[./]")
# What is written to the tokens is small, and what comes of them, so that the epsilon of each norm shows in the result.
WRITTEN = re.compile(
    r"cls_token|params/cls|class_embedding|pos_embed|positional_embedding|register_tokens|patch_embed|/embedding/|"
    r"params/conv1|attn\.proj|/out/|fc2|w3|c_proj|Dense_1|ln_pre|(^|\.)norm\.(weight|bias)|^feature\.[13]\."
)


def numbers(name: str, shape: list[int], generator: torch.Generator) -> Tensor:
    """Show every part of a network in its result: norms far from 1 and 0, positions as large as tokens."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(3)
    if name.endswith(".p"):
        return torch.full(shape, 2.6)
    value = torch.randn(shape, generator=generator)
    if name.endswith("running_var"):
        value = value.abs() + 0.7
    elif len(shape) == 1:
        value = value * 0.2 + (1.0 if name.endswith(("weight", "scale", "gamma")) else 0.0)
    elif name.endswith("kernel"):
        inputs = shape[:1] if name.endswith(("query/kernel", "key/kernel", "value/kernel")) else shape[:-1]
        value = value * 1.4 / math.sqrt(math.prod(inputs))
    elif name.endswith("weight"):
        value = value * 1.4 / math.sqrt(math.prod(shape[1:]))
    small = 0.03 if WRITTEN.search(name) else 1.0
    return value * (small**2 if name.endswith("running_var") else small)


def published(name: str, *, depth: int = 99, but: str = "no such name", **more: list[int]) -> State:
    """A random state with the names and shapes of the published file: its first blocks, and ``more``."""
    listed = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["keys"] | more
    generator = torch.Generator().manual_seed(0)
    found = {}
    for key, shape in listed.items():
        block = BLOCK.search(key)
        if but not in key and (block is None or int(block[1]) < depth):
            found[key] = numbers(key, shape, generator)
    return found


def small(name: str, depth: int = 2) -> ModelSpec:
    spec = find_model(name)
    return spec.model_copy(update={"arguments": spec.arguments | {"depth": depth}})


def picture(width: int, height: int) -> Image.Image:
    coarse = np.random.default_rng(width).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(image: Image.Image, resolution: int, means: Means = IMAGENET, patch: int = 1) -> Tensor:
    """(1, 3, H, W): the larger side is the resolution, normalised, zeros around up to whole patches."""
    if means == BGR:
        image = Image.merge("RGB", image.split()[::-1])
    width, height = image.size
    ratio = height / width
    size = (resolution, int(resolution * ratio)) if ratio <= 1 else (int(resolution / ratio), resolution)
    x = torch.from_numpy(np.array(image.resize(size, Image.Resampling.BICUBIC))).permute(2, 0, 1).float() / 255
    x = (x - torch.tensor(means[0]).view(3, 1, 1)) / torch.tensor(means[1]).view(3, 1, 1)
    down, across = -x.shape[1] % patch, -x.shape[2] % patch
    return F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))[None]


def check(spec: ModelSpec, file: Path, twin: Twin, resolution: int = 100, **options: Any) -> None:
    means, patch, sizes = (options.pop(k, v) for k, v in (("means", IMAGENET), ("patch", 1), ("sizes", PICTURES)))
    backbone = load_model(spec, Protocol(resolution=resolution, dtype="float32", **options), weights=file)
    file.unlink()
    with torch.no_grad():
        for size in sizes:
            image = picture(*size)
            found = backbone.encode_images(backbone.prepare(image)[None])[0]
            expected = F.normalize(twin(pixels(image, resolution, means, patch)))[0].numpy()
            assert np.abs(found - expected).max() < 1e-5, size


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "file.pth")
    return folder / "file.pth"


def linear(s: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, s[f"{name}.weight"], s.get(f"{name}.bias"))


def layer_norm(s: State, name: str, x: Tensor, eps: float) -> Tensor:
    weight = s[f"{name}/scale" if f"{name}/scale" in s else f"{name}.weight"]
    bias = s[f"{name}/bias" if f"{name}/bias" in s else f"{name}.bias"]
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def batch_norm(s: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    mean, variance, weight, bias = (s[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, variance, weight, bias, eps=eps)


def resnet(s: State, x: Tensor, prefix: str = "", floor: float = 0.0) -> Tensor:
    """The last map of a ResNet-50; ``floor`` is where the activations of the first stages are cut."""
    pycls = prefix == "encoder_q."
    stem, after = (f"{prefix}{part}" for part in (("stem.conv", "stem.bn") if pycls else ("conv1", "bn1")))
    x = F.conv2d(x, s[f"{stem}.weight"], stride=2, padding=3)
    x = F.max_pool2d(batch_norm(s, after, x).relu(), 3, 2, 1)
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        inner, outer = floor if stage == 1 else 0.0, floor if stage < 4 else 0.0
        for block in range(depth):
            step = 2 if stage > 1 and block == 0 else 1
            at = f"{prefix}s{stage}.b{block + 1}." if pycls else f"{prefix}layer{stage}.{block}."
            a, a_bn, b, b_bn, c, c_bn, side, side_bn = (at + part for part in (PYCLS if pycls else TORCHVISION))
            y = batch_norm(s, a_bn, F.conv2d(x, s[f"{a}.weight"])).clamp(min=inner)
            y = batch_norm(s, b_bn, F.conv2d(y, s[f"{b}.weight"], stride=step, padding=1)).clamp(min=inner)
            y = batch_norm(s, c_bn, F.conv2d(y, s[f"{c}.weight"]))
            if block == 0:
                x = batch_norm(s, side_bn, F.conv2d(x, s[f"{side}.weight"], stride=step))
            x = (x + y).clamp(min=outer)
    return x


def gem(x: Tensor, p: Tensor | float, eps: float) -> Tensor:
    return x.clamp(min=eps).pow(p).mean((2, 3)).pow(1 / p)


@pytest.fixture(scope="module")
def cvnet() -> State:
    return published("cvnet_resnet50")


@pytest.mark.parametrize(("compat", "floor"), [("paper", 0.0), ("official", 0.014)])
def test_cvnet(cvnet: State, compat: str, floor: float, tmp_path: Path) -> None:
    def twin(x: Tensor) -> Tensor:
        pooled = gem(resnet(cvnet, x, "encoder_q.", floor), cvnet["encoder_q.head.pool.p"], 1e-6)
        return linear(cvnet, "encoder_q.head.fc", pooled)

    file = saved({"model_state": cvnet, "epoch": 5}, tmp_path)
    check(find_model("cvnet_resnet50"), file, twin, 150, means=BGR, compat=compat)


def superglobal(s: State, x: Tensor) -> Tensor:
    maps = resnet(s, x, "encoder_q.", 0.014)
    if min(maps.shape[2:]) >= 5:
        around = F.unfold(F.pad(maps, (2, 2, 2, 2), mode="reflect").pow(2.5), 5)
        regions = around.view(1, maps.shape[1], 25, -1).mean(2).pow(1 / 2.5)
        maps = 0.5 * maps + 0.5 * regions.view(maps.shape)
    return linear(s, "encoder_q.head.fc", F.normalize(gem(maps, 4.4, 1e-8)))


def test_superglobal(cvnet: State, tmp_path: Path) -> None:
    file = saved({"model_state": cvnet}, tmp_path)
    sizes = (*PICTURES, (120, 260))  # the map of the last one is too small for regions
    check(find_model("superglobal_resnet50"), file, lambda x: superglobal(cvnet, x), 240, means=BGR, sizes=sizes)


def test_superglobal_takes_the_largest_over_the_scales(cvnet: State, tmp_path: Path) -> None:
    def twin(x: Tensor) -> Tensor:
        views = [F.interpolate(x, scale_factor=factor, mode="bicubic") for factor in (0.707, 1.414)]
        return torch.stack([F.normalize(superglobal(cvnet, view)) for view in (x, *views)]).amax(0)

    spec, file = find_model("superglobal_resnet50"), saved({"model_state": cvnet}, tmp_path)
    check(spec, file, twin, 200, means=BGR, scales=(0.707, 1.0, 1.414), combine="max")


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("dino_resnet50", ""), ("swav_resnet50", "module."), ("moco_v3_resnet50", "module.base_encoder.")],
)
def test_self_supervised_resnets(name: str, prefix: str, tmp_path: Path) -> None:
    s = published(name)
    file = saved({"state_dict": s, "epoch": 1} if name.startswith("moco") else s, tmp_path)
    check(find_model(name), file, lambda x: resnet(s, x, prefix).mean((2, 3)), 150)


def test_recall_at_k_resnet(tmp_path: Path) -> None:
    s = published("recall_512_resnet50")
    twice = {key: re.sub(r"layer_blocks\.(\d)", lambda n: f"model.layer{int(n[1]) + 1}", key) for key in s}
    s = {key: s[same] for key, same in twice.items()}  # two names of the same tensors

    def twin(x: Tensor) -> Tensor:
        pooled = gem(resnet(s, x, "model."), s["gem.p"], 1e-6)
        return linear(s, "model.last_linear", layer_norm(s, "model.layer_norm", pooled, 1e-5))

    check(find_model("recall_512_resnet50"), saved({"state_dict": s, "progress": {}}, tmp_path), twin, 150)


def places(table: Tensor, grid: tuple[int, ...], how: str) -> Tensor:
    """(1, h * w, C) positions of a square (1, N, C) table for another grid."""
    side = math.isqrt(table.shape[1])
    if grid == (side, side):
        return table
    square = table.view(1, side, side, -1).permute(0, 3, 1, 2)
    if how == "offset":
        factors = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
        moved = F.interpolate(square, scale_factor=factors, mode="bicubic")
    else:
        moved = F.interpolate(square, size=grid, mode="bicubic", antialias=how == "antialiased")
    return moved.flatten(2).transpose(1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(1, heads, N, D) each; (1, N, heads, D)."""
    return ((q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v).transpose(1, 2)


def blocks(s: State, x: Tensor, prefix: str, heads: int, act: Twin = F.gelu, eps: float = 1e-6) -> Tensor:
    """Pre-norm blocks by the names of DINO, with layer scale and SwiGLU where the state has them."""
    number, one = 0, torch.ones(1)
    while f"{prefix}{number}.norm1.weight" in s:
        at = f"{prefix}{number}."
        qkv = linear(s, f"{at}attn.qkv", layer_norm(s, f"{at}norm1", x, eps)).unflatten(2, (3, heads, -1))
        y = linear(s, f"{at}attn.proj", attention(*qkv.permute(2, 0, 3, 1, 4)).flatten(2))
        x = x + y * s.get(f"{at}ls1.gamma", one)
        y = layer_norm(s, f"{at}norm2", x, eps)
        if f"{at}mlp.w12.weight" in s:
            gate, value = linear(s, f"{at}mlp.w12", y).chunk(2, -1)
            y = linear(s, f"{at}mlp.w3", F.silu(gate) * value)
        else:
            y = linear(s, f"{at}mlp.fc2", act(linear(s, f"{at}mlp.fc1", y)))
        x = x + y * s.get(f"{at}ls2.gamma", one)
        number += 1
    assert number
    return x


def tokens_of(s: State, x: Tensor, prefix: str, heads: int, how: str) -> Tensor:
    """(1, N, C) after the last norm, of a transformer with the names of DINO, its blocks in one chunk or in none."""
    own = {name.removeprefix(prefix): value for name, value in s.items() if name.startswith(prefix)}
    kernel = own["patch_embed.proj.weight"]
    maps = F.conv2d(x, kernel, own["patch_embed.proj.bias"], stride=kernel.shape[2])
    tokens = maps.flatten(2).transpose(1, 2) + places(own["pos_embed"][:, 1:], tuple(maps.shape[2:]), how)
    first = own["cls_token"] + own["pos_embed"][:, :1]
    registers = [own["register_tokens"]] if "register_tokens" in own else []
    inside = "blocks.0." if "blocks.0.0.norm1.weight" in own else "blocks."
    tokens = blocks(own, torch.cat([first, *registers, tokens], 1), inside, heads)
    return layer_norm(own, "norm", tokens, 1e-6)


@pytest.mark.parametrize(
    ("name", "prefix", "heads", "patch", "how"),
    [
        ("dino_vitb16", "", 12, 16, "offset"),
        ("dinov2_vits14", "", 6, 14, "offset"),
        ("dinov2_vits14_reg", "", 6, 14, "antialiased"),
        ("dinov2_vitg14", "", 24, 14, "offset"),
        ("moco_v3_vitb", "module.base_encoder.", 12, 16, "antialiased"),
        ("unic_l", "module.encoder.", 16, 14, "offset"),
    ],
)
def test_self_supervised_transformers(name: str, prefix: str, heads: int, patch: int, how: str, tmp_path: Path) -> None:
    unic = {"module.encoder.pos_embed": [1, 577, 1024], "module.lp.heads.a.weight": [3, 3]}  # not in its list
    s = published(name, depth=2, **(unic if name == "unic_l" else {}))
    container = {"moco_v3_vitb": "state_dict", "unic_l": "model"}.get(name)
    file = saved({container: s, "epoch": 1} if container else s, tmp_path)
    check(small(name), file, lambda x: tokens_of(s, x, prefix, heads, how)[:, 0], patch=patch)


def test_positions_stay_where_the_grid_is_that_of_the_training(tmp_path: Path) -> None:
    s = published("dino_vitb16", depth=1)
    spec, sizes = small("dino_vitb16", 1), ((260, 260), (260, 191))
    check(spec, saved(s, tmp_path), lambda x: tokens_of(s, x, "", 12, "offset")[:, 0], 224, patch=16, sizes=sizes)


def test_zeros_stand_around_the_picture_with_the_odd_pixel_right_and_below(tmp_path: Path) -> None:
    s, image = published("dino_vitb16", depth=1), picture(101, 67)

    def placed(top: int, left: int) -> Tensor:
        canvas = torch.zeros(1, 3, 80, 112)
        canvas[:, :, top : top + 67, left : left + 101] = pixels(image, 101)
        return F.normalize(tokens_of(s, canvas, "", 12, "offset")[:, 0])

    protocol = Protocol(resolution=101, dtype="float32")
    backbone = load_model(small("dino_vitb16", 1), protocol, weights=saved(s, tmp_path))
    found = torch.from_numpy(backbone.encode_images(backbone.prepare(image)[None]))
    assert (found - placed(6, 5)).abs().max() < 1e-5
    assert all((found - placed(*other)).abs().max() > 1e-4 for other in ((7, 5), (6, 6), (0, 0)))


def test_gem_is_over_the_patch_tokens_alone(tmp_path: Path) -> None:
    s = published("dinov2_vits14_reg", depth=1)

    def twin(x: Tensor) -> Tensor:
        tokens = tokens_of(s, x, "", 6, "antialiased")[:, 5:]
        low = tokens.amin(1, keepdim=True).clamp(max=0)
        return ((tokens - low).clamp(min=1e-6) ** 3).mean(1) ** (1 / 3) + low[:, 0]

    check(small("dinov2_vits14_reg", 1), saved(s, tmp_path), twin, patch=14, pooling="gem")


def test_hier(tmp_path: Path) -> None:
    s = published("hier_dino_vits16_sop", depth=2)

    def twin(x: Tensor) -> Tensor:
        found = F.layer_norm(tokens_of(s, x, "module.body.", 6, "offset")[:, 0], (384,), eps=1e-5)
        return linear(s, "module.last_layer.1", found)

    check(small("hier_dino_vits16_sop"), saved({"stduent": s, "epoch": 1}, tmp_path), twin, patch=16)


def test_recall_at_k_transformer(tmp_path: Path) -> None:
    name = "recall_512_vit_base_patch16_224_in21k"
    s = published(name, depth=2)

    def twin(x: Tensor) -> Tensor:
        found = tokens_of(s, x, "model.", 12, "antialiased")[:, 0]
        return linear(s, "model.head", layer_norm(s, "model.layer_norm", found, 1e-5))

    check(small(name), saved({"state_dict": s}, tmp_path), twin, patch=16)


@pytest.mark.parametrize("before", ["", "_orig_mod."])  # as published, and as fine-tuned
def test_unicom(before: str, tmp_path: Path) -> None:
    name = "unicom_vit_large_patch14_224"
    arguments = {"side": 56, "patch": 14, "width": 1024, "depth": 2, "heads": 16, "dims": 768}
    more = {"pos_embed": [1, 16, 1024], "feature.0.weight": [1024, 16 * 1024]}
    s = published(name, depth=2, **more)
    s["blocks.0.mlp.fc1.weight"] *= 4  # beyond 6

    def twin(x: Tensor) -> Tensor:
        maps = F.conv2d(x, s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], stride=14)
        tokens = maps.flatten(2).transpose(1, 2) + places(s["pos_embed"], tuple(maps.shape[2:]), "bicubic")
        tokens = layer_norm(s, "norm", blocks(s, tokens, "blocks.", 16, F.relu6, 1e-5), 1e-5)
        pooled = F.adaptive_avg_pool2d(tokens.transpose(1, 2).unflatten(2, maps.shape[2:]), 4)
        hidden = batch_norm(s, "feature.1", linear(s, "feature.0", pooled.flatten(2).transpose(1, 2).flatten(1)), 2e-5)
        return batch_norm(s, "feature.3", linear(s, "feature.2", hidden), 2e-5)

    file = saved({f"{before}{key}": value for key, value in s.items()}, tmp_path)
    check(find_model(name).model_copy(update={"arguments": arguments}), file, twin, means=CLIP, patch=14)


def dense(s: State, name: str, x: Tensor, how: str = "bni,io->bno") -> Tensor:
    return torch.einsum(how, x, s[f"{name}/kernel"]) + s[f"{name}/bias"]


@pytest.mark.parametrize(
    "name", ["udon_64_vitb_in21k_ft_in1k", "udon_64_vitb_clip_openai", "usrr_64_vit_base_patch16_clip_224.openai"]
)
def test_flax_transformers(name: str, tmp_path: Path) -> None:
    clip, s = "clip" in name, published(name, depth=2, but="output_projection")
    eps, conv = (1e-5, "params/conv1") if clip else (1e-6, "params/embedding")
    table = s["params/positional_embedding" if clip else "params/Transformer/posembed_input/pos_embedding"]
    table, first = table.view(1, 197, 768), s["params/class_embedding" if clip else "params/cls"].view(1, 1, 768)
    start = "params/transformer/resblocks." if clip else "params/Transformer/encoderblock_"
    parts = "ln_1 attn ln_2 mlp/c_fc mlp/c_proj"
    if not clip:
        parts = "LayerNorm_0 MultiHeadDotProductAttention_0 LayerNorm_1 MlpBlock_0/Dense_0 MlpBlock_0/Dense_1"

    def twin(x: Tensor) -> Tensor:
        patches = x.unfold(2, 16, 16).unfold(3, 16, 16)  # (1, 3, h, w, 16, 16)
        tokens = torch.einsum("bchwpq,pqco->bhwo", patches, s[f"{conv}/kernel"]).flatten(1, 2)
        tokens = tokens + s.get(f"{conv}/bias", torch.zeros(1))
        tokens = tokens + places(table[:, 1:], tuple(patches.shape[2:4]), "antialiased")
        tokens = torch.cat([first + table[:, :1], tokens], 1)
        if clip:
            tokens = layer_norm(s, "params/ln_pre", tokens, eps)
        for number in range(2):
            one, attend, two, up, down = (f"{start}{number}/{part}" for part in parts.split())
            y = layer_norm(s, one, tokens, eps)
            q, k, v = (dense(s, f"{attend}/{part}", y, "bni,ihd->bnhd") for part in ("query", "key", "value"))
            found = attention(*(part.transpose(1, 2) for part in (q, k, v)))
            tokens = tokens + dense(s, f"{attend}/out", found, "bnhd,hdo->bno")
            y = dense(s, up, layer_norm(s, two, tokens, eps))
            tokens = tokens + dense(s, down, y * torch.sigmoid(1.702 * y) if clip else F.gelu(y, approximate="tanh"))
        return layer_norm(s, "params/ln_post" if clip else "params/Transformer/encoder_norm", tokens, eps)[:, 0]

    file = flax_file(s, tmp_path / "checkpoint")
    check(small(name), file, twin, means=CLIP if clip else HALVES, patch=16)
