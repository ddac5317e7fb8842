"""Learning AMES: mined pairs against a plain twin, losses, what is learned, killed and gone on, files, wrong input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from openilias.adapt import steps as steps_module
from openilias.build.generated.synth import SynthSettings, build_synth
from openilias.core.errors import OpenIliasError
from openilias.core.manifests import write_manifest
from openilias.data.training import TrainingSet, write_training_set
from openilias.descriptors.local_store import KIND as LOCAL_KIND
from openilias.descriptors.local_store import LocalStore, open_local_store
from openilias.descriptors.local_writing import write_local_shard
from openilias.models.local_features import LocalFeatures
from openilias.rerank.ames import Ames
from openilias.rerank.ames_files import digest_of, read_ames
from openilias.rerank.ames_learn import NETWORK, learn_ames_to, read_learned
from openilias.rerank.ames_pairs import kept_back, mine
from openilias.rerank.ames_training import AmesSettings, AmesTraining, drawn_network, sets_of, told_apart
from openilias.rerank.itq import Binarisation, write_binarisation
from openilias.rerank.packing import pack_store
from openilias.rerank.similarities import database_of_local
from openilias.search.ranking import ABSENT, Ranking, read_ranking, write_ranking

Ilias = Callable[..., Any]
DIMS, CLASSES, EACH = 64, 24, 5
SMALL = AmesSettings(
    dims=16, layers=2, wide=32, epochs=4, batch=16, rate=2e-3, hard=20, query_descriptors=12, descriptors=8, held_out=12
)


def made_up(root: Path) -> tuple[Path, LocalStore, TrainingSet]:
    """Images of a class share a few descriptors among many of their own."""
    rng = np.random.default_rng(0)
    ids = [f"{number:03d}.jpg" for number in range(CLASSES * EACH)]
    classes = np.arange(len(ids)) % CLASSES
    signatures = rng.standard_normal((CLASSES, 4, DIMS))
    images = []
    for item, number in zip(ids, classes, strict=True):
        count = int(rng.integers(6, 13))
        values = rng.standard_normal((count, DIMS))
        values[rng.permutation(count)[:4]] = signatures[number] + 0.2 * rng.standard_normal((4, DIMS))
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        geometry = np.concatenate([rng.random((count, 2)), np.ones((count, 1)), np.arange(count, 0, -1)[:, None]], 1)
        images.append((item, LocalFeatures(values.astype(np.float16), geometry.astype(np.float32), 100, 100)))
    folder = root / "local"
    folder.mkdir(parents=True)
    write_local_shard(folder, 0, source="train", images=images, dims=DIMS, dtype=np.float16)
    made_from = {"model": {"name": "made up"}, "partition": "train"}
    write_manifest(
        folder / "manifest.json", kind=LOCAL_KIND, made_from=made_from, dims=DIMS, dtype="float16", sources=["train"]
    )
    training = TrainingSet(root, tuple(ids), tuple(f"c{number}" for number in classes), ("d",) * len(ids))
    write_training_set(training, root / "labels.parquet")
    rows = np.stack([rng.permutation(np.delete(np.arange(len(ids)), row))[:60] for row in range(len(ids))])
    scores = -np.sort(-rng.random(rows.shape), axis=1).astype(np.float32)
    ranking = Ranking(tuple(ids), tuple(ids), rows, scores, np.arange(len(ids)))
    write_ranking(ranking, root / "ranking", made_from={"k": 60})
    return root / "ranking", open_local_store(folder), training


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LocalStore, TrainingSet]:
    return made_up(tmp_path_factory.mktemp("ames"))


def bits_of(dims: int = DIMS, bits: int = 64) -> Binarisation:
    weight = np.linalg.qr(np.random.default_rng(5).standard_normal((dims, bits)))[0].astype(np.float32)
    return Binarisation(weight, np.zeros(dims, np.float32))


# --- pairs ---


def small_ranking() -> tuple[Ranking, TrainingSet]:
    ids = tuple("abcdefgh")
    labels = {"a": "x", "b": "x", "c": "x", "d": "y", "e": "y", "f": "z", "g": "w", "h": "w"}
    lists = {"a": "dbef", "b": "cagh", "d": "eabc", "f": "abcd", "g": "h", "c": "ab"}
    rows = np.full((len(lists), 4), ABSENT)
    for row, listed in enumerate(lists.values()):
        rows[row, : len(listed)] = [ids.index(item) for item in listed]
    scores = np.where(rows == ABSENT, -np.inf, 1 - np.arange(4) / 10).astype(np.float32)
    training = TrainingSet(Path(), ids, tuple(labels[item] for item in ids), ("",) * 8)
    return Ranking(tuple(lists), ids, rows, scores, np.arange(8)), training


def test_pairs_are_those_of_the_labels_and_the_lists(capsys: pytest.CaptureFixture[str]) -> None:
    ranking, training = small_ranking()
    mined = mine(ranking, training, hard=2)
    found = {
        mined.ids[anchor]: [mined.ids[place] for place in others]
        for anchor, others in zip(mined.anchors, mined.negatives, strict=True)
    }
    # f is alone in its class; g and c have no other class in their lists.
    assert found == {"a": ["d", "e"], "b": ["g", "h"], "d": ["a", "b"]}
    assert "3 of 6 images have no other of their class, or no negative" in capsys.readouterr().err
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        for anchor, positive, negative in np.stack(mined.drawn(np.arange(3), rng), 1).tolist():
            seen.add((mined.ids[anchor], mined.ids[positive], mined.ids[negative]))
    same = {"a": "bc", "b": "ac", "d": "e"}
    assert seen == {(anchor, p, n) for anchor, others in found.items() for p in same[anchor] for n in others}


def test_what_has_no_label_or_no_pair_is_refused() -> None:
    ranking, training = small_ranking()
    with pytest.raises(OpenIliasError, match=r"1 of 8 images of the ranking have no label: h\."):
        mine(ranking, training.without(["h"]), hard=5)
    alone = replace(training, labels=tuple("abcdefgh"))
    with pytest.raises(OpenIliasError, match="No image has both"):
        mine(ranking, alone, hard=5)


def test_the_order_of_the_labels_says_nothing(made: tuple[Path, LocalStore, TrainingSet]) -> None:
    ranking, labels = read_ranking(made[0])[0], made[2]
    turned = TrainingSet(labels.root, labels.ids[::-1], labels.labels[::-1], labels.domains[::-1])
    one, other = (mine(ranking, given, hard=20) for given in (labels, turned))
    assert (one.classes == other.classes).all()
    assert (one.anchors == other.anchors).all()


def test_classes_kept_back_are_not_learned_from(made: tuple[Path, LocalStore, TrainingSet]) -> None:
    mined = mine(read_ranking(made[0])[0], made[2], hard=20)
    learned, kept = kept_back(mined, 12, seed=0)
    assert kept is not None
    assert 5 <= len(kept.anchors) <= 12
    gone = set(mined.classes[kept.anchors].tolist())
    seen = set(mined.classes[learned.anchors].tolist())
    seen |= {int(mined.classes[place]) for others in learned.negatives for place in others}
    assert not gone & seen
    assert len(learned.anchors) + len(kept.anchors) == len(mined.anchors)
    assert kept_back(mined, 0, seed=0)[1] is None
    again = kept_back(mined, 12, seed=0)[1]
    assert again is not None
    assert (again.anchors == kept.anchors).all()
    other = kept_back(mined, 12, seed=1)[1]
    assert other is not None
    assert set(other.anchors.tolist()) != set(kept.anchors.tolist())


# --- steps ---


def training_of(
    made: tuple[Path, LocalStore, TrainingSet], settings: AmesSettings, bits: Binarisation | None = None,
    teacher: Ames | None = None,
) -> AmesTraining:  # fmt: skip
    mined = mine(read_ranking(made[0])[0], made[2], hard=settings.hard)
    network = drawn_network(DIMS, settings, bits, teacher)
    return AmesTraining(network, mined, database_of_local([made[1]], mined.ids), settings, teacher=teacher)


def plain_logit(network: Ames, query: LocalFeatures, image: LocalFeatures) -> Tensor:
    """One pair alone: nothing is padded."""
    asked, known = (torch.from_numpy(one.descriptors.astype(np.float32))[None] for one in (query, image))
    out: Tensor = network(network.tokens_of(asked, image=False), network.tokens_of(known, image=True))
    return out[0]


@pytest.mark.parametrize("binary", [False, True])
def test_the_loss_is_that_of_pairs_one_by_one(made: tuple[Path, LocalStore, TrainingSet], binary: bool) -> None:
    settings = replace(SMALL, distil=0.3, teacher_descriptors=12, dims=64)
    torch.manual_seed(3)
    teacher = Ames(DIMS, dims=24, layers=1, wide=32).eval() if binary else None
    bits = bits_of() if binary else None
    training = training_of(made, settings, bits, teacher)
    before = drawn_network(DIMS, settings, bits, teacher).train()
    loss = next(training.steps())
    database, mined = training._database, training._mined
    order = np.random.default_rng([0, 0]).permutation(len(mined.anchors))[: settings.batch]
    rng = np.random.default_rng([0, 0, 0])
    rng.uniform(1, 1, 2)
    total = 0.0
    with torch.no_grad():
        for anchor, *others in np.stack(mined.drawn(order, rng), 1).tolist():
            query = database.features(mined.ids[anchor], 12)
            for image, label in zip(others, (1.0, 0.0), strict=True):
                logit = plain_logit(before, query, database.features(mined.ids[image], 8))
                wanted = [(0.7 if teacher else 1.0, label)]
                if teacher is not None:
                    told = torch.sigmoid(plain_logit(teacher, query, database.features(mined.ids[image], 12)))
                    wanted.append((0.3, float(told)))
                p = float(torch.sigmoid(logit))
                total -= sum(w * (t * np.log(p) + (1 - t) * np.log(1 - p)) for w, t in wanted)
    assert loss == pytest.approx(total / (2 * settings.batch), rel=1e-5)


def test_it_learns_to_tell_its_pairs_apart(made: tuple[Path, LocalStore, TrainingSet]) -> None:
    training = training_of(made, replace(SMALL, epochs=20, dims=32))
    losses = list(training.steps())
    assert np.mean(losses[:5]) == pytest.approx(np.log(2), abs=0.05)
    assert np.mean(losses[-10:]) < 0.6
    mined, database = training._mined, training._database
    assert told_apart(training.network, mined, database, training.settings, "cpu") > 0.85
    untrained = drawn_network(DIMS, training.settings, None, None)
    assert told_apart(untrained, mined, database, training.settings, "cpu") < 0.7


def test_bits_learn_and_a_student_begins_with_the_layers_of_its_teacher(
    made: tuple[Path, LocalStore, TrainingSet],
) -> None:
    torch.manual_seed(0)
    settings = replace(SMALL, dims=64, epochs=1)
    teacher = Ames(DIMS, dims=64, layers=2, wide=32).eval()
    bits = bits_of()
    student = drawn_network(DIMS, settings, bits, teacher)
    mine_, theirs = student.state_dict(), teacher.state_dict()
    assert torch.equal(mine_["decoder.layers.1.linear1.weight"], theirs["decoder.layers.1.linear1.weight"])
    assert torch.equal(mine_["remap_local.0.W"], torch.from_numpy(bits.weight))
    training = training_of(made, settings, bits, teacher)
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    list(training.steps())
    after = training.network.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(theirs[name], value) for name, value in teacher.state_dict().items())
    deeper = drawn_network(DIMS, replace(settings, layers=3), bits, teacher)  # of other sizes: nothing is taken over
    assert not torch.equal(deeper.state_dict()["classifier.weight"], theirs["classifier.weight"])


def test_the_rate_rises_and_falls(made: tuple[Path, LocalStore, TrainingSet]) -> None:
    training = training_of(made, replace(SMALL, epochs=10, warmup=0.1))
    shares = []
    for done in range(training.total):
        training.done = done
        shares.append(training._share())
    rising = round(0.1 * training.total)
    assert shares[:rising] == pytest.approx(np.arange(1, rising + 1) / rising)
    assert shares[rising] == 1
    assert (np.diff(shares[rising:]) < 0).all()
    assert 0 < shares[-1] < 0.01


def test_descriptors_are_drawn_for_a_network_of_any_number(
    made: tuple[Path, LocalStore, TrainingSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    from openilias.rerank import ames_training

    seen = []

    def noted(network: Ames, query: Any, images: Any) -> Tensor:
        seen.append((query.values.shape[1], images.values.shape[1]))
        return logits(network, query, images)

    logits = ames_training.logits_of
    monkeypatch.setattr(ames_training, "logits_of", noted)
    list(training_of(made, replace(SMALL, fewest=0.25)).steps())
    assert {asked for asked, _ in seen} >= {4, 8, 11}
    assert min(known for _, known in seen) == 2
    assert max(asked for asked, _ in seen) <= 12
    assert max(known for _, known in seen) <= 8


def test_sets_of_bits_are_signs_and_empty_ones_are_padded() -> None:
    packed = np.packbits(np.random.default_rng(0).random((3, 64)) > 0.5, axis=1)
    geometry = np.zeros((3, 4), np.float32)
    made = sets_of([LocalFeatures(packed, geometry, 9, 9), LocalFeatures(packed[:0], geometry[:0], 9, 9)], "cpu")
    assert made.signs
    assert made.values.shape == (2, 3, 64)
    assert torch.equal(made.values[0] > 0, torch.from_numpy(np.unpackbits(packed, axis=1)).bool())
    assert made.padded.tolist() == [[False] * 3, [True] * 3]


# --- files ---


def test_killed_it_goes_on_as_if_nothing_had_happened(
    made: tuple[Path, LocalStore, TrainingSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking, store, training = made
    whole = learn_ames_to(ranking, [store], training, SMALL, tmp_path / "whole")
    monkeypatch.setattr(steps_module, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(steps_module, "_SHARE", 0)
    step, count = AmesTraining._step, 0

    def killed(self: AmesTraining, *arguments: Any) -> float:
        nonlocal count
        count += 1
        if count % 9 == 0:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(AmesTraining, "_step", killed)
    tries = 0
    while True:
        try:
            again = learn_ames_to(ranking, [store], training, SMALL, tmp_path / "again")
            break
        except KeyboardInterrupt:
            tries += 1
            assert not (tmp_path / "again").exists()
    assert tries >= 2
    assert digest_of(again.network) == digest_of(whole.network)
    assert again.manifest["history"] == whole.manifest["history"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "whole"]
    count = -(10**6)
    same = learn_ames_to(ranking, [store], training, SMALL, tmp_path / "again")  # nothing is done
    assert same.manifest == again.manifest
    assert count == -(10**6)


def test_the_checkpoint_has_the_published_form(made: tuple[Path, LocalStore, TrainingSet], tmp_path: Path) -> None:
    ranking, store, training = made
    settings = replace(SMALL, epochs=1, held_out=0)
    learned = learn_ames_to(ranking, [store], training, settings, tmp_path / "b", bits=bits_of())
    file = torch.load(tmp_path / "b" / NETWORK, weights_only=True)
    assert {"mtc_token", "remap_local.0.W", "remap_local.1.weight", "remap_local.2.bias", "classifier.bias"} <= set(
        file["state"]
    )
    assert {name.split(".")[2] for name in file["state"] if name.startswith("decoder.layers.")} == {"0", "1"}
    assert digest_of(read_ames(tmp_path / "b" / NETWORK)) == digest_of(learned.network)
    assert learned.manifest["history"][-1]["told_apart"] is None
    with pytest.raises(OpenIliasError, match="made from something else"):
        learn_ames_to(ranking, [store], training, replace(settings, seed=1), tmp_path / "b", bits=bits_of())
    (tmp_path / "b" / NETWORK).write_bytes((tmp_path / "b" / NETWORK).read_bytes()[:-2000])
    with pytest.raises(OpenIliasError):
        read_learned(tmp_path / "b")


def test_packed_stores_are_learned_from_by_their_own_bits(
    made: tuple[Path, LocalStore, TrainingSet], tmp_path: Path
) -> None:
    ranking, store, training = made
    pack_store(store, bits_of(), tmp_path / "packed")
    packed = open_local_store(tmp_path / "packed")
    settings = replace(SMALL, epochs=1)
    learned = learn_ames_to(ranking, [packed], training, settings, tmp_path / "b", bits=bits_of())
    assert learned.network.local_dims == DIMS
    assert torch.equal(learned.network.state_dict()["remap_local.0.W"], torch.from_numpy(bits_of().weight))
    other = Binarisation(-bits_of().weight, bits_of().mean)
    for bits, teacher in ((None, None), (other, None), (bits_of(), Ames(DIMS, dims=16))):
        with pytest.raises(OpenIliasError, match=r"Packed stores|A teacher is"):
            learn_ames_to(ranking, [packed], training, settings, tmp_path / "c", bits=bits, teacher=teacher)


def test_by_the_command_line(made: tuple[Path, LocalStore, TrainingSet], tmp_path: Path, ilias: Ilias) -> None:
    ranking, store, training = made
    labels = training.root / "labels.parquet"
    common = ["ames", "train", ranking, "--local", store.folder, "--labels", labels]
    small = ["--layers", 1, "--epochs", 1, "--batch-size", 16, "--query-descriptors", 12, "--descriptors", 8]
    done = ilias(*common, *small, "--out", tmp_path / "t", "--json", tmp_path / "t.json")
    assert f"{tmp_path / 't' / NETWORK}: {DIMS} to 128 dimensions, loss 0." in done.out
    assert json.loads((tmp_path / "t.json").read_text())["made_from"]["epochs"] == 1
    write_binarisation(bits_of(bits=64), tmp_path / "itq.safetensors", made_from={})
    student = [
        "--itq",
        tmp_path / "itq.safetensors",
        "--teacher",
        tmp_path / "t" / NETWORK,
        "--teacher-descriptors",
        12,
    ]
    done = ilias(*common, *small, *student, "--out", tmp_path / "b")
    assert "64 to 64 bits" in done.out
    assert "told apart" in done.out
    for wrong, said in (
        (["--batch-size", 10_000], "fewer than a batch"),
        (["--teacher", tmp_path / "t" / NETWORK], "A teacher is a network of numbers"),
        (["--itq", labels], "binarisation cannot be read"),
        (["--labels", tmp_path / "none"], "no such training list"),
        (["--distil", 0.9], "belong to --teacher"),
        ([*student[:2], "--teacher", tmp_path / "b" / NETWORK], "A teacher is a network of numbers"),
    ):
        found = ilias(*common, *small, *wrong, "--out", tmp_path / "w")
        assert found.code == 2
        assert re.search(said, found.err), found
        assert not (tmp_path / "w").exists()


def test_from_pictures_to_a_network(tmp_path: Path, ilias: Ilias) -> None:
    settings = SynthSettings(objects=1, distractors=0, size=128, positives=(2, 2), train=8, train_images=(3, 4))
    build_synth(tmp_path / "made", settings, workers=1)
    root, source = tmp_path, (tmp_path / "made", "--partition", "train")
    for arguments in (
        (
            "extract",
            *source,
            "--model",
            "resnet10t",
            "--random-weights",
            0,
            "--resolution",
            64,
            "--out",
            tmp_path / "g",
        ),
        ("extract", *source, "--local", "--model", "sift", "--resolution", 128, "--most", 40, "--out", root / "l"),
    ):
        assert ilias(*arguments, "--workers", 1).code == 0
    search = ("search", "--queries", tmp_path / "g", "--database", tmp_path / "g", "-k", 12, "--out", tmp_path / "r")
    done = ilias(*search)
    assert done.code == 2
    assert "This store holds train" in done.err
    done = ilias(*search, "--self-matches", "remove")
    assert done.code == 0, done.err
    ranking, _ = read_ranking(tmp_path / "r")
    assert all(item not in ranking.ids_of(query) for query, item in enumerate(ranking.query_ids))
    done = ilias(
        "ames", "train", root / "r", "--local", root / "l", "--labels", root / "made", "--out", root / "n",
        "--layers", 1, "--epochs", 1, "--batch-size", 8, "--query-descriptors", 20, "--descriptors", 10,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert read_learned(tmp_path / "n").network.local_dims == 128
