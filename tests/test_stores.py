"""Official HDF5 features in place of a store, and converting both ways."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openilias.core.errors import OpenIliasError
from openilias.core.manifests import write_manifest
from openilias.data import Benchmark
from openilias.descriptors import official, store
from openilias.descriptors.convert import convert
from openilias.descriptors.official import check_ids, escaped, unescaped
from openilias.descriptors.store import KIND, DescriptorStore, open_store, write_shard
from openilias.search.stores import search

h5py = pytest.importorskip("h5py")
Ilias = Callable[..., object]

DIMS = 24
QUERIES = [f"thing_{n}/query/Q000_{n:02d}.jpg" for n in range(5)]
POSITIVES = [f"thing_{n % 5}/pos/P000_{n:02d}.jpg" for n in range(11)]
TARS = {f"yfcc100m_{n:04d}.tar": [f"yfcc100m_{n:04d}.tar/k_{i:03d}" for i in range(20 + n)] for n in range(5)}


def unit(rows: int, seed: int = 0, dtype: str = "float16") -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, DIMS))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(dtype)


def make_store(folder: Path, partition: str, shards: dict[str, list[str]], *, dtype: str = "float16", seed: int = 0):
    folder.mkdir(parents=True)
    made_from = {"model": {"name": "m"}, "benchmark": "b", "partition": partition, "contents": "c"}
    sources = list(shards)
    write_manifest(folder / "manifest.json", kind=KIND, made_from=made_from, dims=DIMS, sources=sources)
    for number, (source, ids) in enumerate(shards.items()):
        vectors = unit(len(ids), seed + number, dtype)
        write_shard(folder, number, source=source, ids=ids, descriptors=vectors, skipped=())
    return open_store(folder)


def hdf5(path: Path, ids: list[str], vectors: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("index", data=ids, dtype=h5py.string_dtype("ascii"))
        file.create_dataset("features", data=vectors, **options)
    return path


def contents(opened: DescriptorStore) -> tuple[list[str], np.ndarray]:
    ids = [item for shard in opened.shards for item in shard.ids()]
    return ids, np.concatenate([np.array(block) for shard in opened.shards for block in shard.blocks()])


def same(left: DescriptorStore, right: DescriptorStore) -> bool:
    (ids, rows), (others, other) = contents(left), contents(right)
    return ids == others and rows.dtype == other.dtype and rows.tobytes() == other.tobytes()


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, DescriptorStore]:
    ties = make_store(tmp_path / "stores" / "positives", "positives", {"positives/00000": sorted(POSITIVES)}, seed=0)
    return {
        "image_queries": make_store(tmp_path / "stores" / "image_queries", "image_queries", {"q": QUERIES}, seed=90),
        "positives": ties,
        "distractors": make_store(tmp_path / "stores" / "distractors", "distractors", TARS, seed=0),
    }


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize("partition", ["positives", "distractors"])
def test_there_and_back(
    tmp_path: Path, dtype: str, level: int, partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BLOCK_BYTES", 7 * DIMS * 4)
    monkeypatch.setattr("openilias.descriptors.convert._CHUNK_BYTES", 5 * DIMS * 4)
    monkeypatch.setattr("openilias.descriptors.convert._ID_ROWS", 3)
    monkeypatch.setattr(official, "_ID_ROWS", 4)
    shards = TARS if partition == "distractors" else {"positives/00000": sorted(POSITIVES)}
    first = make_store(tmp_path / "a", partition, shards, dtype=dtype)
    made = convert(tmp_path / "a", tmp_path / "h", gzip=level, tars_per_file=2)
    assert made.rows == first.rows
    names = ["features_positives.hdf5"] if partition == "positives" else None
    assert [path.name for path in made.made] == (names or [f"features_distractors_{n:05d}.hdf5" for n in range(3)])
    source = tmp_path / "h" if partition == "distractors" else made.made[0]
    with h5py.File(made.made[0]) as file:
        assert file["features"].compression == ("gzip" if level else None)
        assert file["features"].dtype == dtype
        assert file["index"].asstr()[0] == first.shards[0].ids()[0]
    assert same(open_store(source), first)
    convert(source, tmp_path / "b")
    back = open_store(tmp_path / "b")
    assert same(back, first)
    assert back.partition == partition
    assert [shard.source for shard in back.shards] == [path.name for path in made.made]
    # The files of an imported store are the files of its export again.
    again = convert(tmp_path / "b", tmp_path / "again", gzip=level)
    assert [path.name for path in again.made] == [path.name for path in made.made]
    assert same(open_store(tmp_path / "again" if partition == "distractors" else again.made[0]), first)


def test_dtype_changes_only_when_asked(tmp_path: Path) -> None:
    first = make_store(
        tmp_path / "a", "text_queries", {"t": [f"x/query/T{n:03d}.txt" for n in range(4)]}, dtype="float32"
    )
    for dtype in (None, "float32", "float16"):
        (made,) = convert(tmp_path / "a", tmp_path / str(dtype), dtype=dtype).made
        found = contents(open_store(made))[1]
        assert found.tobytes() == contents(first)[1].astype(dtype or "float32").tobytes()
        convert(made, tmp_path / f"back {dtype}", dtype="float16")
        assert contents(open_store(tmp_path / f"back {dtype}"))[1].dtype == np.float16


def test_queries_are_sorted_by_id_and_keep_their_rows(tmp_path: Path) -> None:
    first = make_store(tmp_path / "a", "positives", {"x": POSITIVES[6:], "y": POSITIVES[:6]})
    found = contents(open_store(convert(tmp_path / "a", tmp_path / "p.h5").made[0]))
    ids, rows = contents(first)
    assert found[0] == sorted(ids) != ids
    assert found[1].tobytes() == rows[[ids.index(item) for item in sorted(ids)]].tobytes()


def test_ids_that_are_not_ascii(tmp_path: Path) -> None:
    ids = [
        "café/pos/P000_00.jpg",
        "mañana/pos/P000_00.jpg",
        "\N{GRINNING FACE}/pos/P000_00.jpg",
        "日本/pos/P000_00.jpg",
    ]
    first = make_store(tmp_path / "a", "positives", {"x": ids})
    (made,) = convert(tmp_path / "a", tmp_path / "h").made
    with h5py.File(made) as file:
        stored = file["index"].asstr()[:].tolist()
    assert "caf#U00e9/pos/P000_00.jpg" in stored
    assert "#U65e5#U672c/pos/P000_00.jpg" in stored
    assert stored == sorted(stored)
    found = dict(zip(*contents(open_store(made)), strict=True))
    assert {item: row.tobytes() for item, row in found.items()} == {
        item: row.tobytes() for item, row in zip(*contents(first), strict=True)
    }
    # What others wrote is taken as it stands.
    path = hdf5(tmp_path / "features_positives.hdf5", ["caf#U00e9/pos/P000_00.jpg"], unit(1))
    assert open_store(path).shards[0].ids() == ["caf#U00e9/pos/P000_00.jpg"]
    make_store(tmp_path / "b", "positives", {"x": ["é/pos/P1.jpg", "caf#U00e9/pos/P1.jpg"]})
    with pytest.raises(OpenIliasError, match="has no ASCII form"):
        convert(tmp_path / "b", tmp_path / "b.hdf5")
    assert not (tmp_path / "b.hdf5").exists()


@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=12).filter(lambda text: "#U" not in text))
@settings(max_examples=200, deadline=None)
def test_escapes_are_ascii_and_can_be_undone(text: str) -> None:
    assert escaped(text).isascii()
    if not text.isascii() and "\\" not in text:
        assert unescaped(escaped(text)) == text


@pytest.mark.parametrize("level", [0, 1])
def test_search_is_the_same_bit_by_bit(
    stores: dict[str, DescriptorStore], tmp_path: Path, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for partition in stores:
        convert(stores[partition].folder, tmp_path / "h", gzip=level, tars_per_file=2)
    monkeypatch.setattr(store, "BLOCK_BYTES", 9 * DIMS * 2)
    files = [tmp_path / "h" / "features_positives.hdf5", tmp_path / "h"]
    plain = search([stores["image_queries"]], [stores["distractors"], stores["positives"]], 60)
    found = search([open_store(tmp_path / "h" / "features_image_queries.hdf5")], [*map(open_store, files)], 60)
    assert len(set(plain.scores[0].tolist())) < 60  # there are ties
    assert found.query_ids == plain.query_ids
    assert [found.ids_of(n) for n in range(5)] == [plain.ids_of(n) for n in range(5)]
    assert found.scores.tobytes() == plain.scores.tobytes()
    one_by_one = [open_store(path) for path in sorted((tmp_path / "h").glob("*dist*"), reverse=True)]
    again = search(
        [open_store(tmp_path / "h" / "features_image_queries.hdf5")], [*one_by_one, open_store(files[0])], 60
    )
    assert again.ids_of(0) == plain.ids_of(0)


def test_blocks_are_whole_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(103)
    ids = [item for items in TARS.values() for item in items][:103]
    path = hdf5(tmp_path / "d_distractors.h5", ids, vectors, chunks=(10, 7), compression="gzip")
    (shard,) = open_store(path).shards
    assert [len(block) for block in shard.blocks(25)] == [20] * 5 + [3]
    assert [len(block) for block in shard.blocks(1)] == [10] * 10 + [3]
    monkeypatch.setattr(official, "_MOST_BLOCK", 10 * DIMS)
    with pytest.raises(OpenIliasError, match="chunks of 10 rows, too many"):
        next(shard.blocks())


def test_a_series(tmp_path: Path) -> None:
    for number, ids in enumerate(TARS.values()):
        hdf5(tmp_path / f"siglip_distractors_{number:05d}.hdf5", ids, unit(len(ids), number))
    hdf5(tmp_path / "siglip_positives.hdf5", POSITIVES, unit(11))
    opened = open_store(tmp_path)
    assert (opened.partition, opened.rows, opened.dims) == ("distractors", 110, DIMS)
    assert contents(opened)[0] == [item for items in TARS.values() for item in items]
    shutil.copy(tmp_path / "siglip_distractors_00000.hdf5", tmp_path / "dino_distractors_00000.hdf5")
    with pytest.raises(OpenIliasError, match="several names: dino, siglip"):
        open_store(tmp_path)
    (tmp_path / "dino_distractors_00000.hdf5").unlink()
    hdf5(tmp_path / "siglip_distractors_00005.hdf5", ["x.tar/a"], np.ones((1, 1), np.float16))
    with pytest.raises(OpenIliasError, match=r"00000.hdf5 has 24 dimensions, siglip_distractors_00005.hdf5 has 1\."):
        open_store(tmp_path)
    (tmp_path / "siglip_distractors_00003.hdf5").unlink()
    with pytest.raises(OpenIliasError, match="no file number 00003"):
        open_store(tmp_path)


def test_a_part_of_our_own_series_is_refused(stores: dict[str, DescriptorStore], tmp_path: Path) -> None:
    made = convert(stores["distractors"].folder, tmp_path / "h", tars_per_file=1).made
    made[-1].unlink()
    with pytest.raises(OpenIliasError, match="Only 4 of the 5 files are here"):
        open_store(tmp_path / "h")
    convert(stores["distractors"].folder, tmp_path / "g", tars_per_file=1, dtype="float32")
    shutil.copy(tmp_path / "g" / made[-1].name, made[-1])
    with pytest.raises(OpenIliasError, match="not made together"):
        open_store(tmp_path / "h")


@pytest.mark.parametrize(
    ("name", "ids", "partition"),
    [
        ("features_positives.hdf5", POSITIVES, "positives"),
        ("features_positive.hdf5", POSITIVES, "positives"),
        ("features.h5", QUERIES, "image_queries"),
        ("x.hdf5", ["a/query/T000.txt"], "text_queries"),
        ("x.hdf5", ["distractors/é.jpg"], "distractors"),
    ],
)
def test_the_partition(tmp_path: Path, name: str, ids: list[str], partition: str) -> None:
    opened = open_store(hdf5(tmp_path / name, [escaped(item) for item in ids], unit(len(ids))))
    assert opened.partition == partition
    assert contents(opened)[0]


def damage(tmp_path: Path, kind: str) -> Path:
    path, ids, vectors = tmp_path / "features_positives.hdf5", list(POSITIVES), unit(11)
    if kind == "nan":
        vectors[7, 3] = np.nan
    elif kind == "norm":
        vectors[7] *= np.float16(1.02)
    elif kind == "twice":
        ids[7] = ids[2]
    elif kind == "foreign":
        ids[7] = "yfcc100m_0000.tar/x"
    elif kind == "lengths":
        ids = ids[:-1]
    elif kind == "float64":
        vectors = vectors.astype(np.float64)
    elif kind == "3-D":
        vectors = vectors[:, :, None]
    hdf5(path, ids, vectors, **({"chunks": (4, DIMS), "compression": "gzip"} if kind == "bits" else {}))
    if kind in ("index", "features"):
        with h5py.File(path, "a") as file:
            del file[kind]
    elif kind == "numbers":
        with h5py.File(path, "a") as file:
            del file["index"]
            file["index"] = np.arange(11)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-700])
    elif kind == "junk":
        path.write_bytes(b"junk" * 100)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "bits":
        with h5py.File(path) as file:
            place = file["features"].id.get_chunk_info(1).byte_offset
        data = bytearray(path.read_bytes())
        data[place : place + 40] = bytes(40)
        path.write_bytes(data)
    elif kind == "link":
        path.rename(tmp_path / "other.hdf5")
        with h5py.File(path, "w") as file:
            file["features"] = h5py.ExternalLink("other.hdf5", "features")
            file["index"] = h5py.ExternalLink("other.hdf5", "index")
    elif kind == "huge":
        with h5py.File(path, "a") as file:
            del file["features"]
            file.create_dataset("features", (2**40, DIMS), np.float16, chunks=(64, DIMS))
    elif kind == "absent":
        path.unlink()
    elif kind == "name":
        path = path.rename(tmp_path / "features_text_queries.hdf5")
    elif kind == "unknown":
        hdf5(path, ["x"], unit(1))
        path = path.rename(tmp_path / "f.hdf5")
    return path


DAMAGES = {
    "nan": r"features of thing_2/pos/P000_07\.jpg are not finite",
    "norm": r"features of thing_2/pos/P000_07\.jpg are of norm 1\.02, not 1",
    "twice": r"The id thing_2/pos/P000_02\.jpg stands twice",
    "foreign": "'yfcc100m_0000.tar/x' is no id of positives",
    "lengths": r"'index' \(10,\) object and 'features' \(11, 24\) do not match",
    "float64": "expected vectors of float16 or float32",
    "3-D": "expected vectors of float16 or float32",
    "index": "There is no dataset 'index'",
    "features": "There is no dataset 'features'",
    "numbers": "do not match",
    "truncated": "damaged or truncated",
    "junk": "damaged or truncated",
    "empty": "damaged or truncated",
    "bits": "damaged or truncated",
    "link": "is a link and not in this file",
    "huge": "cannot hold",
    "absent": "does not exist",
    "name": r"is no id of text_queries",
    "unknown": "Neither the name nor the ids",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_files(tmp_path: Path, ilias: Ilias, kind: str) -> None:
    path = damage(tmp_path, kind)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OpenIliasError, match=DAMAGES[kind]) as caught:
        convert(path, tmp_path / "out")
    assert str(path) in str(caught.value.where)
    outcome = ilias("data", "convert", path, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert sorted(tmp_path.iterdir()) == before
    queries = hdf5(tmp_path / "q" / "features_image_queries.hdf5", QUERIES, unit(5))
    arguments = ["--queries", queries, "--database", path, "--out", tmp_path / "ranking"]
    assert ilias("search", *arguments).code == 2
    assert not (tmp_path / "ranking").exists()


def test_an_id_in_two_files(tmp_path: Path) -> None:
    for number in range(2):
        hdf5(tmp_path / f"d_distractors_{number:05d}.hdf5", [f"a.tar/{number}", "a.tar/x"], unit(2, number))
    with pytest.raises(OpenIliasError, match=r"The id a\.tar/x stands twice") as caught:
        convert(tmp_path, tmp_path / "out")
    assert "00000.hdf5 and " in str(caught.value.where)
    assert not (tmp_path / "out").exists()


def test_equal_hashes_are_no_duplicates(stores: dict[str, DescriptorStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "hash", lambda item: len(item), raising=False)
    counts = check_ids(stores["distractors"].shards)
    assert [dict(count) for count in counts] == [{tar: len(ids)} for tar, ids in TARS.items()]


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "features_positives.hdf5", POSITIVES, unit(11))
    opened = open_store(path)
    hdf5(path, POSITIVES, unit(11, 1))
    with pytest.raises(OpenIliasError, match="has changed"):
        next(opened.shards[0].blocks())


def test_what_goes_together(stores: dict[str, DescriptorStore], tmp_path: Path) -> None:
    queries = hdf5(tmp_path / "features_image_queries.hdf5", QUERIES, unit(5))
    with pytest.raises(OpenIliasError, match=r"Nothing says what made .*features_image_queries") as caught:
        search([open_store(queries)], [stores["positives"]], 3)
    assert f"ilias data convert {stores['positives'].folder} --out" in str(caught.value.fix)
    # Neither does it help to convert the official file: nobody knows more of it then.
    convert(queries, tmp_path / "imported")
    imported = open_store(tmp_path / "imported")
    with pytest.raises(OpenIliasError, match="Nothing says what made"):
        search([imported], [stores["positives"]], 3)
    (made,) = convert(stores["positives"].folder, tmp_path / "h").made
    found = search([imported], [open_store(made)], 3)
    assert found.ids_of(0) == search([open_store(queries)], [open_store(made)], 3).ids_of(0)
    path = hdf5(tmp_path / "narrow_positives.hdf5", POSITIVES, (unit(11)[:, :1] > 0) * np.float16(2) - 1)
    with pytest.raises(OpenIliasError, match="dims: 24 -> 1"):
        search([imported], [open_store(path)], 3)


def official_set(benchmark: Benchmark, folder: Path, *, leave_out: str = "") -> list[object]:
    parts = {
        "image_queries": list(benchmark.image_queries),
        "text_queries": list(benchmark.text_queries),
        "positives": list(benchmark.positives),
    }
    for seed, (name, ids) in enumerate(parts.items()):
        ids = [item for item in ids if item != leave_out]
        hdf5(folder / f"features_{name}.hdf5", ids, unit(len(ids), seed, "float32" if "text" in name else "float16"))
    ids = [item.id for shard in benchmark.distractor_shards if shard.name != leave_out for item in shard.items()]
    hdf5(folder / "features_distractors_00000.hdf5", ids[::-1], unit(len(ids), 9))
    return ["--queries", folder / "features_image_queries.hdf5", "--database", folder, "--database",
            folder / "features_positives.hdf5", "-k", 40]  # fmt: skip


def test_the_way_with_official_features(ilias: Ilias, tiny: Benchmark, tiny_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    search_them = official_set(tiny, tmp_path / "f")
    outcome = ilias("search", *search_them, "--out", run / "ranking")
    assert outcome.code == 0, outcome.err
    before = (run / "ranking" / "ranking.json").read_bytes()
    assert ilias("search", *search_them, "--out", run / "ranking").code == 0
    assert (run / "ranking" / "ranking.json").read_bytes() == before
    options = ["--benchmark", tiny_root, "--out", run / "evaluation", "--json", tmp_path / "e.json"]
    outcome = ilias("evaluate", run / "ranking", *options)
    assert outcome.code == 0, outcome.err
    assert "does not say how its descriptors were made" in outcome.out
    result = json.loads((tmp_path / "e.json").read_text())
    assert result["protocol"] == {"k": 40, "expand": None, "self_matches": "keep", "duplicates": "keep"}
    assert result["described"] is False
    outcome = ilias("report", run, "--benchmark", tiny_root, "--out", tmp_path / "page")
    assert outcome.code == 0, outcome.err
    page = (tmp_path / "page" / "runs" / "run" / "index.html").read_text()
    assert "nothing says by which model" in page
    assert "nothing says by which model" in (tmp_path / "page" / "data" / "report.js").read_text()
    assert "<code>resolution</code>" not in page
    # Other features under the same name are another ranking.
    shutil.rmtree(tmp_path / "f")
    official_set(tiny, tmp_path / "f", leave_out=tiny.distractor_shards[0].name)
    outcome = ilias("search", *search_them, "--out", run / "ranking")
    assert outcome.code == 2
    assert "made from something else" in outcome.err


@pytest.mark.parametrize("kind", ["tar", "positive", "query", "unknown"])
def test_features_that_do_not_fit_the_benchmark(
    ilias: Ilias, tiny: Benchmark, tiny_root: Path, tmp_path: Path, kind: str
) -> None:
    lost = {"tar": tiny.distractor_shards[1].name, "positive": tiny.positives[3], "query": tiny.image_queries[0]}
    search_them = official_set(tiny, tmp_path / "f", leave_out=lost.get(kind, ""))
    if kind == "unknown":
        hdf5(tmp_path / "f" / "features_distractors_00001.hdf5", ["yfcc100m_0000.tar/none"], unit(1))
    assert ilias("search", *search_them, "--out", tmp_path / "r").code == 0
    outcome = ilias("evaluate", tmp_path / "r", "--benchmark", tiny_root)
    assert outcome.code == 2
    message = {
        "tar": f"were not searched: {lost['tar']}.",
        "positive": "were not searched: positives.",
        "query": f"queries are not answered: {lost['query']}.",
        "unknown": "not of this benchmark: yfcc100m_0000.tar/none.",
    }
    assert message[kind] in outcome.err
    partial = ilias("evaluate", tmp_path / "r", "--benchmark", tiny_root, "--partial-database")
    assert partial.code == (0 if kind in ("tar", "positive") else 2)


def test_a_benchmark_that_only_lists_its_distractors(
    ilias: Ilias, tiny: Benchmark, tiny_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "listed"
    shutil.copytree(tiny_root, root, ignore=shutil.ignore_patterns("yfcc100m", "checksums.txt"))
    ids = [item.id for shard in tiny.distractor_shards for item in shard.items()]
    (root / "image_ids").mkdir(exist_ok=True)
    (root / "image_ids" / "distractor_ids.txt.gz").write_bytes(gzip.compress("".join(f"{i}\n" for i in ids).encode()))
    search_them = official_set(tiny, tmp_path / "f")
    assert ilias("search", *search_them, "--out", tmp_path / "r").code == 0
    outcome = ilias("evaluate", tmp_path / "r", "--benchmark", root)
    assert outcome.code == 0, outcome.err
    search_them[search_them.index("--database") + 1] = tmp_path / "f" / "features_positives.hdf5"
    assert ilias("search", *search_them[:4], "--out", tmp_path / "q").code == 0
    assert "were not searched: distractors." in ilias("evaluate", tmp_path / "q", "--benchmark", root).err


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


KILLED = """
import sys, os, signal
from pathlib import Path
import openilias.descriptors.convert as c
import openilias.core.files as f
name, done = sys.argv[3], []
def count(*a, **k):
    done.append(1)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(*a, **k)
inner = getattr(c, name)
setattr(c, name, count)
c.convert(Path(sys.argv[1]), Path(sys.argv[2]), tars_per_file=1)
"""


@pytest.mark.parametrize("way", ["to HDF5", "to a store"])
def test_killed_it_continues_to_the_same_bytes(stores: dict[str, DescriptorStore], tmp_path: Path, way: str) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    source, name = stores["distractors"].folder, "_write"
    if way == "to a store":
        convert(source, tmp_path / "h", tars_per_file=1)
        source, name = tmp_path / "h", "write_blocks"
    convert(source, whole, tars_per_file=1)
    done = subprocess.run([sys.executable, "-c", KILLED, source, out, name], check=False)
    assert done.returncode == -9
    assert 0 < len(files_of(out)) < len(files_of(whole))
    kept = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name in files_of(whole)}
    (out / ".features_distractors_00002.hdf5.0123456789ab.partial").write_bytes(b"half")
    (out / ".00002.npy.0123456789ab.partial").write_bytes(b"half")
    with pytest.raises(OpenIliasError, match=r"not finished|Only 2 of the 5 files are here"):
        open_store(out)
    assert convert(source, out, tars_per_file=1).kept == 2
    assert {name: found for name, found in files_of(out).items() if not name.startswith(".")} == files_of(whole)
    assert not (
        out / f".{'00002.npy' if way == 'to a store' else 'features_distractors_00002.hdf5'}.0123456789ab.partial"
    ).exists()
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_an_output_in_the_way(stores: dict[str, DescriptorStore], tmp_path: Path) -> None:
    positives, distractors = stores["positives"].folder, stores["distractors"].folder
    (made,) = convert(positives, tmp_path / "h").made
    before = made.read_bytes()
    assert convert(positives, tmp_path / "h").kept == 1
    with pytest.raises(OpenIliasError, match="made from something else"):
        convert(positives, tmp_path / "h", dtype="float32")
    assert made.read_bytes() == before
    convert(positives, tmp_path / "h", dtype="float32", overwrite=True)
    assert contents(open_store(made))[1].dtype == np.float32
    convert(distractors, tmp_path / "h", tars_per_file=1)
    with pytest.raises(OpenIliasError, match="another series are here: features_distractors_00003"):
        convert(distractors, tmp_path / "h", tars_per_file=2, overwrite=True)
    convert(made, tmp_path / "s")
    with pytest.raises(OpenIliasError, match="made from something else"):
        convert(tmp_path / "h", tmp_path / "s")
    with pytest.raises(OpenIliasError, match="holds no descriptor store"):
        convert(made, tmp_path / "h")
    damaged = tmp_path / "s" / "00000.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert convert(made, tmp_path / "s").kept == 1
    assert convert(made, tmp_path / "s", overwrite=True).kept == 0
    assert same(open_store(tmp_path / "s"), open_store(made))
    (tmp_path / "file").write_text("x")
    for bad, message in (
        ((distractors, tmp_path / "d.hdf5"), "series of files"),
        ((made, tmp_path / "x.hdf5"), "official HDF5 already"),
        ((positives, tmp_path / "file"), "path is a file"),
    ):
        with pytest.raises(OpenIliasError, match=message):
            convert(*bad)


def test_a_damaged_store_is_not_exported(stores: dict[str, DescriptorStore], tmp_path: Path) -> None:
    path = stores["positives"].folder / "00000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(OpenIliasError, match="not as it was written"):
        convert(stores["positives"].folder, tmp_path / "h")
    assert not (tmp_path / "h").exists()


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv = ["ilias", *sys.argv[2:]]
from openilias.cli import main
main()
"""


@pytest.mark.parametrize("way", ["to HDF5", "to a store", "packed"])
@pytest.mark.parametrize("limit", [700, 60_000])
def test_a_full_disk(tmp_path: Path, way: str, limit: int) -> None:
    ids = [f"a/pos/P{n:05d}.jpg" for n in range(4000)]
    if way == "to a store":
        source = hdf5(tmp_path / "features_positives.hdf5", ids, unit(4000))
    else:
        source = make_store(tmp_path / "s", "positives", {"x": ids}).folder
    arguments = ["data", "convert", source, "--out", tmp_path / "out", *(["--gzip", 1] if way == "packed" else [])]
    command = [sys.executable, "-c", FULL, str(limit), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: This file cannot be written: ")
    assert len(done.stderr.splitlines()) == 3
    assert not (tmp_path / "out").exists()
    command[3] = str(2**40)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    made = tmp_path / "out" if way == "to a store" else tmp_path / "out" / "features_positives.hdf5"
    assert same(open_store(made), open_store(source))


def test_a_shard_without_room_for_its_ids_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    path = hdf5(tmp_path / "features_positives.hdf5", POSITIVES, unit(11))
    with monkeypatch.context() as patch:
        patch.setattr(store.pq, "write_table", full)
        with pytest.raises(OpenIliasError, match=r"cannot be written: No space left on device\.") as caught:
            convert(path, tmp_path / "out")
    assert str(caught.value.where).endswith("00000.ids.parquet")
    assert not (tmp_path / "out").exists()
    assert convert(path, tmp_path / "out").kept == 0


def test_commands(ilias: Ilias, stores: dict[str, DescriptorStore], tmp_path: Path) -> None:
    assert "Example: ilias data convert" in ilias("data", "convert", "--help").out
    options = ["--out", tmp_path / "h", "--tars-per-file", 3, "--gzip", 2, "--json", tmp_path / "c.json"]
    outcome = ilias("data", "convert", stores["distractors"].folder, *options)
    assert outcome.code == 0, outcome.err
    assert f"{tmp_path / 'h'}: 110 descriptors of 24 dimensions" in outcome.out
    assert len(json.loads((tmp_path / "c.json").read_text())["made"]) == 2
    assert "1 already there" not in outcome.out
    assert "2 already there" in ilias("data", "convert", stores["distractors"].folder, *options).out
    assert ilias("data", "convert", tmp_path / "h", "--out", tmp_path / "s", "--gzip", 2).code == 2
    assert ilias("data", "convert", tmp_path / "h", "--out", tmp_path / "s", "--dtype", "int8").code == 2
    assert ilias("data", "convert", tmp_path / "h", "--out", tmp_path / "s").code == 0
    for path in (tmp_path / "s", tmp_path / "h", tmp_path / "h" / "features_distractors_00000.hdf5"):
        outcome = ilias("data", "inspect", path)
        assert outcome.code == 0, outcome.err
        assert "warning" not in outcome.out
