"""Compressed indexes against the exact ranking, their files, and the section of the report."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from itertools import combinations, pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from openilias.core.errors import OpenIliasError
from openilias.core.manifests import write_manifest
from openilias.core.protocol import Protocol
from openilias.descriptors.store import DescriptorStore, open_store, write_shard
from openilias.evaluate.evaluation import Evaluation
from openilias.evaluate.results import read_evaluation
from openilias.experiments.experiment import read_experiment
from openilias.experiments.report import report_run
from openilias.experiments.run import RunResult, run_experiment
from openilias.report import compression
from openilias.report.compression import CompressedSearch, chart, compression_of, compression_rows, recall_of
from openilias.search import indexes
from openilias.search.compressed import (
    IndexFacts,
    facts_of,
    rescored,
    search_compressed,
    search_compressed_to,
)
from openilias.search.exact import pair_scores
from openilias.search.indexes import IndexSpec, index_of, picked, sample_rows
from openilias.search.ranking import ABSENT, Ranking, read_ranking
from openilias.search.stores import search

N, D, Q, K = 10_400, 32, 20, 50


def store(
    folder: Path, partition: str, x: np.ndarray, cuts: list[int], *, first: int = 0, model: str = "m"
) -> DescriptorStore:
    """Write a store cut into shards; ids count up from ``first``."""
    folder.mkdir(parents=True)
    sources = [f"{partition}_{first:06d}_{number:02d}.tar" for number in range(len(cuts) - 1)]
    write_manifest(
        folder / "manifest.json",
        kind="descriptor store",
        made_from={
            "partition": partition,
            "benchmark": "b",
            "model": {"name": model},
            "weights": "w",
            "protocol": Protocol().model_dump(mode="json"),
        },
        sources=sources,
        dims=x.shape[1],
    )
    for number, (start, stop) in enumerate(pairwise(cuts)):
        ids = [f"{partition}/{first + row:06d}" for row in range(start, stop)]
        write_shard(folder, number, source=sources[number], ids=ids, descriptors=x[start:stop], skipped=[])
    return open_store(folder)


def clustered(count: int, seed: int, dims: int = D, dtype: str = "float16") -> np.ndarray:
    """Unit vectors around centres that are the same for every seed."""
    centres = np.random.default_rng(0).standard_normal((60, dims))
    rng = np.random.default_rng(seed)
    x = centres[rng.integers(0, 60, count)] + 0.7 * rng.standard_normal((count, dims))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(dtype)


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> DescriptorStore:
    return store(tmp_path_factory.mktemp("q") / "q", "image_queries", clustered(Q, 1), [0, 7, Q])


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> DescriptorStore:
    x = clustered(N, 2)
    x[9000:9010] = x[5]  # ties
    return store(tmp_path_factory.mktemp("d") / "d", "distractors", x, [0, 3, 4000, 4000, N])


@pytest.fixture(scope="module")
def exact(queries: DescriptorStore, database: DescriptorStore) -> Ranking:
    return search([queries], [database], K)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> DescriptorStore:
    """Of 900 images, for what does not depend on their number."""
    return store(tmp_path_factory.mktemp("s") / "s", "distractors", clustered(900, 3), [0, 400, 900])


def lists(ranking: Ranking) -> list[list[str]]:
    return [ranking.ids_of(row) for row in range(len(ranking.query_ids))]


def same(a: Ranking, b: Ranking) -> bool:
    return (a.query_ids, lists(a), a.scores.tobytes()) == (b.query_ids, lists(b), b.scores.tobytes())


@pytest.mark.parametrize(
    ("factory", "parameters", "recall", "size"),
    [
        ("Flat", "", 0.999, 128),
        ("SQ8", "", 0.95, 32),
        ("SQ4", "", 0.75, 16),
        ("SQfp16", "", 0.99, 64),
        ("RR,SQ6", "", 0.9, 24),
        ("PQ8", "", 0.6, 8),
        ("PQ16x4", "", 0.6, 8),
        ("PQ16x4fs", "", 0.6, 8),
        ("OPQ4,PQ4", "", 0.5, 4),
        ("IVF16,PQ8", "nprobe=16", 0.6, 16),
        ("IVF16,SQ8", "nprobe=16", 0.95, 40),
        ("IVF16_HNSW8,PQ16x4fs", "nprobe=16,quantizer_efSearch=64", 0.6, 16),
        ("ITQ32,LSH", "", 0.2, 4),
        ("ITQ,LSHt", "", 0.2, 4),
        ("RR128,LSH", "", 0.4, 16),
        ("LSH", "", 0.2, 4),
        ("LSH64rt", "", 0.25, 8),
        ("RR,RaBitQ", "", 0.3, 12),
    ],
)
def test_every_kind_and_rescoring_of_everything_is_exact(
    factory: str,
    parameters: str,
    recall: float,
    size: int,
    queries: DescriptorStore,
    database: DescriptorStore,
    exact: Ranking,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "i.faiss"
    plain, facts = search_compressed([queries], [database], K, IndexSpec(factory, parameters), index_file=file)
    assert recall <= recall_of(exact, plain, K) <= 1
    assert not same(plain, exact)
    assert plain.scores.dtype == np.float32
    some, _ = search_compressed([queries], [database], K, IndexSpec(factory, parameters, 500), index_file=file)
    assert recall_of(exact, some, K) >= max(recall_of(exact, plain, K), 0.6)
    whole, known = search_compressed([queries], [database], K, IndexSpec(factory, parameters, N), index_file=file)
    assert same(whole, exact)
    assert facts.bytes_per_image == pytest.approx(size, abs=0.6 if factory.startswith("IVF") else 0.01)
    assert file.stat().st_size == round(facts.fixed_bytes + N * facts.bytes_per_image)
    assert (facts.rows, facts.queries, facts.short, facts.stored_bytes) == (N, Q, 0, 2 * D)
    assert (facts.rescore_bytes, known.rescore_bytes) == (0, 2 * D)
    assert facts.search_seconds > 0
    assert (known.train_seconds, known.add_seconds) == (facts.train_seconds, facts.add_seconds)
    assert "WARNING" not in capfd.readouterr().err


@pytest.mark.parametrize(("factory", "size"), [("HNSW32", 396), ("HNSW32,SQ8", 300), ("RR,HNSW16,SQ4", 160)])
def test_graphs(factory: str, size: int, queries: DescriptorStore, database: DescriptorStore, exact: Ranking) -> None:
    ranking, facts = search_compressed([queries], [database], K, IndexSpec(factory, "efSearch=300", 300))
    assert recall_of(exact, ranking, K) > 0.9
    assert facts.bytes_per_image == pytest.approx(size, rel=0.05)
    known = {(q, item): s for q in range(Q) for item, s in zip(exact.ids_of(q), exact.scores[q], strict=True)}
    for q in range(Q):
        for item, score in zip(ranking.ids_of(q), ranking.scores[q], strict=True):
            assert known.get((q, item), score) == score
    low = search_compressed([queries], [database], 10, IndexSpec(factory, "efSearch=10"))[0]
    high = search_compressed([queries], [database], 10, IndexSpec(factory, "efSearch=500"))[0]
    assert recall_of(exact, low, 10) < recall_of(exact, high, 10)


def test_nprobe_changes_the_outcome(queries: DescriptorStore, database: DescriptorStore, exact: Ranking) -> None:
    found = [
        recall_of(exact, search_compressed([queries], [database], 10, IndexSpec("IVF32,SQ8", f"nprobe={n}"))[0], 10)
        for n in (1, 4, 32)
    ]
    assert found[0] < found[1] < found[2]


def test_binary_codes_equal_a_naive_twin(queries: DescriptorStore, small: DescriptorStore) -> None:
    ranking, facts = search_compressed([queries], [small], 900, IndexSpec("LSH"))
    x = np.concatenate([block for shard in small.shards for block in shard.blocks()])
    asked = np.concatenate([block for shard in queries.shards for block in shard.blocks()])
    ids = [item for shard in small.shards for item in shard.ids()]
    hamming = ((asked[:, None] >= 0) != (x[None] >= 0)).sum(axis=2)
    for q in range(Q):
        order = sorted(range(900), key=lambda row: (hamming[q, row], row))
        assert ranking.ids_of(q) == [ids[row] for row in order]
        assert ranking.scores[q] == pytest.approx([1 - 2 * hamming[q, row] / D for row in order])
    assert facts.bytes_per_image == D / 8


def test_rescoring_equals_pairs_one_by_one(small: DescriptorStore) -> None:
    x = np.concatenate([block for shard in small.shards for block in shard.blocks()])
    asked = clustered(3, 9)
    rows = np.array([[899, 400, 0, 5], [0, ABSENT, ABSENT, ABSENT], [399, 401, 5, ABSENT]])
    scores = rescored(asked, small.shards, rows)
    for q, n in np.ndindex(rows.shape):
        expected = -np.inf if rows[q, n] == ABSENT else pair_scores(asked[[q]], x[[rows[q, n]]])[0]
        assert scores[q, n] == expected
    assert np.concatenate(list(picked(small.shards, np.array([0, 399, 400, 899])))).tolist() == (
        x[[0, 399, 400, 899]].tolist()
    )


@pytest.mark.parametrize("factory", ["PQ16x4", "IVF8,SQ4", "HNSW8", "ITQ,LSH", "RR,RaBitQ"])
def test_equal_seeds_give_equal_bytes(
    factory: str, queries: DescriptorStore, small: DescriptorStore, tmp_path: Path
) -> None:
    import faiss

    rankings = []
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        for n, seed in enumerate((0, 0, 1)):
            spec = IndexSpec(factory, train=700, seed=seed)
            rankings.append(search_compressed([queries], [small], 20, spec, index_file=tmp_path / str(n))[0])
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)
    assert same(rankings[0], rankings[1])
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    learns = factory != "HNSW8"
    assert ((tmp_path / "0").read_bytes() != (tmp_path / "2").read_bytes()) == learns


def test_the_order_of_stores_does_not_matter(queries: DescriptorStore, small: DescriptorStore, tmp_path: Path) -> None:
    other = store(tmp_path / "p", "positives", clustered(300, 4), [0, 300])
    spec = IndexSpec("PQ16x4", rescore=100)
    a = search_compressed([queries], [small, other], 30, spec, index_file=tmp_path / "i")[0]
    b = search_compressed([queries], [other, small], 30, spec, index_file=tmp_path / "i")[0]
    assert same(a, b)
    assert any(item.startswith("positives") for item in a.ids_of(0))


@pytest.mark.parametrize("sizes", [[5], [0, 9, 1], [1000, 10, 90, 0, 1]])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0, 2.0])
def test_samples_are_drawn_evenly(sizes: list[int], share: float) -> None:
    count = int(share * sum(sizes))
    rows = sample_rows(sizes, count, 3)
    assert len(rows) == min(count, sum(sizes))
    assert (np.diff(rows) > 0).all()
    ends = np.cumsum([0, *sizes])
    taken = np.histogram(rows, ends)[0] if len(sizes) == 1 else np.diff(np.searchsorted(rows, ends))
    assert (np.abs(taken - np.minimum(share, 1) * np.array(sizes)) <= 1).all()
    assert rows.tolist() == sample_rows(sizes, count, 3).tolist()
    if sum(sizes) > 500 and 0 < share < 1:
        assert rows.tolist() != sample_rows(sizes, count, 4).tolist()


def test_an_index_file_is_used_again(
    queries: DescriptorStore, small: DescriptorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new" / "i.faiss"
    first, facts = search_compressed([queries], [small], 20, IndexSpec("IVF8,SQ8", "nprobe=2"), index_file=file)
    assert {path.name for path in file.parent.iterdir()} == {"i.faiss", "i.faiss.json"}
    before = file.stat().st_mtime_ns

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(indexes, "build_index", never)
    again, known = search_compressed([queries], [small], 20, IndexSpec("IVF8,SQ8", "nprobe=2"), index_file=file)
    assert same(first, again)
    assert (known.bytes_per_image, known.train_rows) == (facts.bytes_per_image, 900)
    # What belongs to the search does not make another index.
    other = search_compressed([queries], [small], 20, IndexSpec("IVF8,SQ8", "nprobe=8", 50), index_file=file)[0]
    assert not same(first, other)
    assert file.stat().st_mtime_ns == before


def test_an_index_file_of_something_else_is_refused(
    queries: DescriptorStore, small: DescriptorStore, tmp_path: Path
) -> None:
    file = tmp_path / "i"
    spec = IndexSpec("SQ8")
    search_compressed([queries], [small], 5, spec, index_file=file)
    other = store(tmp_path / "o", "distractors", clustered(900, 4), [0, 900])
    for database, changed, what in (
        (other, spec, r"database"),
        (small, IndexSpec("SQ4"), r'index\.factory: "SQ8" -> "SQ4"'),
        (small, IndexSpec("SQ8", seed=1), r"index\.seed: 0 -> 1"),
        (small, IndexSpec("SQ8", train=10), r"index\.train: null -> 10"),
    ):
        with pytest.raises(OpenIliasError, match=rf"(?s)made from something else.*{what}"):
            search_compressed([queries], [database], 5, changed, index_file=file)
    ranking = search_compressed([queries], [other], 5, spec, index_file=file, overwrite=True)[0]
    assert same(ranking, search_compressed([queries], [other], 5, spec, index_file=file)[0])


def test_damaged_and_foreign_index_files(queries: DescriptorStore, small: DescriptorStore, tmp_path: Path) -> None:
    file, spec = tmp_path / "i", IndexSpec("SQ8")
    search_compressed([queries], [small], 5, spec, index_file=file)
    whole = file.read_bytes()
    for broken in (whole[:-1], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(broken)
        with pytest.raises(OpenIliasError, match="cannot be read: it is not as it was written"):
            search_compressed([queries], [small], 5, spec, index_file=file)
    search_compressed([queries], [small], 5, spec, index_file=file, overwrite=True)
    assert file.read_bytes() == whole
    file.unlink()  # killed before the index had its name
    search_compressed([queries], [small], 5, spec, index_file=file)
    assert file.read_bytes() == whole
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "yours.json").write_text("{}")
    for name in ("mine", "yours"):
        with pytest.raises(OpenIliasError):
            search_compressed([queries], [small], 5, spec, index_file=tmp_path / name, overwrite=True)
    assert (tmp_path / "mine").read_text() == "precious"
    assert not (tmp_path / "yours").exists()


def test_a_full_disk_leaves_nothing(
    queries: DescriptorStore, small: DescriptorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    def full(index: object, target: object) -> None:
        if isinstance(target, str):
            raise RuntimeError("Error in fwrite: No space left on device")
        real(index, target)

    real = faiss.write_index
    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(OpenIliasError, match="cannot be written"):
        search_compressed([queries], [small], 5, IndexSpec("SQ8"), index_file=tmp_path / "i")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("factory", "parameters", "message"),
    [
        ("", "", "'' is no index"),
        ("Foo", "", "'Foo' is no index"),
        ("PQ", "", "no index"),
        ("PQ0", "", "no index"),
        ("IVF0,PQ8", "", "no index"),  # faiss dies of this one
        ("HNSW0", "", "no index"),  # and of this one
        ("HNSW32,PQ16", "", "no index"),  # faiss has it for L2 only
        ("IDMap,Flat", "", "no index"),
        ("IVF16", "", "no index"),
        ("PQ8,RFlat", "", "no index"),
        ("RR99999999,SQ8", "", "no index"),
        ("OPQ8,SQ8", "", "no index"),
        ("ITQ32,SQ8", "", "no index"),
        ("PQ8x99", "", "no index"),
        ("PQ8\n", "", "no index"),
        ("../SQ8", "", "no index"),
        ("SQ8", "nprobe=3", "'nprobe=3' is no parameter of the index SQ8"),
        ("IVF16,SQ8", "nprobe=0", "'nprobe=0' is no parameter"),
        ("IVF16,SQ8", "nprobe=-1", "no parameter"),
        ("IVF16,SQ8", "nprobe=a", "no parameter"),
        ("IVF16,SQ8", "nprobe=1,", "'' is no parameter"),
        ("IVF16,SQ8", "efSearch=3", "no parameter"),
        ("IVF16,SQ8", "quantizer_efSearch=3", "no parameter"),
        ("HNSW8", "efConstruction=3", "no parameter"),
    ],
)
def test_bad_specs_are_named(factory: str, parameters: str, message: str) -> None:
    with pytest.raises(OpenIliasError, match=message) as caught:
        IndexSpec(factory, parameters)
    assert caught.value.fix


def test_numbers_out_of_range_are_refused(queries: DescriptorStore, small: DescriptorStore) -> None:
    for wrong in ({"rescore": -1}, {"train": 0}, {"seed": -1}):
        with pytest.raises(OpenIliasError, match="SQ8 is negative"):
            IndexSpec("SQ8", **wrong)
    with pytest.raises(OpenIliasError, match="best 20 cannot be taken from 10"):
        search_compressed([queries], [small], 20, IndexSpec("SQ8", rescore=10))
    with pytest.raises(OpenIliasError, match="k = 0"):
        search_compressed([queries], [small], 0, IndexSpec("SQ8"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (IndexSpec("PQ7"), "PQ7 of descriptors of 32 dimensions cannot be made: .*multiple"),
        (IndexSpec("ITQ64,LSH"), "no more bits than there are dimensions, 32"),
        (IndexSpec("PQ8x3fs"), "PQ8x3fs of descriptors .* cannot be made: could not parse"),
        (IndexSpec("LSH64"), "LSH64 of descriptors of 32 dimensions cannot be made"),
        (IndexSpec("PQ8"), r"PQ8 must learn from 9,984 descriptors at the least; the database has 900"),
        (IndexSpec("OPQ8,PQ8x4"), "must learn from 9,984"),
        (IndexSpec("IVF64,SQ8"), "must learn from 2,496 .*database has 900"),
        (IndexSpec("PQ16x4", train=600), "must learn from 624 .*600 were asked for"),
        (IndexSpec("ITQ,LSH", train=31), "must learn from 32 .*31 were asked for"),
    ],
)
def test_indexes_that_cannot_be_made(
    spec: IndexSpec, message: str, queries: DescriptorStore, small: DescriptorStore, tmp_path: Path
) -> None:
    with pytest.raises(OpenIliasError, match=message):
        search_compressed([queries], [small], 5, spec, index_file=tmp_path / "i")
    assert not list(tmp_path.iterdir())


def test_more_is_asked_for_than_there_is(queries: DescriptorStore, small: DescriptorStore) -> None:
    ranking, facts = search_compressed([queries], [small], 5000, IndexSpec("SQ8"))
    assert ranking.rows.shape == (Q, 900)
    assert facts.short == 0
    whole = search([queries], [small], 5000)
    assert same(search_compressed([queries], [small], 5000, IndexSpec("SQ8", rescore=9999))[0], whole)


def test_short_lists_are_counted_or_refused(queries: DescriptorStore, small: DescriptorStore) -> None:
    with pytest.raises(OpenIliasError, match=r"IVF16,SQ8,nprobe=1 finds at most \d+ of the 800 images"):
        search_compressed([queries], [small], 800, IndexSpec("IVF16,SQ8", "nprobe=1"))
    sizes = [search_compressed([queries], [small], k, IndexSpec("IVF16,SQ8", "nprobe=1"))[1].short for k in (1, 60)]
    assert sizes[0] == 0 < sizes[1]
    ranking, facts = search_compressed([queries], [small], 60, IndexSpec("IVF16,SQ8", "nprobe=1", 60))
    assert facts.short == (ranking.lengths < 60).sum() == sizes[1]
    assert (ranking.lengths > 0).all()


def test_stores_that_do_not_belong_together(queries: DescriptorStore, small: DescriptorStore, tmp_path: Path) -> None:
    other = store(tmp_path / "m", "distractors", clustered(50, 4), [0, 50], model="another")
    with pytest.raises(OpenIliasError, match="not made alike"):
        search_compressed([queries], [other], 5, IndexSpec("SQ8"))
    with pytest.raises(OpenIliasError, match="holds distractors"):
        search_compressed([small], [small], 5, IndexSpec("SQ8"))
    with pytest.raises(OpenIliasError, match="holds image_queries"):
        search_compressed([queries], [queries], 5, IndexSpec("SQ8"))
    empty = store(tmp_path / "e", "distractors", clustered(0, 4), [0, 0])
    with pytest.raises(OpenIliasError, match="the database has 0"):
        search_compressed([queries], [empty], 5, IndexSpec("SQ8"))


def test_damaged_descriptors_are_noticed(queries: DescriptorStore, tmp_path: Path) -> None:
    broken = store(tmp_path / "d", "distractors", clustered(100, 4), [0, 100])
    file = tmp_path / "i"
    search_compressed([queries], [broken], 5, IndexSpec("SQ8"), index_file=file)
    path = tmp_path / "d" / "00000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(OpenIliasError, match="not as it was written"):
        search_compressed([queries], [broken], 5, IndexSpec("SQ8"))
    with pytest.raises(OpenIliasError, match="not as it was written"):
        search_compressed([queries], [broken], 5, IndexSpec("SQ8", rescore=5), index_file=file)
    bad = clustered(100, 4)
    bad[7, 3] = np.nan
    with pytest.raises(OpenIliasError, match="database is not finite"):
        search_compressed([queries], [store(tmp_path / "n", "distractors", bad, [0, 100])], 5, IndexSpec("SQ8"))
    asked = store(tmp_path / "q", "image_queries", bad, [0, 100])
    with pytest.raises(OpenIliasError, match="queries is not finite"):
        search_compressed([asked], [broken], 5, IndexSpec("SQ8"), index_file=file)


def official(path: Path, ids: list[str], x: np.ndarray) -> DescriptorStore:
    with h5py.File(path, "w") as file:
        file.create_dataset("index", data=ids, dtype=h5py.string_dtype("ascii"))
        file.create_dataset("features", data=x)
    return open_store(path)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_official_files_as_database(tmp_path: Path, dtype: str) -> None:
    asked = official(
        tmp_path / "image_queries.hdf5",
        [f"o{n}/query/Q{n:03d}_00.jpg" for n in range(9)],
        clustered(9, 1, dtype=dtype),
    )
    base = official(tmp_path / "distractors.hdf5", [f"a.tar/{n}" for n in range(800)], clustered(800, 2, dtype=dtype))
    spec = IndexSpec("PQ16x4", rescore=800)
    ranking, facts = search_compressed_to([asked], [base], 30, tmp_path / "r", spec)
    assert same(ranking, search([asked], [base], 30))
    assert facts.stored_bytes == D * np.dtype(dtype).itemsize
    manifest = read_ranking(tmp_path / "r")[1]
    assert manifest["searched"] == {"a.tar": 800}


def test_the_ranking_folder(queries: DescriptorStore, small: DescriptorStore, tmp_path: Path) -> None:
    out, spec = tmp_path / "r", IndexSpec("IVF8,SQ8", "nprobe=4", 30, seed=2)
    ranking, facts = search_compressed_to([queries], [small], 20, out, spec)
    found, manifest = read_ranking(out)
    assert same(found, ranking)
    assert facts_of(manifest) == (spec, facts)
    assert manifest["database_size"] == 900
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again, known = search_compressed_to([queries], [small], 20, out, spec)
    assert same(again, ranking)
    assert known == facts
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    with pytest.raises(OpenIliasError, match=r'(?s)something else.*index\.parameters: "nprobe=4" -> ""'):
        search_compressed_to([queries], [small], 20, out, IndexSpec("IVF8,SQ8", "", 30, seed=2))
    search_compressed_to([queries], [small], 20, out, IndexSpec("SQ8"), overwrite=True)
    assert facts_of(read_ranking(out)[1])[0] == IndexSpec("SQ8")
    with pytest.raises(OpenIliasError, match="does not say which index"):
        facts_of({"made_from": {}})


def ranking_of(rows: list[list[int]], images: list[str]) -> Ranking:
    array = np.array(rows, np.int64)
    scores = np.where(array == ABSENT, -np.inf, -np.arange(array.shape[1])).astype(np.float32)
    return Ranking(tuple(f"q{n}" for n in range(len(rows))), tuple(images), array, scores)


def test_recall_equals_a_naive_twin() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        images = [f"d{n}" for n in range(30)]
        depth = int(rng.integers(1, 12))
        pair = []
        for _ in range(2):
            rows = np.array([rng.permutation(20)[:depth] for _ in range(4)])
            lengths = rng.integers(0, depth + 1, 4)
            rows[np.arange(depth) >= lengths[:, None]] = ABSENT
            pair.append(ranking_of(rows.tolist(), [images[n] for n in rng.permutation(30)[:20]]))
        a, b = pair
        for k in (1, 3, 11, 20):
            shares = []
            for q in range(4):
                wanted, theirs = set(a.ids_of(q)[:k]), set(b.ids_of(q)[:k])
                shares.append(len(wanted & theirs) / len(wanted) if wanted else 1.0)
            assert recall_of(a, b, k) == pytest.approx(np.mean(shares))
    with pytest.raises(OpenIliasError, match="other queries"):
        recall_of(ranking_of([[0]], ["a"]), ranking_of([[0], [0]], ["a"]), 1)


def test_recall_knows_queries_by_id() -> None:
    a = Ranking(("x", "y"), ("d", "e"), np.array([[0], [1]]), np.ones((2, 1), np.float32))
    b = Ranking(("y", "x"), ("e", "d"), np.array([[0], [1]]), np.ones((2, 1), np.float32))
    assert recall_of(a, b, 1) == 1


def evaluation_of(value: float) -> Evaluation:
    return Evaluation((), value, value, (), (), (), (), (), 0, Protocol(), "paper", 3)


def search_of(factory: str, rescore: int, size: float, value: float, ranking: Ranking) -> CompressedSearch:
    facts = IndexFacts(3, size, 0, 1024.0, 1024.0 if rescore else 0.0, 3, 1.0, 1.0, 2.0, 5, 0, 2)
    return CompressedSearch(IndexSpec(factory, "", rescore), facts, ranking, evaluation_of(value))


def test_the_rows_of_the_table() -> None:
    exact = ranking_of([[0, 1, 2]], ["a", "b", "c"])
    found = [
        search_of("SQ8", 0, 512, 0.5, ranking_of([[2, 1, 0]], ["a", "b", "c"])),
        search_of("PQ64", 100, 64, 0.45, ranking_of([[0, 2, 1]], ["a", "b", "x"])),
        search_of("PQ64", 0, 64, 0.3, ranking_of([[0, 2, 1]], ["x", "b", "c"])),
    ]
    section = compression_of(exact, evaluation_of(0.5), found)
    assert section is not None
    assert section.cuts == (3,)
    assert [(row.name, row.rescored) for row in section.rows] == [
        ("exact", None), ("PQ64", 0), ("PQ64", 100), ("SQ8", 0)
    ]  # fmt: skip
    assert [row.recall for row in section.rows] == [(1.0,), (2 / 3,), (2 / 3,), (1.0,)]
    assert [round(row.lost, 9) for row in section.rows] == [0, 0.2, 0.05, 0]
    assert [row.ratio for row in section.rows] == [1, 16, 16, 2]
    assert section.rows[1].queries_per_second == 2.5
    assert compression_rows(exact, evaluation_of(0.5), found, (1, 2))[3].recall == (0, 0.5)
    table = compression.markdown(section).splitlines()
    assert [cell.strip() for cell in table[4].split("|")[1:-1]] == [
        "PQ64", "100", "66.7", "45.0", "5.0", "64", "16.0×", "1,024", "2", "0"
    ]  # fmt: skip
    lines = list(csv.DictReader(io.StringIO(compression.compression_csv(section))))
    assert [line["index"] for line in lines] == ["exact", "PQ64", "PQ64", "SQ8"]
    assert float(lines[2]["lost"]) == pytest.approx(0.05)
    assert (lines[0]["rescored"], lines[1]["rescored"], lines[2]["rescored"]) == ("", "0", "100")
    assert compression_of(exact, evaluation_of(0.5), []) is None


def test_labels_of_a_chart_do_not_overlap() -> None:
    rng = np.random.default_rng(5)
    exact = ranking_of([[0]], ["a"])
    for _ in range(20):
        found = [
            search_of(f"OPQ{n + 1},PQ{n + 1}", 100 * int(rng.integers(0, 2)), float(2 ** rng.uniform(3, 11)),
                      float(rng.uniform(0.3, 0.5)), exact)
            for n in range(14)
        ]  # fmt: skip
        section = compression_of(exact, evaluation_of(0.5), found)
        assert section is not None
        drawn = chart("mAP", section.rows, [row.map for row in section.rows])
        boxes = []
        for mark in (mark for series in drawn.series for mark in series.marks):
            width = compression._LETTER * len(mark.label)
            left = mark.label_x - {"start": 0, "middle": width / 2, "end": width}[mark.anchor]
            boxes.append((left, mark.label_y - 11, left + width, mark.label_y + 4))
            assert 0 <= mark.x <= compression.WIDTH
            assert 0 <= mark.y <= compression.HEIGHT
        assert len(boxes) == 14
        assert all(
            box[0] >= 0 and box[2] <= compression.WIDTH and box[1] >= 0 and box[3] <= compression.HEIGHT
            for box in boxes
        )
        for a, b in combinations(boxes, 2):
            apart = 1e-6
            assert not (a[0] < b[2] - apart and b[0] < a[2] - apart and a[1] < b[3] - apart and b[1] < a[3] - apart)


def test_a_chart_puts_values_where_they_belong() -> None:
    exact = ranking_of([[0]], ["a"])
    found = [search_of("PQ64", 0, 64, 0.3, exact), search_of("PQ32", 0, 32, 0.4, exact),
             search_of("SQ8", 0, 512, 0.45, exact)]  # fmt: skip
    section = compression_of(exact, evaluation_of(0.5), found)
    assert section is not None
    drawn = section.charts[0]
    marks = {mark.label: mark for mark in drawn.series[0].marks}
    assert marks["PQ32"].x < marks["PQ64"].x < marks["SQ8"].x < drawn.exact[0]
    assert marks["PQ64"].x - marks["PQ32"].x == pytest.approx((marks["SQ8"].x - marks["PQ64"].x) / 3)
    assert marks["PQ64"].y > marks["PQ32"].y > marks["SQ8"].y > drawn.reference
    places = {name: y for y, name in drawn.y_ticks}
    assert marks["PQ32"].y == pytest.approx(places["40"])
    assert drawn.reference == pytest.approx(places["50"])
    # PQ64 is larger and worse than PQ32, and no corner of the path of the best.
    assert f"{marks['PQ64'].y:.1f}" not in drawn.series[0].best
    assert drawn.series[0].best.startswith(f"M{marks['PQ32'].x:.1f} {marks['PQ32'].y:.1f}L")


TEXT = """
benchmark: {root}
model: resnet18
random_weights: 0
protocol: {{k: 12, resolution: 64}}
out: {out}
"""
COMPRESS = """
compress:
  - {index: SQ4}
  - {index: SQ4, rescore: 20}
  - {index: "RR64,LSH", rescore: 12, seed: 1}
"""


def run_text(folder: Path, text: str, *, overwrite: bool = False) -> RunResult:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return run_experiment(read_experiment(path)[0], overwrite=overwrite)


@pytest.fixture(scope="module")
def finished(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_text(folder, TEXT.format(root=tiny_root, out="run") + COMPRESS)
    return folder / "run"


def test_an_experiment_compresses(finished: Path, tiny_root: Path, tmp_path: Path) -> None:
    folder = finished / "compressed"
    names = {"SQ4", "SQ4,rescore=20", "RR64,LSH,seed=1,rescore=12"}
    assert {path.name for path in folder.iterdir()} == names | {"indexes"}
    assert {path.name for path in (folder / "indexes").iterdir()} == {
        f"{name}.faiss{end}" for name in ("SQ4", "RR64,LSH,seed=1") for end in ("", ".json")
    }
    about = json.loads((finished / "run.json").read_text())
    steps = about["made_from"]["steps"]
    exact, evaluation = read_ranking(finished / "ranking")[0], read_evaluation(finished / "evaluation")[0]
    lines = {
        (line["index"], line["rescored"]): line
        for line in csv.DictReader(io.StringIO((finished / "report" / "compression.csv").read_text()))
    }
    assert len(lines) == 4
    assert float(lines["exact", ""]["bytes_per_image"]) == 1024
    for name in names:
        ranking, manifest = read_ranking(folder / name / "ranking")
        own, evaluated = read_evaluation(folder / name / "evaluation")
        assert steps[f"compressed/{name}"] == evaluated["fingerprint"]
        assert about["times"][f"compress {name}"] > 0
        spec, facts = facts_of(manifest)
        line = lines[spec.index_name, str(spec.rescore)]
        assert float(line["map"]) == own.map
        assert float(line["lost"]) == evaluation.map - own.map
        assert float(line["recall@10"]) == recall_of(exact, ranking, 10)
        assert float(line["bytes_per_image"]) == facts.bytes_per_image
        assert float(line["queries_per_second"]) == facts.queries_per_second
    page = (finished / "report" / "index.html").read_text(encoding="utf-8")
    assert '<section id="compression"' in page
    assert page.count('<th scope="row">SQ4</th>') == 2
    assert f"exact {100 * evaluation.map:.1f} %" in page
    again = tmp_path / "again"
    shutil.copytree(finished, again / "run")
    before = {path: path.stat().st_mtime_ns for path in (again / "run" / "compressed").rglob("*")}
    run_text(again, TEXT.format(root=tiny_root, out="run") + COMPRESS)
    assert {path: path.stat().st_mtime_ns for path in (again / "run" / "compressed").rglob("*")} == before


def test_a_killed_experiment_goes_on(finished: Path, tiny_root: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    folder = tmp_path / "run" / "compressed" / "SQ4,rescore=20"
    ranking = (folder / "ranking" / "ranking.parquet").read_bytes()
    index = tmp_path / "run" / "compressed" / "indexes" / "SQ4.faiss"
    made = index.stat().st_mtime_ns
    shutil.rmtree(folder / "ranking")
    (folder / "evaluation" / "evaluation.json").unlink()
    page = report_run(tmp_path / "run", tmp_path / "page").read_text(encoding="utf-8")
    assert page.count('<th scope="row">SQ4</th>') == 1
    run_text(tmp_path, TEXT.format(root=tiny_root, out="run") + COMPRESS)
    assert (folder / "ranking" / "ranking.parquet").read_bytes() == ranking
    assert index.stat().st_mtime_ns == made


def test_reports_without_and_with_stale_searches(finished: Path, tiny_root: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    text = TEXT.format(root=tiny_root, out="run").replace("k: 12", "k: 5")
    page = run_text(tmp_path, text, overwrite=True).page.read_text(encoding="utf-8")
    assert '<section id="compression"' not in page
    assert "Compressed searches of something else are not shown: RR64,LSH,seed=1,rescore=12, SQ4" in page
    assert not (tmp_path / "run" / "report" / "compression.csv").exists()
    shutil.rmtree(tmp_path / "run" / "compressed")
    page = report_run(tmp_path / "run", tmp_path / "page").read_text(encoding="utf-8")
    assert "compress" not in page.lower().split("<main>")[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("compress: [{index: Foo}]", "'Foo' is no index that can be made"),
        ("compress: [{index: SQ8, params: nprobe=2}]", "no parameter of the index SQ8"),
        ("compress: [{index: SQ8, rescore: 5}]", "rescore must not be smaller than the depth of the search, 12"),
        ("compress: [{index: SQ8}, {index: SQ8}]", "lists one index twice"),
        ("compress: [{index: SQ8, colour: red}]", r"compress\.0\.colour: Extra inputs"),
        ("compress: [{}]", r"compress\.0\.index: Field required"),
    ],
)
def test_wrong_experiments(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(TEXT.format(root="b", out="o") + line)
    with pytest.raises(OpenIliasError, match=message):
        read_experiment(path)


def test_a_compressed_search_cannot_remove_anything(tmp_path: Path) -> None:
    for name in ("duplicates", "self_matches"):
        path = tmp_path / "e.yaml"
        text = TEXT.format(root="b", out="o").replace("k: 12", f"k: 12, {name}: remove")
        path.write_text(text + "compress: [{index: SQ8}]")
        with pytest.raises(OpenIliasError, match="the protocol removes them"):
            read_experiment(path)


def test_specs_have_different_names() -> None:
    specs = [
        IndexSpec("IVF16,SQ8", parameters, rescore, train, seed)
        for parameters in ("", "nprobe=2")
        for rescore in (0, 10)
        for train in (None, 10)
        for seed in (0, 1)
    ]
    assert len({spec.name for spec in specs}) == len(specs)
    assert all(os.sep not in spec.name for spec in specs)


def test_an_index_learns_from_as_much_as_it_needs(small: DescriptorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "TRAIN", 100)
    for factory, rows in (("SQ8", 100), ("PQ16x4", 624), ("IVF20,PQ16x4", 780)):
        built = index_of(IndexSpec(factory), small.shards, D, states=[])
        assert built.train_rows == rows
        assert built.index.ntotal == 900
