"""The adapters of the libraries against independent plain twins, their weights, their errors."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.models.backbone import Backbone
from openilias.models.network import TorchBackbone
from openilias.models.positions import GridPositions
from openilias.models.spec import ModelSpec
from openilias.models.zoo import find_model, load_model

pytestmark = pytest.mark.usefixtures("quick_networks")

SIZES = [(500, 333), (333, 500), (97, 211)]
State = dict[str, Tensor]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more, and lose much where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def describe(backbone: Backbone, *images: Image.Image) -> np.ndarray:
    return np.concatenate([backbone.encode_images(backbone.prepare(image)[None]) for image in images])


def twin_pixels(image: Image.Image, resolution: int, spec: ModelSpec, multiple: int = 1) -> Tensor:
    """(1, 3, H, W): the larger side resized, normalised, zeros around."""
    width, height = image.size
    size = (
        (resolution, int(resolution * height / width))
        if width >= height
        else (int(resolution * width / height), resolution)
    )
    x = torch.from_numpy(np.array(image.resize(size, Image.Resampling.BICUBIC))).permute(2, 0, 1).float() / 255
    x = (x - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    h, w = -x.shape[1] % multiple, -x.shape[2] % multiple
    return F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))[None]


def distance(backbone: Backbone, image: Image.Image, twin: Tensor) -> float:
    assert twin.shape == (1, backbone.dims)
    return float(np.abs(describe(backbone, image) - F.normalize(twin).numpy()).max())


def state_of(backbone: Backbone) -> State:
    return {name: value.clone().contiguous() for name, value in backbone.network.module.state_dict().items()}


def random_state(module: torch.nn.Module, seed: int = 0) -> State:
    """Weights in which nothing is zero or one, as fresh networks have it in places."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            state[name] = value
        elif name.endswith("running_var"):
            state[name] = torch.rand(value.shape, generator=generator) + 0.5
        else:
            fan = value[0].numel() if value.ndim > 1 else 4
            state[name] = torch.randn(value.shape, generator=generator) / fan**0.5
    return state


def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the interpolations from now on."""
    calls = [0]
    original = F.interpolate

    def counted(*arguments: Any, **named: Any) -> Tensor:
        calls[0] += 1
        return original(*arguments, **named)

    monkeypatch.setattr(F, "interpolate", counted)
    return calls


def grid_of(positions: Tensor, rows: int, columns: int, *, antialias: bool) -> Tensor:
    """(1 + s * s, C) position embeddings, the first of a class token, for a grid of another size."""
    side = round((len(positions) - 1) ** 0.5)
    grid = positions[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if (rows, columns) != (side, side):
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=antialias)
    return torch.cat([positions[:1], grid[0].flatten(1).T])


def attention(y: Tensor, weights: Tensor, bias: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Self-attention of (N, C) before the output projection; weights of query, key, value in one."""
    q, k, v = F.linear(y, weights, bias).view(len(y), 3, heads, -1).permute(1, 2, 0, 3)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return ((scores if mask is None else scores + mask).softmax(-1) @ v).transpose(0, 1).reshape(len(y), -1)


def blocks_of(
    state: State, prefix: str, x: Tensor, heads: int, *, quick: bool, mask: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """The blocks of CLIP on (N, C) tokens."""
    n = 0
    while f"{prefix}{n}.ln_1.weight" in state:
        p = {name.removeprefix(f"{prefix}{n}."): v for name, v in state.items() if name.startswith(f"{prefix}{n}.")}
        y = F.layer_norm(x, x.shape[1:], p["ln_1.weight"], p["ln_1.bias"], eps)
        y = attention(y, p["attn.in_proj_weight"], p["attn.in_proj_bias"], heads, mask)
        x = x + F.linear(y, p["attn.out_proj.weight"], p["attn.out_proj.bias"])
        y = F.layer_norm(x, x.shape[1:], p["ln_2.weight"], p["ln_2.bias"], eps)
        y = F.linear(y, p["mlp.c_fc.weight"], p["mlp.c_fc.bias"])
        y = y * torch.sigmoid(1.702 * y) if quick else F.gelu(y)
        x = x + F.linear(y, p["mlp.c_proj.weight"], p["mlp.c_proj.bias"])
        n += 1
    assert n
    return x


# --- torchvision ---


def conv_features(state: State, x: Tensor, plan: str) -> Tensor:
    """``plan``: the names of convolutions with their stride and padding, and M for a maximum pooling."""
    for step in plan.split():
        if step[0] == "M":
            x = F.max_pool2d(x, int(step[1]), 2)
        else:
            name, stride, padding = map(int, step.split(":"))
            weight, bias = state[f"features.{name}.weight"], state[f"features.{name}.bias"]
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
    return x


PLANS = {
    "alexnet": ("0:4:2 M3 3:1:2 M3 6:1:1 8:1:1 10:1:1 M3", 6, (1, 4)),
    "vgg11": ("0:1:1 M2 3:1:1 M2 6:1:1 8:1:1 M2 11:1:1 13:1:1 M2 16:1:1 18:1:1 M2", 7, (0, 3)),
}


def disturbed(name: str) -> Backbone:
    """A model with random weights; what is zero in fresh ones is not."""
    backbone = load_model(find_model(name), Protocol(resolution=100), random_weights=0)
    for key, value in backbone.network.module.state_dict().items():
        if "bias" in key or "pos" in key:
            value += torch.randn(value.shape) / 20
    return backbone


def again(backbone: Any, **protocol: Any) -> TorchBackbone:
    """The same network under another protocol."""
    return TorchBackbone(backbone.spec, Protocol(**protocol), backbone.network, weights_from="file")


@pytest.mark.parametrize("name", PLANS)
def test_alexnet_and_vgg_equal_their_definition(name: str) -> None:
    plan, side, layers = PLANS[name]
    backbone = disturbed(f"torchvision:{name}")
    assert backbone.protocol.pooling == "gem"
    spec, state = backbone.spec, backbone.network.module.state_dict()
    for pooling in ("gem", "head"):
        other = again(backbone, resolution=150, pooling=pooling)
        for size in SIZES:
            with torch.no_grad():
                maps = conv_features(state, twin_pixels(photo(*size), 150, spec), plan)
                twin = (maps.clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3)
                if pooling == "head":
                    twin = F.adaptive_avg_pool2d(maps, side).flatten(1)
                    for layer in layers:
                        weight, bias = state[f"classifier.{layer}.weight"], state[f"classifier.{layer}.bias"]
                        twin = F.relu(F.linear(twin, weight, bias))
            assert distance(other, photo(*size), twin) < 1e-5


def test_alexnet_takes_images_that_are_too_small_for_it() -> None:
    spec = find_model("torchvision:alexnet/IMAGENET1K_V1")
    backbone = load_model(spec, Protocol(resolution=224), random_weights=0)
    image = photo(640, 97)
    x = twin_pixels(image, 224, spec)
    assert x.shape[2] < 63
    above = (63 - x.shape[2]) // 2
    maps = conv_features(state_of(backbone), F.pad(x, (0, 0, above, 63 - x.shape[2] - above)), PLANS["alexnet"][0])
    assert distance(backbone, image, (maps.clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3)) < 1e-5


def torchvision_tokens(state: State, x: Tensor) -> Tensor:
    maps = F.conv2d(x, state["conv_proj.weight"], state["conv_proj.bias"], stride=16)
    tokens = torch.cat([state["class_token"][0], maps[0].flatten(1).T])
    tokens = tokens + grid_of(state["encoder.pos_embedding"][0], *maps.shape[2:], antialias=True)
    names = {"self_attention": "attn", "mlp.0": "mlp.c_fc", "mlp.3": "mlp.c_proj"}
    renamed = {}
    for name, value in state.items():
        for old, new in names.items():
            name = name.replace(old, new)
        renamed[name] = value
    tokens = blocks_of(renamed, "encoder.layers.encoder_layer_", tokens, 12, quick=False, eps=1e-6)
    return F.layer_norm(tokens, (768,), state["encoder.ln.weight"], state["encoder.ln.bias"], 1e-6)


def test_torchvision_transformer_equals_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    first = disturbed("torchvision:vit_b_16")
    state = first.network.module.state_dict()
    for pooling in ("head", "gap"):
        backbone = again(first, resolution=100, pooling=pooling)
        for size in SIZES:
            with torch.no_grad():
                tokens = torchvision_tokens(state, twin_pixels(photo(*size), 100, first.spec, 16))
            twin = tokens[:1] if pooling == "head" else tokens[1:].mean(0, keepdim=True)
            assert distance(backbone, photo(*size), twin) < 1e-5
    calls = count(monkeypatch)
    describe(backbone, photo(500, 333), photo(500, 333, 1), photo(333, 500))
    assert calls == [0]
    describe(backbone, photo(500, 200), photo(500, 200, 1))
    assert calls == [1]


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet", "squeezenet1_1"])
def test_torchvision_networks_equal_the_library(name: str, tmp_path: Path) -> None:
    from torchvision.models import get_model

    extra = {"init_weights": False, "transform_input": True} if name == "googlenet" else {}
    torch.manual_seed(0)
    plain: Any = get_model(name, weights=None, **extra).eval()
    state = plain.state_dict()
    if name == "densenet121":  # the published files have names of before a change
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", key): v for key, v in state.items()}
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, tmp_path / "w.pth")
    spec = find_model(f"torchvision:{name}")
    image = photo(211, 97)
    inputs: list[Tensor] = []
    last = [part for part in plain.modules() if isinstance(part, (torch.nn.Linear, torch.nn.Conv2d))][-1]
    if name == "squeezenet1_1":
        plain.features.register_forward_hook(lambda _, __, out: inputs.append(out.mean((2, 3))))
    else:
        last.register_forward_hook(lambda _, given, __: inputs.append(given[0]))
    with torch.no_grad():
        plain(twin_pixels(image, 150, spec))
    for pooling in ("head", "gap"):
        backbone = load_model(spec, Protocol(resolution=150, pooling=pooling), weights=tmp_path / "w.pth")
        assert distance(backbone, image, inputs[0]) < 1e-5  # all of them end with the mean over the map
    assert not any(key.startswith(("aux", "fc.", "classifier")) for key in state_of(backbone))


def test_torchvision_records() -> None:
    spec = find_model("torchvision:resnet50")
    assert (spec.name, spec.tag) == ("torchvision:resnet50/IMAGENET1K_V2", "IMAGENET1K_V2")
    assert find_model(spec.name) == spec
    large = find_model("torchvision:vit_l_16/IMAGENET1K_SWAG_E2E_V1")
    assert (large.train_resolution, large.test_resolution) == (512, 724)
    assert large.licence
    assert find_model("torchvision:inception_v3").train_resolution == 299


# --- open_clip ---

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
TINY = {
    "tiny-vit": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "tiny-rn": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "patch_size": None},
    "tiny-trunk": {
        "image_size": 224,
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
}


@pytest.fixture(scope="module", autouse=True)
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("open_clip")
    for name, vision in TINY.items():
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}))
    open_clip.add_model_config(folder)
    for name in TINY:
        save_file(random_state(open_clip.create_model(name)), folder / f"{name}.safetensors")
    return folder


def tiny(folder: Path, name: str, *, quick: bool = False, **protocol: Any) -> Backbone:
    spec = find_model(f"open_clip:{name}").model_copy(update={"quick_gelu": quick})
    return load_model(spec, Protocol(**{"resolution": 100} | protocol), weights=folder / f"{name}.safetensors")


def clip_tokens(state: State, x: Tensor, *, quick: bool) -> Tensor:
    s = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    maps = F.conv2d(x, s["conv1.weight"], stride=16)
    tokens = torch.cat([s["class_embedding"][None], maps[0].flatten(1).T])
    tokens = tokens + grid_of(s["positional_embedding"], *maps.shape[2:], antialias=True)
    tokens = F.layer_norm(tokens, (32,), s["ln_pre.weight"], s["ln_pre.bias"])
    tokens = blocks_of(s, "transformer.resblocks.", tokens, 2, quick=quick)
    return F.layer_norm(tokens, (32,), s["ln_post.weight"], s["ln_post.bias"])


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("pooling", ["head", "cls", "gap"])
def test_open_clip_transformer_equals_its_definition(tiny_models: Path, quick: bool, pooling: str) -> None:
    backbone = tiny(tiny_models, "tiny-vit", quick=quick, pooling=pooling)
    state = load_file(tiny_models / "tiny-vit.safetensors")
    for size in [*SIZES, (64, 64)]:
        tokens = clip_tokens(state, twin_pixels(photo(*size), 100, backbone.spec, 16), quick=quick)
        head = tokens[:1] @ state["visual.proj"]
        twin = {"head": head, "cls": tokens[:1], "gap": tokens[1:].mean(0, keepdim=True)}[pooling]
        assert distance(backbone, photo(*size), twin) < 1e-5


def test_quick_gelu_goes_with_the_weights_and_by_the_name_in_the_official_code(tiny_models: Path) -> None:
    assert find_model("open_clip:ViT-B-32/openai").quick_gelu
    assert find_model("open_clip:RN50/openai").quick_gelu
    assert find_model("open_clip:ViT-B-32-quickgelu/laion400m_e32").quick_gelu
    assert not find_model("open_clip:ViT-B-32/laion2b_s34b_b79k").quick_gelu
    image = photo(300, 200)
    plain, quick, official = (
        describe(tiny(tiny_models, "tiny-vit", **named), image)
        for named in ({}, {"quick": True}, {"quick": True, "compat": "official"})
    )
    assert np.abs(plain - quick).max() > 1e-4
    assert (plain == official).all()


def test_text_tower_equals_its_definition(tiny_models: Path) -> None:
    texts = ["a red cup\n", "A cup, with a handle; it's 10 cm high", "x " * 100]
    state = load_file(tiny_models / "tiny-vit.safetensors")
    tokens = open_clip.SimpleTokenizer()(texts)
    mask = torch.full((77, 77), float("-inf")).triu(1)
    for quick in (False, True):
        found = tiny(tiny_models, "tiny-vit", quick=quick).encode_texts(texts)
        for row, ids in zip(found, tokens, strict=True):
            x = state["token_embedding.weight"][ids] + state["positional_embedding"]
            x = blocks_of(state, "transformer.resblocks.", x, 2, quick=quick, mask=mask)
            x = F.layer_norm(x, (32,), state["ln_final.weight"], state["ln_final.bias"])
            twin = x[ids.argmax()] @ state["text_projection"]
            assert np.abs(row - F.normalize(twin, dim=0).numpy()).max() < 1e-5


@pytest.mark.drawn
def test_both_towers_are_in_the_digest(tiny_models: Path, tmp_path: Path) -> None:
    first = tiny(tiny_models, "tiny-vit")
    state = load_file(tiny_models / "tiny-vit.safetensors")
    state["token_embedding.weight"][5] += 1
    save_file(state, tmp_path / "tiny-vit.safetensors")
    second = tiny(tmp_path, "tiny-vit")
    assert first.weights_digest != second.weights_digest
    assert (describe(first, photo(90, 60)) == describe(second, photo(90, 60))).all()


def twin_bottleneck(s: State, name: str, x: Tensor, stride: int) -> Tensor:
    def norm(x: Tensor, bn: str) -> Tensor:
        return F.batch_norm(
            x, *(s[f"{name}.{bn}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        )

    y = F.relu(norm(F.conv2d(x, s[f"{name}.conv1.weight"]), "bn1"))
    y = F.relu(norm(F.conv2d(y, s[f"{name}.conv2.weight"], padding=1), "bn2"))
    y = F.avg_pool2d(y, stride)
    y = norm(F.conv2d(y, s[f"{name}.conv3.weight"]), "bn3")
    x = norm(F.conv2d(F.avg_pool2d(x, stride), s[f"{name}.downsample.0.weight"]), "downsample.1")
    return F.relu(y + x)


@pytest.mark.parametrize("pooling", ["head", "gap"])
def test_clip_resnet_equals_its_definition(tiny_models: Path, pooling: str) -> None:
    backbone = tiny(tiny_models, "tiny-rn", pooling=pooling)
    state = load_file(tiny_models / "tiny-rn.safetensors")
    s = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    for size in [*SIZES, (500, 30)]:
        x = twin_pixels(photo(*size), 100, backbone.spec)
        high = max(32 - x.shape[2], 0)
        x = F.pad(x, (0, 0, high // 2, high - high // 2))
        for n, stride in ((1, 2), (2, 1), (3, 1)):
            stats = (s[f"bn{n}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
            x = F.relu(F.batch_norm(F.conv2d(x, s[f"conv{n}.weight"], stride=stride, padding=1), *stats))
        x = F.avg_pool2d(x, 2)
        for n in (1, 2, 3, 4):
            x = twin_bottleneck(s, f"layer{n}.0", x, 1 if n == 1 else 2)
        twin = x.mean((2, 3))
        if pooling == "head":
            tokens = x[0].flatten(1).T
            tokens = torch.cat([tokens.mean(0, keepdim=True), tokens])
            tokens = tokens + grid_of(s["attnpool.positional_embedding"], *x.shape[2:], antialias=False)
            parts = [(s[f"attnpool.{part}_proj.weight"], s[f"attnpool.{part}_proj.bias"]) for part in "qkv"]
            y = attention(tokens, torch.cat([w for w, _ in parts]), torch.cat([b for _, b in parts]), 8)
            twin = F.linear(y[:1], s["attnpool.c_proj.weight"], s["attnpool.c_proj.bias"])
        assert distance(backbone, photo(*size), twin) < 1e-5


@pytest.mark.parametrize("name", TINY)
def test_at_their_own_size_the_towers_equal_open_clip(tiny_models: Path, name: str) -> None:
    side = TINY[name]["image_size"]
    backbone = tiny(tiny_models, name, resolution=side)
    plain = open_clip.create_model(name, pretrained=str(tiny_models / f"{name}.safetensors")).eval()
    image = photo(side, side)
    with torch.no_grad():
        assert distance(backbone, image, plain.encode_image(twin_pixels(image, side, backbone.spec))) < 1e-5
        texts = plain.encode_text(open_clip.get_tokenizer(name)(["a cup", "b"]), normalize=True)
    assert np.abs(backbone.encode_texts(["a cup", "b"]) - texts.numpy()).max() < 1e-5


def test_timm_trunks_take_any_size(tiny_models: Path) -> None:
    state = load_file(tiny_models / "tiny-trunk.safetensors")
    trunk = timm.create_model("vit_tiny_patch16_224", global_pool="token", num_classes=0, dynamic_img_size=True).eval()
    part = {n.removeprefix("visual.trunk."): v for n, v in state.items() if n.startswith("visual.trunk.")}
    trunk.load_state_dict(part)
    for pooling in ("head", "cls", "gap"):
        backbone = tiny(tiny_models, "tiny-trunk", pooling=pooling)
        for size in SIZES:
            with torch.no_grad():
                tokens = trunk.forward_features(twin_pixels(photo(*size), 100, backbone.spec, 16))
            mean = tokens[:, 1:].mean(1)
            twin = {"head": F.linear(mean, state["visual.head.proj.weight"]), "cls": tokens[:, 0], "gap": mean}[pooling]
            assert distance(backbone, photo(*size), twin) < 1e-5


@pytest.mark.parametrize("name", TINY)
def test_open_clip_positions_are_interpolated_once_per_shape(
    tiny_models: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny(tiny_models, name)
    calls = count(monkeypatch)
    for _ in range(2):
        describe(backbone, photo(500, 333), photo(500, 333, 1), photo(333, 500))
    assert calls == [2]


def test_openai_names_and_wrong_files(tiny_models: Path, tmp_path: Path) -> None:
    spec, protocol = find_model("open_clip:tiny-vit"), Protocol(resolution=64)
    state = load_file(tiny_models / "tiny-vit.safetensors")
    torch.save(
        state | {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")},
        tmp_path / "a.pt",
    )
    first = load_model(spec, protocol, weights=tmp_path / "a.pt")
    assert first.weights_digest == tiny(tiny_models, "tiny-vit").weights_digest
    save_file({name: v for name, v in state.items() if name != "visual.proj"}, tmp_path / "b.safetensors")
    with pytest.raises(OpenIliasError, match=r"1 missing: visual\.proj"):
        load_model(spec, protocol, weights=tmp_path / "b.safetensors")
    with pytest.raises(OpenIliasError, match=r"31 missing: .*; 122 left over: visual\.bn1") as caught:
        load_model(spec, protocol, weights=tiny_models / "tiny-rn.safetensors")
    assert caught.value.where == str(tiny_models / "tiny-rn.safetensors")


def test_a_folder_of_open_clip(tiny_models: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_models / "tiny-vit.json").read_text())
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    spec = find_model(f"open_clip:local-dir:{tmp_path}")
    assert (spec.mean, spec.std, spec.train_resolution) == ((0.5,) * 3, (0.25,) * 3, 64)
    assert load_model(spec, Protocol(resolution=64), random_weights=1).dims == 24
    with pytest.raises(OpenIliasError, match="could not be loaded"):
        load_model(spec, Protocol(resolution=64))
    shutil.copy(tiny_models / "tiny-vit.safetensors", tmp_path / "open_clip_model.safetensors")
    loaded = load_model(spec, Protocol(resolution=64))
    assert loaded.weights_digest == tiny(tiny_models, "tiny-vit").weights_digest
    assert loaded.encode_texts(["a cup"]).shape == (1, 24)


def test_a_tokenizer_of_the_hub_is_asked_for_only_with_texts(tiny_models: Path, tmp_path: Path) -> None:
    config = {"embed_dim": 24, "vision_cfg": TINY["tiny-vit"], "text_cfg": TEXT | {"hf_tokenizer_name": "nobody/none"}}
    (tmp_path / "tiny-hub.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-hub.json")
    backbone = load_model(find_model("open_clip:tiny-hub"), Protocol(resolution=64), random_weights=0)
    assert describe(backbone, photo(64, 48)).shape == (1, 24)
    with pytest.raises(OpenIliasError, match="tokenizer of open_clip:tiny-hub could not be loaded"):
        backbone.encode_texts(["a cup"])


def test_convnext_equals_timm() -> None:
    spec = find_model("timm:convnext_atto")
    torch.manual_seed(0)
    plain = timm.create_model("convnext_atto", num_classes=0).eval()
    for pooling in ("head", "gap"):
        backbone = load_model(spec, Protocol(resolution=150, pooling=pooling), random_weights=0)
        for size in SIZES:
            with torch.no_grad():
                maps = plain.forward_features(twin_pixels(photo(*size), 150, spec))
                mean = maps.mean((2, 3))
                norm = plain.head.norm
                twin = mean if pooling == "gap" else F.layer_norm(mean, mean.shape[1:], norm.weight, norm.bias, 1e-6)
            assert distance(backbone, photo(*size), twin) < 1e-5


def test_no_more_than_some_shapes_are_kept() -> None:
    positions = GridPositions(lambda: torch.zeros(5, 3), (2, 2), prefix=1, antialias=True)
    for n in range(1, 60):
        assert positions((1, n)).shape == (1 + n, 3)
    assert len(positions._kept) == 32


# --- transformers ---

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of tiny models with weights."""
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    root = tmp_path_factory.mktemp("hf")
    text = SMALL | {"vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 19, "bos_token_id": 18}
    vision = SMALL | {"patch_size": 16, "image_size": 64}
    configs = {
        "dinov2": transformers.Dinov2Config(**SMALL, mlp_ratio=2, patch_size=14, image_size=98, layerscale_value=0.7),
        "vit": transformers.ViTConfig(**vision),
        "clip": transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24),
        "siglip": transformers.SiglipConfig(text_config=text, vision_config=vision),
        "convnext": transformers.ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2),
        "swin": transformers.SwinConfig(
            embed_dim=16, depths=[2, 2], num_heads=[2, 2], window_size=4, image_size=64, patch_size=4
        ),
        "bert": transformers.BertConfig(**SMALL, vocab_size=20),
    }
    words = {word: n for n, word in enumerate("[PAD] [UNK] a red blue cup with handle".split())}
    tokenizer = Tokenizer(WordLevel(words | {"[EOS]": 19}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 19)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]", model_max_length=8
    )
    for name, config in configs.items():
        module = transformers.AutoModel.from_config(config)
        module.load_state_dict(random_state(module))
        module.save_pretrained(root / name)
        if name in ("clip", "siglip"):
            fast.save_pretrained(root / name)
    preprocess = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.3], "size": {"shortest_edge": 112}}
    (root / "dinov2" / "preprocessor_config.json").write_text(json.dumps(preprocess))
    return root


def library(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder).eval()


def dinov2_tokens(s: State, x: Tensor) -> Tensor:
    maps = F.conv2d(
        x, s["embeddings.patch_embeddings.projection.weight"], s["embeddings.patch_embeddings.projection.bias"], 14
    )
    tokens = torch.cat([s["embeddings.cls_token"][0], maps[0].flatten(1).T])
    tokens = tokens + grid_of(s["embeddings.position_embeddings"][0], *maps.shape[2:], antialias=False)
    for n in range(2):
        p = {k.removeprefix(f"encoder.layer.{n}."): v for k, v in s.items() if k.startswith(f"encoder.layer.{n}.")}
        y = F.layer_norm(tokens, (32,), p["norm1.weight"], p["norm1.bias"], 1e-6)
        q, k, v = ("query", "key", "value")
        weights = torch.cat([p[f"attention.attention.{part}.weight"] for part in (q, k, v)])
        biases = torch.cat([p[f"attention.attention.{part}.bias"] for part in (q, k, v)])
        y = attention(y, weights, biases, 2)
        y = F.linear(y, p["attention.output.dense.weight"], p["attention.output.dense.bias"])
        tokens = tokens + y * p["layer_scale1.lambda1"]
        y = F.layer_norm(tokens, (32,), p["norm2.weight"], p["norm2.bias"], 1e-6)
        y = F.gelu(F.linear(y, p["mlp.fc1.weight"], p["mlp.fc1.bias"]))
        tokens = tokens + F.linear(y, p["mlp.fc2.weight"], p["mlp.fc2.bias"]) * p["layer_scale2.lambda1"]
    return F.layer_norm(tokens, (32,), s["layernorm.weight"], s["layernorm.bias"], 1e-6)


@pytest.mark.parametrize("pooling", ["head", "cls", "gap"])
def test_dinov2_equals_its_definition(hf: Path, pooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_model(f"hf:{hf / 'dinov2'}")
    assert (spec.train_resolution, spec.mean, spec.std) == (112, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3))
    backbone = load_model(spec, Protocol(resolution=100, pooling=pooling))
    state = load_file(hf / "dinov2" / "model.safetensors")
    for size in SIZES:
        tokens = dinov2_tokens(state, twin_pixels(photo(*size), 100, spec, 14))
        twin = tokens[1:].mean(0, keepdim=True) if pooling == "gap" else tokens[:1]
        assert distance(backbone, photo(*size), twin) < 1e-5
    calls = count(monkeypatch)
    describe(backbone, photo(500, 333), photo(500, 250), photo(500, 250, 1))
    assert calls == [1]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_image_text_models_equal_the_library(hf: Path, name: str) -> None:
    spec = find_model(f"hf:{hf / name}")
    assert spec.mean[0] == {"clip": 0.48145466, "siglip": 0.5}[name]
    backbone, plain = load_model(spec, Protocol(resolution=100)), library(hf / name)
    for size in SIZES:
        with torch.no_grad():
            out = plain.get_image_features(twin_pixels(photo(*size), 100, spec, 16), interpolate_pos_encoding=True)
        assert distance(backbone, photo(*size), out if isinstance(out, Tensor) else out.pooler_output) < 1e-5
    texts = {
        "a red cup\n": [2, 3, 5, 19],
        "blue": [4, 19],
        "a red cup with a cup with a red cup": [2, 3, 5, 6, 2, 5, 6, 19],
    }
    found = backbone.encode_texts(list(texts))
    for row, (text, ids) in zip(found, texts.items(), strict=True):
        # SigLIP sees the padding, as in its training; CLIP does not.
        whole = ids + [0] * (8 - len(ids)) if name == "siglip" else ids
        with torch.no_grad():
            out = plain.get_text_features(input_ids=torch.tensor([whole]))
        twin = F.normalize(out if isinstance(out, Tensor) else out.pooler_output)[0].numpy()
        assert np.abs(row - twin).max() < 1e-5
        assert np.abs(backbone.encode_texts([text])[0] - twin).max() < 1e-5


def test_maps_of_convnext_and_swin_equal_the_library(hf: Path) -> None:
    for name, multiple in (("convnext", 1), ("swin", 1)):
        spec, plain = find_model(f"hf:{hf / name}"), library(hf / name)
        for pooling in ("head", "mac", "rmac"):
            backbone = load_model(spec, Protocol(resolution=100, pooling=pooling))
            image = photo(500, 333)
            with torch.no_grad():
                out = plain(twin_pixels(image, 100, spec, multiple))
                hidden = out.last_hidden_state
                maps = hidden if name == "convnext" else hidden.transpose(1, 2).reshape(1, 32, 9, 13)
            if pooling == "rmac":
                from openilias.models.pooling import pool

                assert distance(backbone, image, pool(maps, "rmac")) < 1e-5
            else:
                assert distance(backbone, image, out.pooler_output if pooling == "head" else maps.amax((2, 3))) < 1e-5


def test_small_images_change_nothing_for_later_ones(hf: Path) -> None:
    image, first, second = (
        photo(300, 200),
        *(load_model(find_model(f"hf:{hf / 'swin'}"), Protocol(resolution=100)) for _ in range(2)),
    )
    plain = describe(first, image)
    describe(second, photo(300, 90), photo(100, 32))
    assert (describe(second, image) == plain).all()


def test_weights_of_transformers(hf: Path, tmp_path: Path) -> None:
    spec, protocol = find_model(f"hf:{hf / 'vit'}"), Protocol(resolution=64)
    whole = load_model(spec, protocol)
    file = hf / "vit" / "model.safetensors"
    assert load_model(spec, protocol, weights=file).weights_digest == whole.weights_digest
    state = load_file(file)
    head = {"classifier.weight": torch.zeros(3, 32), "classifier.bias": torch.zeros(3)}
    bare = {name: value for name, value in state.items() if not name.startswith("pooler.")}
    save_file({f"vit.{name}": v for name, v in bare.items()} | head, tmp_path / "w.safetensors")
    found = load_model(spec, protocol, weights=tmp_path / "w.safetensors")
    with torch.no_grad():
        plain = library(hf / "vit")(twin_pixels(photo(64, 48), 64, spec, 16), interpolate_pos_encoding=True)
    assert distance(found, photo(64, 48), plain.last_hidden_state[:, 0]) < 1e-5  # not a pooler of random numbers
    assert distance(whole, photo(64, 48), plain.pooler_output) < 1e-5
    damages = {
        "1 missing: .*layernorm_before.weight": {
            k: v for k, v in state.items() if "0.layernorm_before.weight" not in k
        },
        "1 left over: .*9.layernorm_before.weight": state
        | {"encoder.layer.9.layernorm_before.weight": torch.zeros(32)},
        "1 of another shape: embeddings.cls_token": state | {"embeddings.cls_token": torch.zeros(1, 1, 8)},
    }
    for message, broken in damages.items():
        save_file(broken, tmp_path / "b.safetensors")
        with pytest.raises(OpenIliasError, match=message):
            load_model(spec, protocol, weights=tmp_path / "b.safetensors")
    shutil.copytree(hf / "vit", tmp_path / "vit")
    save_file(
        {k: v for k, v in state.items() if "cls_token" not in k},
        tmp_path / "vit" / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(OpenIliasError, match=r"1 missing: embeddings\.cls_token"):
        load_model(find_model(f"hf:{tmp_path / 'vit'}"), protocol)
    (tmp_path / "vit" / "model.safetensors").unlink()
    with pytest.raises(OpenIliasError, match="could not be loaded"):
        load_model(find_model(f"hf:{tmp_path / 'vit'}"), protocol)


def test_what_transformers_has_that_is_no_image_model(hf: Path, tmp_path: Path) -> None:
    import transformers

    with pytest.raises(OpenIliasError, match="no model that takes images alone; it takes input_ids"):
        load_model(find_model(f"hf:{hf / 'bert'}"), Protocol(), random_weights=0)
    transformers.ViTMAEConfig(**SMALL).save_pretrained(tmp_path)
    with pytest.raises(OpenIliasError, match="hides patches at random"):
        load_model(find_model(f"hf:{tmp_path}"), Protocol(), random_weights=0)
    (tmp_path / "preprocessor_config.json").write_text('{"size": 224, "do_flip_channel_order": true}')
    with pytest.raises(OpenIliasError, match="BGR"):
        find_model(f"hf:{tmp_path}")
    (tmp_path / "preprocessor_config.json").write_text("[1")
    with pytest.raises(OpenIliasError, match="cannot be read") as caught:
        find_model(f"hf:{tmp_path}")
    assert str(caught.value.where).endswith("preprocessor_config.json")
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "no such type"}')
    with pytest.raises(OpenIliasError, match="configuration of hf:"):
        find_model(f"hf:{tmp_path}")
    image_text = load_model(find_model(f"hf:{hf / 'vit'}"), Protocol(resolution=64))
    with pytest.raises(OpenIliasError, match="no text tower"):
        image_text.encode_texts(["a cup"])


# --- your own file ---

OWN = """
from __future__ import annotations

import torch
from dataclasses import dataclass
from beside import WIDTH

MEAN = STD = (0.5, 0.5, 0.5)
RESOLUTION = 160
MULTIPLE = 8


@dataclass
class Settings:
    width: int = WIDTH


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        import later
        self.layer = torch.nn.Conv2d(3, Settings().width, 8, stride=later.STRIDE)

    def forward(self, images):
        return self.layer(images).amax((2, 3))

    def encode_texts(self, texts):
        return torch.tensor([[float(len(text)) + n for n in range(6)] for text in texts])


def load():
    return Net()


def maps():
    return Net().layer


def plain():
    return lambda images: images.mean((2, 3))


def bad(out):
    return lambda: lambda images: out(images)


number = lambda: 5
integers = bad(lambda x: x[:, :, 0, 0].long())
cube = bad(lambda x: x[:, :, 0])
fewer = bad(lambda x: x[:1, :, 0, 0][:0])
listed = bad(lambda x: [1])
broken = bad(lambda x: {}["key"])


def leaves():
    raise SystemExit(3)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "beside.py").write_text("WIDTH = 6\n")
    (tmp_path / "later.py").write_text("STRIDE = 8\n")
    return tmp_path / "own.py"


@pytest.mark.drawn
def test_your_own_file(own: Path, tmp_path: Path) -> None:
    before, path = set(sys.modules), list(sys.path)
    spec = find_model(f"{own}:load")
    assert (spec.train_resolution, spec.mean, spec.pooling) == (160, (0.5,) * 3, "head")
    backbone = load_model(spec, Protocol(resolution=100), random_weights=3)
    assert sys.path == path
    assert not {"beside", "later", "openilias_own_model"} & (set(sys.modules) - before)
    state = state_of(backbone)
    for size in SIZES:
        x = F.conv2d(twin_pixels(photo(*size), 100, spec, 8), state["layer.weight"], state["layer.bias"], stride=8)
        assert distance(backbone, photo(*size), x.amax((2, 3))) < 1e-5
    assert load_model(spec, Protocol(), random_weights=3).weights_digest == backbone.weights_digest
    assert load_model(spec, Protocol(), random_weights=4).weights_digest != backbone.weights_digest
    save_file(state, tmp_path / "w.safetensors")
    assert load_model(spec, Protocol(), weights=tmp_path / "w.safetensors").weights_digest == backbone.weights_digest
    texts = backbone.encode_texts(["ab", "abc"])
    assert np.allclose(texts[0], np.arange(2, 8) / np.linalg.norm(np.arange(2, 8)), atol=1e-6)
    assert describe(load_model(find_model(f"{own}:plain"), Protocol()), photo(50, 40)).shape == (1, 3)


def test_maps_of_your_own_are_pooled(own: Path) -> None:
    spec, image = find_model(f"{own}:maps"), photo(97, 211)
    backbones = [
        load_model(spec, Protocol(resolution=100, **named), random_weights=1)
        for named in ({"pooling": "gem"}, {"pooling": "mac"}, {"pooling": "gem", "compat": "official"})
    ]
    state = state_of(backbones[0])
    maps = F.conv2d(twin_pixels(image, 100, spec, 8), state["weight"], state["bias"], stride=8)
    low = maps.amin((2, 3), keepdim=True).clamp(max=0)
    gem, official = (
        ((maps + sign * low).clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3) - sign * low[..., 0, 0] for sign in (-1, 1)
    )
    for backbone, twin in zip(backbones, (gem, maps.amax((2, 3)), official), strict=True):
        assert distance(backbone, image, twin) < 1e-5
    with pytest.raises(OpenIliasError, match="not a map"):
        load_model(find_model(f"{own}:load"), Protocol(pooling="gem"))
    with pytest.raises(OpenIliasError, match="returned a map") as caught:
        load_model(spec, Protocol())
    assert "POOLING = 'gem'" in str(caught.value.fix)
    own.write_text(OWN + "\nPOOLING = 'mac'\n")
    assert load_model(find_model(f"{own}:maps"), Protocol()).protocol.pooling == "mac"


def test_what_a_file_imports_from_beside_it_is_part_of_it(own: Path) -> None:
    (own.parent / "helper.py").write_text("K = 1\n")
    own.write_text(OWN + "\nimport helper\n")
    before = find_model(f"{own}:load")
    (own.parent / "helper.py").write_text("K = 2\n")
    assert find_model(f"{own}:load").code_sha256 != before.code_sha256


def test_an_edited_file_is_another_model(own: Path) -> None:
    spec = find_model(f"{own}:load")
    own.write_text(OWN + "\n# edited\n")
    assert find_model(f"{own}:load").code_sha256 != spec.code_sha256
    with pytest.raises(OpenIliasError, match="edited"):
        load_model(spec, Protocol())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number", r"number\(\) returned int, not a model"),
        ("integers", r"returned a tensor of torch.int64"),
        ("cube", r"returned shape \(1, 3, 64\)"),
        ("fewer", r"returned shape \(0, 3\) for 1 inputs"),
        ("listed", "returned list"),
        ("broken", "failed: KeyError: 'key'"),
        ("leaves", r"Leaves\(\) failed: SystemExit: 3"),
        ("none", "no function 'none'"),
        ("", "no function ''"),
    ],
)
def test_faults_of_your_own_file_are_named(own: Path, function: str, message: str) -> None:
    with pytest.raises(OpenIliasError, match=message) as caught:
        load_model(find_model(f"{own}:{function}"), Protocol(pooling="head"))
    assert str(own) in str(caught.value.where)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_this_name", "This file failed: ModuleNotFoundError: No module named 'nothing_of"),
        ("def load(:", "failed: SyntaxError"),
        ("1 / 0", "failed: ZeroDivisionError: division by zero"),
        ("MEAN = 3\ndef load(): ...", "MEAN is 3"),
        ("RESOLUTION = 'x'\ndef load(): ...", "RESOLUTION is 'x'"),
        ("POOLING = 'x'\ndef load(): ...", "POOLING is 'x'"),
        ("MULTIPLE = 0\ndef load(): ...", "MULTIPLE is 0"),
        ("load = 3", "no function 'load'"),
    ],
)
def test_files_that_cannot_be_loaded(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.py").write_text(text)
    before = list(sys.path)
    with pytest.raises(OpenIliasError, match=message) as caught:
        find_model(f"{tmp_path / 'own.py'}:load")
    assert str(tmp_path / "own.py") in str(caught.value.where)
    assert sys.path == before


def test_weights_for_what_is_no_module(own: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(OpenIliasError, match="nothing to load weights into"):
        load_model(find_model(f"{own}:plain"), Protocol(), weights=tmp_path / "w.safetensors")
    with pytest.raises(OpenIliasError, match="missing: layer"):
        load_model(find_model(f"{own}:load"), Protocol(), weights=tmp_path / "w.safetensors")


# --- the command line ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:nope", "no classification model 'nope'"),
        ("torchvision:fcn_resnet50", "no classification model"),
        ("torchvision:resnet50/nope", "there are: IMAGENET1K_V1, IMAGENET1K_V2"),
        ("torchvision:", "no classification model"),
        ("open_clip:nope/x", "open_clip has no model 'nope'"),
        ("open_clip:ViT-B-32/nope", "there are: openai"),
        ("open_clip:hf-hub:nobody/none", "could not be read"),
        ("open_clip:local-dir:/nope", "could not be read"),
        ("hf:/nope", "no such folder"),
        ("hf:./nope", "no such folder"),
        ("hf:nobody/none", "configuration of hf:nobody/none could not be read"),
        ("hf:", "could not be read"),
        ("nope.py:load", "cannot be read: No such file"),
        ("nope:load", "no model 'nope:load'"),
    ],
)
def test_unknown_names(ilias: Callable[..., Any], name: str, message: str) -> None:
    done = ilias("models", "show", name)
    assert done.code == 2
    assert done.out == ""
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_the_self_check_passes(ilias: Callable[..., Any], hf: Path, own: Path) -> None:
    for name in ("torchvision:resnet18", "open_clip:tiny-vit", "open_clip:tiny-rn", f"hf:{hf / 'clip'}", f"{own}:load"):
        done = ilias("models", "check", name, "--random-weights", 0, "--resolution", 96)
        assert done.code == 0, (name, done.out, done.err)
        assert done.err == ""


def test_weights_are_asked_for_offline(ilias: Callable[..., Any], tmp_path: Path) -> None:
    done = ilias("models", "check", "open_clip:ViT-B-32")
    assert done.code == 2
    assert "Give it with --weights FILE" in done.err
    done = ilias("models", "check", "torchvision:resnet18", "--weights", tmp_path / "none.pth")
    assert done.code == 2
    assert "no such weights file" in done.err
