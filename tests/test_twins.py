"""Every option of the protocol, for every kind of network, against the plain twin; on photographs where there are."""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor

from openilias.core.protocol import Protocol
from openilias.images.boxes import Box as OurBox
from openilias.images.decode import decode
from openilias.models.network import Network, TorchBackbone
from openilias.models.zoo import find_model, load_model
from plain_twin import Box, Twin

pytestmark = pytest.mark.usefixtures("quick_networks")

POOLINGS = ("head", "gap", "mac", "gem", "rmac", "rgem")
TURNS = (0, 90, 180, 270)
SCALES = (0.707, 1.0, 1.414)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    **{f"resize-{rule}": {"resize": rule} for rule in ("small", "center", "square", "pad")},
    "min-size": {"min_size": 110},
    "scales": {"scales": SCALES},
    "rotations": {"rotations": TURNS},
    "scales-rotations": {"scales": SCALES, "rotations": (0, 90)},
    "mask": {"positive_boxes": "mask"},
    "crop": {"positive_boxes": "crop"},
    "mask-crop": {"positive_boxes": "mask+crop"},
    "mask-center": {"positive_boxes": "mask", "resize": "center"},
    "mask-pad": {"positive_boxes": "mask", "resize": "pad"},
    "mask-min-size": {"positive_boxes": "mask+crop", "min_size": 150},
    "everything": {"positive_boxes": "mask+crop", "scales": SCALES, "rotations": TURNS, "min_size": 100},
}
OFFICIAL: dict[str, dict[str, Any]] = {
    f"official-{name}": OPTIONS[name] | {"compat": "official"}
    for name in ("plain", "rotations", "mask-crop", "mask-center", "mask-pad", "mask-min-size", "everything")
}


@cache
def pictures() -> list[tuple[bytes, list[Box]]]:
    """Landscape, portrait, odd and square pictures with boxes: of the photographs if there are some."""
    folder = os.environ.get("OPENILIAS_TEST_PHOTOS")
    if folder and Path(folder).is_dir():
        files = sorted(Path(folder).glob("*core/*/pos/*.jpg"))
        shapes = {}
        for path in files:
            with Image.open(path) as image:
                kind = (image.width > image.height) - (image.width < image.height), image.width % 2, image.height % 2
            shapes.setdefault(kind, path)
        found = []
        for path in list(shapes.values())[:3]:
            lines = path.with_name(f"{path.stem}_bbox.txt").read_text().splitlines()
            boxes = [tuple(int(word) for word in line.split()) for line in lines if line.strip()]
            found.append((path.read_bytes(), boxes))
        return found
    rng, found = np.random.default_rng(0), []
    for width, height in ((500, 333), (333, 501), (135, 211)):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
        stream = io.BytesIO()
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
        found.append((stream.getvalue(), [(10, 20, width // 2, height // 3), (width // 2, 5, width, 3 * height // 4)]))
    return found


def timm_twin(name: str, *, patch: int = 1, tokens: int = 0, **arguments: Any) -> Twin:
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, **arguments).eval()

    def maps(x: Tensor) -> tuple[Tensor, Tensor | None]:
        out = network.forward_features(x)
        if out.ndim == 4:
            return out, None
        grid = out[:, tokens:].mT.reshape(1, -1, x.shape[2] // patch, x.shape[3] // patch)
        return grid, out[:, :tokens] if tokens else None

    config = network.pretrained_cfg
    return Twin(network, maps, config["mean"], config["std"], patch, tokens=patch > 1)


def torchvision_twin(name: str) -> Twin:
    torch.manual_seed(0)
    network: Any = torchvision.models.get_model(name, weights=None).eval()

    def head(x: Tensor) -> Tensor:
        return network.classifier[:-1](network.avgpool(network.features(x)).flatten(1))

    return Twin(head, lambda x: (network.features(x), None), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


TWINS: dict[str, Any] = {
    "resnet18": lambda: timm_twin("resnet18", num_classes=0),
    "convnext_atto": lambda: timm_twin("convnext_atto", num_classes=0),
    "vit_tiny_patch16_224": lambda: timm_twin(
        "vit_tiny_patch16_224", patch=16, tokens=1, num_classes=0, dynamic_img_size=True
    ),
    "vit_base_patch32_clip_224.openai": lambda: timm_twin(
        "vit_base_patch32_clip_224.openai", patch=32, tokens=1, dynamic_img_size=True, act_layer="quick_gelu"
    ),
    "torchvision:alexnet": lambda: torchvision_twin("alexnet"),
}


@pytest.fixture(autouse=True)
def no_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks are shared by the tests, and none needs the digest of its weights."""
    monkeypatch.setattr("openilias.models.network.digest_state", lambda state: "none")


@cache
def twin_of(name: str) -> Twin:
    twin: Twin = TWINS[name]()
    return twin


@cache
def network_of(name: str, compat: str) -> Network:
    loaded = load_model(find_model(name), Protocol.model_validate({"compat": compat}), random_weights=0)
    assert isinstance(loaded, TorchBackbone)
    return loaded.network


def compare(name: str, options: dict[str, Any], *, twin: Twin | None = None) -> None:
    twin, network = twin or twin_of(name), network_of(name, options.get("compat", "paper"))
    backbone = TorchBackbone(find_model(name), Protocol.model_validate(options), network, weights_from="random")
    prepare = backbone.preparation("positives")
    for data, boxes in pictures():
        batch = prepare(decode(data, where="x"), tuple(OurBox(*box) for box in boxes))[None]
        found = backbone.encode_images(batch, "positives")[0]
        expected = twin.describe(data, boxes, options)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1e-5, (name, options)


# The large one goes the same ways as its small relative; CLIP has GELU in the official code: tests/test_models.py.
SOME = {"vit_base_patch32_clip_224.openai": ("plain", "everything")}


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name in TWINS for option in SOME.get(name, (*OPTIONS, *OFFICIAL))]
)
def test_every_option_equals_the_plain_twin(name: str, option: str) -> None:
    resolution = 160 if name.startswith("torchvision:") else 128  # their pooling layers need so much
    compare(name, (OPTIONS | OFFICIAL)[option] | {"resolution": resolution, "pooling": "gem"})


@pytest.mark.parametrize("compat", ["paper", "official"])
@pytest.mark.parametrize("pooling", [*POOLINGS, "cls"])
@pytest.mark.parametrize("name", TWINS)
def test_every_pooling_equals_the_plain_twin(name: str, pooling: str, compat: str) -> None:
    if pooling == "cls" and "vit" not in name:
        pytest.skip("no class token")
    if compat == "official" and "clip" in name:
        pytest.skip("with GELU instead of QuickGELU: tests/test_models.py")
    compare(name, {"resolution": 160, "pooling": pooling, "compat": compat})


@pytest.mark.parametrize("pooling", ["gap", "rmac"])
@pytest.mark.parametrize("compat", ["paper", "official"])
def test_register_tokens_are_pooled_only_by_the_official_code(pooling: str, compat: str) -> None:
    name = "vit_small_patch14_reg4_dinov2.lvd142m"
    twin = timm_twin(name, patch=14, tokens=5, num_classes=0, dynamic_img_size=True)
    compare(name, {"resolution": 100, "pooling": pooling, "compat": compat}, twin=twin)


@pytest.mark.parametrize("compat", ["paper", "official"])
def test_tokens_without_a_class_token(compat: str) -> None:
    name = "vit_base_patch32_siglip_gap_256"
    twin = timm_twin(name, patch=32, num_classes=0, dynamic_img_size=True)
    compare(name, {"resolution": 160, "pooling": "rmac", "compat": compat}, twin=twin)


def test_the_cut_corners_of_the_official_rotation_are_noticed() -> None:
    """The corrected rotation of an oblong image loses nothing: four turns are the same from every start."""
    model = load_model(
        find_model("resnet18"), Protocol(resolution=160, pooling="gap", rotations=TURNS), random_weights=0
    )
    image = decode(pictures()[0][0], where="x")
    first = model.encode_images(model.prepare(image)[None])
    turned = model.encode_images(np.rot90(model.prepare(image))[None])
    assert np.abs(first - turned).max() < 1e-5


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_a_lower_precision_is_near_and_not_the_same(precision: str) -> None:
    image = decode(pictures()[0][0], where="x")
    found = []
    for chosen in ("float32", precision):
        protocol = Protocol.model_validate({"resolution": 160, "pooling": "gem", "precision": chosen})
        model = load_model(find_model("vit_tiny_patch16_224"), protocol, random_weights=0)
        found.append(model.encode_images(model.prepare(image)[None])[0])
    assert 0.99 < float(found[0] @ found[1]) < 1 - 1e-7


def test_position_embeddings_are_interpolated_once_per_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm.models.vision_transformer as module

    calls = []
    original = module.resample_abs_pos_embed
    monkeypatch.setattr(
        module, "resample_abs_pos_embed", lambda *a, **k: (calls.append(k["new_size"]), original(*a, **k))[1]
    )
    model = load_model(find_model("vit_tiny_patch16_224"), Protocol(resolution=96), random_weights=0)
    calls.clear()
    batches = [np.zeros((2, *shape, 3), np.uint8) for shape in ((96, 64), (64, 96), (96, 64), (96, 63))]
    first = [model.encode_images(batch) for batch in batches]
    assert len(calls) == 2
    assert (first[0] == first[2]).all()
    assert np.isfinite(F.normalize(torch.from_numpy(first[3])).numpy()).all()
