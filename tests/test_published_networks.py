"""Networks of published checkpoints against plain twins that work on the names of their authors."""

from __future__ import annotations

import json
import math
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

State = dict[str, Tensor]
Act = Callable[[Tensor], Tensor]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FOLDER = Path(__file__).parent / "checkpoints"
PICTURES = ((301, 203), (151, 290))


def random_state(shapes: dict[str, Any]) -> State:
    """Numbers that show every part of a network in its result: norms far from 1 and 0, positions as large as tokens."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in shapes.items():
        if not shape:  # a counter
            found[name] = torch.tensor(3)
            continue
        value = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            value = value.abs() + 0.7
        elif name.endswith((".p",)):
            value = torch.full(shape, 2.6)
        elif len(shape) == 1:
            value = value * 0.2 + (1.0 if name.endswith(("weight", "scale", "gamma")) else 0.0)
        elif "/" in name and name.endswith("kernel"):
            value = value / math.sqrt(math.prod(shape[: -2 if "attn" in name or "Attention" in name else -1]) or 1)
        elif not name.endswith(("pos_embed", "cls_token", "register_tokens", "pos_embedding", "cls", "mask_token")):
            value = value * 1.4 / math.sqrt(value[0].numel())
        found[name] = value
    return found


def published(name: str, keep: Callable[[str], bool] = lambda name: True) -> State:
    keys = json.loads((FOLDER / f"{name}.json").read_text())["keys"]
    return random_state({key: shape for key, shape in keys.items() if keep(key)})


def picture(width: int, height: int) -> Image.Image:
    coarse = np.random.default_rng(width).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(image: Image.Image, resolution: int, means: tuple[Any, Any], patch: int = 1) -> Tensor:
    """(1, 3, H, W): the larger side is the resolution, normalised, zeros around up to whole patches."""
    width, height = image.size
    ratio = height / width
    size = (resolution, int(resolution * ratio)) if ratio <= 1 else (int(resolution / ratio), resolution)
    x = torch.from_numpy(np.array(image.resize(size, Image.Resampling.BICUBIC))).permute(2, 0, 1).float() / 255
    x = (x - torch.tensor(means[0]).view(3, 1, 1)) / torch.tensor(means[1]).view(3, 1, 1)
    down, across = -x.shape[1] % patch, -x.shape[2] % patch
    return F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))[None]


def check(spec: ModelSpec, file: Path, twin: Callable[[Image.Image], Tensor], resolution: int, **options: Any) -> None:
    backbone = load_model(spec, Protocol(resolution=resolution, dtype="float32", **options), weights=file)
    with torch.no_grad():
        for size in PICTURES:
            image = picture(*size)
            found = backbone.encode_images(backbone.prepare(image)[None])[0]
            expected = F.normalize(twin(image).flatten(), dim=0).numpy()
            assert np.abs(found - expected).max() < 1e-5, size


# --- residual networks ---


def norm(x: Tensor, s: State, name: str) -> Tensor:
    return F.batch_norm(
        x, s[f"{name}.running_mean"], s[f"{name}.running_var"], s[f"{name}.weight"], s[f"{name}.bias"], eps=1e-5
    )


def resnet(s: State, x: Tensor, name: Callable[[int, int, str], str], stem: tuple[str, str], floor: float) -> Tensor:
    """The last map of a ResNet-50; ``floor`` is where activations of the first stages are cut."""
    x = F.max_pool2d(norm(F.conv2d(x, s[f"{stem[0]}.weight"], stride=2, padding=3), s, stem[1]).relu(), 3, 2, 1)
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        for block in range(1, depth + 1):
            step = 2 if stage > 1 and block == 1 else 1
            inner = floor if stage == 1 else 0.0

            def part(which: str, stage: int = stage, block: int = block) -> str:
                return name(stage, block, which)

            y = norm(F.conv2d(x, s[f"{part('conv1')}.weight"]), s, part("bn1")).clamp(min=inner)
            y = F.conv2d(y, s[f"{part('conv2')}.weight"], stride=step, padding=1)
            y = norm(y, s, part("bn2")).clamp(min=inner)
            y = norm(F.conv2d(y, s[f"{part('conv3')}.weight"]), s, part("bn3"))
            if block == 1:
                x = norm(F.conv2d(x, s[f"{part('down')}.weight"], stride=step), s, part("downbn"))
            x = (x + y).clamp(min=floor if stage < 4 else 0.0)
    return x


def pycls(stage: int, block: int, which: str) -> str:
    names = {"conv1": "f.a", "bn1": "f.a_bn", "conv2": "f.b", "bn2": "f.b_bn", "conv3": "f.c", "bn3": "f.c_bn"}
    return f"encoder_q.s{stage}.b{block}.{(names | {'down': 'proj', 'downbn': 'bn'})[which]}"


def torchvision_names(prefix: str) -> Callable[[int, int, str], str]:
    def name(stage: int, block: int, which: str) -> str:
        which = {"down": "downsample.0", "downbn": "downsample.1"}.get(which, which)
        return f"{prefix}layer{stage}.{block - 1}.{which}"

    return name


def gem(x: Tensor, p: Tensor | float, eps: float) -> Tensor:
    return x.clamp(min=eps).pow(p).mean((2, 3)).pow(1 / p)


@pytest.fixture(scope="module")
def cvnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, Path]:
    state = published("cvnet_resnet50")
    file = tmp_path_factory.mktemp("cvnet") / "CVPR2022_CVNet_R50.pyth"
    torch.save({"model_state": state, "epoch": 5}, file)
    return state, file


def bgr(image: Image.Image, resolution: int) -> Tensor:
    return pixels(image, resolution, IMAGENET).flip(1)


def cvnet_map(s: State, x: Tensor, floor: float) -> Tensor:
    return resnet(s, x, pycls, ("encoder_q.stem.conv", "encoder_q.stem.bn"), floor)


@pytest.mark.parametrize(("compat", "floor"), [("paper", 0.0), ("official", 0.014)])
def test_cvnet(cvnet: tuple[State, Path], compat: str, floor: float) -> None:
    s, file = cvnet

    def twin(image: Image.Image) -> Tensor:
        pooled = gem(cvnet_map(s, bgr(image, 150), floor), s["encoder_q.head.pool.p"], 1e-6)
        return F.linear(pooled, s["encoder_q.head.fc.weight"], s["encoder_q.head.fc.bias"])

    check(find_model("cvnet_resnet50"), file, twin, 150, compat=compat)


def superglobal(s: State, x: Tensor) -> Tensor:
    maps = cvnet_map(s, x, 0.014)
    if min(maps.shape[2:]) >= 5:
        padded = F.pad(maps, (2, 2, 2, 2), mode="reflect").pow(2.5)
        regions = F.unfold(padded, 5).view(1, maps.shape[1], 25, -1).mean(2).pow(1 / 2.5)
        maps = 0.5 * maps + 0.5 * regions.view(maps.shape)
    pooled = F.normalize(gem(maps, 4.4, 1e-8))
    return F.linear(pooled, s["encoder_q.head.fc.weight"], s["encoder_q.head.fc.bias"])


@pytest.mark.parametrize("resolution", [240, 150])  # with regions, and too small for them
def test_superglobal(cvnet: tuple[State, Path], resolution: int) -> None:
    s, file = cvnet
    check(find_model("superglobal_resnet50"), file, lambda image: superglobal(s, bgr(image, resolution)), resolution)


def test_superglobal_takes_the_largest_over_the_scales(cvnet: tuple[State, Path]) -> None:
    s, file = cvnet

    def twin(image: Image.Image) -> Tensor:
        x, found = bgr(image, 200), []
        for factor in (0.707, 1.0, 1.414):
            y = x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bicubic")
            found.append(F.normalize(superglobal(s, y)))
        return torch.stack(found).amax(0)

    check(find_model("superglobal_resnet50"), file, twin, 200, scales=(0.707, 1.0, 1.414), combine="max")


@pytest.mark.parametrize(
    ("name", "prefix", "container"),
    [
        ("dino_resnet50", "", None),
        ("swav_resnet50", "module.", None),
        ("moco_v3_resnet50", "module.base_encoder.", "x"),
    ],
)
def test_self_supervised_resnets(name: str, prefix: str, container: str | None, tmp_path: Path) -> None:
    s = published(name)
    torch.save({"state_dict": s, "epoch": 1} if container else s, tmp_path / "file.pth")

    def twin(image: Image.Image) -> Tensor:
        stem = (f"{prefix}conv1", f"{prefix}bn1")
        return resnet(s, pixels(image, 150, IMAGENET), torchvision_names(prefix), stem, 0.0).mean((2, 3))

    check(find_model(name), tmp_path / "file.pth", twin, 150)


def test_recall_at_k_resnet(tmp_path: Path) -> None:
    s = published("recall_512_resnet50")
    for key in s:  # two names of the same tensors
        if key.startswith("layer_blocks."):
            _, number, rest = key.split(".", 2)
            s[key] = s[f"model.layer{int(number) + 1}.{rest}"]
    torch.save({"state_dict": s, "progress": {}}, tmp_path / "file.pth")

    def twin(image: Image.Image) -> Tensor:
        stem = ("model.conv1", "model.bn1")
        pooled = gem(resnet(s, pixels(image, 150, IMAGENET), torchvision_names("model."), stem, 0.0), s["gem.p"], 1e-6)
        pooled = F.layer_norm(pooled, (2048,), s["model.layer_norm.weight"], s["model.layer_norm.bias"], 1e-5)
        return F.linear(pooled, s["model.last_linear.weight"], s["model.last_linear.bias"])

    check(find_model("recall_512_resnet50"), tmp_path / "file.pth", twin, 150)


# --- transformers ---


def places(table: Tensor, grid: tuple[int, int], how: str) -> Tensor:
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
    """(1, heads, N, D) each; (1, N, heads * D)."""
    found = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
    return found.transpose(1, 2).flatten(2)


def blocks(s: State, x: Tensor, prefix: str, heads: int, act: Act = F.gelu, eps: float = 1e-6) -> Tensor:
    """Pre-norm blocks by the names of DINO, with layer scale and SwiGLU where the state has them."""
    number, width = 0, x.shape[-1]
    while f"{prefix}{number}.norm1.weight" in s:
        p = {
            name.removeprefix(f"{prefix}{number}."): v for name, v in s.items() if name.startswith(f"{prefix}{number}.")
        }
        y = F.layer_norm(x, (width,), p["norm1.weight"], p["norm1.bias"], eps)
        qkv = F.linear(y, p["attn.qkv.weight"], p.get("attn.qkv.bias")).view(1, -1, 3, heads, width // heads)
        y = F.linear(attention(*qkv.permute(2, 0, 3, 1, 4)), p["attn.proj.weight"], p["attn.proj.bias"])
        x = x + y * p.get("ls1.gamma", torch.ones(1))
        y = F.layer_norm(x, (width,), p["norm2.weight"], p["norm2.bias"], eps)
        if "mlp.w12.weight" in p:
            gate, value = F.linear(y, p["mlp.w12.weight"], p["mlp.w12.bias"]).chunk(2, -1)
            y = F.linear(F.silu(gate) * value, p["mlp.w3.weight"], p["mlp.w3.bias"])
        else:
            y = F.linear(
                act(F.linear(y, p["mlp.fc1.weight"], p["mlp.fc1.bias"])), p["mlp.fc2.weight"], p["mlp.fc2.bias"]
            )
        x = x + y * p.get("ls2.gamma", torch.ones(1))
        number += 1
    return x


def class_token(
    s: State, image: Image.Image, prefix: str, heads: int, patch: int, how: str, inside: str = ""
) -> Tensor:
    """(1, C) after the last norm, of a transformer with the names of DINO; ``inside`` stands before the numbers."""
    own = {name.removeprefix(prefix): value for name, value in s.items() if name.startswith(prefix)}
    x = pixels(image, 100, IMAGENET, patch)
    maps = F.conv2d(x, own["patch_embed.proj.weight"], own["patch_embed.proj.bias"], stride=patch)
    tokens = maps.flatten(2).transpose(1, 2) + places(own["pos_embed"][:, 1:], tuple(maps.shape[2:]), how)
    first = own["cls_token"] + own["pos_embed"][:, :1]
    registers = [own["register_tokens"]] if "register_tokens" in own else []
    tokens = blocks(own, torch.cat([first, *registers, tokens], 1), f"blocks.{inside}", heads)
    return F.layer_norm(tokens, (tokens.shape[-1],), own["norm.weight"], own["norm.bias"], 1e-6)[:, 0]


def shallow(name: str, *blocks_of: str, depth: int = 2) -> State:
    """The published state with its first blocks only."""

    def keep(key: str) -> bool:
        return not any(
            key.startswith(start) and int(key.removeprefix(start).split(".")[0].split("/")[0]) >= depth
            for start in blocks_of
        )

    return published(name, keep)


def small(name: str, depth: int = 2, **changes: Any) -> ModelSpec:
    spec = find_model(name)
    return spec.model_copy(update={"arguments": spec.arguments | {"depth": depth}} | changes)


@pytest.mark.parametrize(
    ("name", "heads", "patch", "how"),
    [
        ("dino_vitb16", 12, 16, "offset"),
        ("dinov2_vits14", 6, 14, "offset"),
        ("dinov2_vits14_reg", 6, 14, "antialiased"),
        ("dinov2_vitg14", 24, 14, "offset"),
    ],
)
def test_dino(name: str, heads: int, patch: int, how: str, tmp_path: Path) -> None:
    s = shallow(name, "blocks.", depth=1)
    torch.save(s, tmp_path / "file.pth")
    check(small(name, 1), tmp_path / "file.pth", lambda image: class_token(s, image, "", heads, patch, how), 100)


def test_moco_v3(tmp_path: Path) -> None:
    s = shallow("moco_v3_vitb", "module.base_encoder.blocks.", "module.momentum_encoder.blocks.")
    torch.save({"state_dict": s, "arch": "vit_base", "epoch": 300}, tmp_path / "file.pth")

    def twin(image: Image.Image) -> Tensor:
        return class_token(s, image, "module.base_encoder.", 12, 16, "antialiased")

    check(small("moco_v3_vitb"), tmp_path / "file.pth", twin, 100)


def test_unic(tmp_path: Path) -> None:
    s = shallow("unic_l", "module.encoder.blocks.0.")
    s |= random_state({"module.encoder.pos_embed": [1, 24 * 24 + 1, 1024], "module.lp.heads.a.weight": [3, 3]})
    torch.save({"model": s, "epoch": 1}, tmp_path / "file.pth")

    def twin(image: Image.Image) -> Tensor:
        return class_token(s, image, "module.encoder.", 16, 14, "offset", inside="0.")

    check(small("unic_l"), tmp_path / "file.pth", twin, 100)


def test_hier(tmp_path: Path) -> None:
    s = published("hier_dino_vits16_sop")
    torch.save({"stduent": s, "epoch": 1}, tmp_path / "file.pth")

    def twin(image: Image.Image) -> Tensor:
        found = F.layer_norm(class_token(s, image, "module.body.", 6, 16, "offset"), (384,))
        return F.linear(found, s["module.last_layer.1.weight"], s["module.last_layer.1.bias"])

    check(find_model("hier_dino_vits16_sop"), tmp_path / "file.pth", twin, 100)


def test_recall_at_k_transformer(tmp_path: Path) -> None:
    s = published("recall_512_vit_base_patch16_224_in21k")
    torch.save({"state_dict": s}, tmp_path / "file.pth")

    def twin(image: Image.Image) -> Tensor:
        found = class_token(s, image, "model.", 12, 16, "antialiased")
        found = F.layer_norm(found, (768,), s["model.layer_norm.weight"], s["model.layer_norm.bias"], 1e-5)
        return F.linear(found, s["model.head.weight"], s["model.head.bias"])

    check(find_model("recall_512_vit_base_patch16_224_in21k"), tmp_path / "file.pth", twin, 100)


def test_unicom(tmp_path: Path) -> None:
    side, patch, width, heads = 56, 14, 48, 3
    arguments = {"side": side, "patch": patch, "width": width, "depth": 2, "heads": heads, "dims": 40}
    spec = find_model("unicom_vit_large_patch14_224").model_copy(update={"arguments": arguments})
    grid = side // patch
    shapes: dict[str, list[int]] = {}
    for key, shape in json.loads((FOLDER / "unicom_vit_large_patch14_224.json").read_text())["keys"].items():
        if not (key.startswith("blocks.") and int(key.split(".")[1]) > 1):
            sizes = {1024: width, 4096: 4 * width, 3072: 3 * width, 256: grid**2, 1024 * 256: width * grid**2}
            sizes |= {768: 40} if key.startswith("feature.") else {}
            shapes[key] = [sizes.get(length, length) for length in shape]
    s = random_state(shapes)
    torch.save(s, tmp_path / "file.pt")

    def twin(image: Image.Image) -> Tensor:
        x = pixels(image, 100, CLIP, patch)
        maps = F.conv2d(x, s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], stride=patch)
        tokens = maps.flatten(2).transpose(1, 2) + places(s["pos_embed"], tuple(maps.shape[2:]), "bicubic")
        tokens = blocks(s, tokens, "blocks.", heads, F.relu6, 1e-5)
        tokens = F.layer_norm(tokens, (width,), s["norm.weight"], s["norm.bias"], 1e-5)
        pooled = F.adaptive_avg_pool2d(tokens.transpose(1, 2).view(1, width, *maps.shape[2:]), grid)
        flat = pooled.flatten(2).transpose(1, 2).flatten(1)
        for layer, after in (("0", "1"), ("2", "3")):
            flat = F.linear(flat, s[f"feature.{layer}.weight"])
            mean, variance = s[f"feature.{after}.running_mean"], s[f"feature.{after}.running_var"]
            scaled = (flat - mean) / (variance + 2e-5).sqrt()
            flat = scaled * s[f"feature.{after}.weight"] + s[f"feature.{after}.bias"]
        return flat

    check(spec, tmp_path / "file.pt", twin, 100)


# --- flax ---


def dense(s: State, name: str, x: Tensor) -> Tensor:
    return torch.einsum("bni,io->bno", x, s[f"{name}/kernel"]) + s[f"{name}/bias"]


def flax_norm(s: State, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), s[f"{name}/scale"], s[f"{name}/bias"], eps)


@pytest.mark.parametrize(
    "name",
    ["udon_64_vitb_in21k_ft_in1k", "udon_64_vitb_clip_openai", "usrr_64_vit_base_patch16_clip_224.openai"],
)
def test_flax_transformers(name: str, tmp_path: Path) -> None:
    clip = "clip" in name
    start = "params/transformer/resblocks." if clip else "params/Transformer/encoderblock_"
    keys = json.loads((FOLDER / f"{name}.json").read_text())["keys"]
    s = random_state(
        {
            key: shape
            for key, shape in keys.items()
            if not (key.startswith(start) and int(key.removeprefix(start).split("/")[0]) > 1)
            and "output_projection" not in key
        }
    )
    file = flax_file(s, tmp_path / "checkpoint")
    eps = 1e-5 if clip else 1e-6
    parts = ("ln_1", "attn", "ln_2", "mlp/c_fc", "mlp/c_proj") if clip else (
        "LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0/Dense_0", "MlpBlock_0/Dense_1",
    )  # fmt: skip

    def act(x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x) if clip else F.gelu(x, approximate="tanh")

    def twin(image: Image.Image) -> Tensor:
        x = pixels(image, 100, CLIP if clip else ((0.5,) * 3, (0.5,) * 3), 16)
        conv = "params/conv1" if clip else "params/embedding"
        maps = F.conv2d(x, s[f"{conv}/kernel"].permute(3, 2, 0, 1), s.get(f"{conv}/bias"), stride=16)
        table = s["params/positional_embedding" if clip else "params/Transformer/posembed_input/pos_embedding"]
        table = table.view(1, 197, 768)
        first = s["params/class_embedding" if clip else "params/cls"].view(1, 1, 768) + table[:, :1]
        tokens = maps.flatten(2).transpose(1, 2) + places(table[:, 1:], tuple(maps.shape[2:]), "antialiased")
        tokens = torch.cat([first, tokens], 1)
        if clip:
            tokens = flax_norm(s, "params/ln_pre", tokens, eps)
        for number in range(2):
            one, attend, two, up, down = (f"{start}{number}/{part}" for part in parts)
            y = flax_norm(s, one, tokens, eps)
            q, k, v = (
                torch.einsum("bni,ihd->bhnd", y, s[f"{attend}/{part}/kernel"]) + s[f"{attend}/{part}/bias"][:, None]
                for part in ("query", "key", "value")
            )
            found = attention(q, k, v).view(1, -1, 12, 64)
            tokens = tokens + torch.einsum("bnhd,hdo->bno", found, s[f"{attend}/out/kernel"]) + s[f"{attend}/out/bias"]
            tokens = tokens + dense(s, down, act(dense(s, up, flax_norm(s, two, tokens, eps))))
        return flax_norm(s, "params/ln_post" if clip else "params/Transformer/encoder_norm", tokens, eps)[:, 0]

    check(small(name), file, twin, 100)
