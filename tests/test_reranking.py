"""Re-ranking by local descriptors: global and local together, the tail, files, tuning, wrong input."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openilias.core.errors import OpenIliasError
from openilias.data import Benchmark
from openilias.descriptors.extract import Options
from openilias.descriptors.extract_local import LocalOptions, extract_local
from openilias.descriptors.local_store import LocalStore, open_local_store
from openilias.evaluate.results import evaluate_to
from openilias.experiments.experiment import Experiment
from openilias.experiments.report import report_run
from openilias.experiments.run import run_experiment
from openilias.models.local_backbone import LocalSettings
from openilias.models.local_zoo import load_local
from openilias.rerank import similarities as comparing
from openilias.rerank.ames import Ames
from openilias.rerank.ames_files import digest_of, read_ames, write_ames
from openilias.rerank.chamfer import chamfer
from openilias.rerank.ensemble import Mix, best_of, grid, mixed
from openilias.rerank.itq import Binarisation, read_binarisation
from openilias.rerank.packing import ItqSettings, learn_itq_to, pack_store, sample_of
from openilias.rerank.rerank import read_reranked, rerank_to
from openilias.rerank.similarities import LocalStep
from openilias.search.members import read_member
from openilias.search.merge import merge_to
from openilias.search.ranking import ABSENT, Ranking, read_ranking

Ilias = Callable[..., Any]
PARTITIONS = ("image_queries", "positives", "distractors")


# --- global and local together ---


def ranking(scores: np.ndarray, lengths: list[int]) -> Ranking:
    queries, width = scores.shape
    rows = np.tile(np.arange(width), (queries, 1))
    for query, length in enumerate(lengths):
        rows[query, length:], scores[query, length:] = ABSENT, -np.inf
    ids = tuple(f"d/{row}" for row in range(width))
    return Ranking(tuple(f"q{n}" for n in range(queries)), ids, rows, scores.astype(np.float32), np.arange(width))


@pytest.mark.parametrize("shortlist", [1, 5, 12, 100])
def test_the_mix_equals_plain_python_and_the_tail_keeps_its_order(shortlist: int) -> None:
    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.random((4, 12)).round(2), axis=1)  # with ties
    first = ranking(scores.copy(), [12, 12, 7, 0])
    local = np.where(first.rows[:, :shortlist] == ABSENT, np.nan, rng.normal(0, 30, first.rows[:, :shortlist].shape))
    found = mixed(first, local.astype(np.float32), Mix(shortlist=shortlist, global_weight=0.3, gamma=0.05))
    for query, length in enumerate([12, 12, 7, 0]):
        head = []
        for place in range(min(shortlist, length)):
            value = 0.3 * float(first.scores[query, place])
            value += 0.7 / (1 + math.exp(-0.05 * float(np.float32(local[query, place]))))
            head.append((-np.float32(value), place))
        head.sort()
        assert found.ids_of(query) == [f"d/{place}" for _, place in head] + [
            f"d/{place}" for place in range(min(shortlist, length), length)
        ]
        assert np.abs(found.scores[query, : len(head)] + [value for value, _ in head]).max(initial=0) < 1e-6
        tail, before = found.scores[query, len(head) : length], first.scores[query, len(head) : length]
        if len(head) and len(tail):
            assert tail[0] < found.scores[query, len(head) - 1]
        assert ((np.diff(tail) == 0) == (np.diff(before) == 0)).all()  # equal ones stay equal


def test_very_long_tails_stay_in_order() -> None:
    scores = np.linspace(1, 0, 300_000)[None].astype(np.float32)
    first = ranking(scores.copy(), [300_000])
    found = mixed(first, np.zeros((1, 10), np.float32), Mix(shortlist=10))
    assert (found.rows == first.rows).all()
    assert ((np.diff(found.scores[0, 10:]) == 0) == (np.diff(first.scores[0, 10:]) == 0)).all()


def test_similarities_that_are_missing_are_noticed() -> None:
    first = ranking(np.ones((2, 5)), [5, 5])
    with pytest.raises(OpenIliasError, match="too few for 2 lists and a shortlist of 5"):
        mixed(first, np.zeros((2, 4), np.float32), Mix(shortlist=5))
    with pytest.raises(OpenIliasError, match="has no local similarity"):
        mixed(first, np.full((2, 5), np.nan, np.float32), Mix(shortlist=5))


def test_the_grid_finds_the_best_mix() -> None:
    rng = np.random.default_rng(1)
    first = ranking(-np.sort(-rng.random((3, 20)), axis=1), [20] * 3)
    local = rng.normal(0, 20, (3, 20)).astype(np.float32)
    tried = list(grid(first, local, lambda one: float(one.rows[0, 0] == 7) + 0.1 * (one.rows[1, 0] == 3),
                      shortlists=(5, 20), weights=(0.0, 0.5, 1.0), gammas=(0.01, 1.0)))  # fmt: skip
    assert len(tried) == 12
    best = best_of(tried)
    assert best.map == max(one.map for one in tried)
    assert best is next(one for one in tried if one.map == best.map)
    with pytest.raises(OpenIliasError, match="no mix to choose from"):
        best_of([])


# --- from a ranking to a better one ---


class Made:
    def __init__(self, root: Path, benchmark: Benchmark) -> None:
        self.root, self.benchmark = root, benchmark
        run_experiment(
            Experiment(
                benchmark=benchmark.root, model="resnet10t", random_weights=0, protocol={"resolution": 64},
                out=root / "run",
            )
        )  # fmt: skip
        model = load_local("sift", LocalSettings(resolution=160, most=150))
        for partition in PARTITIONS:
            extract_local(benchmark, model, partition, root / "local" / partition, LocalOptions(Options(workers=1)))

    @property
    def ranking(self) -> Path:
        return self.root / "run" / "ranking"

    def stores(self, kind: str = "local") -> tuple[list[LocalStore], list[LocalStore]]:
        queries, *database = (open_local_store(self.root / kind / partition) for partition in PARTITIONS)
        return [queries], database


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Made:
    from openilias.data import read_ilias

    found = Made(tmp_path_factory.mktemp("reranking"), read_ilias(tiny_root))
    (queries,), database = found.stores()
    binarisation = learn_itq_to(database, ItqSettings(bits=64, iterations=10), found.root / "itq.safetensors")
    for store in (queries, *database):
        assert not pack_store(store, binarisation, found.root / "packed" / store.partition, most=80)
    return found


@pytest.mark.parametrize("kind", ["local", "packed"])
@pytest.mark.parametrize("method", ["chamfer", "spatial"])
def test_a_ranking_becomes_a_better_one(made: Made, tmp_path: Path, kind: str, method: Any) -> None:
    queries, database = made.stores(kind)
    step = LocalStep(method=method, shortlist=10, descriptors=50, query_descriptors=70)
    found = rerank_to(
        made.ranking, queries, database, step, Mix(shortlist=10, gamma=0.05), tmp_path / "out" / "ranking"
    )
    first, _ = read_ranking(made.ranking)
    assert found.similarities.shape == (len(first.query_ids), 10)
    for query in range(len(first.query_ids)):
        assert sorted(found.ranking.ids_of(query)[:10]) == sorted(first.ids_of(query)[:10])
        assert found.ranking.ids_of(query)[10:] == first.ids_of(query)[10:]
    if method == "chamfer":  # of the first query and its third image
        places = [store.find([item]) for store, item in ((queries[0], first.query_ids[0]),)]
        asked = queries[0].shards[places[0][0, 0]].take(int(places[0][0, 1]), 70)
        item = first.ids_of(0)[2]
        for store in database:
            shard, place = store.find([item])[0]
            if shard >= 0:
                image = store.shards[shard].take(int(place), 50)
                alone = chamfer(asked.descriptors, image.descriptors, np.array([0, len(image)]))
                assert found.similarities[0, 2] == pytest.approx(alone[0], abs=1e-4)
    evaluation = evaluate_to(tmp_path / "out" / "ranking", made.benchmark, tmp_path / "out" / "evaluation")
    assert evaluation.described
    assert report_run(tmp_path / "out", tmp_path / "out" / "report", benchmark=made.benchmark.root).is_file()


def test_it_is_made_once_and_mixed_again_for_nothing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, database = made.stores()
    step, mix = LocalStep(shortlist=12), Mix(shortlist=12)
    first = rerank_to(made.ranking, queries, database, step, mix, tmp_path / "one")
    monkeypatch.setattr("openilias.rerank.rerank.similarities", None)
    again = rerank_to(made.ranking, queries, database, step, mix, tmp_path / "one")
    assert (again.ranking.rows == first.ranking.rows).all()
    other = Mix(shortlist=8, global_weight=0.1, gamma=0.02)
    found = rerank_to(made.ranking, queries, database, step, other, tmp_path / "two", again=tmp_path / "one")
    assert (found.similarities == first.similarities).all()
    with pytest.raises(OpenIliasError, match=r"rerank\.mix\.gamma"):
        rerank_to(made.ranking, queries, database, step, other, tmp_path / "one")
    with pytest.raises(OpenIliasError, match=r"made from something else:\n    local\.descriptors"):
        rerank_to(
            made.ranking, queries, database, step.model_copy(update={"descriptors": 7}), mix, tmp_path / "three",
            again=tmp_path / "one",
        )  # fmt: skip
    path = tmp_path / "one" / "similarities.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(OpenIliasError, match="not as it was written"):
        read_reranked(tmp_path / "one")


def test_killed_it_goes_on(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, database = made.stores()
    step, mix = LocalStep(shortlist=9), Mix(shortlist=9)
    whole = rerank_to(made.ranking, queries, database, step, mix, tmp_path / "whole")
    monkeypatch.setattr(comparing, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(comparing, "_SHARE", 0)
    seen: list[int] = []

    def broken(query: Any, some: Any) -> Any:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return chamfer(query.descriptors, some.descriptors, some.offsets)

    monkeypatch.setattr("openilias.rerank.rerank.score_by", lambda step: broken)
    with pytest.raises(KeyboardInterrupt):
        rerank_to(made.ranking, queries, database, step, mix, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    found = rerank_to(made.ranking, queries, database, step, mix, tmp_path / "out")
    assert len(seen) == 1 + len(whole.ranking.query_ids)  # the third one twice
    for name in ("ranking.parquet", "similarities.npy"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, other = (json.loads((tmp_path / name / "ranking.json").read_text()) for name in ("out", "whole"))
    assert one.pop("seconds") > 0
    assert other.pop("seconds") > 0
    assert one == other
    assert (found.similarities == whole.similarities).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_what_does_not_belong_together_is_refused(made: Made, tmp_path: Path) -> None:
    queries, database = made.stores()
    packed_queries, packed = made.stores("packed")
    step, mix = LocalStep(shortlist=9), Mix(shortlist=9)
    for some, others, message in (
        (queries, packed, "were not made alike:\n    binarisation"),
        (packed_queries, database, "were not made alike"),
        (queries, database[:1], "images have no local descriptors"),
        (database, database, "have no local descriptors"),
    ):
        with pytest.raises(OpenIliasError, match=message):
            rerank_to(made.ranking, some, others, step, mix, tmp_path / "out")
    with pytest.raises(OpenIliasError, match="shortlist of 10 is mixed, and only one of 9"):
        rerank_to(made.ranking, queries, database, step, Mix(shortlist=10), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    rerank_to(made.ranking, queries, database, step, mix, tmp_path / "done")
    with pytest.raises(OpenIliasError, match="re-ranked already"):
        rerank_to(tmp_path / "done", queries, database, step, mix, tmp_path / "out")
    with pytest.raises(OpenIliasError, match="of local descriptors too"):
        read_member(tmp_path / "done", [])
    with pytest.raises(OpenIliasError, match="was changed after the search"):
        merge_to([tmp_path / "done", tmp_path / "done"], tmp_path / "out")
    with pytest.raises(OpenIliasError, match="is not re-ranked"):
        read_reranked(made.ranking)
    shutil.copytree(made.root / "local" / "positives", tmp_path / "damaged")
    path = tmp_path / "damaged" / "00000.desc.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    bad = [open_local_store(tmp_path / "damaged"), database[1]]
    with pytest.raises(OpenIliasError, match="not as it was written"):
        rerank_to(made.ranking, queries, bad, step, mix, tmp_path / "out")


@pytest.mark.parametrize("kind", ["local", "packed"])
def test_ames_from_the_command_line(made: Made, tmp_path: Path, ilias: Ilias, kind: str) -> None:
    network = Ames(128, binary=kind == "packed", dims=64, layers=2, wide=40).eval()
    write_ames(network, tmp_path / "ames.pt", made_from={})
    folder = made.root / kind
    if kind == "packed":
        folder = tmp_path / "bits"
        for partition in PARTITIONS:
            packing = ("local", "pack", made.root / "local" / partition, "--network", tmp_path / "ames.pt")
            assert ilias(*packing, "--out", folder / partition).code == 0
    common = ["rerank", made.ranking, "--method", "ames", "--queries", folder / "image_queries", "--shortlist", 4]
    common += ["--database", folder / "positives", "--database", folder / "distractors", "--global-weight", 0.35]
    common += ["--gamma", 0.1]
    done = ilias(*common, "--out", tmp_path / "out")
    assert done.code == 2
    assert "--method ames and --network FILE belong together" in " ".join(done.err.split())
    done = ilias(*common, "--out", tmp_path / "out", "--network", tmp_path / "ames.pt")
    assert done.code == 0, done.err
    found = read_reranked(tmp_path / "out")
    assert found.manifest["made_from"]["rerank"]["network"].startswith(digest_of(network))
    assert np.isfinite(found.similarities).all()
    assert found.similarities.std() > 0


# --- packing ---


def test_packed_stores_hold_the_bits_of_the_others(made: Made, tmp_path: Path) -> None:
    (queries,), database = made.stores()
    _, packed = made.stores("packed")
    binarisation = learn_itq_to(database, ItqSettings(bits=64, iterations=10), made.root / "itq.safetensors")
    for store, bits in zip(database, packed, strict=True):
        assert (bits.bits, bits.dims) == (64, 64)
        assert bits.bytes_per_image()["descriptors"] <= 80 * 8
        for one, other in zip(store.shards, bits.shards, strict=True):
            assert one.id_array() == other.id_array()
            for place in range(one.images):
                whole, found = one.take(place, 80), other.take(place)
                assert (found.descriptors == binarisation.pack(whole.descriptors)).all()
                assert (found.geometry == whole.geometry).all()
    with pytest.raises(OpenIliasError, match="packed already"):
        pack_store(packed[0], binarisation, tmp_path / "x")
    other = Binarisation(np.zeros((7, 64), np.float32), np.zeros(7, np.float32))
    with pytest.raises(OpenIliasError, match="takes 7 dimensions"):
        pack_store(queries, other, tmp_path / "x")
    with pytest.raises(OpenIliasError, match="learned from something else"):
        learn_itq_to(database, ItqSettings(bits=64, seed=3), made.root / "itq.safetensors")
    with pytest.raises(OpenIliasError, match="stores of numbers of the same dimensions"):
        sample_of([database[0], packed[0]], 10, seed=0)


def test_samples_are_drawn_from_all_shards(made: Made) -> None:
    _, database = made.stores()
    rows = np.concatenate([shard.descriptors for store in database for shard in store.shards])
    drawn = sample_of(database, 200, seed=0)
    assert drawn.shape == (200, 128)
    known = {row.tobytes() for row in rows.astype(np.float32)}
    assert all(row.tobytes() in known for row in drawn)
    everything = sample_of(database, 10**9, seed=0)
    assert sorted(map(bytes, everything)) == sorted(map(bytes, rows.astype(np.float32)))
    assert (sample_of(database[::-1], 10**9, seed=0) == everything).all()
    assert (sample_of(database[::-1], 200, seed=0) == drawn).all()
    assert (sample_of(database, 200, seed=1) != drawn).any()


def test_a_damaged_packed_store_is_made_again(made: Made, tmp_path: Path) -> None:
    _, database = made.stores()
    bits, _ = read_binarisation(made.root / "itq.safetensors")
    pack_store(database[0], bits, tmp_path / "p")
    before = (tmp_path / "p" / "00000.desc.npy").read_bytes()
    (tmp_path / "p" / "00000.desc.npy").write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    pack_store(database[0], bits, tmp_path / "p", overwrite=True)
    assert (tmp_path / "p" / "00000.desc.npy").read_bytes() == before


# --- from the command line ---


def test_the_commands(made: Made, tmp_path: Path, ilias: Ilias) -> None:
    local = made.root / "packed"
    common = ["rerank", made.ranking, "--queries", local / "image_queries", "--database", local / "positives"]
    common += ["--database", local / "distractors"]
    done = ilias(*common, "--method", "chamfer", "--out", tmp_path / "no")
    assert done.code == 2
    assert "has no default" in done.err
    done = ilias(
        *common, "--method", "spatial", "--scales", "--out", tmp_path / "one", "--global-weight", 0.5, "--gamma", 0.1
    )
    assert done.code == 0, done.err
    done = ilias(
        "tune", tmp_path / "one", "--benchmark", made.benchmark.root, "--out", tmp_path / "mix.json",
        "--shortlists", "5,10", "--weights", "0,0.5,1", "--json", tmp_path / "tuned.json",
    )  # fmt: skip
    assert done.code == 0, done.err
    tuned = json.loads((tmp_path / "tuned.json").read_text())
    assert tuned["tried"] == 2 * 3 * 11
    done = ilias(
        *common, "--method", "spatial", "--scales", "--out", tmp_path / "two", "--mix", tmp_path / "mix.json",
        "--similarities", tmp_path / "one",
    )  # fmt: skip
    assert done.code == 0, done.err
    evaluation = evaluate_to(tmp_path / "two", made.benchmark, None)
    assert evaluation.map == pytest.approx(tuned["map"])
    done = ilias("tune", tmp_path / "one", "--benchmark", made.benchmark.root, "--out", tmp_path / "mix.json")
    assert done.code == 2
    assert "There is a mix already" in done.err
    listed = ("extract", made.benchmark.root, "--local", "--model", "sift", "--partition", "distractors")
    done = ilias(*listed, "--shortlist", made.ranking, "--top", 1, "--out", tmp_path / "short", "--workers", 1)
    assert done.code == 0, done.err
    assert "an image takes" in done.out
    done = ilias("local", "itq", tmp_path / "short", "--bits", 64, "--out", tmp_path / "itq.safetensors")
    assert done.code == 0, done.err
    done = ilias("local", "pack", tmp_path / "short", "--itq", tmp_path / "itq.safetensors", "--out", tmp_path / "bits")
    assert done.code == 0, done.err
    for wrong, message in (
        (("--local", "--pooling", "gem"), "--pooling cannot be used with --local"),
        (("--most", 5), "--most can only be used with --local"),
    ):
        done = ilias(
            "extract",
            made.benchmark.root,
            "--model",
            "sift",
            "--partition",
            "positives",
            "--out",
            tmp_path / "x",
            *wrong,
        )
        assert done.code == 2
        assert message in " ".join(done.err.split())


def test_homographies_and_hypotheses_from_the_command_line(made: Made, tmp_path: Path, ilias: Ilias) -> None:
    local = made.root / "local"
    common = ["rerank", made.ranking, "--queries", local / "image_queries", "--database", local / "positives"]
    common += ["--database", local / "distractors", "--method", "spatial", "--scales", "--global-weight", 0.5]
    common += ["--gamma", 0.1, "--shortlist", 8, "--cosine", 0.8, "--tolerance", 6]
    found = []
    for name, options in (
        ("affine", ()),
        ("homography", ("--estimator", "homography")),
        ("few", ("--estimator", "homography", "--hypotheses", 1)),
    ):
        done = ilias(*common, *options, "--out", tmp_path / name)
        assert done.code == 0, done.err
        found.append(read_reranked(tmp_path / name))
    settings = [one.manifest["made_from"]["rerank"]["local"]["spatial"] for one in found]
    assert [one["estimator"] for one in settings] == ["affine", "homography", "homography"]
    assert [one["hypotheses"] for one in settings] == [1000, 1000, 1]
    affine, homography, few = (one.similarities for one in found)
    assert (homography >= affine - 2).all()
    assert homography.sum() > affine.sum() > 0
    assert few.sum() < homography.sum()
    assert len({one.manifest["fingerprint"] for one in found}) == 3
    done = ilias(*common, "--out", tmp_path / "homography")
    assert done.code == 2
    assert "rerank.local.spatial.estimator" in done.err
    done = ilias(*common, "--estimator", "fundamental", "--out", tmp_path / "other")
    assert done.code == 2
    assert not (tmp_path / "other").exists()


# --- what would be a wrong number, silently ---


def test_scores_that_differ_still_differ_when_they_are_rounded() -> None:
    first = ranking(-np.sort(-np.random.default_rng(0).random((2, 40)), axis=1), [40, 33])
    local = np.random.default_rng(1).integers(150, 250, (2, 40)).astype(np.float32)
    found = mixed(first, np.where(first.rows == ABSENT, np.nan, local), Mix(shortlist=40, global_weight=0, gamma=0.1))
    for query, length in enumerate((40, 33)):
        scores = found.scores[query, :length]
        order = local[query][found.rows[query, :length]]
        assert (np.diff(order) <= 0).all()  # rows are places in the first list
        assert ((np.diff(scores) == 0) == (np.diff(order) == 0)).all()


def test_a_sigmoid_that_says_nothing_is_told(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries, database = made.stores()
    for gamma, said in ((2.0, True), (0.01, False)):
        mix = Mix(shortlist=5, gamma=gamma)
        rerank_to(made.ranking, queries, database, LocalStep(shortlist=5), mix, tmp_path / "o", overwrite=True)
        assert ("tells them hardly apart" in capsys.readouterr().err) == said


def test_a_network_takes_no_store_of_other_bits(made: Made, tmp_path: Path, ilias: Ilias) -> None:
    write_ames(Ames(128, binary=True, dims=64, layers=1, wide=16).eval(), tmp_path / "ames.pt", made_from={})
    folder = made.root / "packed"
    done = ilias(
        "rerank", made.ranking, "--method", "ames", "--network", tmp_path / "ames.pt", "--shortlist", 3, "--out",
        tmp_path / "o", "--queries", folder / "image_queries", "--database", folder / "positives", "--database",
        folder / "distractors", "--global-weight", 0.5, "--gamma", 1,
    )  # fmt: skip
    assert done.code == 2
    assert "packed by other bits than those of the network" in done.err


def test_a_mix_belongs_to_its_method(made: Made, tmp_path: Path, ilias: Ilias) -> None:
    folder = made.root / "packed"
    common = ("--queries", folder / "image_queries", "--database", folder / "positives", "--database",
              folder / "distractors", "--shortlist", 4)  # fmt: skip
    by_hand = ("--global-weight", 0.5, "--gamma", 0.1)
    assert ilias("rerank", made.ranking, "--method", "chamfer", *common, *by_hand, "--out", tmp_path / "c").code == 0
    tuning = ("tune", tmp_path / "c", "--benchmark", made.benchmark.root, "--weights", "0.5", "--gammas", "1")
    assert ilias(*tuning, "--out", tmp_path / "mix.json").code == 0
    spatial = ("rerank", made.ranking, "--method", "spatial", *common, "--out", tmp_path / "s")
    done = ilias(*spatial, "--mix", tmp_path / "mix.json")
    assert done.code == 2
    assert "tuned for chamfer, not for spatial" in done.err
    for extra, said in (
        (("--precision", "float32"), "belong to AMES"),
        (("--method", "chamfer", "--tolerance", 3), "belong to spatial verification"),
        (("--method", "ames", "--network", tmp_path / "n.pt", "--precision", "float16"), "float16 is for GPUs"),
    ):
        done = ilias(*spatial, *by_hand, *extra)
        assert done.code == 2
        assert said in " ".join(done.err.replace("│", " ").split())
    done = ilias(*tuning, "-k", 18, "--out", tmp_path / "other.json")
    assert done.code == (0 if read_ranking(made.ranking)[0].rows.shape[1] >= 18 else 2)
    part = tmp_path / "part"
    run = made.root / "run"
    searched = ("search", "--queries", run / "image_queries", "--database", run / "positives", "-k", 6, "--out", part)
    assert ilias(*searched).code == 0
    sweep = ("--benchmark", made.benchmark.root, "--method", "chamfer", *common[:6], *by_hand, "--out", tmp_path / "w")
    done = ilias("sweep", part, *sweep, "--descriptors", "10", "--shortlists", "5")
    assert done.code == 2
    assert "were not searched" in done.err
    done = ilias("sweep", made.ranking, *sweep, "--descriptors", "10,81", "--shortlists", "5")
    assert done.code == 2
    assert "at most 80 are stored" in done.err


def test_local_descriptors_of_another_benchmark_are_refused(made: Made, tmp_path: Path) -> None:
    queries, database = made.stores()
    shutil.copytree(made.ranking, tmp_path / "r")
    manifest = json.loads((tmp_path / "r" / "ranking.json").read_text())
    manifest["made_from"]["benchmark"] = "0" * 16
    (tmp_path / "r" / "ranking.json").write_text(json.dumps(manifest))
    with pytest.raises(OpenIliasError, match="of another benchmark than the ranking"):
        rerank_to(tmp_path / "r", queries, database, LocalStep(shortlist=3), Mix(shortlist=3), tmp_path / "o")


def test_a_state_that_was_cut_off_begins_anew(made: Made, tmp_path: Path) -> None:
    queries, database = made.stores()
    first, _ = read_ranking(made.ranking)
    step = LocalStep(shortlist=3)
    whole = comparing.similarities(first, queries, database, step, comparing.score_by(step))
    np.savez(tmp_path / "s.npz", done=2, seconds=1.0, made=whole.values[:2])
    good = (tmp_path / "s.npz").read_bytes()
    for size in (0, 3, 10, len(good) // 2, len(good) - 1):
        (tmp_path / "s.npz").write_bytes(good[:size])
        again = comparing.similarities(first, queries, database, step, comparing.score_by(step), tmp_path / "s.npz")
        assert (again.values == whole.values).all()
    (tmp_path / "s.npz").write_bytes(good)
    again = comparing.similarities(first, queries, database, step, comparing.score_by(step), tmp_path / "s.npz")
    assert (again.values == whole.values).all()
    assert again.seconds > 1


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mtc_token", (95,)),
        ("mtc_token", (0,)),
        ("mtc_token", ()),
        ("remap_local.0.weight", (5,)),
        ("remap_local.0.weight", ()),
        ("decoder.layers.0.linear1.weight", (7,)),
    ],
)
def test_networks_of_strange_shapes_are_refused(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    state = Ames(16, dims=8, layers=1, wide=4).state_dict()
    torch.save({"state": {**state, name: torch.zeros(shape)}}, tmp_path / "n.pt")
    with pytest.raises(OpenIliasError, match=r"shapes of AMES|does not fit"):
        read_ames(tmp_path / "n.pt")


def test_a_network_without_a_layer_is_refused(tmp_path: Path) -> None:
    state = Ames(16, dims=8, layers=3, wide=4).state_dict()
    torch.save({"state": {n: v for n, v in state.items() if "layers.1." not in n}}, tmp_path / "n.pt")
    with pytest.raises(OpenIliasError, match="layers are missing"):
        read_ames(tmp_path / "n.pt")
