"""What happens around the network: order, batches, memory, workers that die or hang, retries, shares, kills."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.executors import ordered_map
from openilias.core.files import owned
from openilias.core.progress import Step
from openilias.core.shards import Share
from openilias.data import Benchmark, read_ilias
from openilias.descriptors import pipeline
from openilias.descriptors.extract import Options, extract, extract_share
from openilias.descriptors.pipeline import Means, describe_items
from openilias.descriptors.store import open_store
from openilias.images.decode import decode
from openilias.images.tars import write_tar
from pipeline_backbone import Tiny, trouble_in

HERE = Path(__file__).parent
SIZES = [(64, 48), (48, 64), (64, 40), (64, 48), (30, 64), (64, 48)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of 3 objects of many positives, and three tars of 20 distractors of mixed shapes."""
    root = tmp_path_factory.mktemp("pipeline") / "b"
    rng = np.random.default_rng(0)

    def picture(path: Path, number: int) -> None:
        width, height = SIZES[number % len(SIZES)]
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(30, 200, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width * 2, height * 2)).save(path, quality=95)

    for number in range(3):
        core = root / "ilias_core" / f"thing_{number:03d}"
        picture(core / "query" / f"Q{number:03d}_00.jpg", number)
        (core / "query" / f"Q{number:03d}_00_bbox.txt").write_text("4 4 50 50\n")
        for place in range(25):
            picture(core / "pos" / f"P{number:03d}_{place:02d}.jpg", number + place)
            (core / "pos" / f"P{number:03d}_{place:02d}_bbox.txt").write_text("10 10 40 40\n")
    for number in range(3):
        members = []
        for place in range(20):
            picture(root / "made.jpg", place)
            members.append((f"k{place:02d}.jpg", (root / "made.jpg").read_bytes()))
        (root / "distractors").mkdir(exist_ok=True)
        write_tar(root / "distractors" / f"d{number}.tar", members)
    (root / "made.jpg").unlink()
    return root


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def files_of(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def twin(benchmark: Benchmark, ids: list[str]) -> np.ndarray:
    model = Tiny()
    return np.concatenate(
        [model.encode_images(model.prepare(decode(benchmark.path_of(i).read_bytes(), where=i))[None]) for i in ids]
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_shapes_are_batched_and_the_order_is_that_of_the_source(folder: Path, tmp_path: Path, workers: int) -> None:
    benchmark, model = read_ilias(folder), Tiny()
    store = extract(benchmark, model, "positives", tmp_path / "s", Options(batch_size=6, workers=workers))
    assert store.shards[0].ids() == list(benchmark.positives)
    found = np.concatenate(list(store.shards[0].blocks()))
    assert np.abs(found - twin(benchmark, list(benchmark.positives))).max() < 1e-6
    assert sum(model.batches) == 75
    assert len(model.batches) <= 75 / 6 + 5  # five shapes, each with one batch that is not full


def test_batches_do_not_depend_on_the_workers(folder: Path, tmp_path: Path) -> None:
    made = []
    for workers in (1, 2, 3):
        model = Tiny()
        extract(read_ilias(folder), model, "positives", tmp_path / str(workers), Options(batch_size=4, workers=workers))
        made.append((model.batches, files_of(tmp_path / str(workers))))
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("shapes", [1, 7, 500])
def test_few_images_are_held_at_a_time(shapes: int) -> None:
    """Every image that was asked for and is not in a batch yet is held."""
    means, asked, given = Means(4, 1, 9.0, skip=False), 0, 0

    def prepared() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal asked
        for place in range(1000):
            asked += 1
            yield place, np.zeros((1, 1 + place * 7919 % shapes, 3), np.uint8)

    seen: list[int] = []
    for places, batch in pipeline._batches(prepared(), lambda array: array.shape, means, {}, Step("x", None, "y")):
        assert len(places) == len(batch) <= 4
        assert asked - given <= means.held()
        given += len(places)
        seen += places
    assert sorted(seen) == list(range(1000))


@pytest.mark.parametrize(("kind", "message"), [("crash", "process that read this image died"), ("hang", "too long")])
def test_the_image_that_kills_or_hangs_a_worker_is_named(copy: Path, tmp_path: Path, kind: str, message: str) -> None:
    benchmark = read_ilias(copy)
    bad = benchmark.positives[17]
    trouble_in(copy / "ilias_core" / bad, kind)
    (tmp_path / "trouble").touch()
    model = Tiny(tmp_path / "trouble")
    options = {"workers": 2, "timeout": 1.5, "batch_size": 4}
    with pytest.raises(OpenIliasError, match=message) as caught:
        extract(benchmark, model, "positives", tmp_path / "s", Options(**options))
    assert caught.value.where == bad
    assert not (tmp_path / "s").exists()
    store = extract(benchmark, model, "positives", tmp_path / "s", Options(**options, skip_unreadable=True))
    assert [(one.id, one.status) for one in store.skipped] == [(bad, "crash" if kind == "crash" else "timeout")]
    others = [item for item in benchmark.positives if item != bad]
    assert store.shards[0].ids() == others
    assert np.abs(np.concatenate(list(store.shards[0].blocks())) - twin(benchmark, others)).max() < 1e-6
    # The disk answers again: only that image is described, and its row is where the source has it.
    (tmp_path / "trouble").unlink()
    model.batches.clear()
    again = extract(benchmark, model, "positives", tmp_path / "s", Options(**options, skip_unreadable=True, retry=True))
    assert model.batches == [1]
    assert again.skipped == ()
    assert again.shards[0].ids() == list(benchmark.positives)
    found = np.concatenate(list(again.shards[0].blocks()))
    assert np.abs(found - twin(benchmark, list(benchmark.positives))).max() < 1e-6


def test_a_retry_keeps_what_still_fails(copy: Path, tmp_path: Path) -> None:
    """One of two comes back; the other still hangs, and is stopped although it is one image only."""
    benchmark = read_ilias(copy)
    hanging, broken = benchmark.positives[3], benchmark.positives[40]
    trouble_in(copy / "ilias_core" / hanging, "hang")
    path = copy / "ilias_core" / broken
    good = path.read_bytes()
    path.write_bytes(good[:200] + bytes(len(good) - 200))
    (tmp_path / "trouble").touch()
    model, options = Tiny(tmp_path / "trouble"), {"timeout": 2.0, "skip_unreadable": True}
    store = extract(benchmark, model, "positives", tmp_path / "s", Options(workers=2, **options))
    assert {one.id for one in store.skipped} == {hanging, broken}
    path.write_bytes(good)
    store = extract(benchmark, model, "positives", tmp_path / "s", Options(workers=1, retry=True, **options))
    assert [(one.id, one.status) for one in store.skipped] == [(hanging, "timeout")]
    assert store.shards[0].ids() == [item for item in benchmark.positives if item != hanging]


def test_a_retry_refuses_damage_and_loses_nothing(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark, out = read_ilias(copy), tmp_path / "s"
    path = copy / "ilias_core" / benchmark.positives[3]
    good = path.read_bytes()
    path.write_bytes(bytes(len(good)))
    options = Options(workers=1, skip_unreadable=True)
    extract(benchmark, Tiny(), "positives", out, options)
    path.write_bytes(good)
    before = files_of(out)

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OpenIliasError, match="No space left"):
        patch.setattr("openilias.descriptors.store.pq.write_table", full)
        extract(benchmark, Tiny(), "positives", out, Options(workers=1, skip_unreadable=True, retry=True))
    assert files_of(out) == before
    data = bytearray(before["00000.npy"])
    data[-40:] = bytes(40)
    (out / "00000.npy").write_bytes(data)
    with pytest.raises(OpenIliasError, match="not as it was written"):
        extract(benchmark, Tiny(), "positives", out, Options(workers=1, skip_unreadable=True, retry=True))


def test_shards_of_another_model_are_not_taken_over(folder: Path, tmp_path: Path) -> None:
    benchmark, out = read_ilias(folder), tmp_path / "s"
    extract(benchmark, Tiny(), "distractors", out, Options(workers=1))
    (out / "manifest.json").unlink()
    with pytest.raises(OpenIliasError, match="lost its manifest"):
        extract_share(benchmark, Tiny(resolution=32), "distractors", out, Options(share=Share(0, 2)))
    model = Tiny(resolution=32)
    extract(benchmark, model, "distractors", out, Options(workers=1))
    assert sum(model.batches) == 60


def test_one_store_is_made_by_one_process(folder: Path, tmp_path: Path) -> None:
    benchmark, out = read_ilias(folder), tmp_path / "s"
    out.mkdir()
    with owned(out, shared=True), pytest.raises(OpenIliasError, match="Another process"):
        extract(benchmark, Tiny(), "positives", out)
    with owned(out, shared=True):
        assert extract_share(benchmark, Tiny(), "positives", out, Options(share=Share(0, 2))) == []


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_time_outs_that_cannot_be(timeout: float) -> None:
    with pytest.raises(OpenIliasError, match="not possible"):
        Options(timeout=timeout)


def test_a_retry_that_fails_changes_nothing(copy: Path, tmp_path: Path) -> None:
    benchmark = read_ilias(copy)
    (copy / "ilias_core" / benchmark.positives[3]).write_bytes(b"broken")
    options = Options(workers=1, skip_unreadable=True)
    extract(benchmark, Tiny(), "positives", tmp_path / "s", options)
    before = files_of(tmp_path / "s")
    extract(benchmark, Tiny(), "positives", tmp_path / "s", Options(workers=1, skip_unreadable=True, retry=True))
    assert files_of(tmp_path / "s") == before


def test_shares_make_the_same_store(folder: Path, tmp_path: Path) -> None:
    benchmark = read_ilias(folder)
    extract(benchmark, Tiny(), "distractors", tmp_path / "whole", Options(workers=1))
    out = tmp_path / "shared"
    left = [
        extract_share(benchmark, Tiny(), "distractors", out, Options(workers=1, share=Share(number, 2)))
        for number in (1, 0)
    ]
    assert left == [["d0.tar", "d2.tar"], []]
    assert files_of(out) == files_of(tmp_path / "whole")
    with pytest.raises(OpenIliasError, match="cannot replace the whole"):
        extract_share(benchmark, Tiny(resolution=32), "distractors", out, Options(overwrite=True, share=Share(0, 2)))


def test_a_share_that_fails_leaves_what_others_need(copy: Path, tmp_path: Path) -> None:
    (copy / "distractors" / "d1.tar").write_bytes(b"no tar" * 200)
    benchmark, out = read_ilias(copy), tmp_path / "s"
    with pytest.raises(OpenIliasError):
        extract_share(benchmark, Tiny(), "distractors", out, Options(workers=1, share=Share(1, 2)))
    assert (out / "manifest.json").exists()
    assert extract_share(benchmark, Tiny(), "distractors", out, Options(workers=1, share=Share(0, 2))) == ["d1.tar"]


def test_boxes_are_those_of_the_partition(folder: Path, tmp_path: Path) -> None:
    benchmark = read_ilias(folder)
    plain, cropped = Tiny(), Tiny(positive_boxes="crop")
    found = {}
    for name, model in (("plain", plain), ("cropped", cropped)):
        for partition in ("image_queries", "positives"):
            store = extract(benchmark, model, partition, tmp_path / name / partition, Options(workers=1))
            found[name, partition] = np.concatenate(list(store.shards[0].blocks()))
    assert (found["plain", "image_queries"] == found["cropped", "image_queries"]).all()
    item = benchmark.positives[0]
    image = decode(benchmark.path_of(item).read_bytes(), where=item).crop((10, 10, 50, 50))
    assert np.abs(found["cropped", "positives"][0] - plain.encode_images(plain.prepare(image)[None])[0]).max() < 1e-6


def test_a_missing_box_is_named(copy: Path, tmp_path: Path) -> None:
    benchmark = read_ilias(copy)
    item = benchmark.positives[5]
    (copy / "ilias_core" / f"{item[:-4]}_bbox.txt").unlink()
    with pytest.raises(OpenIliasError, match="has no box") as caught:
        extract(read_ilias(copy), Tiny(positive_boxes="mask"), "positives", tmp_path / "s", Options(workers=2))
    assert caught.value.where == item


def test_progress_tells_rate_waiting_and_time_left(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openilias.core.progress._EVERY_SECONDS", 0.0)
    extract(read_ilias(folder), Tiny(pause=0.005), "distractors", tmp_path / "s", Options(workers=1))
    lines = capsys.readouterr().err.splitlines()
    assert "batches of 8, 1 process to decode; at most 20 prepared images at a time" in lines[0]
    assert " of 60, 0 s left (" in lines[-1]
    assert "images/s, " in lines[-1]
    assert int(lines[-1].split(" % waiting")[0].split()[-1]) > 50
    assert any("describe distractors: 8 of 60" in line for line in lines), lines  # estimated from the first tar


EXTRACTION = (
    "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[3])\n"
    "from pipeline_backbone import Tiny\nfrom openilias.data import read_ilias\n"
    "from openilias.descriptors.extract import Options, extract\n"
    "print('begun', flush=True)\n"
    "extract(read_ilias(Path(sys.argv[1])), Tiny(pause=0.01), 'distractors', Path(sys.argv[2]),\n"
    "        Options(workers=int(sys.argv[4]), batch_size=4))\n"
)
WRITING = (
    "import sys, time\nfrom pathlib import Path\nimport numpy as np\n"
    "import openilias.core.files as files\nfrom openilias.descriptors.store import read_marker, write_shard\n"
    "sync = files.os.fsync\n"
    "def slow(handle):\n    time.sleep(0.01)\n    sync(handle)\n"
    "files.os.fsync = slow\n"
    "print('begun', flush=True)\n"
    "out = Path(sys.argv[2])\n"
    "for number in range(12):\n"
    "    if read_marker(out, number) is None:\n"
    "        rows = np.random.default_rng(number).random((50, 8), np.float32)\n"
    "        ids = [f'd{number}.tar/{row}' for row in range(50)]\n"
    "        write_shard(out, number, source=f'd{number}.tar', ids=ids, descriptors=rows, skipped=[])\n"
)


def run(code: str, *arguments: object, kill_after: float | None = None) -> float:
    """Run code in a process of its own; return the seconds from its 'begun' to its end, or kill it before."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    started = time.monotonic()
    if kill_after is None:
        assert process.wait(60) == 0
    else:
        time.sleep(kill_after)
        process.kill()
        process.wait()
    process.stdout.close()
    return time.monotonic() - started


@pytest.mark.parametrize(("code", "workers"), [(EXTRACTION, 1), (EXTRACTION, 2), (WRITING, 0)])
def test_killed_at_random_moments(folder: Path, tmp_path: Path, code: str, workers: int) -> None:
    """Each run goes on from what the killed one before left, or begins anew when all was done."""
    whole = tmp_path / "whole"
    duration = run(code, folder, whole, HERE, workers)
    expected = files_of(whole)
    rng, out = random.Random(workers), tmp_path / "killed"
    for number in range(4):
        run(code, folder, out, HERE, workers, kill_after=rng.random() * duration * 0.7)
        present = {path.name for path in out.glob("0*.json")} if out.exists() else set()
        for name in present:  # what is finished is whole
            for ending in (".json", ".npy", ".ids.parquet"):
                assert (out / f"{name[:5]}{ending}").read_bytes() == expected[f"{name[:5]}{ending}"]
        if number == 1:
            run(code, folder, out, HERE, workers)
            assert files_of(out) == expected or code == WRITING
            shutil.rmtree(out)
    run(code, folder, out, HERE, workers)
    assert {name: data for name, data in files_of(out).items() if not name.startswith(".")} == expected
    if code == EXTRACTION:
        assert files_of(out) == expected
        assert open_store(out).rows == 60


def test_a_full_disk_is_said_and_nothing_is_lost(folder: Path, tmp_path: Path) -> None:
    """The limit on the size of files lets the small ids be written, and not the descriptors."""
    code = (
        "import resource, sys\nfrom openilias.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)\nmain()\n"
    )
    arguments = [
        "extract", folder, "--model", "resnet18", "--random-weights", 0, "--resolution", 32,
        "--partition", "distractors", "--out", tmp_path / "s", "--workers", 1,
    ]  # fmt: skip
    command = [sys.executable, "-c", code]
    failed = subprocess.run([*command, "15000", *map(str, arguments)], capture_output=True, text=True)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert "File too large" in failed.stderr
    assert not list((tmp_path / "s").glob("*")) if (tmp_path / "s").exists() else True
    done = subprocess.run([*command, "100000000", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert open_store(tmp_path / "s").rows == 60


def slow_square(number: int) -> int:
    if number == 5:
        time.sleep(3600)
    return number * number


def test_a_job_that_hangs_is_given_up() -> None:
    started = time.monotonic()
    with ordered_map(2, lost=lambda job, loss: (job, loss), timeout=1.0) as mapped:
        found = list(mapped(slow_square, range(12)))
    assert found == [(5, "timeout") if number == 5 else number * number for number in range(12)]
    assert time.monotonic() - started < 20
    with pytest.raises(OpenIliasError, match="took too long"), ordered_map(2, timeout=0.5) as mapped:
        list(mapped(slow_square, range(12)))


def timing_out(number: int) -> int:
    raise TimeoutError("of the job itself")


def test_a_job_may_raise_a_timeout_of_its_own() -> None:
    with pytest.raises(TimeoutError, match="itself"), ordered_map(2, timeout=30.0) as mapped:
        list(mapped(timing_out, range(3)))


def test_describe_items_gives_places_and_reasons(folder: Path) -> None:
    benchmark, step = read_ilias(folder), Step("x", None, "images")
    items = benchmark.shards("positives")[0].files[:10]
    made = describe_items(items, Tiny(), "positives", Means(4, 1, 9.0, skip=True), step, boxes=lambda item: ())
    assert made.places == list(range(10))
    assert step.done == 10
