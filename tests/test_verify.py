"""The verifier: one pass, any number of workers, resumed at the shard, and every option changes something."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Outcome, kill_when
from damages import DAMAGES, Copy, member, photo
from openilias.core.errors import OpenIliasError
from openilias.core.executors import ordered_map
from openilias.core.findings import Finding, refuse
from openilias.core.shards import Share, parse_share
from openilias.data import verify_shards
from openilias.data.duplicates import find_duplicates, sorted_digests
from openilias.data.examine import DIGEST, Job, examine_items
from openilias.data.verify import Verification, verify


@pytest.fixture
def copy(tiny_root: Path, tmp_path: Path) -> Copy:
    return Copy(Path(shutil.copytree(tiny_root, tmp_path / "copy")))


def harmed(copy: Copy) -> Copy:
    """Do many damages that leave each other in peace."""
    wanted = ("an empty image", "a box of words", "an empty text query", "a dotted key", "a text called .jpg",
              "another checksum", "a listed distractor is not there", "an object without category")  # fmt: skip
    for damage in DAMAGES:
        if damage.name in wanted:
            damage.do(copy)
    return copy


def kinds(outcome: Verification | None) -> dict[str, int]:
    assert outcome is not None
    return {kind: count for (_, kind), count in outcome.kinds.items()}


def test_everything_is_found_in_one_pass(copy: Copy) -> None:
    found = kinds(verify(harmed(copy).root, workers=1))
    assert set(found) >= {
        "image-unreadable", "box-malformed", "text-empty", "member-unusable", "checksum-differs", "listed-missing",
        "taxonomy-lacks",
    }  # fmt: skip


def test_every_line_of_a_list_is_judged(copy: Copy) -> None:
    path = copy.lists / "positive_ids.txt"
    path.write_text("a/pos/P.jpg,0.5\n../x,0.1,3\nb/pos/P.jpg,2,3\n" + path.read_text())
    copy.box.write_text("1 2 3\n0 0 0 0\n1 1 2 2\n1 1 2 2\n0 0 99999 1\n")
    outcome = verify(copy.root, workers=1)
    found = kinds(outcome)
    assert found["attribute-malformed"] == found["attribute-range"] == found["id-malformed"] == 1
    assert found["box-malformed"] == found["box-empty"] == found["box-duplicate"] == found["box-outside"] == 1
    assert outcome is not None
    lines = {one.kind: one.where.rsplit(", line ", 1)[-1] for one in outcome.findings}
    assert (lines["attribute-malformed"], lines["id-malformed"], lines["attribute-range"]) == ("1", "2", "3")
    assert (lines["box-malformed"], lines["box-empty"]) == ("1", "2")


def test_workers_change_nothing(copy: Copy) -> None:
    harmed(copy)
    assert verify(copy.root, workers=1) == verify(copy.root, workers=2)


def test_an_unchanged_shard_is_looked_at_once(copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "v"
    first = verify(harmed(copy).root, out, workers=1)
    seen: list[str] = []

    def counting(job: Job) -> object:
        seen.append(job.shard)
        return examine_items(job)

    monkeypatch.setattr("openilias.data.verify.examine_items", counting)
    assert verify(copy.root, out, workers=1) == first
    assert not seen
    copy.retar(member("new.jpg", photo()))
    again = verify(copy.root, out, workers=1)
    assert set(seen) == {copy.tar.name}
    assert kinds(again)["listed-lacks"] == 1
    lines = [json.loads(line) for line in (out / "findings.jsonl").read_text().splitlines()]
    assert again is not None
    assert [Finding(**line) for line in lines] == list(again.findings)
    assert json.loads((out / "verify.json").read_text())["sound"] is False


def test_killed_it_goes_on(tiny_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "v"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom openilias.data import verify_shards\n"
        "from openilias.data.verify import verify\n"
        "real = verify_shards.Parts.write\n"
        "def slow(self, *arguments):\n    real(self, *arguments)\n    time.sleep(0.5)\n"
        "verify_shards.Parts.write = slow\n"
        "verify(Path(sys.argv[1]), Path(sys.argv[2]), workers=1)\n"
    )
    kill_when(lambda: list(out.glob("parts/*.json")), code, tiny_root, out)
    done = {path: path.stat().st_mtime_ns for path in out.glob("parts/*.json")}
    assert done
    assert not (out / "verify.json").exists()
    outcome = verify(tiny_root, out, workers=1)
    assert outcome is not None
    assert outcome.sound
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert len(list(out.glob("parts/*.json"))) == 4


def test_shares_of_the_work_make_the_whole(copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "v"
    whole = verify(harmed(copy).root, workers=1)
    for number in range(3):
        assert verify(copy.root, out, workers=1, share=Share(number, 3)) is None
        assert len(list(out.glob("parts/*.json"))) == min(4, [2, 3, 4][number])
    monkeypatch.setattr("openilias.data.verify.examine_items", lambda job: pytest.fail(f"{job} is done already"))
    assert verify(copy.root, out, workers=1) == whole
    with pytest.raises(OpenIliasError, match="must be kept somewhere"):
        verify(copy.root, share=Share(0, 2))


def test_depth_and_partial_change_the_outcome(copy: Copy, tmp_path: Path) -> None:
    copy.retar(member("bad.jpg", b"junk"), member("same_a.jpg", photo()), member("same_b.jpg", photo()))
    copy.tar.with_name("yfcc100m_0001.tar").unlink()
    pixels, headers = kinds(verify(copy.root, workers=1)), kinds(verify(copy.root, depth="headers", workers=1))
    assert {"image-unreadable", "duplicate-distractors", "shard-missing"} <= pixels.keys()
    assert "shard-missing" in headers
    assert not {"image-unreadable", "duplicate-distractors"} & headers.keys()
    partial = verify(copy.root, partial=True, depth="headers", workers=1)
    assert partial is not None
    assert ("note", "shard-missing") in partial.kinds
    # Same pixels in other bytes are found by looking at pixels only.
    twin = shutil.copytree(copy.root, tmp_path / "twin")
    DAMAGES[[damage.name for damage in DAMAGES].index("a positive among the distractors, other bytes")].do(Copy(twin))
    assert "duplicate-distractor" in kinds(verify(twin, workers=1))
    assert "duplicate-distractor" not in kinds(verify(twin, depth="bytes", workers=1))


def test_another_question_is_not_answered_from_old_parts(copy: Copy, tmp_path: Path) -> None:
    out = tmp_path / "v"
    copy.retar(member("bad.jpg", b"junk"))
    assert "image-unreadable" not in kinds(verify(copy.root, out, depth="headers", workers=1))
    assert "image-unreadable" in kinds(verify(copy.root, out, workers=1))


def test_a_part_that_another_process_takes_is_made_again(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openilias.data import verify as module

    real, calls = module._examine, []

    def thief(*arguments: object) -> None:
        real(*arguments)
        calls.append(1)
        if len(calls) == 1:
            min((tmp_path / "v").glob("parts/*.json")).unlink()

    monkeypatch.setattr(module, "_examine", thief)
    outcome = verify(tiny_root, tmp_path / "v", workers=1)
    assert outcome is not None
    assert outcome.sound
    assert len(calls) == 2


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom openilias.core.executors import ordered_map\n"
        "sys.path.insert(0, sys.argv[2])\nfrom test_verify import write_my_number\n"
        "if __name__ == '__main__':\n"
        "    with ordered_map(2) as run:\n        list(run(write_my_number, [sys.argv[1]] * 2))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path), str(Path(__file__).parent)])
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.pid")) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    process.kill()
    process.wait()
    assert workers
    deadline = time.monotonic() + 20
    while any(alive(number) for number in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [number for number in workers if alive(number)]


def write_my_number(folder: str) -> None:
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(60)


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_broken_part_is_made_again(tiny_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "v"
    verify(tiny_root, out, workers=1)
    for path in out.glob("parts/*.json"):
        path.write_text("{")
    outcome = verify(tiny_root, out, workers=1)
    assert outcome is not None
    assert outcome.sound


def test_a_folder_with_other_things_is_left_alone(tiny_root: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(OpenIliasError, match="holds no verification"):
        verify(tiny_root, tmp_path, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_the_list_is_cut_into_shards_in_little_memory(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_shards, "_LISTED_AT_ONCE", 3)
    outcome = verify(copy.root, tmp_path / "v", workers=1)
    assert outcome is not None
    assert outcome.sound
    assert len((tmp_path / "v" / "listed" / "yfcc100m_0000.tar.txt").read_text().splitlines()) == 8


# Processes


def crash_on_thirteen(number: int) -> int:
    if number == 13:
        os._exit(9)
    return number * number


def test_a_job_that_kills_its_process_is_named_and_the_others_are_done() -> None:
    with ordered_map(2, lost=lambda job, loss: ("lost", job)) as run:
        found = list(run(crash_on_thirteen, range(30)))
    assert found == [("lost", 13) if number == 13 else number * number for number in range(30)]


def test_a_dead_process_is_an_error_where_nothing_replaces_its_result() -> None:
    with pytest.raises(OpenIliasError, match="worker process ended"), ordered_map(2) as run:
        list(run(crash_on_thirteen, range(30)))


def test_jobs_are_not_begun_long_before_they_are_needed() -> None:
    taken: list[int] = []

    def jobs() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    with ordered_map(2) as run:
        results = run(abs, jobs())
        assert next(results) == 0
        assert len(taken) <= 9


def test_the_image_that_kills_the_decoder_is_named(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module beside the test replaces the decoder in the worker processes."""
    root = shutil.copytree(tiny_root, tmp_path / "copy")
    victim = min((min((root / "ilias_core").iterdir()) / "pos").glob("P*.jpg"))
    victim.write_bytes(b"kill me")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nimport openilias.images.decode as decode\nreal = decode.examine\n"
        "def examine(data, *, where):\n    if data == b'kill me': os._exit(7)\n    return real(data, where=where)\n"
        "decode.examine = examine\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    outcome = verify(root, workers=2)
    assert outcome is not None
    crashes = [one for one in outcome.findings if one.kind == "image-crash"]
    assert [one.where for one in crashes] == [str(victim.relative_to(root / "ilias_core"))]


# Duplicates


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=12), min_size=1, max_size=4),
       st.integers(1, 5))  # fmt: skip
def test_duplicates_are_those_of_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[tuple[int, int]]], at_once: int
) -> None:
    folder = tmp_path_factory.mktemp("digests")
    spread = 2**64 // 7
    files: dict[str, list[Path]] = {"bytes": [], "pixels": []}
    twins: dict[str, dict[tuple[int, int], list[tuple[int, int]]]] = {"bytes": {}, "pixels": {}}
    for number, rows in enumerate(shards):
        digests = np.zeros(len(rows), DIGEST)
        for row, (pixels, version) in enumerate(rows):
            digests[row] = ((pixels * spread, version), (pixels * spread, 0), row)
            twins["bytes"].setdefault((pixels, version), []).append((number, row))
            if pixels:
                twins["pixels"].setdefault((pixels, 0), []).append((number, row))
        for by in ("bytes", "pixels"):
            path = folder / f"{number}.{by}.npy"
            np.save(path, sorted_digests(digests, by))
            files[by].append(path)
    version_of = {(n, r): version for n, rows in enumerate(shards) for r, (_, version) in enumerate(rows)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openilias.data.duplicates._ROWS_AT_ONCE", at_once)
        for by in ("bytes", "pixels"):
            found = sorted(one.places for one in find_duplicates(files[by], by))
            wanted = sorted(
                tuple(places)
                for places in twins[by].values()
                if len(places) > 1 and (by == "bytes" or len({version_of[place] for place in places}) > 1)
            )
            assert found == wanted


# Values


@pytest.mark.parametrize("text", ["", "1", "1/1", "2/2", "-1/3", "a/b", "0/0", "1/2/3"])
def test_malformed_shares(text: str) -> None:
    with pytest.raises(OpenIliasError, match="Expected a shard 'i/n'"):
        parse_share(text)


def test_shares_cover_everything_once() -> None:
    pieces = list(range(17))
    parts = [parse_share(f"{number}/5").take(pieces) for number in range(5)]
    assert sorted(piece for part in parts for piece in part) == pieces
    assert Share().everything


def test_refusing_names_the_first_error_and_counts_the_others() -> None:
    errors = [Finding("error", "k", f"here {number}", f"What {number}.", "Do it.") for number in range(3)]
    refuse([Finding("warning", "k", "x", "y")])
    with pytest.raises(OpenIliasError, match=r"What 0") as caught:
        refuse([Finding("note", "k", "x", "y"), *errors], hint="look")
    assert caught.value.where == "here 0"
    assert caught.value.fix == "Do it. 2 more errors follow; look."


# The command


def test_the_command_prints_counts_and_fails_on_errors(
    copy: Copy, tmp_path: Path, ilias: Callable[..., Outcome]
) -> None:
    good = ilias("data", "verify", copy.root, "--workers", 1)
    assert good.code == 0
    assert "0 errors, 0 warnings, 0 notes" in good.out
    harmed(copy)
    bad = ilias("data", "verify", copy.root, "--workers", 1, "--json", tmp_path / "f.json", "--show", 0)
    assert bad.code == 1
    assert "error image-unreadable: " in bad.out
    assert "more; all are in" in bad.out
    value = json.loads((tmp_path / "f.json").read_text())
    assert {one["kind"] for one in value["findings"]} == {one["kind"] for one in value["kinds"]}
    share = ilias("data", "verify", copy.root, "--out", tmp_path / "v", "--shard", "0/2", "--workers", 1)
    assert share.code == 0
    assert "this share is done" in share.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "no such benchmark folder"),
        (["."], "not a benchmark"),
        (["copy", "--depth", "soul"], "not one of headers, bytes, pixels"),
        (["copy", "--shard", "3/2", "--out", "v"], "i from 0 to n - 1"),
        (["copy", "--shard", "0/2"], "must be kept somewhere"),
        (["copy", "--workers", "0"], "workers"),
        (["copy", "--out", "copy"], "holds no verification"),
    ],
)
def test_wrong_input_of_the_command(
    copy: Copy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ilias: Callable[..., Outcome],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    (tmp_path / "cwd" / "copy").symlink_to(copy.root)
    before = sorted(tmp_path.rglob("*"))
    outcome = ilias("data", "verify", *arguments)
    assert outcome.code == 2
    assert message in re.sub(r"\s*│?\n│?\s*", " ", outcome.err)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_verification_explains_itself(copy: Copy, tmp_path: Path, ilias: Callable[..., Outcome]) -> None:
    verify(harmed(copy).root, tmp_path / "v", workers=1)
    outcome = ilias("data", "inspect", tmp_path / "v")
    assert outcome.code == 0, outcome.err
    assert "verification: 6 errors, 1 warnings, 0 notes" in outcome.out
    assert "error box-malformed" in outcome.out
    manifest = tmp_path / "v" / "verify.json"
    manifest.write_text(manifest.read_text().replace('"kinds"', '"sorts"'))
    assert ilias("data", "inspect", tmp_path / "v").code == 2
