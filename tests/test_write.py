"""Writing a benchmark: what is read back is what was written; parts of it; the same bytes; killed and resumed."""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Outcome, kill_when
from openilias.core.errors import OpenIliasError
from openilias.core.files import sha256_of
from openilias.data import Benchmark, read_ilias
from openilias.data.selection import Selection
from openilias.data.verify import verify
from openilias.data.write import write_benchmark


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def bytes_of(benchmark: Benchmark) -> dict[str, bytes]:
    partitions = ("image_queries", "text_queries", "positives", "distractors")
    return {item.id: item.read() for p in partitions for shard in benchmark.shards(p) for item in shard.items()}


def assert_same(first: Benchmark, second: Benchmark) -> None:
    for name in ("image_queries", "text_queries", "positives", "relevance", "attributes"):
        assert getattr(first, name) == getattr(second, name), name
    assert dict(first.taxonomy.nodes) == dict(second.taxonomy.nodes)
    assert [s.name for s in first.distractor_shards] == [s.name for s in second.distractor_shards]
    for item in (*first.image_queries, *first.positives):
        assert first.boxes(item) == second.boxes(item)
    assert bytes_of(first) == bytes_of(second)


def sound(root: Path) -> bool:
    outcome = verify(root, workers=1)
    assert outcome is not None
    return outcome.findings == ()


@pytest.fixture
def copy(tiny_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_root, tmp_path / "copy"))


def test_what_is_written_is_read_back(tiny: Benchmark, tmp_path: Path) -> None:
    made = write_benchmark(tiny, tmp_path / "out", workers=1).benchmark
    assert_same(tiny, made)
    assert made.fingerprint == tiny.fingerprint
    assert made.annotations == tiny.annotations
    assert sound(tmp_path / "out")
    assert not list((tmp_path / "out").rglob(".*"))


def test_real_photographs_are_read_back(photos: Path, tmp_path: Path) -> None:
    benchmark = read_ilias(photos)
    made = write_benchmark(benchmark, tmp_path / "out", workers=1).benchmark
    assert_same(benchmark, made)
    assert made.fingerprint == benchmark.fingerprint
    packed = write_benchmark(benchmark, tmp_path / "packed", Selection(pack=200), workers=1).benchmark
    assert [len(shard.items()) for shard in packed.distractor_shards] == [200, 200, 200, 33]
    before = {item.path.stem: item.read() for shard in benchmark.distractor_shards for item in shard.items()}
    after = {item.id.split("/")[1]: item.read() for shard in packed.distractor_shards for item in shard.items()}
    assert before == after
    assert sound(tmp_path / "packed")


def test_lists_are_made_where_there_are_none(copy: Path, tmp_path: Path, tiny: Benchmark) -> None:
    shutil.rmtree(copy / "image_ids")
    made = write_benchmark(read_ilias(copy), tmp_path / "out", workers=1).benchmark
    assert made.positives == tiny.positives
    assert {known.clutter for known in made.attributes.values()} == {None}
    lines = (tmp_path / "out" / "image_ids" / "positive_ids.txt").read_text().splitlines()
    assert all(line.endswith(",") and line.count(",") == 2 for line in lines)
    for item, known in made.attributes.items():
        assert known.coverage == pytest.approx(tiny.attributes[item].coverage, abs=1e-12)
    assert sound(tmp_path / "out")


def test_urls_go_along(copy: Path, tmp_path: Path, tiny: Benchmark) -> None:
    url = copy / "ilias_core" / tiny.positives[0].replace(".jpg", "_url.txt")
    url.write_text("somewhere\n")
    write_benchmark(read_ilias(copy), tmp_path / "out", workers=1)
    assert (tmp_path / "out" / url.relative_to(copy)).read_text() == "somewhere\n"


def test_the_same_bytes_whatever_the_workers_and_the_time(copy: Path, tmp_path: Path) -> None:
    mini = copy / "image_ids" / "mini_ilias_yfcc100m_ids.txt"
    mini.write_text("".join(f"d{number:07d}\n" for number in (13, 2, 9, 4)))
    benchmark = read_ilias(copy)
    for workers in (1, 4):
        write_benchmark(benchmark, tmp_path / str(workers), Selection(mini=True), workers=workers)
        time.sleep(1.1)  # gzip and tar count whole seconds
    assert digests(tmp_path / "1") == digests(tmp_path / "4")


# Parts


def test_objects(tiny: Benchmark, tmp_path: Path) -> None:
    names = sorted(tiny.relevance)
    first = write_benchmark(tiny, tmp_path / "first", Selection(objects=2), workers=1).benchmark
    named = write_benchmark(tiny, tmp_path / "named", Selection(objects=(names[3], names[1])), workers=1).benchmark
    assert sorted(first.relevance) == names[:2]
    assert sorted(named.relevance) == [names[1], names[3]]
    assert set(named.taxonomy.nodes) == {names[1], names[3]}
    assert [len(shard.items()) for shard in named.distractor_shards] == [8, 6]
    assert sound(tmp_path / "first")
    assert sound(tmp_path / "named")


def test_ids(tiny: Benchmark, tmp_path: Path) -> None:
    name = min(tiny.relevance)
    keep = [item for item in (*tiny.image_queries, *tiny.positives) if item.startswith(f"{name}/")][:2]
    keep += [tiny.distractor_shards[1].items()[3].id, tiny.distractor_shards[1].items()[0].id]
    made = write_benchmark(tiny, tmp_path / "out", Selection(ids=tuple(keep)), workers=1).benchmark
    assert set(bytes_of(made)) == set(keep)
    assert bytes_of(made).items() <= bytes_of(tiny).items()
    assert sound(tmp_path / "out")


def test_shards_and_the_mini_list(copy: Path, tmp_path: Path) -> None:
    mini = copy / "image_ids" / "mini_ilias_yfcc100m_ids.txt"
    mini.write_text("d0000012\nd0000001\nd0000003\n")
    benchmark = read_ilias(copy)
    made = write_benchmark(benchmark, tmp_path / "mini", Selection(mini=True), workers=1).benchmark
    ids = [item.id for shard in made.distractor_shards for item in shard.items()]
    assert ids == ["yfcc100m_0000.tar/d0000001", "yfcc100m_0000.tar/d0000003", "yfcc100m_0001.tar/d0000012"]
    listed = gzip.decompress((tmp_path / "mini" / "image_ids" / "distractor_ids.txt.gz").read_bytes()).decode()
    assert listed.splitlines() == ids
    first = write_benchmark(benchmark, tmp_path / "first", Selection(shards=1), workers=1).benchmark
    assert [shard.name for shard in first.distractor_shards] == ["yfcc100m_0000.tar"]
    kept = (tmp_path / "first" / "image_ids" / mini.name).read_text().splitlines()
    assert kept == ["d0000001", "d0000003"]
    both = write_benchmark(benchmark, tmp_path / "both", Selection(shards=1, mini=True, objects=1), workers=1).benchmark
    assert [item.id for item in both.distractor_shards[0].items()] == ids[:2]
    none = write_benchmark(benchmark, tmp_path / "none", Selection(shards=0), workers=1).benchmark
    assert none.distractor_shards == ()
    for name in ("mini", "first", "both", "none"):
        assert sound(tmp_path / name), name


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(objects=("nobody",)), "These objects are not here: nobody"),
        (Selection(objects=5), "There are 4 objects, not 5"),
        (Selection(mini=True), "no mini list"),
        (Selection(ids=("nobody/pos/P.jpg",)), "1 of these ids are not here"),
        (Selection(shards=99), "There are 2 shards of distractors, not 99"),
        (Selection(ids=()), "leaves no queries"),
    ],
)
def test_selections_that_name_what_is_not_there(
    tiny: Benchmark, tmp_path: Path, selection: Selection, message: str
) -> None:
    with pytest.raises(OpenIliasError, match=message):
        write_benchmark(tiny, tmp_path / "out", selection, workers=1)


def test_queries_without_positives_are_refused(tiny: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(OpenIliasError, match="leaves queries without positives"):
        write_benchmark(tiny, tmp_path / "out", Selection(ids=(tiny.image_queries[0],)), workers=1)
    assert not (tmp_path / "out").exists()


# What is there already


def test_it_is_written_once_and_never_over_something_else(tiny: Benchmark, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_benchmark(tiny, out, workers=1)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    write_benchmark(tiny, out, workers=1)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(OpenIliasError, match="made from something else"):
        write_benchmark(tiny, out, Selection(objects=1), workers=1)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = write_benchmark(tiny, out, Selection(objects=1), workers=1, overwrite=True)
    assert len(again.benchmark.relevance) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    with pytest.raises(OpenIliasError, match="holds no benchmark"):
        write_benchmark(tiny, tmp_path / "other", workers=1, overwrite=True)


def test_killed_it_goes_on_to_the_same_bytes(tiny_root: Path, tiny: Benchmark, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    write_benchmark(tiny, whole, workers=1)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom openilias.data import read_ilias, write\n"
        "real = write._write_shard\n"
        "def slow(job):\n    made = real(job)\n    time.sleep(30)\n    return made\n"
        "write._write_shard = slow\n"
        "write.write_benchmark(read_ilias(Path(sys.argv[1])), Path(sys.argv[2]), workers=1)\n"
    )
    kill_when(lambda: list(out.glob(".written/*.json")), code, tiny_root, out)
    with pytest.raises(OpenIliasError, match="cut off"):
        read_ilias(out)
    first = out / "yfcc100m" / "yfcc100m_0000.tar"
    when = first.stat().st_mtime_ns
    write_benchmark(tiny, out, workers=1)
    assert first.stat().st_mtime_ns == when
    assert digests(out) == digests(whole)


def test_lists_alone_cannot_be_written(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "ilias_core")
    with pytest.raises(OpenIliasError, match="Only the lists"):
        write_benchmark(read_ilias(copy), tmp_path / "out", workers=1)


def loose(copy: Path, *names: str) -> None:
    """Add distractors that are files of a folder."""
    (copy / "distractors").mkdir(exist_ok=True)
    picture = next((copy / "ilias_core").glob("*/pos/P*.jpg")).read_bytes()
    for number, name in enumerate(names):
        (copy / "distractors" / name).write_bytes(picture[:2] + b"\xff\xfe\x00\x03" + bytes([number]) + picture[2:])


def test_tars_and_files_together_are_read_back(copy: Path, tmp_path: Path) -> None:
    loose(copy, "b.jpg", "a.png")
    benchmark = read_ilias(copy)
    made = write_benchmark(benchmark, tmp_path / "out", workers=1).benchmark
    assert_same(benchmark, made)
    outcome = verify(tmp_path / "out", workers=1)
    assert outcome is not None
    # The files are copies of a positive with a comment each; nothing else is wrong.
    assert {kind for _, kind in outcome.kinds} == {"duplicate-distractor"}
    packed = write_benchmark(benchmark, tmp_path / "packed", Selection(pack=1), workers=1).benchmark
    assert [(s.name, len(s.items())) for s in packed.distractor_shards] == [
        ("distractors_0000.tar", 1), ("distractors_0001.tar", 1), ("yfcc100m_0000.tar", 8), ("yfcc100m_0001.tar", 6),
    ]  # fmt: skip


def test_packed_tars_take_names_that_are_free(copy: Path, tmp_path: Path) -> None:
    (copy / "yfcc100m" / "yfcc100m_0000.tar").rename(copy / "yfcc100m" / "distractors_0000.tar")
    shutil.rmtree(copy / "image_ids")
    (copy / "checksums.txt").unlink()
    loose(copy, "a.jpg", "b.jpg")
    made = write_benchmark(read_ilias(copy), tmp_path / "out", Selection(pack=2), workers=1).benchmark
    assert [s.name for s in made.distractor_shards] == ["distractors_0000.tar", "packed_0000.tar", "yfcc100m_0001.tar"]
    assert sum(len(shard.items()) for shard in made.distractor_shards) == 16


@pytest.mark.parametrize(
    ("names", "message"), [(("a.jpg", "a.png"), "Both would have the key"), (("a.b.jpg",), "'a.b'")]
)
def test_files_that_do_not_fit_a_tar_are_refused(
    copy: Path, tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    loose(copy, *names)
    with pytest.raises(OpenIliasError, match=message) as caught:
        write_benchmark(read_ilias(copy), tmp_path / "out", Selection(pack=2), workers=1)
    assert str(copy) in str(caught.value.where)
    assert not (tmp_path / "out").exists()


def test_a_source_is_never_written_over(copy: Path, tmp_path: Path, tiny: Benchmark) -> None:
    before = digests(copy)
    (copy / "inside").mkdir()
    for out in (copy, copy / "inside" / "deep", copy.parent):
        for overwrite in (False, True):
            with pytest.raises(OpenIliasError, match="over, into or around itself"):
                write_benchmark(read_ilias(copy), out, Selection(objects=1), workers=1, overwrite=overwrite)
    (copy / "synth.json").unlink()
    with pytest.raises(OpenIliasError, match="holds no benchmark that was written here"):
        write_benchmark(tiny, copy, Selection(objects=1), workers=1, overwrite=True)
    assert digests(copy).items() >= {k: v for k, v in before.items() if k != "synth.json"}.items()


def test_a_failure_leaves_what_was_there(tiny: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with pytest.raises(OpenIliasError, match="no mini list"):
        write_benchmark(tiny, out, Selection(mini=True), workers=1)
    assert not out.exists()
    write_benchmark(tiny, out, workers=1)
    before = digests(out)
    for selection in (Selection(mini=True), Selection(objects=99)):
        with pytest.raises(OpenIliasError):
            write_benchmark(tiny, out, selection, workers=1, overwrite=True)
    monkeypatch.setattr("openilias.data.write.ordered_map", lambda workers: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_benchmark(tiny, out, Selection(objects=1), workers=1, overwrite=True)
    assert digests(out) == before
    with pytest.raises(ZeroDivisionError):
        write_benchmark(tiny, tmp_path / "new", workers=1)
    assert not (tmp_path / "new").exists()


def test_cut_off_before_its_objects_it_is_no_benchmark(
    tiny: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("openilias.data.write._write_objects", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_benchmark(tiny, tmp_path / "out", workers=1)
    with pytest.raises(OpenIliasError, match="cut off"):
        read_ilias(tmp_path / "out")
    (tmp_path / "out" / "yfcc100m" / ".x.tar.0123456789ab.partial").touch()
    assert_same(tiny, write_benchmark(tiny, tmp_path / "out", workers=1).benchmark)
    assert not list((tmp_path / "out" / "yfcc100m").glob(".*"))


def test_a_changed_source_is_noticed(copy: Path, tmp_path: Path) -> None:
    write_benchmark(read_ilias(copy), tmp_path / "out", workers=1)
    text = next((copy / "ilias_core").glob("*/query/T*.txt"))
    text.write_text("Another thing.\n")
    with pytest.raises(OpenIliasError, match="files: "):
        write_benchmark(read_ilias(copy), tmp_path / "out", workers=1)
    write_benchmark(read_ilias(copy), tmp_path / "out", workers=1, overwrite=True)
    assert (tmp_path / "out" / text.relative_to(copy)).read_text() == "Another thing.\n"


def test_any_lost_file_is_written_again(tiny: Benchmark, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_benchmark(tiny, out, workers=1)
    before = digests(out)
    for path in (min(out.glob("ilias_core/*/pos/P*.jpg")), out / "image_ids" / "distractor_ids.txt.gz"):
        path.unlink()
        write_benchmark(tiny, out, workers=1)
        assert digests(out) == before
    damaged = min(out.glob("yfcc100m/*.tar"))
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    write_benchmark(tiny, out, workers=1, overwrite=True)
    assert digests(out) == before


def test_a_tar_damaged_after_a_kill_is_written_again(
    tiny: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("openilias.data.write._write_lists", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_benchmark(tiny, out, workers=1)
    tar = min(out.glob("yfcc100m/*.tar"))
    tar.write_bytes(tar.read_bytes()[:2000])
    (out / ".checksums.txt.0123456789ab.partial").touch()
    (out / ".ilias_core.0123456789ab.partial").mkdir()
    assert_same(tiny, write_benchmark(tiny, out, workers=1).benchmark)
    assert not list(out.rglob(".*"))


def test_a_lost_shard_is_written_again(tiny: Benchmark, tmp_path: Path) -> None:
    write_benchmark(tiny, tmp_path / "out", workers=1)
    before = digests(tmp_path / "out")
    (tmp_path / "out" / "yfcc100m" / "yfcc100m_0001.tar").unlink()
    write_benchmark(tiny, tmp_path / "out", workers=1)
    assert digests(tmp_path / "out") == before


def test_damage_is_not_given_a_checksum(copy: Path, tmp_path: Path) -> None:
    tar = copy / "yfcc100m" / "yfcc100m_0001.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(bytes(data))
    with pytest.raises(OpenIliasError, match=r"SHA-256 of this shard is .* is stated"):
        write_benchmark(read_ilias(copy), tmp_path / "out", workers=1)


def test_what_is_not_there_is_said(copy: Path, tmp_path: Path, tiny: Benchmark) -> None:
    (copy / "image_ids" / "mini_ilias_yfcc100m_ids.txt").write_text("d0000001\nnobody\n")
    core = [*tiny.image_queries, *tiny.positives]
    benchmark = read_ilias(copy)
    for item, message in (
        ("yfcc100m_0000.tar/nobody", "1 ids are not in this shard: nobody"),
        ("yfcc100m_0007.tar/x", "1 of these ids are not here"),
        ("distractors/x.jpg", "1 of these ids are not here"),
    ):
        with pytest.raises(OpenIliasError, match=message):
            write_benchmark(benchmark, tmp_path / "out", Selection(ids=(*core, item)), workers=1)
        assert not (tmp_path / "out").exists()
    written = write_benchmark(benchmark, tmp_path / "mini", Selection(mini=True), workers=1)
    assert written.notes == (
        "2 tars were read in part, and not compared with their checksums: verify them",
        "1 of 2 keys of the mini list are in none of the shards",
    )
    (copy / "yfcc100m" / "yfcc100m_0000.tar").unlink()
    written = write_benchmark(read_ilias(copy), tmp_path / "partial", workers=1)
    assert written.notes == ("yfcc100m_0000.tar is not here, and is left out",)
    assert write_benchmark(read_ilias(copy), tmp_path / "partial", workers=1).notes == written.notes


# The command


def test_the_command(tiny_root: Path, tiny: Benchmark, tmp_path: Path, ilias: Callable[..., Outcome]) -> None:
    names = sorted(tiny.relevance)
    (tmp_path / "names.txt").write_text(f"{names[0]}\n\n{names[2]}\n")
    (tmp_path / "ids.txt").write_text("\n".join(f"{item},0.5,3" for item in (*tiny.image_queries, *tiny.positives)))
    for number, (options, objects, distractors) in enumerate(
        (
            (["--objects", "2", "--shards", 1], 2, 8),
            (["--objects", f"{names[0]}, {names[1]}"], 2, 14),
            (["--objects", tmp_path / "names.txt"], 2, 14),
            (["--ids", tmp_path / "ids.txt"], 4, 0),
        )
    ):
        outcome = ilias("data", "write", tiny_root, "--out", tmp_path / str(number), "--workers", 1, *options)
        assert outcome.code == 0, outcome.err
        assert f"{objects} objects" in outcome.out
        assert f"{distractors} distractors" in outcome.out
    many = ",".join([*names[:3]] * 40)
    assert ilias("data", "write", tiny_root, "--out", tmp_path / "many", "--objects", many).code == 0
    assert ilias("data", "write", tiny_root, "--out", tmp_path / "bad", "--objects", "0").code == 2
    bad = ilias("data", "write", tiny_root, "--out", tmp_path / "bad", "--objects", "nobody")
    assert bad.code == 2
    assert "not here: nobody" in bad.err
    assert not (tmp_path / "bad").exists()
