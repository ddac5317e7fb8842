"""Backbones against independent plain twins, weights, poolings, the self-check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from openilias.core.errors import OpenIliasError
from openilias.core.ids import Partition
from openilias.core.protocol import Protocol
from openilias.models.backbone import Backbone, Prepare, View
from openilias.models.check import check_backbone
from openilias.models.devices import choose_device
from openilias.models.network import Network, TorchBackbone
from openilias.models.pooling import gem, pool
from openilias.models.spec import ModelSpec
from openilias.models.weights import digest_state, read_state
from openilias.models.zoo import find_model, load_model

pytestmark = pytest.mark.usefixtures("quick_networks")

VIT = "vit_tiny_patch16_224.augreg_in21k"
SIZES = [(500, 333), (333, 500), (97, 211), (224, 224)]


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def describe(backbone: Backbone, *images: Image.Image) -> np.ndarray:
    return np.concatenate([backbone.encode_images(backbone.prepare(image)[None]) for image in images])


# --- a plain vision transformer, written from its definition ---


def twin_pixels(image: Image.Image, resolution: int, mean: object, std: object) -> Tensor:
    width, height = image.size
    ratio = height / width
    size = (
        (resolution, max(1, int(resolution * ratio))) if ratio <= 1 else (max(1, int(resolution / ratio)), resolution)
    )
    pixels = torch.from_numpy(np.array(image.resize(size, Image.Resampling.BICUBIC))).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def twin_pad(x: Tensor, patch: int) -> Tensor:
    h, w = -x.shape[1] % patch, -x.shape[2] % patch
    return F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))


def twin_vit(state: dict[str, Tensor], x: Tensor, heads: int, patch: int) -> Tensor:
    """All tokens after the last norm, of a (3, H, W) image."""
    tokens = F.conv2d(x[None], state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    rows, columns = tokens.shape[2:]
    tokens = tokens.flatten(2).transpose(1, 2)
    place = state["pos_embed"]
    side = int((place.shape[1] - 1) ** 0.5)
    grid = place[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if (rows, columns) != (side, side):
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
    tokens = torch.cat([state["cls_token"] + place[:, :1], tokens + grid.flatten(2).transpose(1, 2)], 1)
    width = tokens.shape[-1]
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    for n in range(blocks):
        part = {name.removeprefix(f"blocks.{n}."): v for name, v in state.items() if name.startswith(f"blocks.{n}.")}
        y = F.layer_norm(tokens, (width,), part["norm1.weight"], part["norm1.bias"], 1e-6)
        q, k, v = (
            F.linear(y, part["attn.qkv.weight"], part["attn.qkv.bias"])
            .view(1, -1, 3, heads, width // heads)
            .permute(2, 0, 3, 1, 4)
        )
        attention = (q @ k.transpose(-1, -2) / (width // heads) ** 0.5).softmax(-1)
        y = (attention @ v).transpose(1, 2).reshape(1, -1, width)
        tokens = tokens + F.linear(y, part["attn.proj.weight"], part["attn.proj.bias"])
        y = F.layer_norm(tokens, (width,), part["norm2.weight"], part["norm2.bias"], 1e-6)
        y = F.gelu(F.linear(y, part["mlp.fc1.weight"], part["mlp.fc1.bias"]))
        tokens = tokens + F.linear(y, part["mlp.fc2.weight"], part["mlp.fc2.bias"])
    return F.layer_norm(tokens, (width,), state["norm.weight"], state["norm.bias"], 1e-6)[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pooling", ["head", "cls", "gap", "mac", "gem"])
def test_timm_vit_equals_a_plain_twin(size: tuple[int, int], pooling: str) -> None:
    backbone = load_model(find_model(VIT), Protocol(resolution=150, pooling=pooling), random_weights=3)
    state = backbone.network.module.state_dict()
    image = photo(*size)
    with torch.no_grad():
        pixels = twin_pad(twin_pixels(image, 150, backbone.spec.mean, backbone.spec.std), 16)
        tokens = twin_vit(state, pixels, heads=3, patch=16)
    if pooling in ("head", "cls"):
        vector = tokens[0]
    elif pooling == "gap":
        vector = tokens[1:].mean(0)
    elif pooling == "mac":
        vector = tokens[1:].max(0).values
    else:
        low = tokens[1:].min(0).values.clamp(max=0)
        vector = ((tokens[1:] - low).clamp(min=1e-6) ** 3).mean(0) ** (1 / 3) + low
    twin = (vector / vector.norm()).numpy()
    assert np.abs(describe(backbone, image)[0] - twin).max() < 1e-5


@pytest.mark.parametrize("resize", ["longest", "small", "center", "square", "pad"])
def test_preparation_equals_the_definition(resize: str) -> None:
    from torchvision import transforms

    image = photo(301, 200)
    backbone = load_model(find_model("resnet18"), Protocol(resolution=160, resize=resize), random_weights=0)
    normalise = [transforms.ToTensor(), transforms.Normalize(backbone.spec.mean, backbone.spec.std)]
    first = {
        "longest": [transforms.Lambda(lambda i: i.resize((160, 106)))],
        "small": [transforms.Resize(160)],
        "center": [transforms.Resize(160), transforms.CenterCrop(160)],
        "square": [transforms.Resize((160, 160))],
        "pad": [transforms.Lambda(lambda i: i.resize((160, 106)))],
    }[resize]
    twin = transforms.Compose([*first, *normalise])(image)
    if resize == "pad":
        twin = F.pad(twin, (0, 0, 27, 27))
    found = backbone._normalised(torch.from_numpy(backbone.prepare(image).copy())[None])[0].numpy()
    assert found.shape == twin.shape
    assert np.abs(found - twin.numpy()).max() < 1e-6


def test_cnn_equals_timm_itself() -> None:
    backbone = load_model(find_model("resnet18"), Protocol(resolution=120, pooling="gem"), random_weights=1)
    torch.manual_seed(1)
    network = timm.create_model("resnet18", pretrained=False, num_classes=0).eval()
    image = photo(301, 200)
    with torch.no_grad():
        maps = network.forward_features(twin_pixels(image, 120, backbone.spec.mean, backbone.spec.std)[None])
        vector = maps[0].clamp(min=1e-6).pow(3).mean((1, 2)).pow(1 / 3)
    assert np.abs(describe(backbone, image)[0] - F.normalize(vector, dim=0).numpy()).max() < 1e-5


def test_gem_official_repeats_the_sign_error_only_for_negative_maps() -> None:
    maps = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    low = maps.min(2, keepdim=True).values.clamp(max=0)
    official = (maps + low).clamp(min=1e-6).pow(3).mean(2).pow(1 / 3) - low[..., 0]
    assert torch.allclose(gem(maps, official=True), official, atol=1e-6)
    assert not torch.allclose(gem(maps), official, atol=1e-2)
    positive = maps.abs()
    assert torch.equal(gem(positive), gem(positive, official=True))
    assert torch.allclose(gem(maps + 100), gem(maps) * 0 + (maps + 100).pow(3).mean(2).pow(1 / 3), rtol=1e-5)
    square = maps.view(2, 5, 3, 4)
    assert torch.equal(pool(square, "gap"), maps.mean(2))
    assert torch.equal(pool(square, "mac"), maps.max(2).values)
    assert torch.equal(pool(square, "gem"), gem(maps))


def test_registers_are_pooled_only_by_the_official_code() -> None:
    spec = find_model("vit_small_patch14_reg4_dinov2.lvd142m")
    image = photo(64, 48)
    ours = load_model(spec, Protocol(resolution=56, pooling="gap"), random_weights=0)
    theirs = load_model(spec, Protocol(resolution=56, pooling="gap", compat="official"), random_weights=0)
    with torch.no_grad():
        pixels = twin_pad(twin_pixels(image, 56, spec.mean, spec.std), 14)
        tokens = ours.network.module.forward_features(pixels[None])[0]
    assert np.abs(describe(ours, image)[0] - F.normalize(tokens[5:].mean(0), dim=0).numpy()).max() < 1e-5
    assert np.abs(describe(theirs, image)[0] - F.normalize(tokens[1:].mean(0), dim=0).numpy()).max() < 1e-5


def test_clip_keeps_its_projection_and_its_activation() -> None:
    spec = find_model("vit_base_patch32_clip_224.openai")
    assert spec.projection
    assert spec.quick_gelu
    backbone = load_model(spec, Protocol(resolution=64), random_weights=0)
    assert backbone.dims == 512
    kinds = {type(module).__name__ for module in backbone.network.module.modules()}
    assert "QuickGELU" in kinds
    official = load_model(spec, Protocol(resolution=64, compat="official"), random_weights=0)
    assert "QuickGELU" not in {type(module).__name__ for module in official.network.module.modules()}
    assert not find_model("vit_base_patch16_clip_224.laion2b_ft_in1k").projection
    assert not find_model("resnet50.a1_in1k").projection


@pytest.mark.parametrize(
    ("train", "test"), [(224, 384), (288, 384), (299, 512), (384, 512), (448, 512), (512, 724), (518, 724)]
)
def test_resolution_rule(train: int, test: int) -> None:
    assert ModelSpec(name="x", library="timm", architecture="x", train_resolution=train).test_resolution == test


def test_every_option_of_the_protocol_changes_the_descriptor() -> None:
    image = photo(301, 200)
    spec = find_model(VIT)
    plain = describe(load_model(spec, Protocol(resolution=96), random_weights=0), image)
    changes = [{"resolution": 128}, {"resize": "square"}, {"resize": "pad"}, {"pooling": "gem"}, {"pooling": "mac"}]
    for change in changes:
        other = load_model(spec, Protocol.model_validate({"resolution": 96} | change), random_weights=0)
        assert np.abs(describe(other, image) - plain).max() > 1e-3, change
    seeded = load_model(spec, Protocol(resolution=96), random_weights=1)
    assert np.abs(describe(seeded, image) - plain).max() > 1e-3
    again = load_model(spec, Protocol(resolution=96), random_weights=0)
    assert (describe(again, image) == plain).all()


@pytest.mark.drawn
def test_weights_files(tmp_path: Path) -> None:
    network = timm.create_model("resnet18", pretrained=False, num_classes=10)
    state = network.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pth")
    spec, protocol = find_model("resnet18"), Protocol(resolution=64)
    first = load_model(spec, protocol, weights=tmp_path / "w.safetensors")
    second = load_model(spec, protocol, weights=tmp_path / "w.pth")
    assert first.weights_digest == second.weights_digest
    assert torch.equal(first.network.module.state_dict()["conv1.weight"], state["conv1.weight"])
    state["conv1.weight"] = state["conv1.weight"] + 1
    save_file(state, tmp_path / "v.safetensors")
    assert load_model(spec, protocol, weights=tmp_path / "v.safetensors").weights_digest != first.weights_digest


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    spec, protocol = find_model("resnet18"), Protocol(resolution=64)
    damage = {
        "1 missing: conv1.weight": {name: v for name, v in state.items() if name != "conv1.weight"},
        "1 left over: extra": state | {"extra": torch.zeros(1)},
        r"1 of another shape: bn1.weight \(3,\) instead of \(64,\)": state | {"bn1.weight": torch.zeros(3)},
    }
    for message, broken in damage.items():
        save_file(broken, tmp_path / "w.safetensors")
        with pytest.raises(OpenIliasError, match=message):
            load_model(spec, protocol, weights=tmp_path / "w.safetensors")
    for name, data in {"a.safetensors": b"junk", "b.pth": b"junk", "c.pth": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(OpenIliasError) as caught:
            read_state(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
    torch.save([1, 2], tmp_path / "d.pth")
    with pytest.raises(OpenIliasError, match="no state dict"):
        read_state(tmp_path / "d.pth")
    with pytest.raises(OpenIliasError, match="no such weights"):
        read_state(tmp_path / "none.pth")


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path(tmp_path / "hacked").touch, ())

    torch.save({"a": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(OpenIliasError, match="cannot be read"):
        read_state(tmp_path / "bomb.pth")
    assert not (tmp_path / "hacked").exists()


def test_digest_sees_names_types_shapes_and_values() -> None:
    a = torch.arange(4.0)
    digests = {
        digest_state(state)
        for state in ({"x": a}, {"y": a}, {"x": a.half()}, {"x": a.view(2, 2)}, {"x": a + 1}, {"x": torch.tensor(1.0)})
    }
    assert len(digests) == 6
    assert digest_state({"x": a, "b": a}) == digest_state({"b": a, "x": a})


def test_models_that_cannot_be_loaded_say_what_to_do() -> None:
    protocol = Protocol(resolution=64)
    with pytest.raises(OpenIliasError, match="no model 'nonsense'"):
        find_model("nonsense")
    with pytest.raises(OpenIliasError, match=r"no weights 'resnet18\.nonsense'; there are: a1_in1k"):
        find_model("timm:resnet18.nonsense")
    with pytest.raises(OpenIliasError, match="fitted first"):
        load_model(find_model("sift_vlad"), protocol)
    with pytest.raises(OpenIliasError, match="local file"):
        load_model(find_model("mobilenetv2_100.tf_in1k"), protocol)
    with pytest.raises(OpenIliasError, match="Both"):
        load_model(find_model("resnet18"), protocol, weights=Path("x"), random_weights=1)
    with pytest.raises(OpenIliasError, match="no class token"):
        load_model(find_model("resnet18"), Protocol(pooling="cls"), random_weights=0)
    with pytest.raises(OpenIliasError, match="no device"):
        choose_device("tpu")
    assert choose_device("auto") in ("cpu", "cuda", "mps")


def test_fixed_input_sizes_are_explained() -> None:
    backbone = load_model(find_model("mixer_s32_224"), Protocol(resolution=224), random_weights=0)
    with pytest.raises(OpenIliasError) as caught:
        describe(backbone, photo(300, 200))
    assert "--resize square" in str(caught.value.fix)


@pytest.mark.parametrize("name", [VIT, "resnet18", "swin_s3_tiny_224"])
def test_the_self_check_passes(name: str) -> None:
    lines = check_backbone(load_model(find_model(name), Protocol(resolution=96), random_weights=0))
    assert len(lines) == 25
    assert [line for line in lines if not line.passed] == []


class Broken(Backbone):
    """A backbone with one fault of choice."""

    def __init__(self, fault: str) -> None:
        self.spec = find_model("resnet18")
        self.protocol = self.spec.resolve(Protocol(resolution=32))
        self.dims, self.weights_digest, self.weights_from, self.fault, self.calls = 8, "x", "file", fault, 0

    def preparation(self, partition: Partition) -> Prepare:
        return lambda image, boxes: np.asarray(image.resize((8, 1)), np.float32)[0, :, 0]

    def describe(self, batch: np.ndarray, views: tuple[View, ...]) -> np.ndarray:
        self.calls += 1
        out = batch.copy()
        if self.fault == "batch":
            out = out - out.mean(0) / 2
        if self.fault == "random":
            out = out + self.calls
        if self.fault == "constant":
            out = np.ones_like(out)
        if self.fault == "nan":
            out[0, 0] = np.nan
        if self.fault == "shape":
            out = out[:, :4]
        return out


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("batch", "batch of one"),
        ("random", "deterministic"),
        ("constant", "tells apart"),
        ("nan", "runs"),
        ("shape", "runs"),
    ],
)
def test_the_self_check_finds_faults(fault: str, line: str) -> None:
    failed = [found.name for found in check_backbone(Broken(fault)) if not found.passed]
    assert any(name.endswith(line) for name in failed), failed


def test_a_sound_backbone_passes() -> None:
    assert all(line.passed for line in check_backbone(Broken("none")))
    with pytest.raises(OpenIliasError, match="no text tower"):
        Broken("none").encode_texts(["a cup"])


@pytest.mark.parametrize(
    ("size", "count"), [((11, 47), 44), ((47, 11), 44), ((9, 12), None), ((12, 12), None), ((1, 30), None)]
)
def test_regions_are_the_official_ones_at_ties_too(size: tuple[int, int], count: int | None) -> None:
    from openilias.models.pooling import regions
    from plain_twin import parts

    maps = torch.arange(float(size[0] * size[1])).reshape(1, 1, *size)
    ours = [maps[:, :, top : top + h, left : left + w] for top, left, h, w in regions(*size)]
    twins = parts(maps)
    assert len(ours) == len(twins)
    assert count is None or len(ours) == count
    assert all(torch.equal(one, other) for one, other in zip(ours, twins, strict=True))


def test_a_picture_may_shrink_to_nothing() -> None:
    from openilias.models.views import scale

    assert scale(torch.rand(1, 3, 1, 64), 0.707).shape == (1, 3, 1, 45)


@pytest.mark.parametrize(("name", "quick"), [
    ("vit_base_patch16_clip_224.openai", True), ("vit_base_patch16_clip_224.dfn2b", True),
    ("vit_base_patch16_clip_224.laion2b", False),
])  # fmt: skip
def test_quick_gelu_is_that_of_the_weights(name: str, quick: bool) -> None:
    assert find_model(f"timm:{name}").quick_gelu is quick


def test_defaults_of_names() -> None:
    assert find_model("timm:vgg16.tv_in1k").pooling == "gem"
    assert find_model("timm:resnet50.tv_in1k") == find_model("resnet50.tv_in1k")


@pytest.mark.parametrize("name", ["samvit_base_patch16", "swinv2_cr_tiny_224"])
def test_networks_with_patches_of_their_own_kind(name: str) -> None:
    from openilias.models.timm_adapter import patch_of

    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False, num_classes=0)
    assert patch_of(network) in ((16, 16), (1, 1))


def test_networks_that_fail_are_said_in_one_line() -> None:
    def head(images: Tensor) -> Tensor:
        return images.mean((2, 3)) if images.shape[2] == 224 else [images][1]

    spec = find_model("resnet18")
    failing = TorchBackbone(spec, Protocol(), Network(torch.nn.Module(), head=head), weights_from="file")
    with pytest.raises(OpenIliasError, match="cannot take 1 images of 100 x 90 pixels: list index out of range"):
        failing.encode_images(np.zeros((1, 100, 90, 3), np.uint8))
    with pytest.raises(OpenIliasError, match="cannot describe an image of 224 x 224 pixels"):
        TorchBackbone(spec, Protocol(), Network(torch.nn.Module(), head=lambda x: [x][1]), weights_from="file")
    assert load_model(find_model("timm:lambda_resnet26t"), Protocol(resolution=64), random_weights=0).dims == 2048
