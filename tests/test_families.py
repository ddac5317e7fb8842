"""Every family of the zoo, from the picture to the unit descriptor, against the libraries themselves; every record on
PyTorch's meta device against what is recorded of it."""

from __future__ import annotations

import gc
import io
import re
from collections.abc import Callable, Iterator
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
from openilias.models.network import Network, TorchBackbone
from openilias.models.record import Record, records
from openilias.models.spec import ModelSpec
from openilias.models.text_towers import measured
from openilias.models.zoo import load_model, outline
from plain_twin import Box, Twin, around

RECORDS = {record.name: record for record in records().values() if record.model.library != "sift_vlad"}
LARGE = 150_000_000  # such transformers are built with two blocks
RESOLUTION = {14: 118, 16: 131, 32: 250, None: 131}  # by patch; no multiple of any


def _kind(record: Record) -> tuple[object, ...]:
    """Records of one kind are built alike: one of them stands for all."""
    model = record.model
    network = re.match("[A-Za-z]+", record.kind)
    return record.family, network and network[0], model.positions, model.pooling, tuple(model.arguments)


def _smallest() -> list[str]:
    found: dict[tuple[object, ...], Record] = {}
    for record in sorted(RECORDS.values(), key=lambda record: record.parameters):
        found.setdefault(_kind(record), record)
    return [record.name for record in found.values()]


CASES = _smallest()


def spec_of(name: str) -> ModelSpec:
    record = RECORDS[name]
    if record.parameters < LARGE or record.patch is None:
        return record.model
    return record.model.model_copy(update={"arguments": record.model.arguments | {"depth": 2}})


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
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith(("pos_embed", "positional_embedding", "_token", "latent")):
            value.copy_(0.5 * noise)
        elif name.endswith(("bias", "running_mean")):
            value.copy_(0.1 * noise)
        elif value.ndim == 1 and "rope" not in name:
            value.copy_(0.5 + 0.5 * torch.rand(value.shape, generator=generator))


@pytest.fixture(autouse=True)
def lean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """None needs the digest of its weights, and large networks are gone before the next one is built."""
    monkeypatch.setattr("openilias.models.network.digest_state", lambda state: "none")
    yield
    gc.collect()


def loaded(spec: ModelSpec, **protocol: Any) -> Network:
    backbone = load_model(spec, Protocol.model_validate(protocol), random_weights=0)
    assert isinstance(backbone, TorchBackbone)
    shake(backbone.network.module)
    return backbone.network


# --- the same networks by their libraries and their definitions ---


def filled(network: Any, state: dict[str, Tensor], prefix: str = "") -> Any:
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    network.load_state_dict(own, strict=True)
    return network.eval()


def placed(network: Any, how: str) -> Callable[[Tensor], None]:
    """Sets the positions of a timm transformer for the grid of an image, as the authors of the model do."""
    table, first = network.pos_embed.detach().clone(), 0 if network.no_embed_class else network.num_prefix_tokens
    side = round((table.shape[1] - first) ** 0.5)
    square = table[:, first:].reshape(1, side, side, -1).permute(0, 3, 1, 2)

    def put(x: Tensor) -> None:
        patch = network.patch_embed.patch_size[0]
        h, w = x.shape[2] // patch, x.shape[3] // patch
        if how == "offset":  # DINO, DINOv2
            grid = F.interpolate(square, scale_factor=((h + 0.1) / side, (w + 0.1) / side), mode="bicubic")
        else:
            grid = F.interpolate(square, (h, w), mode="bicubic", antialias=how == "antialiased")
        assert grid.shape[2:] == (h, w)
        network.set_input_size(tuple(x.shape[2:]))
        network.pos_embed.data = torch.cat([table[:, :first], grid.flatten(2).mT], 1)

    return put


def timm_twin(name: str, spec: ModelSpec, state: dict[str, Tensor], official: bool) -> Twin:
    patch, arguments = RECORDS[name].patch, dict(spec.arguments)
    if not spec.projection:
        arguments["num_classes"] = 0
    if spec.quick_gelu and not official:
        arguments["act_layer"] = "quick_gelu"
    if patch is not None and spec.positions == "library":
        arguments["dynamic_img_size"] = True
    network = filled(timm.create_model(spec.architecture, **arguments), state)
    put = (lambda x: None) if spec.positions == "library" else placed(network, spec.positions)
    before = {  # class token and registers
        "vit_small_patch16_dinov3.lvd1689m": 5, "dinov2_vits14_reg": 5, "dinov2_vits14": 1,
        "vit_pe_core_tiny_patch16_384.fb": 1, "vit_base_patch14_reg1_tipsv2.webli": 2,
    }.get(name, 0)  # fmt: skip

    def head(x: Tensor) -> Tensor:
        put(x)
        return network(x)

    def maps(x: Tensor) -> tuple[Tensor, Tensor | None]:
        put(x)
        out = network.forward_features(x)
        if patch is None:
            return out, None
        grid = out[:, before:].mT.reshape(1, -1, x.shape[2] // patch, x.shape[3] // patch)
        return grid, out[:, :before] if before else None

    return Twin(head, maps, spec.mean, spec.std, patch or 1, tokens=patch is not None)


def torchvision_twin(name: str, spec: ModelSpec, state: dict[str, Tensor], official: bool) -> Twin:
    network = torchvision.models.get_model(spec.architecture)
    network.classifier[-1] = nn.Identity()
    filled(network, state)
    return Twin(network, lambda x: (network.features(x), None), spec.mean, spec.std)


def open_clip_twin(name: str, spec: ModelSpec, state: dict[str, Tensor], official: bool) -> Twin:
    """A CLIP ResNet; the table of its attention pool is set for each map."""
    quick = spec.quick_gelu and not official
    network = filled(open_clip.create_model(spec.architecture, force_quick_gelu=quick), state)
    visual, seen = network.visual, []
    visual.layer4.register_forward_hook(lambda layer, given, out: seen.append(out))
    pool = visual.attnpool
    table = pool.positional_embedding.detach().clone()
    square = table[1:].T.reshape(1, -1, 7, 7)
    pool.register_forward_pre_hook(
        lambda layer, given: setattr(
            pool.positional_embedding,
            "data",
            torch.cat([table[:1], F.interpolate(square, given[0].shape[2:], mode="bicubic")[0].flatten(1).T]),
        )
    )

    def maps(x: Tensor) -> tuple[Tensor, None]:
        network.encode_image(x)
        return seen[-1], None

    return Twin(network.encode_image, maps, spec.mean, spec.std)


def own_twin(name: str, spec: ModelSpec, state: dict[str, Tensor], official: bool) -> Twin:
    build = {"gem_resnet": _gem_resnet, "unicom": _unicom, "headed_transformer": _headed}[spec.architecture]
    head, patch = build(spec, state, official)

    def maps(x: Tensor) -> tuple[Tensor, None]:
        raise NotImplementedError

    return Twin(head, maps, spec.mean, spec.std, patch)


def _gem_resnet(spec: ModelSpec, state: dict[str, Tensor], official: bool) -> tuple[Callable[[Tensor], Tensor], int]:
    net = filled(timm.create_model(spec.arguments["trunk"], num_classes=0, global_pool=""), state, "trunk.")
    superglobal = spec.name.startswith("superglobal")
    floor = 0.014 if superglobal or (official and spec.name.startswith("cvnet")) else 0.0
    relu = partial(torch.clamp, min=0.0)
    lifted = partial(torch.clamp, min=floor)

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
            x = x / x.norm(dim=1, keepdim=True)
        if "norm.weight" in state:
            x = F.layer_norm(x, x.shape[1:], state["norm.weight"], state["norm.bias"])
        return F.linear(x, state["fc.weight"], state["fc.bias"])

    return head, 1


def _headed(spec: ModelSpec, state: dict[str, Tensor], official: bool) -> tuple[Callable[[Tensor], Tensor], int]:
    net = timm.create_model(spec.arguments["trunk"], num_classes=0, dynamic_img_size=spec.positions == "library")
    filled(net, state, "trunk.")
    put = (lambda x: None) if spec.positions == "library" else placed(net, spec.positions)

    def head(x: Tensor) -> Tensor:
        put(x)
        x = net(x)
        x = F.layer_norm(x, x.shape[1:], state.get("norm.weight"), state.get("norm.bias"))
        return F.linear(x, state["fc.weight"], state["fc.bias"])

    return head, 16


def _unicom(spec: ModelSpec, state: dict[str, Tensor], official: bool) -> tuple[Callable[[Tensor], Tensor], int]:
    size, wanted = spec.arguments["side"], spec.arguments
    net = timm.models.VisionTransformer(
        size, wanted["patch"], num_classes=0, global_pool="", embed_dim=wanted["width"], depth=wanted["depth"],
        num_heads=wanted["heads"], qkv_bias=False, class_token=False, act_layer=nn.ReLU6,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    )  # fmt: skip
    put = placed(filled(net, state, "trunk."), "bicubic")

    def head(x: Tensor) -> Tensor:
        put(x)
        h, w = x.shape[2] // wanted["patch"], x.shape[3] // wanted["patch"]
        grid = net.forward_features(x).mT.reshape(1, -1, h, w)
        x = F.adaptive_avg_pool2d(grid, size // wanted["patch"]).permute(0, 2, 3, 1).flatten(1)
        for linear, norm in ((0, 1), (2, 3)):
            x = F.linear(x, state[f"feature.{linear}.weight"])
            of = [state[f"feature.{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
            x = F.batch_norm(x, *of, eps=2e-5)
        return x

    return head, wanted["patch"]


BUILD = {"timm": timm_twin, "torchvision": torchvision_twin, "open_clip": open_clip_twin, "own": own_twin}

# --- the whole way ---


def compare(name: str, network: Network, twin: Twin, **options: Any) -> None:
    spec = spec_of(name)
    options = {"resolution": RESOLUTION[RECORDS[name].patch], "pooling": spec.pooling} | options
    protocol = Protocol.model_validate({key: value for key, value in options.items() if key != "positive_boxes"})
    protocol = protocol.model_copy(update={"query_boxes": options.get("positive_boxes", "none")})
    backbone = TorchBackbone(spec, protocol, network, weights_from="random")
    prepare = backbone.preparation("image_queries")
    for data, boxes in pictures():
        batch = prepare(decode(data, where="x"), tuple(OurBox(*box) for box in boxes))[None]
        found = backbone.encode_images(batch, "image_queries")[0]
        expected = twin.describe(data, boxes, options)
        assert found.shape == expected.shape == ((RECORDS[name].dims,) if options["pooling"] == spec.pooling else found.shape)
        assert np.abs(found - expected).max() < 1e-5, options


OPTIONS: dict[str, dict[str, Any]] = {
    "views": {"scales": (0.707, 1.0, 1.414), "rotations": (0, 90, 180, 270)},
    "mask": {"positive_boxes": "mask"},
    "crop": {"positive_boxes": "crop"},
    "mask+crop": {"positive_boxes": "mask+crop"},
    "gem": {"pooling": "gem"},
}
CHEAP = (
    "dinov2_vits14_reg", "dinov2_vits14", "vit_small_patch16_dinov3.lvd1689m", "vit_pe_core_tiny_patch16_384.fb",
    "tf_efficientnet_lite0.features", "fastvit_mci0.apple_mclip2_dfndr2b", "dino_resnet50",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_family_equals_its_library(name: str) -> None:
    spec = spec_of(name)
    network = loaded(spec)
    twin = BUILD[spec.library](name, spec, network.module.state_dict(), False)
    compare(name, network, twin)
    for options in OPTIONS.values() if name in CHEAP else ():
        compare(name, network, twin, **options)


def test_the_cases_are_all_families() -> None:
    assert {RECORDS[name].family for name in CASES} == {record.family for record in RECORDS.values()}
    assert set(CHEAP) <= set(CASES)
    assert {spec_of(name).positions for name in CASES} == {"library", "offset", "antialiased"}
    assert {spec_of(name).library for name in CASES} == {"timm", "torchvision", "open_clip", "own"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_base_patch16_clip_224.openai", {}),  # GELU
        ("RN50.openai", {}),
        ("cvnet_resnet50", {}),  # the floor of SuperGlobal
        ("dinov2_vits14_reg", {"pooling": "gem"}),  # sign; registers are pooled
        ("vit_base_patch14_reg1_tipsv2.webli", {"pooling": "gem"}),
        ("convnext_tiny.dinov3_lvd1689m", {"pooling": "gem"}),
        ("dinov2_vits14", {"positive_boxes": "mask+crop", "rotations": (0, 90), "pooling": "gem"}),
    ],
)
def test_the_official_code_errs_as_described(name: str, options: dict[str, Any]) -> None:
    spec = spec_of(name)
    network = loaded(spec, compat="official")
    state = network.module.state_dict()
    compare(name, network, BUILD[spec.library](name, spec, state, True), compat="official", **options)
    with pytest.raises(AssertionError):  # it is not what the corrected code does
        compare(name, network, BUILD[spec.library](name, spec, state, False), **options, compat="official" if not options else "paper")
