"""Comparing two stores against a naive twin, and what the command and the page say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openilias.core.errors import OpenIliasError
from openilias.core.manifests import write_manifest
from openilias.data import Benchmark
from openilias.descriptors import compare
from openilias.descriptors.compare import compare_stores
from openilias.descriptors.store import KIND, DescriptorStore, open_store, write_shard
from openilias.report.comparison import histogram, write_comparison

h5py = pytest.importorskip("h5py")
Ilias = Callable[..., object]
DIMS = 8


def unit(rows: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, DIMS))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def as_store(folder: Path, cuts: list[int], ids: list[str], vectors: np.ndarray) -> DescriptorStore:
    folder.mkdir(parents=True)
    parts = list(zip([0, *cuts], [*cuts, len(ids)], strict=True))
    made_from = {"partition": "distractors", "contents": ""}
    sources = [str(number) for number in range(len(parts))]
    write_manifest(folder / "manifest.json", kind=KIND, made_from=made_from, dims=vectors.shape[1], sources=sources)
    for number, (start, stop) in enumerate(parts):
        part = vectors[start:stop]
        write_shard(folder, number, source=str(number), ids=ids[start:stop], descriptors=part, skipped=())
    return open_store(folder)


def as_official(folder: Path, cuts: list[int], ids: list[str], vectors: np.ndarray) -> DescriptorStore:
    folder.mkdir(parents=True)
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(ids)], strict=True)):
        with h5py.File(folder / f"f_distractors_{number:05d}.hdf5", "w") as file:
            file.create_dataset("index", data=ids[start:stop], dtype=h5py.string_dtype("ascii"))
            chunks = (3, DIMS) if stop > start + 3 else None
            file.create_dataset("features", data=vectors[start:stop], chunks=chunks)
    return open_store(folder)


def naive(a: tuple[list[str], np.ndarray], b: tuple[list[str], np.ndarray]) -> dict[str, tuple[float, float]]:
    """Id -> cosine and largest difference, one id at a time."""
    other = dict(zip(b[0], b[1].astype(np.float64), strict=True))
    found = {}
    for item, row in zip(a[0], a[1].astype(np.float64), strict=True):
        if item in other:
            x = other[item]
            cosine = 1.0 if (row == x).all() else float(row @ x / np.linalg.norm(row) / np.linalg.norm(x))
            found[item] = (cosine, float(np.abs(row - x).max()))
    return found


@st.composite
def pairs(draw: st.DrawFn):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tars = draw(st.integers(1, 4))
    pool = [f"t{n % tars}.tar/{n:02d}" for n in range(draw(st.integers(2, 40)))]
    vectors = unit(len(pool), draw(st.integers(0, 9)))
    sides = []
    for side in range(2):
        picked = rng.permutation(len(pool)) if draw(st.booleans()) else np.arange(len(pool))
        picked = picked[: draw(st.integers(1, len(pool)))]
        noise = rng.standard_normal((len(picked), DIMS)) * draw(st.sampled_from([0, 1e-4, 0.3])) * side
        rows = vectors[picked] + noise * (rng.random((len(picked), 1)) < 0.5)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cuts = sorted(draw(st.lists(st.integers(0, len(picked)), max_size=3)))
        dtype = draw(st.sampled_from(["float16", "float32"]))
        sides.append((draw(st.booleans()), cuts, [pool[n] for n in picked], rows.astype(dtype)))
    return sides, draw(st.integers(1, 5)), draw(st.sampled_from([1, 4, 8192]))


@given(pairs())
@settings(max_examples=80, deadline=None)
def test_a_comparison_equals_the_naive_twin(tmp_path_factory: pytest.TempPathFactory, case) -> None:
    sides, worst, rows = case
    folder = tmp_path_factory.mktemp("c")
    a, b = (
        (as_official if official else as_store)(folder / name, cuts, ids, vectors)
        for name, (official, cuts, ids, vectors) in zip("ab", sides, strict=True)
    )
    twin = naive(sides[0][2:], sides[1][2:])
    gathered: dict[str, float] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "_BLOCK_ROWS", rows)
        if not twin:
            with pytest.raises(OpenIliasError, match="no id in common"):
                compare_stores(a, b)
            return
        found = compare_stores(
            a, b, worst=worst, sink=lambda ids, new: gathered.update(zip(ids.to_pylist(), new.tolist(), strict=True))
        )
    assert gathered.keys() == twin.keys()
    cosines = np.array([cosine for cosine, _ in twin.values()])
    assert np.abs(np.array([gathered[item] for item in twin]) - cosines).max() < 1e-14
    assert all(gathered[item] == 1 for item, (_, difference) in twin.items() if difference == 0)
    assert found.rows == len(twin) == len(found.cosines)
    assert np.abs(np.sort(found.cosines) - np.sort(cosines)).max() < 1e-7
    assert found.mean == pytest.approx(cosines.mean(), abs=1e-12)
    assert found.quantiles == pytest.approx(np.quantile(cosines, [0.001, 0.01, 0.5]).tolist(), abs=1e-6)
    assert found.largest_difference == max(difference for _, difference in twin.values())
    assert found.equal == sum(difference == 0 for _, difference in twin.values()) / len(twin)
    ordered = sorted((gathered[item], item) for item in twin)[:worst]
    assert [(pair.cosine, pair.id) for pair in found.worst] == ordered
    only = [[item for item in mine[2] if item not in other[2]] for mine, other in (sides, sides[::-1])]
    assert [found.only_a, found.only_b] == [len(items) for items in only]
    for items, some in zip(only, (found.some_a, found.some_b), strict=True):
        assert set(some) <= set(items)
        assert len(some) == len(set(some)) == min(20, len(items))


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    ids = [f"t.tar/{n}" for n in range(4)]
    good = as_store(tmp_path / "a", [], ids, unit(4, 0).astype(np.float32))
    wide = as_store(tmp_path / "wide", [], ids, np.ones((4, 9), np.float32))
    with pytest.raises(OpenIliasError, match=r"has 8 dimensions, .*wide has 9"):
        compare_stores(good, wide)
    for value, name in ((0, "zero"), (np.nan, "nan")):
        vectors = unit(4, 0).astype(np.float32)
        vectors[2] = value
        with pytest.raises(OpenIliasError, match=r"t\.tar/2 is zero or not finite"):
            compare_stores(good, as_store(tmp_path / name, [], ids, vectors))
    twice = as_store(tmp_path / "twice", [], [*ids[:3], ids[0]], unit(4, 0).astype(np.float32))
    with pytest.raises(OpenIliasError, match=r"t\.tar/0 stands twice"):
        compare_stores(good, twice)
    path = tmp_path / "a" / "00000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(OpenIliasError, match="not as it was written"):
        compare_stores(good, good)


def partition_of(benchmark: Benchmark, folder: Path, seed: int, change: str = "") -> Path:
    folder.mkdir()
    ids = [*benchmark.image_queries, *benchmark.text_queries, *benchmark.positives]
    ids += [item.id for shard in benchmark.distractor_shards for item in shard.items()]
    vectors = unit(len(ids), seed)
    if change:
        vectors[ids.index(change)] = unit(1, 99)[0]
    made_from = {"partition": "positives", "contents": ""}
    write_manifest(folder / "manifest.json", kind=KIND, made_from=made_from, dims=DIMS, sources=["x"])
    write_shard(folder, 0, source="x", ids=ids, descriptors=vectors.astype(np.float16), skipped=())
    return folder


def test_command_and_page(ilias: Ilias, tiny: Benchmark, tiny_root: Path, tmp_path: Path) -> None:
    assert "Example: ilias data compare" in ilias("data", "compare", "--help").out
    bad = tiny.positives[1]
    a, b = (partition_of(tiny, tmp_path / name, 0, change) for name, change in (("a", ""), ("b", bad)))
    outcome = ilias("data", "compare", a, b, "--worst", 60, "--json", tmp_path / "c.json", "--below", -1)
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "c.json").read_text())
    total = found["rows"]
    assert found["worst"][0]["id"] == bad
    assert found["minimum"] == found["worst"][0]["cosine"] < 0.99
    assert found["quantiles"]["0.5"] == 1
    assert found["equal"] == (total - 1) / total
    assert found["only_a"] == {"count": 0, "first": []}
    assert f"{found['minimum']:.7f}  {bad}" in outcome.out
    out = tmp_path / "page"
    options = ["--out", out, "--benchmark", tiny_root, "--worst", total, "--below", 0.999]
    assert ilias("data", "compare", a, b, *options).code == 1
    table = pq.read_table(out / "cosines.parquet")
    assert table.column_names == ["id", "cosine"]
    assert dict(zip(*(column.to_pylist() for column in table.columns), strict=True))[bad] == found["minimum"]
    page = (out / "index.html").read_text()
    pictures = list((out / "images").iterdir())
    assert len(pictures) == total - len(tiny.text_queries)
    assert all(f"images/{path.name}" in page for path in pictures)
    assert page.count("<blockquote") == len(tiny.text_queries)
    assert "histogram.svg" in page
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert ilias("data", "compare", a, b, *options).code == 1
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert ilias("data", "compare", a, b, "--out", out, "--worst", 1).code == 0
    assert not (out / "images").exists()
    (out / "mine.txt").write_text("x")
    outcome = ilias("data", "compare", a, b, "--out", out)
    assert outcome.code == 2
    assert "holds no comparison" in outcome.err
    assert ilias("data", "compare", a, tmp_path / "none").code == 2
    assert ilias("data", "compare", a, b, "--benchmark", tiny_root).code == 2


def test_a_failed_comparison_leaves_nothing(tmp_path: Path) -> None:
    a = as_store(tmp_path / "a", [], ["t.tar/1"], np.ones((1, 8), np.float32))
    b = as_store(tmp_path / "b", [], ["t.tar/2"], np.ones((1, 8), np.float32))
    with pytest.raises(OpenIliasError, match="no id in common"):
        write_comparison(a, b, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_every_cosine_is_in_the_histogram() -> None:
    cosines = np.array([-1, -0.5, 0, 0.5, 0.9, 1 - 1e-5, 1 - 6e-8, 1, 1], np.float32)
    (axes,) = histogram(cosines).axes
    assert sum(patch.get_height() for patch in axes.patches) == len(cosines)
