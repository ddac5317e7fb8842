"""Extraction into the descriptor store: order, resume, skips, damage."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.data import Benchmark, read_ilias
from openilias.descriptors.extract import Options, extract
from openilias.descriptors.store import open_store
from openilias.images.decode import decode
from openilias.models.backbone import Backbone
from openilias.models.zoo import find_model, load_model
from openilias.search.stores import database_of, search, search_to


def model(**protocol: object) -> Backbone:
    return load_model(find_model("resnet18"), Protocol.model_validate({"resolution": 64} | protocol), random_weights=0)


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return model()


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_root, tmp_path / "copy"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rows_and_order_are_those_of_the_source(tiny: Benchmark, resnet: Backbone, tmp_path: Path) -> None:
    store = extract(tiny, resnet, "distractors", tmp_path / "d")
    assert [shard.source for shard in store.shards] == ["yfcc100m_0000.tar", "yfcc100m_0001.tar"]
    for source, shard in zip(tiny.distractor_shards, store.shards, strict=True):
        items = source.items()
        assert shard.ids() == [item.id for item in items]
        twin = np.concatenate([resnet.encode_images(resnet.prepare(decode(i.read(), where=i.id))[None]) for i in items])
        found = shard.descriptors()
        assert found.dtype == np.float16
        assert np.abs(found.astype(np.float32) - twin).max() < 1e-3


def test_batches_workers_and_windows_change_nothing(
    tiny: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = model(dtype="float32")
    first = extract(tiny, backbone, "positives", tmp_path / "a", Options(batch_size=4, workers=1))
    same = extract(tiny, backbone, "positives", tmp_path / "b", Options(batch_size=4, workers=3))
    assert first.shards[0].sha256 == same.shards[0].sha256
    monkeypatch.setattr("openilias.descriptors.pipeline.WINDOW", 1)
    for size in (1, 2, 64):
        other = extract(tiny, backbone, "positives", tmp_path / str(size), Options(batch_size=size))
        assert other.shards[0].ids() == list(tiny.positives)
        assert np.abs(other.shards[0].descriptors() - first.shards[0].descriptors()).max() < 1e-5


def test_a_finished_store_is_left_alone(tiny: Benchmark, resnet: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "s"
    extract(tiny, resnet, "positives", out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    extract(tiny, resnet, "positives", out)
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}


def test_another_model_protocol_or_partition_stops(tiny: Benchmark, resnet: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "s"
    extract(tiny, resnet, "positives", out)
    with pytest.raises(OpenIliasError, match=r"protocol\.resolution: 64 -> 80"):
        extract(tiny, model(resolution=80), "positives", out)
    with pytest.raises(OpenIliasError, match='partition: "positives" -> "image_queries"'):
        extract(tiny, resnet, "image_queries", out)
    other = load_model(find_model("resnet18"), Protocol(resolution=64), random_weights=1)
    with pytest.raises(OpenIliasError, match="weights:"):
        extract(tiny, other, "positives", out)
    store = extract(tiny, model(resolution=80), "positives", out, Options(overwrite=True))
    assert store.manifest["made_from"]["protocol"]["resolution"] == 80


def test_a_lost_shard_is_made_again(tiny: Benchmark, resnet: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "s"
    extract(tiny, resnet, "distractors", out)
    before = files_of(out)
    (out / "00001.json").unlink()
    (out / "00001.npy").write_bytes(b"half")
    with pytest.raises(OpenIliasError, match=r"1 of 2 shards of this store are not finished: yfcc100m_0001\.tar"):
        open_store(out)
    extract(tiny, resnet, "distractors", out)
    assert files_of(out) == before


def test_killed_extraction_resumes_to_the_same_bytes(
    tiny_root: Path, tiny: Benchmark, resnet: Backbone, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    extract(tiny, resnet, "distractors", whole)
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "import openilias.descriptors.extract as e\n"
        "from openilias.core.protocol import Protocol\nfrom openilias.data import read_ilias\n"
        "from openilias.models.zoo import find_model, load_model\n"
        "write = e.write_shard\n"
        "def slow(*a, **k):\n    write(*a, **k)\n    print('written', flush=True)\n    time.sleep(60)\n"
        "e.write_shard = slow\n"
        "b = load_model(find_model('resnet18'), Protocol(resolution=64), random_weights=0)\n"
        f"e.extract(read_ilias(Path({str(tiny_root)!r})), b, 'distractors', Path({str(out)!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with pytest.raises(OpenIliasError, match="1 of 2 shards"):
        open_store(out)
    extract(tiny, resnet, "distractors", out)
    assert files_of(out) == files_of(whole)


def test_unreadable_images_stop_or_are_listed(root: Path, resnet: Backbone, tmp_path: Path) -> None:
    benchmark = read_ilias(root)
    bad = benchmark.positives[1]
    (root / "ilias_core" / bad).write_bytes(b"broken")
    out = tmp_path / "s"
    with pytest.raises(OpenIliasError, match="cannot be decoded") as caught:
        extract(benchmark, resnet, "positives", out)
    assert caught.value.where == bad
    assert not out.exists()
    store = extract(benchmark, resnet, "positives", out, Options(skip_unreadable=True))
    assert [item.id for item in store.skipped] == [bad]
    assert "not known" in store.skipped[0].reason
    assert store.shards[0].ids() == [item for item in benchmark.positives if item != bad]
    marker = json.loads((out / "00000.json").read_text())
    assert marker["skipped"][0]["id"] == bad
    assert marker["rows"] == len(benchmark.positives) - 1


def test_missing_partitions_and_texts_are_explained(root: Path, resnet: Backbone, tmp_path: Path) -> None:
    shutil.rmtree(root / "yfcc100m")
    with pytest.raises(OpenIliasError, match="no distractors"):
        extract(read_ilias(root), resnet, "distractors", tmp_path / "d")
    with pytest.raises(OpenIliasError, match="no text tower"):
        extract(read_ilias(root), resnet, "text_queries", tmp_path / "t")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


def test_texts_are_described_in_order_and_kept_in_full(tiny: Benchmark, resnet: Backbone, tmp_path: Path) -> None:
    class WithTexts(type(resnet)):
        def __init__(self) -> None:
            self.__dict__.update(resnet.__dict__)

        def encode_texts(self, texts: list[str]) -> np.ndarray:
            return np.array([[len(text)] * self.dims for text in texts], np.float32)

    store = extract(tiny, WithTexts(), "text_queries", tmp_path / "t")
    found = store.shards[0].descriptors()
    assert found.dtype == np.float32
    texts = [(tiny.core / item).read_text(encoding="utf-8") for item in tiny.text_queries]
    assert found[:, 0].tolist() == [len(text) for text in texts]


def test_official_leaves_tars_as_they_lie(root: Path, tmp_path: Path) -> None:
    import io

    from PIL import Image

    from openilias.images.tars import write_tar

    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif)
    shutil.rmtree(root / "yfcc100m")
    (root / "distractors").mkdir()
    write_tar(root / "distractors" / "a.tar", [("x.jpg", stream.getvalue())])
    (root / "distractors" / "x.jpg").write_bytes(stream.getvalue())
    found = {}
    for compat in ("paper", "official"):
        store = extract(read_ilias(root), model(compat=compat), "distractors", tmp_path / compat)
        found[compat] = {i: s.descriptors()[0] for s in store.shards for i in s.ids()}
    assert (found["paper"]["a.tar/x"] == found["paper"]["distractors/x.jpg"]).all()
    assert (found["official"]["distractors/x.jpg"] == found["paper"]["distractors/x.jpg"]).all()
    assert (found["official"]["a.tar/x"] != found["paper"]["a.tar/x"]).any()


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("00000.npy", lambda data: data[:-10], "not as it was written"),
        ("00000.npy", lambda data: data[:-1] + b"x", "not as it was written"),
        ("00000.ids.parquet", lambda data: data[:-10], "not as it was written"),
        ("00000.json", lambda data: b"{", "not readable JSON"),
        ("00000.json", lambda data: b'{"rows": 3}', "marker is broken"),
        ("00000.json", lambda data: data.replace(b'"rows": ', b'"rows": 1'), "found"),
        ("manifest.json", lambda data: b"{}", "Expected a descriptor store"),
    ],
)
def test_damaged_stores_are_named(
    tiny: Benchmark, resnet: Backbone, tmp_path: Path, name: str, damage: object, message: str
) -> None:
    out = tmp_path / "s"
    extract(tiny, resnet, "positives", out)
    (out / name).write_bytes(damage((out / name).read_bytes()))
    with pytest.raises(OpenIliasError, match=message) as caught:
        store = open_store(out)
        search([extract(tiny, resnet, "image_queries", tmp_path / "q")], [store], 5)
    assert caught.value.where is not None


def test_search_is_in_canonical_order_whatever_the_order_of_stores(
    tiny: Benchmark, resnet: Backbone, tmp_path: Path
) -> None:
    queries = extract(tiny, resnet, "image_queries", tmp_path / "q")
    positives = extract(tiny, resnet, "positives", tmp_path / "p")
    distractors = extract(tiny, resnet, "distractors", tmp_path / "d")
    one = search([queries], [positives, distractors], 10)
    other = search([queries], [distractors, positives], 10)
    assert one.query_ids == tiny.image_queries
    assert one.db_ids == other.db_ids
    assert one.rows.tolist() == other.rows.tolist()
    assert one.scores.tobytes() == other.scores.tobytes()
    base = database_of([distractors, positives])
    whole = np.concatenate([shard.descriptors() for shard in base.shards]).astype(np.float64)
    ids = [item for shard in base.shards for item in shard.ids()]
    assert ids[: len(tiny.positives)] == list(tiny.positives)
    scores = (queries.shards[0].descriptors().astype(np.float64) @ whole.T).astype(np.float32)
    for line in range(len(one.query_ids)):
        order = np.argsort(-scores[line], kind="stable")[:10]
        assert one.ids_of(line) == [ids[row] for row in order]


def test_search_refuses_what_does_not_belong_together(tiny: Benchmark, resnet: Backbone, tmp_path: Path) -> None:
    queries = extract(tiny, resnet, "image_queries", tmp_path / "q")
    positives = extract(tiny, resnet, "positives", tmp_path / "p")
    other = extract(tiny, model(resolution=80), "positives", tmp_path / "o")
    with pytest.raises(OpenIliasError, match=r"not made alike:\n    protocol\.resolution: 64 -> 80"):
        search([queries], [other], 5)
    with pytest.raises(OpenIliasError, match="is in two of the stores"):
        search([queries], [positives, positives], 5)


def test_what_concerns_one_partition_leaves_the_others_alone(tiny: Benchmark, tmp_path: Path) -> None:
    """Masks of positives and scales of queries need no new distractors; the ranking states the protocol of all."""
    distractors = extract(tiny, model(), "distractors", tmp_path / "d")
    special = model(positive_boxes="mask", query_boxes="crop", scales=(0.707, 1.0), views="queries")
    again = extract(tiny, special, "distractors", tmp_path / "d")
    assert again.fingerprint == distractors.fingerprint
    queries = extract(tiny, special, "image_queries", tmp_path / "q")
    positives = extract(tiny, special, "positives", tmp_path / "p")
    search_to([queries], [positives, distractors], 5, tmp_path / "r")
    origin = json.loads((tmp_path / "r" / "ranking.json").read_text())["made_from"]["origin"]["protocol"]
    assert origin == special.protocol.description()
    search_to([queries], [extract(tiny, model(), "positives", tmp_path / "plain"), distractors], 5, tmp_path / "r2")
    origin = json.loads((tmp_path / "r2" / "ranking.json").read_text())["made_from"]["origin"]["protocol"]
    assert (origin["positive_boxes"], origin["query_boxes"], origin["views"]) == ("none", "crop", "queries")
    scaled = extract(tiny, model(scales=(0.5, 1.0)), "positives", tmp_path / "scaled")
    with pytest.raises(OpenIliasError, match=r"scales"):
        search([queries], [scaled], 5)
    with pytest.raises(OpenIliasError, match=r"scales"):
        search([extract(tiny, model(), "image_queries", tmp_path / "q1")], [scaled, distractors], 5)


def test_search_to_is_kept_and_guarded(tiny: Benchmark, resnet: Backbone, tmp_path: Path) -> None:
    queries = extract(tiny, resnet, "image_queries", tmp_path / "q")
    positives = extract(tiny, resnet, "positives", tmp_path / "p")
    first = search_to([queries], [positives], 3, tmp_path / "r")
    before = files_of(tmp_path / "r")
    again = search_to([queries], [positives], 3, tmp_path / "r")
    assert files_of(tmp_path / "r") == before
    assert again.scores.tobytes() == first.scores.tobytes()
    with pytest.raises(OpenIliasError, match="k: 3 -> 4"):
        search_to([queries], [positives], 4, tmp_path / "r")
    assert search_to([queries], [positives], 4, tmp_path / "r", overwrite=True).rows.shape == (4, 4)


def test_a_failed_extraction_removes_only_its_own(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    out.mkdir()
    (out / ".env").write_text("precious")
    with pytest.raises(OpenIliasError, match="holds no descriptor store"):
        extract(read_ilias(root), model(), "positives", out)
    assert [path.name for path in out.iterdir()] == [".env"]


def test_finished_shards_survive_a_later_failure(root: Path, resnet: Backbone, tmp_path: Path) -> None:
    benchmark, out = read_ilias(root), tmp_path / "s"
    extract(benchmark, resnet, "distractors", out)
    (out / "00000.json").unlink()
    tar = root / "yfcc100m" / "yfcc100m_0000.tar"
    data = bytearray(tar.read_bytes())
    data[512:700] = b"x" * 188  # same size, so the store is the same one; the picture is broken
    tar.write_bytes(data)
    with pytest.raises(OpenIliasError, match="cannot be decoded"):
        extract(benchmark, resnet, "distractors", out)
    assert (out / "00001.json").exists()
    assert (out / "manifest.json").exists()


def test_replaced_files_are_noticed(root: Path, resnet: Backbone, tmp_path: Path) -> None:
    benchmark, out = read_ilias(root), tmp_path / "s"
    extract(benchmark, resnet, "positives", out)
    path = root / "ilias_core" / benchmark.positives[0]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(OpenIliasError, match="contents: "):
        extract(benchmark, resnet, "positives", out)
    path.unlink()
    with pytest.raises(OpenIliasError, match="is missing"):
        extract(benchmark, resnet, "positives", out)


def test_overwrite_is_refused_before_anything_is_lost(tiny: Benchmark, resnet: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "s"
    extract(tiny, resnet, "positives", out)
    before = files_of(out)
    with pytest.raises(OpenIliasError, match="no text tower"):
        extract(tiny, resnet, "text_queries", out, Options(overwrite=True))
    assert files_of(out) == before


def test_swapped_ids_are_noticed(tiny: Benchmark, resnet: Backbone, tmp_path: Path) -> None:
    queries = extract(tiny, resnet, "image_queries", tmp_path / "q")
    positives = extract(tiny, resnet, "positives", tmp_path / "p")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": list(reversed(tiny.positives))}), tmp_path / "p" / "00000.ids.parquet")
    with pytest.raises(OpenIliasError, match="not as it was written"):
        search([queries], [positives], 3)


def test_a_failed_overwrite_puts_the_old_store_back(root: Path, resnet: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "s"
    extract(read_ilias(root), resnet, "positives", out)
    before = files_of(out)
    (root / "ilias_core" / read_ilias(root).positives[0]).write_bytes(b"broken")
    with pytest.raises(OpenIliasError, match="cannot be decoded"):
        extract(read_ilias(root), model(resolution=80), "positives", out, Options(overwrite=True))
    assert files_of(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "s"]


@pytest.mark.parametrize("name", ["00000.npy", "00000.ids.parquet", "00000.json", "manifest.json"])
def test_overwrite_mends_a_damaged_store(tiny: Benchmark, resnet: Backbone, tmp_path: Path, name: str) -> None:
    out = tmp_path / "s"
    extract(tiny, resnet, "positives", out)
    before = files_of(out)
    (out / name).write_bytes(b"{")
    extract(tiny, resnet, "positives", out, Options(overwrite=True))
    assert files_of(out) == before


def test_a_folder_with_other_files_is_never_replaced(tiny: Benchmark, resnet: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "s"
    extract(tiny, resnet, "positives", out)
    (out / "notes.txt").write_text("precious")
    with pytest.raises(OpenIliasError, match=r"holds other files too: notes\.txt"):
        extract(tiny, model(resolution=80), "positives", out, Options(overwrite=True))
    assert (out / "notes.txt").read_text() == "precious"


def test_an_output_may_be_a_link(tiny: Benchmark, resnet: Backbone, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    extract(tiny, resnet, "positives", tmp_path / "link")
    extract(tiny, model(resolution=80), "positives", tmp_path / "link", Options(overwrite=True))
    assert (tmp_path / "link").is_symlink()
    assert open_store(tmp_path / "real").manifest["made_from"]["protocol"]["resolution"] == 80
