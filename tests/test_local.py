"""Stores of local descriptors: written, opened, damaged, killed; and the models that make them."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ValidationError

from openilias.core.errors import OpenIliasError
from openilias.core.manifests import write_manifest
from openilias.core.shards import Share
from openilias.data import Benchmark, read_ilias
from openilias.descriptors import extract_local as extraction
from openilias.descriptors import local_ids, local_reading
from openilias.descriptors.extract import Options
from openilias.descriptors.extract_local import LocalOptions, extract_local, extract_local_share
from openilias.descriptors.local_official import read_ames_features
from openilias.descriptors.local_store import KIND, LocalStore, open_local_store
from openilias.descriptors.local_writing import write_local_shard
from openilias.models.local_backbone import LocalSettings
from openilias.models.local_features import LocalFeatures, ordered
from openilias.models.local_network import Detector, MapPreparation, read_detector
from openilias.models.local_sift import SiftPreparation
from openilias.models.local_zoo import load_local
from openilias.rerank.similarities import database_of_local

SETTINGS = LocalSettings(resolution=128, most=60)


def features(rng: np.random.Generator, count: int, dims: int = 16) -> LocalFeatures:
    values = rng.normal(size=(count, dims)).astype(np.float16)
    return ordered(values, rng.random((count, 4)), height=30, width=40, most=count)


def make(
    folder: Path, counts: list[list[int]], *, dtype: str = "float16"
) -> tuple[LocalStore, list[list[LocalFeatures]]]:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    sources = [f"d{number}.tar" for number in range(len(counts))]
    made_from = {"partition": "distractors", "local": "toy"}
    write_manifest(folder / "manifest.json", kind=KIND, made_from=made_from, sources=sources, dims=16, dtype=dtype)
    made = []
    for number, shard in enumerate(counts):
        made.append([features(rng, count) for count in shard])
        images = [(f"d{number}.tar/{place}", one) for place, one in enumerate(made[-1])]
        write_local_shard(folder, number, source=sources[number], images=images, dims=16, dtype=dtype)
    return open_local_store(folder), made


# --- the store ---


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store, made = make(tmp_path / "s", [[3, 0, 7], [], [1]])
    assert (store.images, store.count, store.dims, store.bits) == (4, 11, 16, None)
    assert store.bytes_per_image() == {"descriptors": 11 * 32 / 4, "geometry": 11 * 16 / 4}
    for shard, expected in zip(store.shards, made, strict=True):
        shard.verify()
        for place, one in enumerate(expected):
            for most in (None, 2, 100):
                found, wanted = shard.take(place, most), one if most is None else one.first(most)
                assert (found.descriptors == wanted.descriptors).all()
                assert (found.geometry == wanted.geometry).all()
                assert (found.height, found.width) == (30, 40)
        assert isinstance(shard.descriptors, np.memmap) or not shard.count
    assert np.load(tmp_path / "s" / "00000.desc.npy").shape == (10, 16)
    assert store.find(["d2.tar/0", "nothing", "d0.tar/2"]).tolist() == [[2, 0], [-1, -1], [0, 2]]


def test_damage_is_noticed(tmp_path: Path) -> None:
    make(tmp_path / "good", [[3, 2], [4]])

    def damaged(name: str, change: Callable[[Path], object], message: str, act: Callable[[LocalStore], object]) -> None:
        folder = tmp_path / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "good", folder)
        change(folder / name)
        with pytest.raises(OpenIliasError, match=message):
            act(open_local_store(folder))

    def verify(store: LocalStore) -> None:
        for shard in store.shards:
            shard.verify()

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    for name in ("00001.desc.npy", "00000.geometry.npy", "00000.offsets.npy", "00001.ids.parquet"):
        damaged(name, flip, "not as it was written", verify)
        damaged(name, Path.unlink, "not as it was written", verify)
    damaged(
        "00000.desc.npy",
        lambda path: path.write_bytes(path.read_bytes()[:140]),
        "cannot be read",
        lambda s: s.shards[0].take(0),
    )
    damaged("00001.json", Path.unlink, "1 of 2 shards of this store are not finished: d1.tar", verify)
    damaged("00001.json", lambda path: path.write_text("{}"), "done marker is broken", verify)
    damaged("manifest.json", Path.unlink, "not a local descriptor store", verify)


def test_a_shard_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def images() -> Any:
        yield "a", features(rng, 3)
        yield "b", features(rng, 3, dims=17)

    with pytest.raises(OpenIliasError, match="Local descriptors of 17 numbers, expected 16"):
        write_local_shard(tmp_path, 0, source="s", images=images(), dims=16, dtype="float16")
    assert not list(tmp_path.iterdir())


# --- finding and reading images of many shards ---


def ids_of(store: LocalStore) -> list[str]:
    return [item for shard in store.shards for item in shard.id_array().to_pylist()]


def rewritten(store: LocalStore, change: Callable[[pa.Table], pa.Table], **how: Any) -> None:
    for shard in store.shards:
        path = shard.path("ids.parquet")
        pq.write_table(change(pq.read_table(path)), path, **how)


def open_in(folder: Path) -> list[str]:
    links = Path("/proc/self/fd").iterdir() if Path("/proc/self/fd").exists() else ()
    names = [str(link.readlink()) for link in links if link.is_symlink()]
    return [name for name in names if name.startswith(str(folder))]


@pytest.mark.parametrize("statistics", [True, False])
def test_images_are_found_as_by_a_plain_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statistics: bool
) -> None:
    rng = np.random.default_rng(3)
    store, _ = make(tmp_path / "s", [[int(n) for n in rng.integers(0, 5, size)] for size in (30, 0, 1, 47)])
    names = [f"{'zäé'[n % 3]}{n:03d}" for n in rng.permutation(78)]
    names[3] = names[40] = "twice"  # in two shards
    start = iter(range(78))

    def change(table: pa.Table) -> pa.Table:
        return table.set_column(0, "id", pa.array([names[next(start)] for _ in range(len(table))], pa.string()))

    rewritten(store, change, write_statistics=statistics, row_group_size=7)
    plain: dict[str, tuple[int, int]] = {}
    for number, shard in enumerate(store.shards):
        for place, item in enumerate(shard.id_array().to_pylist()):
            plain.setdefault(item, (number, place))
    for count in (0, 1, 5, 60, 300):  # fewer and more than a shard has
        asked = [*rng.choice([*names, "a", "zz", "", "é"], count).tolist()]
        found = store.locate(asked)
        assert found.places.tolist() == [list(plain.get(item, (-1, -1))) for item in asked]
        for item, (first, end), size in zip(asked, found.rows.tolist(), found.sizes.tolist(), strict=True):
            if item in plain:
                shard, place = plain[item]
                assert [first, end] == store.shards[shard].offsets[place : place + 2].tolist()
                assert size == [30, 40]
    read: list[Path] = []
    true = local_ids._read

    def watched(file: Any, path: Path, *rest: Any) -> Any:
        read.append(path)
        return true(file, path, *rest)

    monkeypatch.setattr(local_ids, "_read", watched)
    store.find(["0", "\uffff"])  # before all, after all
    assert bool(read) is not statistics


def test_shortlists_equal_their_images_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    counts = [[int(n) for n in rng.integers(0, 9, size)] for size in rng.integers(0, 12, 20)]
    counts[5] = [0, 0]
    one, _ = make(tmp_path / "one", counts)
    heights = iter(rng.integers(1, 99, 500).tolist())
    rewritten(one, lambda table: table.set_column(1, "height", pa.array([next(heights) for _ in range(len(table))])))
    two, _ = make(tmp_path / "two", [[3, 1, 0], [4]])
    rewritten(two, lambda table: table.set_column(0, "id", pa.array([f"two/{n}" for n in table["id"].to_pylist()])))
    database = database_of_local([one, two], [*ids_of(two), *ids_of(one)])
    known = [*ids_of(one), *ids_of(two)]
    advice = local_reading._ADVISE
    for most_open, advise in ((1, False), (3, True), (1000, True)):
        monkeypatch.setattr(local_reading, "most_open", lambda most_open=most_open: most_open)
        monkeypatch.setattr(local_reading, "_ADVISE", advice if advise else None)
        for count, most in ((0, 5), (1, 100), (40, 3), (40, 1), (200, 100)):
            items = [str(item) for item in rng.choice(known, count)]
            expected = [database.features(item, most) for item in items]
            found = database.candidates(items, most)
            assert found.offsets.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
            assert found.descriptors.dtype == np.float16
            assert found.descriptors.shape == (found.offsets[-1], 16)
            for n, image in enumerate(expected):
                rows = slice(found.offsets[n], found.offsets[n + 1])
                assert (found.descriptors[rows] == image.descriptors).all()
                assert (found.geometry[rows] == image.geometry).all()
                assert tuple(found.sizes[n]) == (image.height, image.width)
            alone = database.candidates(items, most, geometry=False)
            assert (alone.descriptors == found.descriptors).all()
            assert alone.geometry.shape == (0, 4)
            assert len(open_in(tmp_path)) <= most_open


def test_files_are_closed_with_their_store(tmp_path: Path) -> None:
    store, _ = make(tmp_path / "s", [[2, 1], [3]])
    for shard in store.shards:
        shard.take(0)
    again = pickle.loads(pickle.dumps(store))
    assert (again.shards[1].take(0).descriptors == store.shards[1].take(0).descriptors).all()
    with pytest.raises(IndexError):
        store.shards[1].take(1)
    del store, again, shard
    gc.collect()
    assert not open_in(tmp_path)


def test_an_image_of_two_stores_is_taken_from_the_smaller(tmp_path: Path) -> None:
    large, _ = make(tmp_path / "large", [[3, 2, 7], [4]])
    small, _ = make(tmp_path / "small", [[1, 2], [5]])
    for stores, wanted in (([large, small], 1), ([small, large], 0)):
        database = database_of_local(stores, ["d1.tar/0", "d0.tar/2", "d0.tar/0"])
        assert database.places.tolist() == [[wanted, 1, 0], [1 - wanted, 0, 2], [wanted, 0, 0]]
        assert np.diff(database.candidates(["d0.tar/0", "d0.tar/2"], 100).offsets).tolist() == [1, 7]


def test_damage_is_noticed_in_shortlists(tmp_path: Path) -> None:
    def number(name: str, place: int, value: float) -> Callable[[LocalStore], None]:
        def change(store: LocalStore) -> None:
            path = store.shards[0].path(f"{name}.npy")
            array = np.load(path)
            array.reshape(-1)[place] = value
            np.save(path, array)

        return change

    def truncated(store: LocalStore) -> None:
        path = store.shards[0].path("desc.npy")
        path.write_bytes(path.read_bytes()[:-3])

    def other(name: str, array: Any) -> Callable[[LocalStore], None]:
        return lambda store: np.save(store.shards[0].path(f"{name}.npy"), array)

    damages: list[tuple[Callable[[LocalStore], object], bool, str]] = [
        (number("desc", 70, np.nan), True, "is not finite"),
        (number("geometry", 5, np.inf), True, "is not finite"),
        (number("geometry", 7, 10), True, "not in the order of their weight"),
        (number("offsets", 1, 7), False, "offsets are damaged"),
        (number("offsets", 2, 700), False, "offsets are damaged"),
        (number("offsets", 1, -1), False, "offsets are damaged"),
        (truncated, True, "truncated"),
        (other("offsets", np.zeros(3, np.int32)), False, "found \\(3,\\) int32"),
        (other("desc", np.zeros((5, 16))), True, "found \\(5, 16\\) float64"),
        (other("desc", np.zeros((5, 17), np.float16)), True, "rows are of .* float16, those of "),
        (other("geometry", np.zeros((5, 3), np.float32)), True, "found \\(5, 3\\)"),
        (lambda store: rewritten(store, lambda t: t.slice(1)), False, "Expected 2 ids, found 1"),
        (lambda store: rewritten(store, lambda t: t.drop_columns("height")), False, "found 2 of id, width"),
        (lambda store: store.shards[0].path("ids.parquet").write_bytes(b"x"), False, "ids cannot be read"),
    ]
    for place, (damage, when_read, message) in enumerate(damages):
        store, _ = make(tmp_path / str(place), [[3, 2], [1]])
        good, asked = database_of_local([store], ids_of(store)), ["d1.tar/0", "d0.tar/1", "d0.tar/0"]
        if message == "truncated":
            good.candidates(["d1.tar/0"], 3)
            _ = store.shards[0].descriptor_file
        damage(store)
        with pytest.raises(OpenIliasError, match=message):
            good.candidates(asked, 3) if when_read else store.find(asked)


# --- the models ---


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).resize(
        (210, 290), Image.Resampling.BICUBIC
    )


def test_sift_equals_opencv(picture: Image.Image) -> None:
    found = SiftPreparation(LocalSettings(resolution=200, most=20))(picture)
    size = (int(200 * 210 / 290), 200)
    grey = np.asarray(picture.resize(size, Image.Resampling.BICUBIC).convert("L"))
    points, values = cv2.SIFT.create(contrastThreshold=0.01).detectAndCompute(grey, None)
    best = sorted(range(len(points)), key=lambda i: -points[i].response)[:20]
    assert (found.height, found.width) == (200, size[0])
    assert len(found) == 20 < len(points)
    for place, i in enumerate(best):
        y, x = points[i].pt[1] / 200, points[i].pt[0] / size[0]
        assert found.geometry[place] == pytest.approx((y, x, points[i].size, points[i].response), rel=1e-5)
        assert np.abs(found.descriptors[place] - np.sqrt(values[i] / values[i].sum())).max() < 1e-6
    nothing = SiftPreparation(SETTINGS)(Image.new("RGB", (50, 40)))
    assert (len(nothing), nothing.descriptors.shape[1]) == (0, 128)


@pytest.mark.parametrize("size", [(300, 200), (70, 90), (128, 56), (3, 400)])
def test_pictures_are_resized_to_whole_patches_as_ames_does(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    for scale, found in zip((0.7071, 1.0), MapPreparation(LocalSettings(resolution=128, scales=(0.7071, 1.0)), 14)(
        Image.fromarray(pixels)
    ), strict=True):  # fmt: skip
        factor = scale * 128 / max(size)
        sides = [max(round(side * factor / 14), 1) * 14 for side in size]
        how = cv2.INTER_AREA if any(s < o for s, o in zip(sides, size, strict=True)) else cv2.INTER_LINEAR
        assert found.shape == (sides[1], sides[0], 3)
        assert (found == cv2.resize(pixels, tuple(sides), interpolation=how)).all()


@torch.no_grad()
@pytest.mark.parametrize("scales", [(1.0,), (0.7071, 1.0, 1.4142)])
@pytest.mark.parametrize("detected", [False, True])
def test_tokens_of_any_transformer_equal_a_plain_twin(
    picture: Image.Image, tmp_path: Path, scales: tuple[float, ...], detected: bool
) -> None:
    import timm

    detector = None
    if detected:
        torch.manual_seed(1)
        detector = Detector(192)
        for value in detector.parameters():
            torch.nn.init.normal_(value, std=0.2)
        torch.save({"state": detector.state_dict()}, tmp_path / "detector.pt")
        detector.eval()
    settings = LocalSettings(resolution=100, scales=scales, most=20)
    model = load_local(
        "timm:vit_tiny_patch16_224", settings, detector=tmp_path / "detector.pt" if detected else None, random_weights=0
    )
    assert model.weight_from == ("detector" if detected else "norm of the token")
    prepared = model.preparation()(picture, ())
    stretch = 0.5 + torch.rand(192, generator=torch.Generator().manual_seed(2))  # else all tokens are equally long
    model._network.module.norm.weight.copy_(stretch)
    (found,) = model.describe([prepared])
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True).eval()
    network.norm.weight.copy_(stretch)
    mean, std = (torch.tensor(network.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    rows = []
    for number, pixels in enumerate(prepared):
        x = (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - mean) / std
        down, across = pixels.shape[0] // 16, pixels.shape[1] // 16
        tokens = network.forward_features(x[None])[0, 1:]
        for place, token in enumerate(tokens):
            weight = token.norm()
            if detector is not None:
                y = F.batch_norm(
                    F.linear(token[None], detector.conv1.weight[:, :, 0, 0], detector.conv1.bias),
                    *(getattr(detector.bn, name) for name in ("running_mean", "running_var", "weight", "bias")),
                )[0]
                weight = F.softplus(detector.conv2.weight[0, :, 0, 0] @ y.relu() + detector.conv2.bias[0])
                token = y
            where = ((place // across + 0.5) / down, (place % across + 0.5) / across)
            rows.append((float(weight), *where, 1 / scales[number], (token / token.norm()).numpy()))
    rows.sort(key=lambda row: -row[0])
    assert len(found) == 20 < len(rows)
    for place, (weight, y, x, scale, vector) in enumerate(rows[:20]):
        assert found.geometry[place] == pytest.approx((y, x, scale, weight), rel=1e-4)
        assert np.abs(found.descriptors[place] - vector).max() < 1e-5
    assert (found.height, found.width) == prepared[scales.index(1.0)].shape[:2]


def test_a_batch_equals_its_images_one_by_one(picture: Image.Image) -> None:
    for name in ("timm:vit_tiny_patch16_224", "resnet18", "cvnet_resnet50", "aliked"):
        model = load_local(name, SETTINGS, random_weights=0)
        pictures = [picture, picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
        prepared = [model.preparation()(one, ()) for one in pictures]
        assert model.group_of(prepared[0]) == model.group_of(prepared[1])
        together = model.describe(prepared)
        for one, found in zip(prepared, together, strict=True):
            (alone,) = model.describe([one])
            assert len(alone) == len(found) > 0
            assert np.abs(alone.geometry - found.geometry).max() < 1e-3
            assert np.abs(alone.descriptors - found.descriptors).max() < 1e-3
            assert found.descriptors.shape[1] == model.dims
    assert load_local("cvnet_resnet50", SETTINGS, random_weights=0).dims == 1024  # of the third stage


def test_aliked_equals_kornia(picture: Image.Image, weights: Path) -> None:
    from kornia.feature import ALIKED
    from safetensors.torch import load_file

    settings = LocalSettings(resolution=200, most=50)
    model = load_local("aliked", settings, weights=weights / "aliked_n16rot.safetensors")
    prepared = model.preparation()(picture, ())
    (found,) = model.describe([prepared])
    network = ALIKED("aliked-n16rot", max_num_keypoints=50, detection_threshold=0.0).eval()
    network.load_state_dict(load_file(weights / "aliked_n16rot.safetensors"), strict=False)
    with torch.no_grad():
        (one,) = network(torch.from_numpy(prepared[0]).permute(2, 0, 1)[None].float() / 255)
    order = one.keypoint_scores.argsort(descending=True)
    x, y = (one.keypoints[order] / torch.tensor([prepared[0].shape[1] - 1, prepared[0].shape[0] - 1])).T.numpy()
    assert np.abs(found.geometry[:, 0] - y).max() < 1e-5
    assert np.abs(found.geometry[:, 1] - x).max() < 1e-5
    assert np.abs(found.descriptors - one.descriptors[order].numpy()).max() < 1e-5


def test_models_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for name, options, message in (
        ("sift", {"random_weights": 0}, "sift has no weights"),
        ("sift", {"detector": tmp_path}, "has a detector of its own"),
        ("aliked", {"weights": tmp_path / "no"}, "no such weights file"),
        ("sift_vlad", {}, "a global descriptor"),
        ("timm:vit_tiny_patch16_224", {"random_weights": 0, "detector": tmp_path / "no"}, "no such detector"),
    ):
        with pytest.raises(OpenIliasError, match=message):
            load_local(name, SETTINGS, **options)  # type: ignore[arg-type]  # of several types
    torch.save({"state": Detector(24).state_dict()}, tmp_path / "detector.pt")
    assert read_detector(tmp_path / "detector.pt").conv1.in_channels == 24
    with pytest.raises(OpenIliasError, match="has 192 channels, this detector takes 24"):
        load_local("timm:vit_tiny_patch16_224", SETTINGS, random_weights=0, detector=tmp_path / "detector.pt")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(OpenIliasError, match=r"no detector, it holds layer\.weight"):
        read_detector(tmp_path / "other.pt")


# --- extraction ---


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.mark.parametrize("partition", ["image_queries", "positives", "distractors"])
def test_a_partition_is_described(tiny: Benchmark, tmp_path: Path, partition: Any) -> None:
    model = load_local("sift", SETTINGS)
    store = extract_local(tiny, model, partition, tmp_path / "s", LocalOptions(Options(workers=1)))
    ids = [item.id for shard in tiny.shards(partition) for item in shard.items()]
    assert [item for shard in store.shards for item in shard.id_array().to_pylist()] == ids
    assert 0 < store.count <= 60 * store.images
    for shard, source in zip(store.shards, tiny.shards(partition), strict=True):
        for place, item in enumerate(source.items()):
            with Image.open(__import__("io").BytesIO(item.read())) as image:
                expected = SiftPreparation(SETTINGS)(image.convert("RGB"))
            found = shard.take(place)
            assert (found.geometry == expected.geometry).all()
            assert (found.descriptors == expected.descriptors.astype(np.float16)).all()


def test_killed_it_goes_on_to_the_same_bytes(tiny: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_local("timm:vit_tiny_patch16_224", SETTINGS, random_weights=0)
    options = LocalOptions(Options(workers=1))
    monkeypatch.setattr(extraction, "AT_ONCE", 3)
    extract_local(tiny, model, "distractors", tmp_path / "whole", options)
    true, seen = type(model).find, []

    def broken(self: Any, batch: Any) -> Any:
        seen.append(len(batch))
        if len(seen) == 5:
            raise KeyboardInterrupt
        return true(self, batch)

    monkeypatch.setattr(type(model), "find", broken)
    with pytest.raises(KeyboardInterrupt):
        extract_local(tiny, model, "distractors", tmp_path / "out", options)
    assert len(list((tmp_path / "out").glob("0*.json"))) <= 1
    extract_local(tiny, model, "distractors", tmp_path / "out", options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    done = len(seen)
    extract_local(tiny, model, "distractors", tmp_path / "out", options)
    assert len(seen) == done
    for number in (1, 0):
        share = LocalOptions(Options(workers=1, share=Share(number, 2)))
        left = extract_local_share(tiny, model, "distractors", tmp_path / "parts", share)
    assert not left
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_shortlist_is_described(tiny: Benchmark, tmp_path: Path) -> None:
    ids = [item.id for shard in tiny.shards("distractors") for item in shard.items()][::3]
    model = load_local("sift", SETTINGS)
    only = LocalOptions(Options(workers=1), only=frozenset(ids))
    store = extract_local(tiny, model, "distractors", tmp_path / "s", only)
    assert [item for shard in store.shards for item in shard.id_array().to_pylist()] == ids
    with pytest.raises(OpenIliasError, match="shortlist"):
        extract_local(tiny, model, "distractors", tmp_path / "s", LocalOptions(Options(workers=1)))


def test_what_cannot_be_read_is_passed_over_and_tried_again(tiny_root: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_root, tmp_path / "b")
    benchmark = read_ilias(tmp_path / "b")
    path = benchmark.path_of(benchmark.positives[2])
    good = path.read_bytes()
    path.write_bytes(good[:100] + bytes(len(good) - 100))
    model = load_local("sift", SETTINGS)
    with pytest.raises(OpenIliasError):
        extract_local(benchmark, model, "positives", tmp_path / "s", LocalOptions(Options(workers=1)))
    passing = LocalOptions(Options(workers=1, skip_unreadable=True))
    store = extract_local(benchmark, model, "positives", tmp_path / "s", passing)
    assert [one.id for one in store.skipped] == [benchmark.positives[2]]
    assert store.images == len(benchmark.positives) - 1
    path.write_bytes(good)
    again = LocalOptions(Options(workers=2, skip_unreadable=True, retry=True))
    store = extract_local(benchmark, model, "positives", tmp_path / "s", again)
    assert not store.skipped
    assert store.images == len(benchmark.positives)
    whole = extract_local(benchmark, model, "positives", tmp_path / "whole", passing)
    assert json.loads((whole.folder / "00000.json").read_text()) == json.loads(
        (store.folder / "00000.json").read_text()
    )


# --- the files of AMES' code ---


def test_files_of_ames_are_written_and_read(tmp_path: Path, ilias: Callable[..., Any]) -> None:
    store, made = make(tmp_path / "s", [[3, 0, 7], [1]], dtype="float32")
    ids = ["d0.tar/2", "d1.tar/0", "d0.tar/1"]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    done = ilias(
        "local", "export", store.folder, "--ids", tmp_path / "ids.txt", "--most", 5, "--out", tmp_path / "f.hdf5"
    )
    assert done.code == 0, done.err
    with h5py.File(tmp_path / "f.hdf5") as file:
        rows = file["features"][:]
    assert rows.shape == (3, 5, 21)
    assert rows[:, :, 3].tolist() == [[0] * 5, [0, 1, 1, 1, 1], [1] * 5]
    assert (rows[0, :, 5:] == made[0][2].first(5).descriptors).all()
    assert (made[0][2].first(5).geometry == rows[0, :, [0, 1, 2, 4]].T).all()
    reading = ("local", "import", tmp_path / "f.hdf5", "--ids", tmp_path / "ids.txt", "--partition", "distractors")
    done = ilias(*reading, "--out", tmp_path / "back", "--side", 30)
    assert done.code == 0, done.err
    back = open_local_store(tmp_path / "back")
    assert (back.images, back.count, back.dims) == (3, 6, 16)
    for place, one in enumerate((made[0][2].first(5), made[1][0], made[0][1])):
        found = back.shards[0].take(place)
        unit = one.descriptors.astype(np.float32) / np.linalg.norm(
            one.descriptors, axis=1, keepdims=True
        )  # were of any length
        assert np.abs(found.descriptors - unit).max(initial=0) < 1e-3
        assert (found.geometry == one.geometry).all()
        assert (found.height, found.width) == (30, 30)
    assert ilias(*reading, "--out", tmp_path / "back", "--side", 30).code == 0
    done = ilias(*reading, "--out", tmp_path / "back", "--side", 31)
    assert done.code == 2
    assert "side: 30 -> 31" in done.err
    (tmp_path / "back" / "00000.desc.npy").write_bytes(b"")
    assert ilias(*reading, "--out", tmp_path / "back", "--side", 30, "--overwrite").code == 0
    open_local_store(tmp_path / "back").shards[0].verify()
    (tmp_path / "ids.txt").write_text("\n".join(ids[:2]))
    done = ilias(*reading, "--out", tmp_path / "no")
    assert done.code == 2
    assert "Expected features (2, topk, 5 + D), found (3, 5, 21)" in done.err
    (tmp_path / "ids.txt").write_text("nothing")
    done = ilias("local", "export", store.folder, "--ids", tmp_path / "ids.txt", "--out", tmp_path / "g.hdf5")
    assert done.code == 2
    assert "1 images are not in the store: nothing" in done.err
    assert not (tmp_path / "g.hdf5").exists()


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        (3, np.nan, "fourth column is neither 0 nor 1"),
        (0, 17.0, "A position is 17, outside the image"),
        (1, -0.5, r"A position is -0\.5"),
        (7, np.nan, "not finite"),
    ],
)
def test_strange_files_of_ames_are_refused(tmp_path: Path, column: int, value: float, said: str) -> None:
    rows = np.random.default_rng(0).random((2, 4, 13)).astype(np.float32)
    rows[:, :, 3] = 0
    rows[:, :, 4] = [4, 3, 2, 1]
    rows[1, 2, column] = value
    with h5py.File(tmp_path / "f.hdf5", "w") as file:
        file["features"] = rows
    with pytest.raises(OpenIliasError, match=said):
        read_ames_features(tmp_path / "f.hdf5", ["a", "b"], "positives", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_positions_in_pixels_are_shares_of_the_side(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((1, 4, 13)).astype(np.float32)
    rows[:, :, 3] = 0
    rows[:, :, 4] = [4, 3, 2, 1]
    rows[:, :, :2] *= 600
    with h5py.File(tmp_path / "f.hdf5", "w") as file:
        file["features"] = rows
    store = read_ames_features(tmp_path / "f.hdf5", ["a"], "positives", tmp_path / "s", side=640, pixels=True)
    assert np.abs(store.shards[0].take(0).geometry[:, :2] * 640 - rows[0, :, :2]).max() < 1e-3
    with pytest.raises(OpenIliasError, match="Give a larger --side"):
        read_ames_features(tmp_path / "f.hdf5", ["a"], "positives", tmp_path / "t", side=64, pixels=True)


def test_strange_scales_are_refused() -> None:
    for scale in (0.0, -1.0, float("nan"), 9.0):
        with pytest.raises(ValidationError):
            LocalSettings(scales=(scale,))
