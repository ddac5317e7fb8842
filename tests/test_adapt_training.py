"""Learning a linear adaptation: against plain twins, killed and resumed, and what is refused."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openilias.adapt import steps as steps_module
from openilias.adapt import train as training_module
from openilias.adapt.classifier import Classifier, Loss
from openilias.adapt.labelled import Labelled, Rows, label
from openilias.adapt.learned import read_adaptation, read_layer
from openilias.adapt.linear import adapt
from openilias.adapt.margins import with_margin
from openilias.adapt.moments import moments
from openilias.adapt.train import Recipe, train
from openilias.adapt.ujcds import Settings, Training, held_out
from openilias.adapt.whitening import learned_whitening, moments_of, pairs, pca_whitening
from openilias.core.errors import OpenIliasError
from openilias.core.manifests import write_manifest
from openilias.data.training import TrainingSet, read_training_set
from openilias.descriptors.store import DescriptorStore, open_store, write_shard

CLASSES, EACH, DIMS = 60, 8, 40
SMALL = Settings(dim=16, epochs=2, batch=32, held_out=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[DescriptorStore, TrainingSet]:
    """Three domains; objects differ along some directions, pictures of one object along others, which are stronger."""
    rng = np.random.default_rng(0)
    centers, signal, nuisance = rng.normal(size=(CLASSES, 12)), rng.normal(size=(12, DIMS)), rng.normal(size=(8, DIMS))
    ids, labels, domains, rows = [], [], [], []
    for number in rng.permutation(CLASSES * EACH):
        own, picture = divmod(int(number), EACH)
        row = (centers[own] + 0.3 * rng.normal(size=12)) @ signal + 4 * rng.normal(size=8) @ nuisance
        rows.append(row + 0.3 * rng.normal(size=DIMS))
        ids.append(f"domain{own % 3}/{own}_{picture}.jpg")
        labels.append(str(own // 2))  # the same label in several domains
        domains.append(f"domain{own % 3}")
    vectors = np.array(rows, np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    root = tmp_path_factory.mktemp("adaptation")
    store = make(root / "store", ids, vectors)
    training = TrainingSet(root, tuple(ids), tuple(labels), tuple(domains))
    return store, training


def make(folder: Path, ids: list[str], vectors: np.ndarray, shards: int = 2) -> DescriptorStore:
    folder.mkdir(parents=True)
    made_from = {"partition": "positives", "model": "toy", "dims": vectors.shape[1]}
    sources = [f"part{number}" for number in range(shards)]
    write_manifest(
        folder / "manifest.json", kind="descriptor store", made_from=made_from, sources=sources, dims=vectors.shape[1]
    )
    parts = np.array_split(np.arange(len(ids)), shards)
    for number, part in enumerate(parts):
        chosen = [ids[row] for row in part]
        write_shard(folder, number, source=sources[number], ids=chosen, descriptors=vectors[part], skipped=[])
    return open_store(folder)


def labelled_of(data: tuple[DescriptorStore, TrainingSet]) -> Labelled:
    return label(*data)


# --- UJCDS against plain autograd ---


def plain_losses(labelled: Labelled, settings: Settings, start: Training) -> tuple[list[float], torch.nn.Linear]:
    """The official training loop, dense and with autograd, from the same numbers."""
    classifier = torch.nn.Parameter(start._classifier.weight.clone())
    layer = torch.nn.Linear(labelled.store.dims, settings.dim)
    with torch.no_grad():
        layer.weight.copy_(start._weight)
        layer.bias.zero_()
    optimizer = torch.optim.Adam([*layer.parameters(), classifier], lr=settings.rate, weight_decay=settings.decay)
    x = torch.from_numpy(Rows(labelled.store).take(labelled.rows))
    y = torch.from_numpy(labelled.classes)
    losses = []
    for epoch in range(settings.epochs):
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(y))
        for begin in range(0, len(y) - settings.batch + 1, settings.batch):
            batch = torch.from_numpy(order[begin : begin + settings.batch])
            cosines = F.normalize(layer(x[batch])) @ F.normalize(classifier, dim=1).T
            own = F.one_hot(y[batch], labelled.count).bool()
            if settings.loss.margin == "cosface":
                cosines = torch.where(own, cosines - settings.loss.size, cosines)
            if settings.loss.margin == "arcface":
                cosines = torch.where(own, torch.cos(torch.acos(cosines) + settings.loss.size), cosines)
            loss = F.cross_entropy(settings.loss.scale * cosines, y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses, layer


@pytest.mark.parametrize("loss", [Loss(), Loss(margin="cosface", size=0.2), Loss(margin="arcface", size=0.3)])
def test_every_step_equals_plain_autograd(data: tuple[DescriptorStore, TrainingSet], loss: Loss) -> None:
    labelled = labelled_of(data)
    settings = replace(SMALL, loss=loss, epochs=3)
    expected, layer = plain_losses(labelled, settings, Training(labelled, settings))
    training = Training(labelled, settings)
    found = list(training.steps())
    assert len(found) == 3 * (CLASSES * EACH // 32)
    assert np.abs(np.array(found) - expected).max() < 2e-4
    assert np.abs(training.layer().weight - layer.weight.detach().numpy()).max() < 2e-4
    assert np.abs(training.layer().bias - layer.bias.detach().numpy()).max() < 2e-4


def test_the_margin_on_an_angle_never_turns_around() -> None:
    cosines = torch.linspace(-1, 1, 2001, dtype=torch.float64).requires_grad_()
    for margin in (0.1, 0.5, 1.5):
        value, slope = with_margin(cosines, "arcface", margin)
        (by_autograd,) = torch.autograd.grad(value.sum(), cosines)
        assert (value.diff() >= 0).all()
        assert (slope >= 0).all()
        assert torch.allclose(slope[1:-1], by_autograd[1:-1])
        angle = torch.acos(cosines.detach())
        plain = angle + margin <= np.pi
        assert torch.allclose(value[plain], torch.cos(angle + margin)[plain], atol=1e-3)


def test_numbers_that_cannot_be_are_refused(data: tuple[DescriptorStore, TrainingSet], tmp_path: Path) -> None:
    for make_it in (
        lambda: Loss(scale=float("inf")), lambda: Loss(scale=float("nan")), lambda: Loss(margin="arcface", size=2.0),
        lambda: replace(SMALL, rate=1e30), lambda: replace(SMALL, rate=0.0), lambda: replace(SMALL, decay=float("nan")),
    ):  # fmt: skip
        with pytest.raises(OpenIliasError):
            make_it()
    wild = train(*data, Recipe(settings=replace(SMALL, rate=1000.0)), tmp_path / "out")
    assert np.isfinite(wild.layer.weight).all()


def test_the_gradient_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(8, 24, generator=generator)).requires_grad_()
    labels = torch.randint(0, 3000, (8,), generator=generator)
    classifier = Classifier(3000, 24, Loss(), rate=1e-3, decay=1e-6, seed=0)
    weight = classifier.weight.clone().requires_grad_()
    loss = F.cross_entropy(16 * vectors @ F.normalize(weight, dim=1).T, labels)
    loss.backward()
    found, gradient = classifier.step(vectors.detach(), labels)
    assert abs(found - float(loss.detach())) < 1e-5
    assert vectors.grad is not None
    assert (gradient - vectors.grad).abs().max() < 1e-5 * vectors.grad.abs().max()
    # The first step of Adam: the mean of the gradient is a tenth of it.
    assert weight.grad is not None
    slope = weight.grad + 1e-6 * weight.detach()
    assert (classifier.first - 0.1 * slope).abs().max() < 1e-5 * slope.abs().max()


def test_sampled_classes_are_an_approximation_of_all_of_them(data: tuple[DescriptorStore, TrainingSet]) -> None:
    labelled = labelled_of(data)
    generator = torch.Generator().manual_seed(1)
    vectors = F.normalize(torch.randn(16, 16, generator=generator))
    labels = torch.from_numpy(labelled.classes[:16])
    whole = Classifier(labelled.count, 16, Loss(), rate=1e-3, decay=0.0, seed=0).step(vectors, labels)[0]
    some = [
        Classifier(labelled.count, 16, Loss(scale=4), rate=1e-3, decay=0.0, seed=seed, sampled=40) for seed in range(5)
    ]
    before = some[0].weight.clone()
    some[0].step(vectors, labels)
    moved = (some[0].weight != before).any(1)
    assert 0 < int(moved.sum()) < labelled.count
    assert set(labels.tolist()) <= set(torch.nonzero(moved).flatten().tolist())
    assert whole > 0
    # In the mean over draws the sum over all classes is met.
    classifier = Classifier(labelled.count, 16, Loss(scale=1), rate=0.0, decay=0.0, seed=3)
    exact = classifier.step(vectors, labels)[0]
    drawn = Classifier(labelled.count, 16, Loss(scale=1), rate=0.0, decay=0.0, seed=3, sampled=30)
    mean = np.mean([drawn.step(vectors, labels)[0] for _ in range(200)])
    assert abs(mean - exact) < 0.02


def test_learning_finds_the_objects(data: tuple[DescriptorStore, TrainingSet], tmp_path: Path) -> None:
    store, training = data
    settings = replace(SMALL, epochs=60, rate=5e-3)
    vectors = Rows(store).take(np.arange(store.rows))
    classes = labelled_of(data).classes

    def recall(found: np.ndarray) -> float:
        scores = found @ found.T
        np.fill_diagonal(scores, -9)
        return float((classes[scores.argmax(1)] == classes).mean())

    learned = train(store, training, Recipe(settings=settings), tmp_path / "ujcds").layer
    whitened = train(store, None, Recipe("pcaw", settings), tmp_path / "pcaw").layer
    matched = train(store, training, Recipe("lw", settings), tmp_path / "lw").layer
    before, unsupervised = recall(vectors), recall(adapt(whitened, vectors))
    assert recall(adapt(learned, vectors)) > 0.95
    assert recall(adapt(matched, vectors)) > unsupervised > before


# --- whitening against its definition ---


def test_pca_whitening_makes_the_covariance_one(data: tuple[DescriptorStore, TrainingSet]) -> None:
    labelled = labelled_of(data)
    x = Rows(labelled.store).take(labelled.rows).astype(np.float64)
    layer = pca_whitening(moments_of(labelled), 10, dtype=np.dtype(np.float16))
    z = x @ layer.weight.T.astype(np.float64) + layer.bias
    assert np.abs(z.mean(0)).max() < 1e-4
    assert np.abs(np.cov(z.T, bias=True) - np.eye(10)).max() < 1e-3
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    assert np.allclose(np.linalg.norm(layer.weight, axis=1), 1 / np.sqrt(values[:10]), rtol=1e-4)


def test_moments_do_not_depend_on_the_blocks() -> None:
    x = np.random.default_rng(0).normal(5, 0.01, (1000, 6)).astype(np.float32)
    whole, parts = moments([x], 6), moments(np.array_split(x, 13), 6)
    assert np.allclose(whole.mean, x.astype(np.float64).mean(0), atol=1e-7)
    for found in (whole, parts):
        assert np.allclose(found.covariance, np.cov(x.astype(np.float64).T, bias=True), rtol=1e-3, atol=1e-8)
    assert moments([], 3).count == 0


def test_learned_whitening_equals_its_definition(data: tuple[DescriptorStore, TrainingSet]) -> None:
    labelled = labelled_of(data)
    x = Rows(labelled.store).take(labelled.rows).astype(np.float64)
    first, second = pairs(labelled.classes, seed=4)
    difference = x[first] - x[second]
    within = difference.T @ difference / len(first)
    root = np.linalg.inv(np.linalg.cholesky(within))
    mean = x[first].mean(0)
    white = (x - mean) @ root.T
    values, axes = np.linalg.eigh(white.T @ white)
    expected = white @ axes[:, ::-1][:, :8]
    layer = learned_whitening(labelled, 8, seed=4)
    found = x @ layer.weight.T.astype(np.float64) + layer.bias
    # Any root of the same matrix is as good: the axes agree up to their sign.
    signs = np.sign((found * expected).sum(0))
    assert np.abs(found * signs - expected).max() < 1e-3 * np.abs(expected).max()
    assert values[-1] > values[0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_only_rounding_varies_along_is_no_axis(tmp_path: Path, dtype: type) -> None:
    """Of few images, of a dead channel, and of numbers whose sum is always zero."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        centers = np.repeat(rng.normal(size=(200, 24)), 5, 0)
        rows = centers + 0.5 * rng.normal(size=centers.shape)
        rows[:, 3] = 0
        rows[:, 4:] -= rows[:, 4:].mean(1, keepdims=True)
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)
        ids = [f"{row}.jpg" for row in range(len(rows))]
        store = make(tmp_path / f"{seed}", ids, rows)
        labels = tuple(str(row // 5) for row in range(len(rows)))
        training = TrainingSet(tmp_path, tuple(ids), labels, ("a",) * len(rows))
        for method in ("pcaw", "lw"):
            with pytest.raises(OpenIliasError, match="vary along 22 axes only, 23 are wanted"):
                train(store, training, Recipe(method, replace(SMALL, dim=23)), tmp_path / "out")
            made = train(store, training, Recipe(method, replace(SMALL, dim=22)), tmp_path / f"{seed} {method}").layer
            assert np.isfinite(adapt(made, rows)).all()
            assert np.linalg.norm(made.weight, axis=1).max() < 100
        few = TrainingSet(tmp_path, tuple(ids[:15]), labels[:15], ("a",) * 15)
        for method, message in (
            ("pcaw", "vary along 14 axes only"),
            ("lw", "15 matching pairs differ along 12 of the 14"),
        ):
            with pytest.raises(OpenIliasError, match=message):
                recipe = Recipe(method, replace(SMALL, dim=15 if method == "pcaw" else 4), only_labelled=True)
                train(store, few, recipe, tmp_path / "out")


def test_pairs_are_of_one_class_and_never_an_image_with_itself() -> None:
    classes = np.array([3, 1, 3, 2, 1, 3, 0])
    first, second = pairs(classes, seed=0)
    assert first.tolist() == [0, 1, 2, 4, 5]
    assert (classes[first] == classes[second]).all()
    assert (first != second).all()
    many = np.array([pairs(np.zeros(4, int), seed=seed)[1] for seed in range(200)])
    assert [set(column) for column in many.T] == [{1, 2, 3}, {0, 2, 3}, {0, 1, 3}, {0, 1, 2}]


# --- files, resuming, options ---


def test_a_layer_is_learned_once(
    data: tuple[DescriptorStore, TrainingSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, training = data
    first = train(store, training, Recipe(settings=SMALL), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["adaptation.json", "layer.pth"]
    monkeypatch.setattr(training_module, "_learned", None)
    assert train(store, training, Recipe(settings=SMALL), tmp_path / "out").layer.digest == first.layer.digest
    with pytest.raises(OpenIliasError, match="seed: 0"):
        train(store, training, Recipe(settings=replace(SMALL, seed=1)), tmp_path / "out")


def test_killed_it_goes_on_to_the_same_layer(
    data: tuple[DescriptorStore, TrainingSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, training = data
    recipe = Recipe(settings=replace(SMALL, held_out=20))
    whole = train(store, training, recipe, tmp_path / "whole")
    monkeypatch.setattr(steps_module, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(steps_module, "_SHARE", 0)
    true, made = Training._step, []

    def killed(self: Training, places: Any) -> float:
        made.append(self.done)
        if len(made) in (8, 15):
            raise KeyboardInterrupt
        return true(self, places)

    monkeypatch.setattr(Training, "_step", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(store, training, recipe, tmp_path / "out")
    found = train(store, training, recipe, tmp_path / "out")
    assert made[7:9] == [7, 7]  # the step that was killed is made again, those before are not
    assert found.layer.digest == whole.layer.digest
    assert found.manifest["history"] == whole.manifest["history"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_damaged_layer_is_noticed(data: tuple[DescriptorStore, TrainingSet], tmp_path: Path) -> None:
    train(*data, Recipe("pcaw", SMALL), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "adaptation.json").read_text())
    (tmp_path / "out" / "adaptation.json").write_text(json.dumps(manifest | {"sha256": "0"}))
    with pytest.raises(OpenIliasError, match="not the one that was learned"):
        read_adaptation(tmp_path / "out")
    with pytest.raises(OpenIliasError, match="not the one that was learned"):
        train(*data, Recipe("pcaw", SMALL), tmp_path / "out")
    for damaged in (b"", b"PK", None):
        if damaged is not None:
            (tmp_path / "out" / "layer.pth").write_bytes(damaged)
        mended = train(*data, Recipe("pcaw", SMALL), tmp_path / "out", overwrite=True)
        assert mended.layer.digest == manifest["sha256"] == read_adaptation(tmp_path / "out").layer.digest


def test_a_folder_without_its_manifest_is_no_layer(data: tuple[DescriptorStore, TrainingSet], tmp_path: Path) -> None:
    train(*data, Recipe("pcaw", SMALL), tmp_path / "out")
    (tmp_path / "out" / "adaptation.json").unlink()
    with pytest.raises(OpenIliasError, match="This is not a linear adaptation"):
        read_layer(tmp_path / "out", [])
    assert read_layer(tmp_path / "out" / "layer.pth", []).outputs == SMALL.dim
    with pytest.raises(OpenIliasError, match="There is no such adaptation file"):
        read_layer(tmp_path / "nowhere", [])


def test_damaged_descriptors_are_not_learned_from(data: tuple[DescriptorStore, TrainingSet], tmp_path: Path) -> None:
    store, training = data
    shutil.copytree(store.folder, tmp_path / "store")
    path = tmp_path / "store" / "00001.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for method in ("ujcds", "pcaw", "lw"):
        with pytest.raises(OpenIliasError, match="not as it was written"):
            train(open_store(tmp_path / "store"), training, Recipe(method, SMALL), tmp_path / "out")


def test_images_that_could_not_be_described_are_left_out(
    data: tuple[DescriptorStore, TrainingSet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, training = data
    rows = Rows(store).take(np.arange(store.rows)).astype(np.float16)
    part = make(tmp_path / "part", list(training.ids[2:]), rows[2:], shards=1)
    with pytest.raises(OpenIliasError, match="2 of 480 labelled images are not in the store"):
        label(part, training)
    marker = json.loads((tmp_path / "part" / "00000.json").read_text())
    marker["skipped"] = [{"id": item, "reason": "it is no image"} for item in training.ids[:2]]
    (tmp_path / "part" / "00000.json").write_text(json.dumps(marker))
    found = label(open_store(tmp_path / "part"), training)
    assert len(found.rows) == 478
    assert "2 images of the training set were passed over" in capsys.readouterr().err
    same = label(part, training.without(training.ids[:2]))
    assert (found.classes == same.classes).all()


def test_a_state_that_cannot_be_kept_does_not_end_the_work(
    data: tuple[DescriptorStore, TrainingSet],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = train(*data, Recipe(settings=SMALL), tmp_path / "whole")
    monkeypatch.setattr(steps_module, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(steps_module, "_SHARE", 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        found = train(*data, Recipe(settings=SMALL), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "its state cannot be kept" in capsys.readouterr().err
    assert found.layer.digest == whole.layer.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_images_are_kept_back_of_classes_with_three(data: tuple[DescriptorStore, TrainingSet]) -> None:
    labelled = labelled_of(data)
    learned, kept = held_out(labelled, 1000, seed=0)
    assert kept is not None
    assert len(kept.queries) == len(labelled.rows) // 100
    assert len(set(kept.query_classes)) == len(kept.query_classes)
    assert len(learned.rows) + len(kept.queries) == len(labelled.rows)
    assert set(kept.query_classes) <= set(kept.gallery_classes)
    assert held_out(labelled, 0, seed=0)[1] is None
    assert 0 <= kept.recall(lambda vectors: vectors) <= 1


def test_domains_and_labels_make_the_classes(data: tuple[DescriptorStore, TrainingSet]) -> None:
    labelled = labelled_of(data)
    assert labelled.count == len(set(zip(data[1].labels, data[1].domains, strict=True)))
    one = labelled.of_domains(["domain1"])
    assert set(one.domains) == {"domain1"}
    assert sorted(set(one.classes)) == list(range(one.count))
    ids = [item for shard in labelled.store.shards for item in shard.ids()]
    assert all(ids[row].startswith("domain1/") for row in one.rows)
    with pytest.raises(OpenIliasError, match="no domain moon; there are: domain0, domain1, domain2"):
        labelled.of_domains(["moon"])


def test_what_cannot_be_learned_from_is_refused(data: tuple[DescriptorStore, TrainingSet], tmp_path: Path) -> None:
    store, training = data
    out = tmp_path / "out"

    def refused(match: str, labels: TrainingSet | None = training, of: DescriptorStore = store, **recipe: Any) -> None:
        with pytest.raises(OpenIliasError, match=match):
            train(of, labels, Recipe(**({"settings": SMALL} | recipe)), out)
        assert not any(tmp_path.glob("out*"))

    def part(count: int, **changes: Any) -> TrainingSet:
        columns = {name: getattr(training, name)[:count] for name in ("ids", "labels", "domains")}
        return replace(training, **(columns | changes))

    refused("learns from labels", labels=None)
    refused("380 of 480 descriptors have no label", labels=part(100))
    more = part(480, ids=(*training.ids[:-1], "moon.jpg"))
    refused("1 of 480 labelled images are not in the store: moon.jpg", labels=more)
    refused("There is 1 class", labels=part(480, labels=("a",) * 480, domains=("b",) * 480))
    refused("41 dimensions are more than the 40", settings=replace(SMALL, dim=41))
    refused("vary along 40 axes only, 41", settings=replace(SMALL, dim=41), method="lw")
    refused("480 images are fewer than a batch of 500", settings=replace(SMALL, batch=500))
    refused("cannot be drawn", settings=replace(SMALL, sampled=10**6))
    refused("vary along 40 axes only, 41", settings=replace(SMALL, dim=41), method="pcaw")
    alone = part(480, labels=tuple(map(str, range(480))))
    refused("0 matching pairs", labels=alone, method="lw")
    bad = Rows(store).take(np.arange(store.rows)).astype(np.float16)
    bad[7, 3] = np.nan
    broken = make(tmp_path / "bad", [item for shard in store.shards for item in shard.ids()], bad)
    refused("A descriptor is not finite", of=broken)
    refused("A descriptor is not finite", of=broken, method="pcaw")


def test_the_command(data: tuple[DescriptorStore, TrainingSet], tmp_path: Path, ilias: Callable[..., Any]) -> None:
    store, training = data
    lines = [",".join(row) for row in zip(training.ids, training.labels, training.domains, strict=True)]
    (tmp_path / "uned.txt").write_text("\n".join(lines))
    learn = ("adapt", "train", store.folder, "--labels", tmp_path / "uned.txt", "--dim", "8", "--batch-size", "32")
    done = ilias(*learn, "--out", tmp_path / "out", "--json", tmp_path / "result.json")
    assert done.code == 0, done.err
    assert "40 to 8 dimensions, loss" in done.out
    assert "recall@1 of images kept back" in done.out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["made_from"]["classes"] == 60
    done = ilias("adapt", "apply", store.folder, "--adapt", tmp_path / "out", "--out", tmp_path / "adapted")
    assert done.code == 0, done.err
    assert open_store(tmp_path / "adapted").dims == 8
    done = ilias(*learn, "--out", tmp_path / "one", "--domains", "domain0, domain2", "--method", "lw")
    assert done.code == 0, done.err
    done = ilias(*learn, "--out", tmp_path / "no", "--domains", "moon")
    assert done.code == 2
    assert "no domain moon" in done.err
    done = ilias(*learn, "--out", tmp_path / "no", "--margin-size", "0.2")
    assert done.code == 2
    assert "A margin of 0.2 does not go with the margin 'none'." in done.err
    adapted = ("adapt", "train", tmp_path / "adapted", "--method", "pcaw", "--dim", "4", "--out", tmp_path / "no")
    done = ilias(*adapted)
    assert done.code == 2
    assert "adapted already" in done.err


@pytest.mark.parametrize(("margin", "size"), [("cosface", 0.35), ("arcface", 0.5)])
def test_a_margin_without_a_size_has_that_of_its_paper(
    data: tuple[DescriptorStore, TrainingSet], tmp_path: Path, ilias: Callable[..., Any], margin: str, size: float
) -> None:
    store, training = data
    lines = [",".join(row) for row in zip(training.ids, training.labels, training.domains, strict=True)]
    (tmp_path / "uned.txt").write_text("\n".join(lines))
    learn = ("adapt", "train", store.folder, "--labels", tmp_path / "uned.txt", "--dim", "8", "--batch-size", "32")
    done = ilias(*learn, "--out", tmp_path / "out", "--margin", margin)
    assert done.code == 0, done.err
    assert read_adaptation(tmp_path / "out").manifest["made_from"]["loss"]["size"] == size


def test_labels_alone_need_no_images(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a/b.jpg,1,food\n")
    assert len(read_training_set(tmp_path / "list.txt", images=False)) == 1
    with pytest.raises(OpenIliasError, match="not there"):
        read_training_set(tmp_path / "list.txt")
