"""Every family of the zoo, from the picture to the unit descriptor, against the libraries themselves; every record on
PyTorch's meta device against what is recorded of it."""

from __future__ import annotations

import gc
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn

from openilias.core.protocol import Protocol
from openilias.images.boxes import Box as OurBox
from openilias.images.decode import decode
from openilias.models.measure import measure
from openilias.models.network import Network, TorchBackbone, pooled
from openilias.models.record import records
from openilias.models.spec import ModelSpec
from openilias.models.text_towers import measured
from openilias.models.zoo import load_model, outline
from plain_twin import Box, Twin

pytestmark = pytest.mark.usefixtures("quick_networks")

RECORDS = {record.name: record for record in records().values() if record.model.library != "sift_vlad"}
LARGE = 80_000_000  # transformers of more parameters are built with three blocks
RESOLUTION = {14: 118, 16: 131, 32: 250, None: 131}  # by patch; no multiple of any
# Where less becomes nothing on the way, or has no regions.
SIZES = {"inception_v4.tf_in1k": 231, "nasnetalarge.tf_in1k": 231, "superglobal_resnet50": 260}


def _smallest() -> list[str]:
    """Return a record of each family, and of each way in which its networks are built."""
    found: dict[object, str] = {}
    for record in sorted(RECORDS.values(), key=lambda record: record.parameters):
        model, network = record.model, re.match("[A-Za-z]+", record.kind)
        key = (record.family, network and network[0], model.positions, model.pooling, *model.arguments)
        found.setdefault(key, record.name)
    return list(found.values())


CASES = _smallest()


def spec_of(name: str) -> ModelSpec:
    record = RECORDS[name]
    if record.parameters < LARGE or record.patch is None:
        return record.model
    return record.model.model_copy(update={"arguments": record.model.arguments | {"depth": 3}})


@cache
def pictures() -> list[tuple[bytes, list[Box]]]:
    rng, found = np.random.default_rng(0), []
    for width, height in ((301, 203), (151, 290)):
        image = Image.fromarray(rng.integers(0, 256, (23, 17, 3), dtype=np.uint8))
        stream = io.BytesIO()
        image.resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
        found.append((stream.getvalue(), [(20, 31, 80, 60), (70, 60, width, 110)]))
    return found


@torch.no_grad()
def shake(module: nn.Module) -> None:
    """Give a fresh network numbers that all matter: as made, layer scales, biases, tokens and positions hardly do."""
    generator = torch.Generator().manual_seed(1)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if not value.is_floating_point() or value.numel() == 1:
            continue
        if name.endswith(("pos_embed", "positional_embedding", "_token", "latent")):
            value.copy_(0.5 * torch.randn(value.shape, generator=generator))
        elif name.endswith(("bias", "running_mean")):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        elif value.ndim == 1 and "rope" not in name:
            value.copy_(0.5 + 0.5 * torch.rand(value.shape, generator=generator))


def loaded(spec: ModelSpec, **protocol: Any) -> Network:
    gc.collect()  # large networks are gone before the next one is built
    backbone = load_model(spec, Protocol.model_validate(protocol), random_weights=0)
    assert isinstance(backbone, TorchBackbone)
    shake(backbone.network.module)
    return backbone.network


# --- the same networks by their libraries and their definitions ---


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Leave new networks without numbers: they get those of others, or none at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("timm.layers.weight_init._trunc_normal_", lambda tensor, *of: tensor)
        for fill in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "normal_", "trunc_normal_", "zeros_", "ones_"):
            patch.setattr(nn.init, fill, lambda tensor, *of, **more: tensor)
        patch.setattr(nn.init, "constant_", lambda tensor, *of, **more: tensor)
        yield


def filled(network: Any, state: dict[str, Tensor], prefix: str = "") -> Any:
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    network.load_state_dict(own, strict=True)
    return network.eval()


def placed(network: Any, how: str) -> None:
    """Set the positions of a timm transformer for the grid of each image, as the authors of the model do."""
    table, first = network.pos_embed.detach().clone(), 0 if network.no_embed_class else network.num_prefix_tokens
    side, patch = round((table.shape[1] - first) ** 0.5), network.patch_embed.patch_size[0]
    square = table[:, first:].reshape(1, side, side, -1).permute(0, 3, 1, 2)

    def put(_: nn.Module, images: tuple[Tensor]) -> None:
        h, w = (length // patch for length in images[0].shape[2:])
        if how == "offset":  # DINO, DINOv2
            grid = F.interpolate(square, scale_factor=((h + 0.1) / side, (w + 0.1) / side), mode="bicubic")
        else:
            grid = F.interpolate(square, (h, w), mode="bicubic", antialias=how == "antialiased")
        network.set_input_size(tuple(images[0].shape[2:]))
        network.pos_embed.data = torch.cat([table[:, :first], grid.flatten(2).mT], 1)

    network.patch_embed.register_forward_pre_hook(put)


def timm_twin(name: str, spec: ModelSpec, state: dict[str, Tensor], official: bool) -> Twin:
    patch, arguments = RECORDS[name].patch, dict(spec.arguments)
    if not spec.projection:
        arguments["num_classes"] = 0
    if spec.quick_gelu and not official:
        arguments["act_layer"] = "quick_gelu"
    if patch is not None and spec.positions == "library":
        arguments["dynamic_img_size"] = True
    network = filled(timm.create_model(spec.architecture, **arguments), state)
    if spec.positions != "library":
        placed(network, spec.positions)
    before = getattr(network, "num_prefix_tokens", 0)

    def maps(x: Tensor) -> tuple[Tensor, Tensor | None]:
        out = network.forward_features(x)
        if patch is None:
            return out, None
        grid = out[:, before:].mT.reshape(1, -1, x.shape[2] // patch, x.shape[3] // patch)
        return grid, out[:, :before] if before else None

    return Twin(network, maps, spec.mean, spec.std, patch or 1, tokens=patch is not None)


def torchvision_twin(name: str, spec: ModelSpec, state: dict[str, Tensor], official: bool) -> Twin:
    network = torchvision.models.get_model(spec.architecture)
    network.classifier[-1] = nn.Identity()
    filled(network, state)
    return Twin(network, lambda x: (network.features(x), None), spec.mean, spec.std)


def open_clip_twin(name: str, spec: ModelSpec, state: dict[str, Tensor], official: bool) -> Twin:
    """A CLIP ResNet; the table of its attention pool is set for each map."""
    network = filled(open_clip.create_model(spec.architecture), state)  # its activation concerns texts only
    pool = network.visual.attnpool
    table = pool.positional_embedding.detach().clone()
    square = table[1:].T.reshape(1, -1, 7, 7)

    def put(_: nn.Module, maps: tuple[Tensor]) -> None:
        grid = F.interpolate(square, maps[0].shape[2:], mode="bicubic")
        pool.positional_embedding.data = torch.cat([table[:1], grid[0].flatten(1).T])

    pool.register_forward_pre_hook(put)
    return Twin(network.encode_image, lambda x: (x, None), spec.mean, spec.std)


def gem_twin(name: str, spec: ModelSpec, state: dict[str, Tensor], official: bool) -> Twin:
    net = filled(timm.create_model(spec.arguments["trunk"], num_classes=0, global_pool=""), state, "trunk.")
    superglobal = spec.name.startswith("superglobal")
    raised = superglobal or (official and spec.name.startswith("cvnet"))
    relu, lifted = partial(torch.clamp, min=0.0), partial(torch.clamp, min=0.014 if raised else 0.0)

    def head(x: Tensor) -> Tensor:
        x = net.maxpool(relu(net.bn1(net.conv1(x))))
        for number in (1, 2, 3, 4):
            for block in getattr(net, f"layer{number}"):
                inside, after = lifted if number == 1 else relu, lifted if number < 4 else relu
                y = inside(block.bn2(block.conv2(inside(block.bn1(block.conv1(x))))))
                y = block.bn3(block.conv3(y))
                x = after(y + (x if block.downsample is None else block.downsample(x)))
        if superglobal and min(x.shape[2:]) >= 5:
            parts = F.pad(x, (2, 2, 2, 2), mode="reflect").unfold(2, 5, 1).unfold(3, 5, 1)
            x = (x + (parts**2.5).mean((4, 5)) ** (1 / 2.5)) / 2
        power = 4.4 if superglobal else float(state["p"])
        x = (x.clamp(min=1e-8 if superglobal else 1e-6) ** power).mean((2, 3)) ** (1 / power)
        if superglobal:
            x = F.normalize(x)
        if "norm.weight" in state:
            x = F.layer_norm(x, x.shape[1:], state["norm.weight"], state["norm.bias"])
        return F.linear(x, state["fc.weight"], state["fc.bias"])

    return Twin(head, lambda x: (x, None), spec.mean, spec.std)


def headed_twin(name: str, spec: ModelSpec, state: dict[str, Tensor], official: bool) -> Twin:
    trunk = {key.removeprefix("trunk."): value for key, value in state.items() if key.startswith("trunk.")}
    arguments = {key: value for key, value in spec.arguments.items() if key == "depth"}
    inner = spec.model_copy(update={"architecture": spec.arguments["trunk"], "arguments": arguments})
    twin = timm_twin(name, inner, trunk, official)

    def head(x: Tensor) -> Tensor:
        x = twin.head(x)
        x = F.layer_norm(x, x.shape[1:], state.get("norm.weight"), state.get("norm.bias"))
        return F.linear(x, state["fc.weight"], state["fc.bias"])

    return replace(twin, head=head)


def unicom_twin(name: str, spec: ModelSpec, state: dict[str, Tensor], official: bool) -> Twin:
    size, wanted = spec.arguments["side"], spec.arguments
    net = timm.models.VisionTransformer(
        size, wanted["patch"], num_classes=0, global_pool="", embed_dim=wanted["width"], depth=wanted["depth"],
        num_heads=wanted["heads"], qkv_bias=False, class_token=False, act_layer=nn.ReLU6,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    )  # fmt: skip
    placed(filled(net, state, "trunk."), "bicubic")

    def head(x: Tensor) -> Tensor:
        h, w = x.shape[2] // wanted["patch"], x.shape[3] // wanted["patch"]
        grid = net.forward_features(x).mT.reshape(1, -1, h, w)
        x = F.adaptive_avg_pool2d(grid, size // wanted["patch"]).permute(0, 2, 3, 1).flatten(1)
        for linear, norm in ((0, 1), (2, 3)):
            x = F.linear(x, state[f"feature.{linear}.weight"])
            of = [state[f"feature.{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
            x = F.batch_norm(x, *of, eps=2e-5)
        return x

    return Twin(head, lambda x: (x, None), spec.mean, spec.std, wanted["patch"])


BUILD: dict[str, Any] = {"timm": timm_twin, "torchvision": torchvision_twin, "open_clip": open_clip_twin}
BUILD |= {"gem_resnet": gem_twin, "unicom": unicom_twin, "headed_transformer": headed_twin}


def twin_of(name: str, network: Network, *, official: bool = False) -> Twin:
    spec = spec_of(name)
    with nothing_drawn():
        return BUILD.get(spec.library, BUILD.get(spec.architecture))(name, spec, network.module.state_dict(), official)


# --- the whole way ---


def described(name: str, network: Network, options: dict[str, Any]) -> list[np.ndarray]:
    named = {"query_boxes" if key == "positive_boxes" else key: value for key, value in options.items()}
    backbone = TorchBackbone(spec_of(name), Protocol.model_validate(named), network, weights_from="random")
    prepare, found = backbone.preparation("image_queries"), []
    for data, boxes in pictures():
        batch = prepare(decode(data, where="x"), tuple(OurBox(*box) for box in boxes))[None]
        found.append(backbone.encode_images(batch, "image_queries")[0])
    return found


def off(name: str, network: Network, twin: Twin, options: dict[str, Any], *, compat: str = "paper") -> float:
    """How far the package, as the official code or not, is from the twin."""
    defaults = {"resolution": SIZES.get(name, RESOLUTION[RECORDS[name].patch]), "pooling": spec_of(name).pooling}
    options = defaults | options
    ours = described(name, network, options | {"compat": compat})
    theirs = [twin.describe(data, boxes, options) for data, boxes in pictures()]
    assert len(ours[0]) == RECORDS[name].dims or options["pooling"] != defaults["pooling"]
    return float(np.abs(np.array(ours) - np.array(theirs)).max())


OPTIONS: list[dict[str, Any]] = [{"positive_boxes": use} for use in ("mask", "crop", "mask+crop")]
OPTIONS += [{"pooling": "gem"}, {"scales": (0.707, 1.0, 1.414), "rotations": (0, 90, 180, 270)}]
CHEAP = "dinov2_vits14_reg", "vit_pe_core_tiny_patch16_384.fb", "tf_efficientnet_lite0.features"
CHEAP += "dinov2_vits14", "vit_small_patch16_dinov3.lvd1689m"


@pytest.mark.parametrize("name", CASES)
def test_every_family_equals_its_library(name: str) -> None:
    network = loaded(spec_of(name))
    twin = twin_of(name, network)
    for some in ({}, *OPTIONS[: 5 if name in CHEAP[:3] else 4 if name in CHEAP else 0]):
        assert off(name, network, twin, some) < 1e-5, some


def test_the_cases_are_all_families() -> None:
    assert {RECORDS[name].family for name in CASES} == {record.family for record in RECORDS.values()}
    assert {spec_of(name).positions for name in CASES} == {"library", "offset", "antialiased"}
    assert set(CHEAP) <= set(CASES)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_base_patch16_clip_224.openai", {}),  # GELU
        ("cvnet_resnet50", {}),  # the floor of SuperGlobal
        ("convnext_tiny.dinov3_lvd1689m", {"pooling": "gem"}),  # the sign
        ("dinov2_vits14_reg", {"pooling": "gem"}),  # registers are pooled
        ("vit_base_patch14_reg1_tipsv2.webli", {"pooling": "gap"}),
        ("dinov2_vits14", {"positive_boxes": "mask+crop", "rotations": (0, 90)}),
    ],
)
def test_the_official_code_errs_as_described(name: str, options: dict[str, Any]) -> None:
    network = loaded(spec_of(name), compat="official")
    theirs = options | {"compat": "official"}
    assert off(name, network, twin_of(name, network, official=True), theirs, compat="official") < 1e-5
    assert off(name, network, twin_of(name, network), options, compat="official") > 2e-4


@pytest.mark.parametrize("name", ["dinov2_vits14_reg", "vit_base_patch16_clip_224.openai"])
@pytest.mark.parametrize("compat", ["paper", "official"])
def test_names_say_nothing(name: str, compat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions, patch, tokens beside the grid and activation come from the network and its record."""
    misleading, spec, vectors = "vit_patch99_quickgelu_reg4", spec_of(name), []
    entries = timm.models._registry._model_entrypoints
    build = entries[spec.architecture.partition(".")[0]]
    monkeypatch.setitem(entries, misleading, lambda pretrained_cfg=None, **arguments: build(**arguments))
    change: dict[str, Any] = dict.fromkeys(("name", "architecture", "source"), misleading) | {"layout": None}
    if spec.projection:
        change["arguments"] = spec.arguments | {"num_classes": RECORDS[name].dims}
    for one in (spec, spec.model_copy(update=change)):
        network = loaded(one, compat=compat)
        protocol = Protocol.model_validate({"resolution": 118, "pooling": "gap", "compat": compat})
        image = decode(pictures()[1][0], where="x")
        for bound in (protocol, protocol.model_copy(update={"pooling": "head"})):
            backbone = TorchBackbone(one, bound, network, weights_from="random")
            vectors.append(backbone.encode_images(backbone.prepare(image)[None]).tobytes())
    assert vectors[:2] == vectors[2:]
    assert vectors[0] != vectors[1]


# --- what is recorded ---


of_texts = cache(partial(measured, model=RECORDS["vit_base_patch16_clip_224.openai"].model))


@torch.no_grad()
@nothing_drawn()
@pytest.mark.parametrize("name", RECORDS)
def test_records_tell_the_truth(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record, model, made = RECORDS[name], RECORDS[name].model, []
    monkeypatch.setattr("openilias.models.measure.outline", lambda *of: made.append(outline(*of)) or made[0])
    if list(RECORDS).index(name) % 8 == 0 or model.library == "open_clip":
        found = measure(model)
        assert found.gflops == pytest.approx(record.gflops, abs=0.06)
        dims, parameters, texts = found.dims, found.parameters, (found.text_dims, found.text_parameters, found.context)
    else:  # the same, without counting
        made.append(outline(model, Protocol()))
        side = 8 * made[0].multiple[0] if record.patch else 224
        parameters = sum(parameter.numel() for parameter in made[0].module.eval().parameters())
        trunk = getattr(made[0].module, "trunk", made[0].module)
        if hasattr(trunk, "patch_embed"):
            trunk.blocks = trunk.blocks[:1]  # the others have the same width
        images = torch.empty(1, 3, side, side, device="meta")
        dims = pooled(made[0], model.resolve(Protocol()), images, name=name).shape[1]
        texts = (None, None, None) if model.text is None else of_texts(model.text)
    assert (dims, parameters) == (record.dims, record.parameters)
    assert texts == (record.dims if record.describes_texts else None, record.text_parameters, record.context)
    assert made[0].multiple == (record.patch or 1,) * 2
    assert descriptor_of(model, made[0].module) == record.descriptor
    if model.library == "timm" and record.patch is not None:
        assert made[0].module.patch_embed.patch_size == (record.patch, record.patch)


def descriptor_of(model: ModelSpec, module: Any) -> str:
    if model.pooling == "gem" or model.architecture == "gem_resnet":
        return "regional GeM of the last map" if model.arguments.get("regional") else "GeM of the last map"
    if model.library == "open_clip":
        return "attention pooling" if hasattr(module.visual, "attnpool") else ""
    if model.architecture == "unicom":
        return "all patch tokens through a head"
    module = getattr(module, "trunk", module)
    if hasattr(module, "patch_embed") and hasattr(module, "blocks"):
        assert not getattr(module, "pool_include_prefix", False)
        assert (module.attn_pool is not None) == (module.global_pool == "map")
        return {"token": "class token", "map": "attention pooling", "avg": "mean of patch tokens"}[module.global_pool]
    pool = module.global_pool if isinstance(getattr(module, "global_pool", ""), nn.Module) else module.head.global_pool
    return {"avg": "mean of the last map"}[pool.pool_type]


def test_records_agree_with_the_libraries() -> None:
    for record in RECORDS.values():
        model = record.model
        if model.library == "timm" and model.weights == "hub":
            config = timm.get_pretrained_cfg(model.architecture)
            assert (model.mean, model.std) == (config.mean, config.std), record.name
            sizes = {size[-1] for size in (config.input_size, config.test_input_size) if size}
            assert model.train_resolution in sizes, record.name
            assert any("natively QuickGELU" in note for note in config.notes or ()) <= model.quick_gelu, record.name
        if model.text is not None:
            config = open_clip.get_model_config(model.text.architecture)
            tag = open_clip.get_pretrained_cfg(model.text.architecture, model.text.tag)
            assert tag, record.name
            quick = bool(tag.get("quick_gelu") or config.get("quick_gelu"))
            assert (model.quick_gelu, model.text.quick_gelu) == (quick, quick), record.name
            size = config["vision_cfg"]["image_size"]
            assert (config["embed_dim"], size) == (record.dims, model.train_resolution), record.name
            for ours, theirs in ((model.mean, "mean"), (model.std, "std")):
                assert ours == pytest.approx(tag.get(theirs, ours)), record.name
