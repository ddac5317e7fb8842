"""Reading the official layout."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.data import Benchmark, Taxonomy, read_ilias
from openilias.data.taxonomy import read_taxonomy


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    """A copy of the tiny benchmark to damage."""
    return Path(shutil.copytree(tiny_root, tmp_path / "copy"))


def test_what_is_read(tiny: Benchmark) -> None:
    assert len(tiny.image_queries) == len(tiny.text_queries) == len(tiny.relevance) == 4
    assert all(2 <= len(items) <= 3 for items in tiny.relevance.values())
    assert list(tiny.positives) == sorted(tiny.positives)
    assert [shard.name for shard in tiny.distractor_shards] == ["yfcc100m_0000.tar", "yfcc100m_0001.tar"]
    assert [len(shard.items()) for shard in tiny.distractor_shards] == [8, 6]
    first = tiny.distractor_shards[0].items()[0]
    assert first.id.startswith("yfcc100m_0000.tar/")
    assert first.read()[:2] == b"\xff\xd8"
    assert all(a.coverage is not None and a.clutter is not None for a in tiny.attributes.values())
    assert tiny.taxonomy.coarse(next(iter(tiny.relevance)))
    assert tiny.shards("text_queries")[0].items()[0].read().decode().strip()


def test_ids_from_files_equal_the_lists(root: Path, tiny: Benchmark) -> None:
    shutil.rmtree(root / "image_ids")
    found = read_ilias(root)
    for name in ("image_queries", "text_queries", "positives", "relevance", "fingerprint"):
        assert getattr(found, name) == getattr(tiny, name), name
    for item, attributes in found.attributes.items():
        assert attributes.clutter is None
        assert attributes.coverage == pytest.approx(tiny.attributes[item].coverage, abs=1e-12)


def test_core_may_be_called_core(root: Path, tiny: Benchmark) -> None:
    (root / "ilias_core").rename(root / "core")
    assert read_ilias(root).fingerprint == tiny.fingerprint
    (root / "ilias_core").mkdir()
    with pytest.raises(OpenIliasError, match="Both"):
        read_ilias(root)


def test_lists_alone_are_enough_to_evaluate(root: Path, tiny: Benchmark) -> None:
    shutil.rmtree(root / "ilias_core")
    shutil.rmtree(root / "yfcc100m")
    found = read_ilias(root)
    assert found.positives == tiny.positives
    assert found.attributes == tiny.attributes
    with pytest.raises(OpenIliasError, match="cannot be read"):
        found.shards("image_queries")[0].items()[0].read()


def test_distractors_in_a_folder(root: Path) -> None:
    folder = root / "distractors"
    folder.mkdir()
    for name in ("b.jpg", "a.PNG", "note.txt"):
        Image.new("RGB", (8, 8)).save(folder / name, "PNG") if name != "note.txt" else (folder / name).touch()
    found = read_ilias(root)
    assert [s.name for s in found.distractor_shards] == ["distractors/00000", "yfcc100m_0000.tar", "yfcc100m_0001.tar"]
    assert [item.id for item in found.distractor_shards[0].items()] == ["distractors/a.PNG", "distractors/b.jpg"]
    (root / "yfcc100m" / "yfcc100m_0000.tar").rename(folder / "yfcc100m_0001.tar")
    with pytest.raises(OpenIliasError, match=r"Two shards are called yfcc100m_0001\.tar"):
        read_ilias(root)


def test_long_folders_become_several_shards(root: Path, monkeypatch: pytest.MonkeyPatch, tiny: Benchmark) -> None:
    monkeypatch.setattr("openilias.data.benchmark.FOLDER_SHARD", 3)
    shards = read_ilias(root).shards("positives")
    assert [shard.name for shard in shards[:2]] == ["positives/00000", "positives/00001"]
    assert [item.id for shard in shards for item in shard.items()] == list(tiny.positives)


def test_the_fingerprint_sees_what_matters(root: Path, tiny: Benchmark) -> None:
    def changed() -> bool:
        return read_ilias(root).fingerprint != tiny.fingerprint

    assert not changed()
    box = root / "ilias_core" / tiny.positives[0].replace(".jpg", "_bbox.txt")
    text = box.read_text()
    box.write_text("0 0 5 5\n")
    assert changed()
    box.write_text(text)
    (root / "image_ids" / "image_query_ids.txt").write_text("\n".join(f"{i},x" for i in tiny.image_queries[1:]))
    assert changed()


def test_annotations_have_a_fingerprint_of_their_own(root: Path, tiny: Benchmark) -> None:
    path = root / "image_ids" / "positive_ids.txt"
    first, _, rest = path.read_text().partition("\n")
    path.write_text(first.rsplit(",", 1)[0] + ",99\n" + rest)
    assert read_ilias(root).fingerprint == tiny.fingerprint
    assert read_ilias(root).annotations != tiny.annotations
    (root / "taxonomy.json").write_text("{}")
    path.write_text(f"{first}\n{rest}")
    assert read_ilias(root).annotations not in (tiny.annotations, read_ilias(root).fingerprint)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("image_ids/positive_ids.txt", "a/pos/P.jpg,0.5\n", "id,area_coverage,clutter_segments"),
        ("image_ids/positive_ids.txt", "a/pos/P.jpg,1.5,3\n", "out of range"),
        ("image_ids/positive_ids.txt", "a/pos/P.jpg,nan,3\n", "out of range"),
        ("image_ids/positive_ids.txt", "a/pos/P.jpg,0.5,3\na/pos/P.jpg,0.5,3\n", "Ids stand twice"),
        ("image_ids/image_query_ids.txt", "x/query/Q.jpg,x\nx/query/Q.jpg,x\n", "Ids stand twice"),
        ("image_ids/image_query_ids.txt", "../../etc/passwd,x\n", "Expected an id"),
        ("image_ids/image_query_ids.txt", "x/query/../../y.jpg,x\n", "Expected an id"),
        ("image_ids/positive_ids.txt", "../pos/P.jpg,0.5,3\n", "Expected an id"),
        ("image_ids/positive_ids.txt", "a/query/P.jpg,0.5,3\n", "Expected an id"),
        ("image_ids/positive_ids.txt", f"a/pos/{'P' * 256}.jpg,0.5,3\n", "Expected an id"),
        ("image_ids/image_query_ids.txt", "lonely/query/Q.jpg,x\n", "Objects without positives: lonely"),
        ("taxonomy.json", '{"a": {"b": ["x"]}}', "taxonomy must be"),
        ("taxonomy.json", '{"a": {"b": {"c": "x"}}}', "list of objects"),
        ("taxonomy.json", '{"a": {"b": {"c": ["x"], "d": ["x"]}}}', "two categories"),
        ("taxonomy.json", "{", "not readable JSON"),
        ("checksums.txt", "abc\n", "sha256"),
    ],
)
def test_malformed_files_are_named(root: Path, file: str, text: str, message: str) -> None:
    (root / file).write_text(text)
    with pytest.raises(OpenIliasError, match=message) as caught:
        read_ilias(root)
    assert caught.value.where is not None


def test_folders_that_are_no_benchmark(tmp_path: Path) -> None:
    with pytest.raises(OpenIliasError, match="no such benchmark"):
        read_ilias(tmp_path / "none")
    with pytest.raises(OpenIliasError, match="not a benchmark"):
        read_ilias(tmp_path)
    (tmp_path / "core").mkdir()
    with pytest.raises(OpenIliasError, match="no queries"):
        read_ilias(tmp_path)


def test_unknown_ids(root: Path, tiny: Benchmark) -> None:
    real = [shard.items()[0].id for shard in tiny.distractor_shards] + list(tiny.positives)
    strange = ["yfcc100m_0000.tar/none", "other.tar/x", "distractors/x.jpg", "nobody/pos/P.jpg", "plain"]
    for drop in (None, "image_ids/distractor_ids.txt.gz", "yfcc100m"):
        if drop == "yfcc100m":
            with gzip.open(root / "image_ids/distractor_ids.txt.gz", "wt") as file:
                file.write("\n".join(item.id for shard in tiny.distractor_shards for item in shard.items()))
            shutil.rmtree(root / "yfcc100m")
        elif drop:
            (root / drop).unlink()
        assert read_ilias(root).unknown(real + strange) == sorted(strange), drop
    (root / "image_ids/distractor_ids.txt.gz").unlink()
    # Nothing is known of the distractors any more; positives still are.
    first = tiny.positives[0]
    assert read_ilias(root).unknown([*real, *strange, f"{first}x"]) == sorted([f"{first}x", "plain"])


def test_taxonomy_counts_leave_out_the_unassigned(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"art": {"other": {"other": ["x"]}, "clay": {"pot": ["y"], "other": ["z"]}}}))
    taxonomy = read_taxonomy(path)
    assert taxonomy.counts() == (1, 1, 1)
    assert (taxonomy.coarse("x"), taxonomy.mid("x"), taxonomy.mid("z")) == ("art", "art/other", "art/clay")
    assert taxonomy.coarse("nobody") is None
    assert Taxonomy().mid("x") is None


@pytest.mark.parametrize("name", ["P000_09.JPG", "Q000_09.png", "photo.jpg"])
def test_misnamed_images_do_not_vanish(root: Path, tiny: Benchmark, name: str) -> None:
    shutil.rmtree(root / "image_ids")
    folder = (root / "ilias_core" / tiny.positives[0]).parent
    shutil.copy(root / "ilias_core" / tiny.positives[0], folder / name)
    with pytest.raises(OpenIliasError, match=f"would be left out: .*{name}"):
        read_ilias(root)


def test_a_broken_id_list_is_named(root: Path) -> None:
    path = root / "image_ids" / "distractor_ids.txt.gz"
    for data in (b"junk", path.read_bytes()[:-12]):
        path.write_bytes(data)
        with pytest.raises(OpenIliasError, match="id list cannot be read"):
            read_ilias(root).unknown(["nobody/pos/P.jpg"])
