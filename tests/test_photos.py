"""Real photographs and real weights, where there are some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openilias.core.protocol import Protocol
from openilias.data import read_ilias
from openilias.experiments.experiment import Experiment, FitStep
from openilias.experiments.run import run_experiment
from openilias.images.decode import decode
from openilias.models.zoo import find_model, load_model

MOBILENET = "mobilenetv2_100.tf_in1k"


def test_the_photographs_are_read_whole(photos: Path) -> None:
    benchmark = read_ilias(photos)
    assert len(benchmark.image_queries) == len(benchmark.relevance) == 52
    assert len(benchmark.positives) == 212
    assert sum(len(shard.items()) for shard in benchmark.distractor_shards) == 633
    assert all(0 < (a.coverage or 0) <= 1 for a in benchmark.attributes.values())
    assert all(benchmark.taxonomy.coarse(name) for name in benchmark.relevance)


@pytest.fixture
def part(photos: Path, tmp_path: Path) -> Path:
    """Every second object and every sixth distractor."""
    folder = tmp_path / "part"
    for name, step in (("core", 2), ("distractors", 6)):
        (folder / name).mkdir(parents=True)
        for path in sorted((photos / name).iterdir())[::step]:
            (folder / name / path.name).symlink_to(path)
    (folder / "taxonomy.json").symlink_to(photos / "taxonomy.json")
    return folder


def test_sift_vlad_is_as_good_as_simple_matching(part: Path, tmp_path: Path) -> None:
    """43.8 when this was written. Of all photographs, in full size, 44.1; a plain RootSIFT-VLAD reaches about 41."""
    experiment = Experiment(
        benchmark=part,
        model="sift_vlad",
        fit=FitStep(resolution=320, sample=20_000),
        protocol=Protocol(resolution=320),
        out=tmp_path / "run",
    )
    result = run_experiment(experiment)
    assert result.evaluation.map == pytest.approx(0.438, abs=0.02)
    assert result.evaluation.oracle == pytest.approx(1)


def test_pretrained_mobilenet(part: Path, weights: Path, tmp_path: Path) -> None:
    """Of all photographs 69.5."""
    experiment = Experiment(
        benchmark=part,
        model=MOBILENET,
        weights=weights / "mobilenetv2_100_tf_in1k.safetensors",
        protocol=Protocol(resolution=384, resize="pad"),
        out=tmp_path / "run",
    )
    assert run_experiment(experiment).evaluation.map == pytest.approx(0.760, abs=0.004)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (MOBILENET, "mobilenetv2_100_tf_in1k.safetensors"),
        ("tf_efficientnet_lite0.features", "tf_efficientnet_lite0_features.safetensors"),
    ],
)
def test_pretrained_networks_equal_a_plain_twin(photos: Path, weights: Path, name: str, file: str) -> None:
    import timm
    import torch
    from PIL import Image, ImageOps
    from safetensors.torch import load_file

    spec = find_model(name)
    backbone = load_model(spec, Protocol(resolution=224), weights=weights / file)
    network = timm.create_model(spec.architecture, pretrained=False, num_classes=0, **spec.arguments)
    network.load_state_dict({k: v.float() for k, v in load_file(weights / file).items()}, strict=False)
    network.eval()
    benchmark = read_ilias(photos)
    for item in benchmark.positives[:3] + benchmark.image_queries[:3]:
        with Image.open(benchmark.path_of(item)) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        width, height = image.size
        long = 224 / max(width, height)
        size = (224, int(224 * height / width)) if width >= height else (int(224 * width / height), 224)
        assert abs(size[0] - width * long) <= 1
        pixels = torch.from_numpy(np.asarray(image.resize(size, Image.Resampling.BICUBIC)).copy())
        x = (pixels.permute(2, 0, 1).float() / 255 - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[
            :, None, None
        ]
        with torch.no_grad():
            maps = network.forward_features(x[None])[0].double()
        low = maps.amin((1, 2)).clamp(max=0)
        vector = (maps - low[:, None, None]).clamp(min=1e-6).pow(3).mean((1, 2)).pow(1 / 3) + low
        twin = (vector / vector.norm()).numpy()
        found = backbone.encode_images(backbone.prepare(decode(benchmark.path_of(item).read_bytes(), where=item))[None])
        assert np.abs(found[0] - twin).max() < 1e-5
