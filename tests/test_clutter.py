"""Clutter and coverage: counted as a naive loop does, written as the official list, gone on with when killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import Outcome, kill_when
from openilias.build.clutter import ClutterSettings, Felzenszwalb, SegmenterSpec, count_outside, measure_clutter
from openilias.build.clutter import measure as measuring
from openilias.build.clutter.counts import inside_boxes
from openilias.build.clutter.draw import edges_of
from openilias.build.kept import kept_results
from openilias.core.errors import OpenIliasError
from openilias.core.shards import Share
from openilias.data import Benchmark, read_ilias
from openilias.images.boxes import Box, coverage

QUICK = ClutterSettings(segmenter=SegmenterSpec(working_size=96))


@pytest.fixture
def made(tiny_root: Path, tmp_path: Path) -> Path:
    """The objects of a generated benchmark, without its lists."""
    shutil.copytree(tiny_root / "ilias_core", tmp_path / "set/ilias_core")
    return tmp_path / "set"


def positives(root: Path) -> Path:
    return root / "image_ids/positive_ids.txt"


def skip_positive(root: Path, number: int = 0) -> str:
    """Take the boxes of a positive away."""
    item = read_ilias(root).positives[number]
    (root / "ilias_core" / item.replace(".jpg", "_bbox.txt")).unlink()
    return item


# ---- numbers


BOXES = st.lists(
    st.builds(Box, st.integers(0, 40), st.integers(0, 40), st.integers(1, 30), st.integers(1, 30)), max_size=5
)


@settings(max_examples=100, deadline=None)
@given(BOXES, st.integers(1, 40), st.integers(1, 40))
def test_the_area_of_a_union_is_that_of_its_pixels(boxes: list[Box], width: int, height: int) -> None:
    mask = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            mask[y, x] = any(b.x <= x < b.x + b.width and b.y <= y < b.y + b.height for b in boxes)
    assert coverage(tuple(boxes), width=width, height=height) == mask.sum() / (width * height)
    assert (inside_boxes(tuple(boxes), (width, height), (height, width)) == mask).all()


@settings(max_examples=100, deadline=None)
@given(BOXES, st.integers(1, 12), st.sampled_from((0.25, 0.5, 0.75, 1.0)), st.integers(0, 100))
def test_segments_are_counted_as_a_loop_does(boxes: list[Box], most: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, most, (10, 13)).repeat(3, 0).repeat(2, 1)
    inside = inside_boxes(tuple(boxes), (26, 30), labels.shape)
    naive = 0
    for label in range(most):
        area = within = 0
        for y in range(labels.shape[0]):
            for x in range(labels.shape[1]):
                if labels[y, x] == label:
                    area += 1
                    within += bool(inside[y, x])
        naive += area > 0 and within / area < share
    assert count_outside(labels, inside, most_inside=share) == naive
    masks = np.stack([labels == label for label in range(most)])
    assert count_outside(masks, inside, most_inside=share) == naive
    assert count_outside(masks[:0], inside, most_inside=share) == 0


def test_half_inside_does_not_count_and_overlapping_masks_each_do() -> None:
    inside = np.zeros((4, 4), bool)
    inside[:, :2] = True
    whole, right = np.ones((4, 4), bool), ~inside
    assert count_outside(np.stack([whole]), inside) == 0
    assert count_outside(np.stack([whole, right, right, inside]), inside) == 2
    assert count_outside(np.stack([whole]), inside, most_inside=0.51) == 1


def test_the_number_does_not_depend_on_the_resolution(tiny: Benchmark) -> None:
    from openilias.images.decode import decode

    fixed = Felzenszwalb(SegmenterSpec(working_size=160))
    native = Felzenszwalb(SegmenterSpec(working_size=480))
    counts = np.zeros(3)
    for item in tiny.positives[:4]:
        picture = decode(tiny.path_of(item).read_bytes(), where=item)
        large = picture.resize((picture.width * 3, picture.height * 3), Image.Resampling.BICUBIC)
        for at, (one, segmenter) in enumerate(((picture, fixed), (large, fixed), (large, native))):
            boxes = tuple(Box(*(side * one.width // picture.width for side in box)) for box in tiny.boxes(item))
            segments = segmenter.segments(np.asarray(one))
            inside = inside_boxes(boxes, one.size, segments.shape)  # type: ignore[arg-type]
            counts[at] += count_outside(segments, inside)
    assert abs(counts[1] - counts[0]) < 0.3 * counts[0]
    assert abs(counts[2] - counts[0]) > 0.6 * counts[0]  # what it would be otherwise


# ---- the set


def test_both_numbers_are_written_and_read_back(made: Path) -> None:
    done = measure_clutter(made, QUICK, workers=1)
    read = read_ilias(made)
    assert done.measured == len(read.positives) > 5
    for item in read.positives:
        known = read.stated[item]
        with Image.open(read.path_of(item)) as image:
            assert known.coverage == coverage(read.boxes(item), width=image.width, height=image.height)
        assert (known.coverage, known.clutter) == done.values[item]
    assert max(count for _, count in done.values.values() if count is not None) > 2
    manifest = json.loads((made / "build/clutter/manifest.json").read_text())
    assert manifest["made_from"]["segmenter"] == {
        "name": "felzenszwalb", "version": 1, "working_size": 96, "scale": 200.0, "sigma": 0.8, "least_area": 100,
    }  # fmt: skip
    assert manifest["made_from"]["most_inside"] == 0.5
    assert "scikit-image" in manifest["versions"]


def test_only_what_changed_is_counted_again(made: Path) -> None:
    total = measure_clutter(made, QUICK, workers=1).measured
    before = positives(made).read_bytes(), (made / "build/clutter/manifest.json").read_bytes()
    assert measure_clutter(made, QUICK, workers=1).measured == 0
    assert (positives(made).read_bytes(), (made / "build/clutter/manifest.json").read_bytes()) == before
    first, second = read_ilias(made).positives[:2]
    (made / "ilias_core" / first.replace(".jpg", "_bbox.txt")).write_text("0 0 160 160\n")
    image = made / "ilias_core" / second
    Image.open(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(image)
    done = measure_clutter(made, QUICK, workers=1)
    assert done.measured == 2
    assert done.values[first][1] == 0
    other = QUICK.model_copy(update={"most_inside": 0.9})
    assert measure_clutter(made, other, workers=1).measured == total


def test_every_setting_changes_the_outcome(made: Path) -> None:
    outcomes = set()
    for change in ({}, {"working_size": 64}, {"scale": 20.0}, {"sigma": 3.0}, {"least_area": 5}):
        spec = QUICK.segmenter.model_copy(update=change)
        measure_clutter(made, ClutterSettings(segmenter=spec), workers=1)
        outcomes.add(positives(made).read_bytes())
    measure_clutter(made, QUICK.model_copy(update={"most_inside": 0.05}), workers=1)
    assert len(outcomes | {positives(made).read_bytes()}) == 6


def test_workers_shards_and_kills_change_nothing(made: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(made, tmp_path / "whole")
    total = measure_clutter(whole, QUICK, workers=2).measured
    wanted = positives(whole).read_bytes()

    parts = shutil.copytree(made, tmp_path / "parts")
    for number in range(3):
        part = measure_clutter(parts, QUICK, workers=1, shard=Share(number, 3))
        assert part.path is None
        assert not positives(parts).exists()
    assert measure_clutter(parts, QUICK, workers=1).measured == 0
    assert positives(parts).read_bytes() == wanted

    code = (
        "import sys, time; from pathlib import Path\n"
        "from openilias.build.clutter import ClutterSettings, SegmenterSpec, measure, measure_clutter\n"
        "real = measure._measure\n"
        "def slow(job):\n    time.sleep(0.2); return real(job)\n"
        "measure._measure = slow\n"
        "measure_clutter(Path(sys.argv[1]), ClutterSettings(segmenter=SegmenterSpec(working_size=96)), workers=1)\n"
    )
    kept = made / "build/clutter/kept"
    kill_when(lambda: kept.is_dir() and any(path.stat().st_size > 200 for path in kept.iterdir()), code, made)
    assert not positives(made).exists()
    done = measure_clutter(made, QUICK, workers=1)
    assert 0 < done.measured < total
    assert positives(made).read_bytes() == wanted


def test_positives_without_boxes(made: Path) -> None:
    item = skip_positive(made)
    with pytest.raises(OpenIliasError, match=f"1 positives have no boxes: {item}"):
        measure_clutter(made, QUICK, workers=1)
    assert not (made / "image_ids").exists()
    skip = measure_clutter(made, QUICK.model_copy(update={"without_boxes": "skip"}), workers=1)
    assert skip.values[item] == (None, None)
    assert f"{item},,\n" in positives(made).read_text()
    assert read_ilias(made).stated[item].clutter is None
    whole = measure_clutter(made, QUICK.model_copy(update={"without_boxes": "whole"}), workers=1)
    assert whole.values[item] == (1.0, 0)
    assert whole.without_boxes == (item,)
    assert json.loads((made / "build/clutter/manifest.json").read_text())["bare"] == [item]


@pytest.mark.parametrize("text", ["1 2 3\n", "0 0 0 5\n", "a b c d\n", "-1 0 5 5\n"])
def test_malformed_boxes_are_named(made: Path, text: str) -> None:
    item = read_ilias(made).positives[0]
    (made / "ilias_core" / item.replace(".jpg", "_bbox.txt")).write_text(text)
    with pytest.raises(OpenIliasError, match="box"):
        measure_clutter(made, QUICK, workers=1)
    assert not (made / "image_ids").exists()


def test_an_unreadable_image_stops_it_and_the_old_list_stays(made: Path) -> None:
    measure_clutter(made, QUICK, workers=1)
    before = positives(made).read_bytes()
    item = read_ilias(made).positives[1]
    (made / "ilias_core" / item).write_bytes(b"\xff\xd8\xff\xe0 nothing")
    with pytest.raises(OpenIliasError, match="cannot be decoded") as caught:
        measure_clutter(made, QUICK, workers=1)
    assert caught.value.where == item
    assert positives(made).read_bytes() == before


def test_ids_of_the_old_list_stay_and_lists_are_replaced_whole(made: Path) -> None:
    listed = read_ilias(made).positives
    (made / "image_ids").mkdir()
    positives(made).write_text("".join(f"{item},0.5,7\n" for item in listed[:-1]))  # one less
    done = measure_clutter(made, QUICK, workers=1)
    assert list(done.values) == list(listed[:-1])
    assert ",0.5,7" not in positives(made).read_text()


def test_kept_results_are_those_of_one_way_and_have_one_writer(tmp_path: Path) -> None:
    with kept_results(tmp_path, "aa") as kept:
        kept.put("x", [1, 2.5])
        with (
            pytest.raises(OpenIliasError, match="Another process"),
            kept_results(tmp_path, "aa"),
        ):
            pass
        with kept_results(tmp_path, "aa", part=".1-of-2") as other:
            assert other["x"] == [1, 2.5]
            other.put("y", None)
    with kept_results(tmp_path, "bb") as apart:
        assert "x" not in apart
    file = tmp_path / "aa.jsonl"
    file.write_bytes(file.read_bytes() + b'["z",')
    with kept_results(tmp_path, "aa") as kept:
        assert "x" in kept
        assert "y" in kept
        assert "z" not in kept
        kept.put("z", 3)
    assert file.read_bytes() == b'["x",[1,2.5]]\n["z",3]\n'
    file.write_bytes(b"[1,2,3]\n")
    with pytest.raises(OpenIliasError, match="damaged"), kept_results(tmp_path, "aa"):
        pass


# ---- pictures


def test_drawings_show_what_counts(made: Path, tmp_path: Path) -> None:
    measure_clutter(made, QUICK, workers=1)
    done = measure_clutter(made, QUICK, workers=1, draw=tmp_path / "drawn", most_drawn=3)
    assert done.measured == 0
    files = sorted((tmp_path / "drawn").iterdir())
    assert 2 <= len(files) <= 3
    pixels = np.asarray(Image.open(files[0]).convert("RGB"))
    assert (pixels == (255, 60, 40)).all(-1).sum() > 20
    assert (pixels == (40, 230, 90)).all(-1).sum() > 20


def test_edges_of_labels_and_masks() -> None:
    labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
    assert edges_of(labels, np.array([True, False, False])).astype(int).tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert not edges_of(labels, np.zeros(3, bool)).any()
    masks = np.stack([labels == label for label in range(3)])
    edges = edges_of(masks, np.array([True, False, False]))
    assert edges.astype(int).tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]


# ---- the command


def test_the_command(made: Path, tmp_path: Path, ilias: Callable[..., Outcome], monkeypatch: Any) -> None:
    given = ("--working-size", 96, "--workers", 1)
    told = ilias("build", "clutter", made, *given, "--draw", tmp_path / "d", "--json", tmp_path / "c.json")
    assert told.code == 0, told.err
    result = json.loads((tmp_path / "c.json").read_text())
    assert result["measured"] == result["positives"] == len(read_ilias(made).positives)
    assert len(result["clutter_quartiles"]) == len(result["coverage_quartiles"]) == 5
    assert "positive_ids.txt" in told.out
    monkeypatch.setattr(measuring, "_measure", lambda job: pytest.fail("this was counted before"))
    assert "0 counted now" in ilias("build", "clutter", made, *given).out
    skip_positive(made)
    assert "have no boxes" in ilias("build", "clutter", made, *given).err
    assert "1 positives have no boxes: skip" in ilias("build", "clutter", made, *given, "--without-boxes", "skip").out
    for wrong in (
        ("--working-size", 3),
        ("--most-inside", 2),
        ("--shard", "3/3"),
        ("--scale", "nan"),
        ("--sigma", "inf"),
    ):
        told = ilias("build", "clutter", made, *wrong)
        assert told.code == 2, wrong
        assert "Traceback" not in told.err
    assert ilias("build", "clutter", tmp_path / "none").code == 2
