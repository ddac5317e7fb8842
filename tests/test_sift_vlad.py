from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.data import Benchmark
from openilias.models.check import check_backbone
from openilias.models.fit import draw_items, fit
from openilias.models.sift_vlad import SiftVladSettings, load_sift_vlad, root_sift, vlad
from openilias.models.whitening import fit_whitening
from openilias.models.zoo import find_model, load_model

SMALL = SiftVladSettings(words=8, dims=512, resolution=160, keypoints=200)


@pytest.fixture(scope="module")
def fitted(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from openilias.data import read_ilias

    path = tmp_path_factory.mktemp("fit") / "m.safetensors"
    fit(read_ilias(tiny_root), "distractors", SMALL, path)
    return path


def test_root_sift_has_unit_norm_and_a_limit() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (120, 160), dtype=np.uint8)
    found = root_sift(grey, keypoints=50)
    assert found.shape[1] == 128
    assert 0 < len(found) <= 50
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-5
    assert root_sift(np.zeros((50, 50), np.uint8)).shape == (0, 128)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_vlad_equals_its_definition(power: float) -> None:
    rng = np.random.default_rng(1)
    words, found = rng.random((5, 16)).astype(np.float32), rng.random((40, 16)).astype(np.float32)
    sums = np.zeros((5, 16))
    for x in found:
        nearest = int(np.argmin([np.sum((x - w) ** 2) for w in words]))
        sums[nearest] += x - words[nearest]
    sums = np.array([row / np.linalg.norm(row) if row.any() else row for row in sums]).ravel()
    sums = np.sign(sums) * np.abs(sums) ** power
    assert np.abs(vlad(found, words, power=power) - sums / np.linalg.norm(sums)).max() < 1e-5
    assert not vlad(found[:0], words).any()


@pytest.mark.parametrize("shape", [(200, 12), (10, 30)])
def test_whitening_makes_the_covariance_the_identity(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    x = (rng.standard_normal(shape) @ rng.standard_normal((shape[1], shape[1]))).astype(np.float32)
    whitening = fit_whitening(x, dims=64)
    assert whitening.projection.shape[1] == min(64, shape[0] - 1, shape[1])
    y = whitening.apply(x)
    assert np.abs(y.T @ y / len(y) - np.eye(y.shape[1])).max() < 1e-3
    assert fit_whitening(x, dims=3).projection.shape[1] == 3
    rotated = fit_whitening(x, dims=64, power=0).projection
    assert np.abs(rotated.T @ rotated - np.eye(rotated.shape[1])).max() < 1e-5


def test_whitening_drops_axes_without_variance() -> None:
    x = np.random.default_rng(3).standard_normal((50, 4)).astype(np.float32)
    assert fit_whitening(np.concatenate([x, x], axis=1), dims=8).projection.shape[1] == 4


def test_fit_is_deterministic_and_kept(tiny: Benchmark, fitted: Path, tmp_path: Path) -> None:
    first, about = load_sift_vlad(fitted)
    assert about["partition"] == "distractors"
    assert first.whitening.projection.shape == (8 * 128, 13)
    again = fit(tiny, "distractors", SMALL, tmp_path / "n.safetensors", workers=1)
    assert again.digest == first.digest
    before = fitted.stat().st_mtime_ns
    fit(tiny, "distractors", SMALL, fitted)
    assert fitted.stat().st_mtime_ns == before
    with pytest.raises(OpenIliasError, match="something else"):
        fit(tiny, "positives", SMALL, fitted)
    assert fit(tiny, "positives", SMALL, tmp_path / "n.safetensors", overwrite=True).digest != first.digest


def test_every_setting_changes_the_model(tiny: Benchmark, fitted: Path, tmp_path: Path) -> None:
    digest = load_sift_vlad(fitted)[0].digest
    changes = {"words": 9, "dims": 5, "resolution": 140, "keypoints": 100, "contrast": 0.08, "power": 0.7}
    changes |= {"whitening": 0.25, "images": 9, "word_images": 4, "sample": 1000, "seed": 1}
    assert changes.keys() == set(SiftVladSettings.model_fields)
    for name, value in changes.items():
        changed = fit(tiny, "distractors", SMALL.model_copy(update={name: value}), tmp_path / f"{name}.safetensors")
        one, other = changed.whitening.projection, load_sift_vlad(fitted)[0].whitening.projection
        if name != "contrast":  # the strongest 200 keypoints are the same ones
            assert one.shape != other.shape or not np.array_equal(one, other), name
        assert changed.digest != digest


def test_the_fitted_model_is_a_model_like_any_other(fitted: Path) -> None:
    backbone = load_model(find_model("sift_vlad"), Protocol(), weights=fitted)
    assert backbone.protocol.resolution == 160
    lines = check_backbone(backbone)
    assert [line for line in lines if not line.passed] == []
    blank = backbone.encode_images(backbone.prepare(Image.new("RGB", (90, 60), "white"))[None])
    assert np.linalg.norm(blank) == pytest.approx(1)
    smaller = load_model(find_model("sift_vlad"), Protocol(resolution=100), weights=fitted)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8))
    assert not np.allclose(smaller.prepare(image), backbone.prepare(image))
    padded = load_model(find_model("sift_vlad"), Protocol(resize="pad"), weights=fitted)
    assert padded.prepare(image).shape == backbone.prepare(image).shape
    with pytest.raises(OpenIliasError, match="pooling"):
        load_model(find_model("sift_vlad"), Protocol(pooling="gem"), weights=fitted)


def test_a_damaged_file_is_noticed(fitted: Path, tmp_path: Path) -> None:
    data = bytearray(fitted.read_bytes())
    data[-1] ^= 1
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(OpenIliasError, match="digest differs"):
        load_sift_vlad(tmp_path / "m")
    (tmp_path / "m").write_bytes(data[:-100])
    with pytest.raises(OpenIliasError, match="cannot be read"):
        load_sift_vlad(tmp_path / "m")
    with pytest.raises(OpenIliasError, match="no such fitted"):
        load_sift_vlad(tmp_path / "none")


def test_too_few_images_are_refused(tiny: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(OpenIliasError, match="too few to learn"):
        fit(tiny, "distractors", SMALL.model_copy(update={"words": 4096}), tmp_path / "m")
    with pytest.raises(OpenIliasError, match="not on texts"):
        fit(tiny, "text_queries", SMALL, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_items_are_drawn_in_order_and_by_seed(tiny: Benchmark) -> None:
    whole = [item.id for item in draw_items(tiny, "distractors", 100, seed=0)]
    some = [item.id for item in draw_items(tiny, "distractors", 6, seed=0)]
    assert len(whole) == 14
    assert some == [item for item in whole if item in some]
    assert some != [item.id for item in draw_items(tiny, "distractors", 6, seed=1)]
