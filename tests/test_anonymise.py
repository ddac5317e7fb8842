"""Faces and licence plates: found, reviewed, blurred or cropped, undone; and whatever may go wrong in between."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import Outcome, kill_when
from openilias.build.anonymise import (
    ApplySettings,
    FindSettings,
    Mark,
    Place,
    apply_marks,
    find_marks,
    open_decisions,
    read_marks,
    take_decisions,
    undo_marks,
    write_marks,
    write_review,
)
from openilias.build.anonymise import find as finding
from openilias.build.anonymise.detectors import DetectorSpec, Sighting, distinct, load_detector, overlap
from openilias.build.anonymise.pixels import blurred, encoded, largest_cut, moved, with_margin
from openilias.build.conformity import conforms
from openilias.build.perceptual import hash_of_file
from openilias.build.stored import StoredImage, read_rows, rows_file, write_rows
from openilias.core.errors import OpenIliasError
from openilias.images.boxes import Box, read_boxes
from people_world import FACE, IMAGES, OBJECT, SIDE, make_set, scene


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return make_set(tmp_path / "set")


def place(root: Path) -> Place:
    return Place(root, root / "ilias_core")


def mark(item: str = IMAGES[0], box: Box = FACE, status: Any = "confirmed", **other: Any) -> Mark:
    return Mark(item, **({"kind": "face", "box": box, "score": None, "source": "hand", "status": status} | other))


def with_marks(root: Path, *marks: Mark) -> Path:
    write_marks(place(root).boxes, marks)
    return root


def tree(root: Path, *, private: bool = False) -> dict[str, bytes]:
    """All files of a set that go out, or all but the kept results."""
    files = [path for path in root.rglob("*") if path.is_file()]
    names = {path.relative_to(root).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if private or not name.startswith("build/")}


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


# ---- the table


def test_marks_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    marks = [
        mark(IMAGES[1], score=0.1 + 0.2, source="hf:a,b", status="proposed"),
        mark('k"ä, ö_1/query/Q1.jpg', Box(0, 0, 1, 1), "rejected", kind="other"),
        mark(score=-3.5, kind="plate"),
    ]
    write_marks(tmp_path / "boxes.csv", marks)
    assert set(read_marks(tmp_path / "boxes.csv")) == set(marks)
    text = (tmp_path / "boxes.csv").read_text()
    assert text.startswith("image,kind,x,y,width,height,score,source,status\n")
    spoilt = "\ufeff" + text.replace("\n", "\r\n") + "\r\n,,,,,,,,\r\n"  # as spreadsheets leave it
    (tmp_path / "boxes.csv").write_bytes(spoilt.encode())
    assert set(read_marks(tmp_path / "boxes.csv")) == set(marks)


GOOD = "a_1/pos/P1.jpg,face,1,2,3,4,,hand,confirmed"


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("a_1/pos/P1.jpg,face,1,2,3,4,,hand", "9 columns, found 8"),
        (GOOD.replace("a_1/pos/P1.jpg", "../pos/P1.jpg"), "Expected an image"),
        (GOOD.replace("a_1/pos/P1.jpg", "a_1/pos/../../x.jpg"), "Expected an image"),
        (GOOD.replace("a_1/pos/P1.jpg", "/etc/passwd"), "Expected an image"),
        (GOOD.replace("a_1/pos", "a_1/neg"), "Expected an image"),
        (GOOD.replace("a_1", "a\u202e1"), "Expected an image"),
        (GOOD.replace("face", "Face!"), "kind is one of"),
        (GOOD.replace("confirmed", "yes"), "status is one of"),
        (GOOD.replace("3,4", "0,4"), "four whole numbers"),
        (GOOD.replace("3,4", "3,-4"), "four whole numbers"),
        (GOOD.replace("3,4", "3.5,4"), "four whole numbers"),
        (GOOD.replace("3,4", "9999999999,4"), "four whole numbers"),
        (GOOD.replace("3,4", "٣,4"), "four whole numbers"),
        (GOOD.replace(",,hand", ",nan,hand"), "score is a number"),
        (GOOD.replace(",,hand", ",1e999,hand"), "score is a number"),
        (GOOD.replace("hand", ""), "source is the name"),
        (f"{GOOD}\n{GOOD}", "stand twice"),
        (GOOD.replace(",", ";"), "9 columns"),
        ('"' + GOOD, "no line of CSV|9 columns"),
        ("x" * 200_000, "no line of CSV|9 columns"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, match: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(f"image,kind,x,y,width,height,score,source,status\n{line}\n", encoding="utf-8")
    with pytest.raises(OpenIliasError, match=match) as caught:
        read_marks(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"image;kind\n", b"\xff\xfe\x00", b"a,b\n1,2\n", b"image,kind,x\n"])
def test_what_is_no_such_table_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "boxes.csv").write_bytes(data)
    with pytest.raises(OpenIliasError, match=r"first line must be|cannot be read"):
        read_marks(tmp_path / "boxes.csv")
    with pytest.raises(OpenIliasError, match="no boxes yet"):
        read_marks(tmp_path / "none.csv")


# ---- detectors


def test_the_default_finds_most_faces_and_few_where_there_is_none() -> None:
    detector = load_detector(DetectorSpec("face", "haar"))
    hits = false = 0
    for number in range(20):
        found = distinct(detector.find(scene(number, face=5 * number)))
        hits += any(overlap(one.box, FACE) > 0.5 * FACE.width * FACE.height for one in found)
        false += sum(overlap(one.box, FACE) == 0 for one in found)
    assert hits >= 18
    assert false <= 1


def test_turned_faces_are_found_where_the_angle_is_asked_for() -> None:
    picture = scene(1, face=3, at=Box(60, 60, 80, 80), side=SIDE)
    turned = np.asarray(Image.fromarray(picture).rotate(-40, Image.Resampling.BICUBIC))
    centre = Box(80, 80, 40, 40)

    def hit(angles: tuple[int, ...]) -> bool:
        found = load_detector(DetectorSpec("face", "haar", angles=angles)).find(turned)
        return any(overlap(one.box, centre) > 800 and one.box.width < 140 for one in found)

    assert not hit(())
    assert hit((40,))


def test_a_wrong_detector_is_refused(tmp_path: Path) -> None:
    for sought, name in (
        ("face", "dlib"),
        ("plate", "yunet:x.onnx"),
        ("face", "yunet"),
        ("face", "hf:"),
        ("plate", ""),
    ):
        with pytest.raises(OpenIliasError, match="There is no detector"):
            load_detector(DetectorSpec(sought, name))  # type: ignore[arg-type]
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    for name in (f"yunet:{tmp_path}/none.onnx", f"yunet:{tmp_path}/bad.onnx", f"yunet:{tmp_path}/bad.onnx#00ff"):
        with pytest.raises(OpenIliasError, match=r"cannot be read|cannot read|SHA-256"):
            load_detector(DetectorSpec("face", name))
    with pytest.raises(OpenIliasError, match="no such folder"):
        load_detector(DetectorSpec("face", f"hf:{tmp_path}/none"))


@given(st.permutations([Sighting(Box(x, 0, 20, 20), x % 7) for x in range(0, 100, 6)]))
def test_distinct_does_not_depend_on_the_order(found: list[Sighting]) -> None:
    assert distinct(found) == distinct(sorted(found))


# ---- finding


def test_find_proposes_and_what_was_decided_stays(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OpenIliasError, match="no boxes yet"):
        apply_marks(made)
    before = tree(made)
    found = find_marks(made, workers=1)
    assert found.images == 4
    assert tree(made) == before  # nothing that goes out has changed
    (one,) = [m for m in found.marks if m.image == IMAGES[0] and m.kind == "face"]
    assert overlap(one.box, FACE) > 0.5 * FACE.width * FACE.height
    assert one.status == "proposed"
    assert one.source == "haar"

    manifest = json.loads(place(made).found.read_text())
    assert {d["name"] for d in manifest["made_from"]["detectors"]} == {"haar"}
    assert len(manifest["made_from"]["detectors"][0]["cascades"][0]["sha256"]) == 64
    assert sorted(manifest["seen"]) == sorted(IMAGES)

    drawn = mark(IMAGES[3], Box(3, 3, 20, 20), "proposed")
    with_marks(made, mark(IMAGES[0], one.box, "rejected", source="haar"), drawn)
    monkeypatch.setattr(finding, "_look", lambda job: pytest.fail("this image was looked at before"))
    again = find_marks(made, workers=1)
    kept = {(m.image, m.status) for m in again.marks if m.kind == "face"}
    assert (IMAGES[0], "rejected") in kept
    assert (IMAGES[0], "proposed") not in kept
    assert drawn in again.marks


def test_only_changed_images_are_looked_at_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_marks(made, workers=1)
    assert open_decisions(made).unseen == ()
    place(made).image(IMAGES[2]).write_bytes(encoded(scene(9)))
    assert open_decisions(made).unseen == (IMAGES[2],)
    looked: list[str] = []
    real = finding._look
    monkeypatch.setattr(finding, "_look", lambda job: (looked.append(job[0]), real(job))[1])
    find_marks(made, workers=1)
    assert looked == [IMAGES[2]]
    find_marks(made, FindSettings(neighbours=2), workers=1)  # another way of looking
    assert len(looked) == 5


def test_find_is_the_same_for_any_number_of_workers(made: Path) -> None:
    find_marks(made, workers=1)
    first = place(made).boxes.read_bytes(), place(made).found.read_bytes()
    shutil.rmtree(made / "build")
    find_marks(made, workers=2)
    assert (place(made).boxes.read_bytes(), place(made).found.read_bytes()) == first


def test_a_search_that_was_cut_off_goes_on(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = finding._look, []

    def dies(job: Any) -> Any:
        calls.append(job[0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(job)

    monkeypatch.setattr(finding, "_look", dies)
    with pytest.raises(KeyboardInterrupt):
        find_marks(made, workers=1)
    assert not place(made).boxes.exists()
    (kept,) = (made / "build/anonymise/kept").iterdir()
    kept.write_bytes(kept.read_bytes() + b'["half')  # as a kill leaves it
    find_marks(made, workers=1)
    assert calls[3:] == [calls[2], *[item for item in IMAGES if item not in calls[:3]]]
    kept.write_bytes(b"nonsense\n" + kept.read_bytes())
    with pytest.raises(OpenIliasError, match="damaged"):
        find_marks(made, workers=1)


def test_what_could_not_be_looked_at_stops_the_search(made: Path) -> None:
    image = place(made).image(IMAGES[1])
    good = image.read_bytes()
    image.write_bytes(b"")
    with pytest.raises(OpenIliasError, match="cannot be decoded") as caught:
        find_marks(made, workers=1)
    assert caught.value.where == IMAGES[1]
    image.write_bytes(good)
    image.rename(image.with_name("photo.JPG"))
    with pytest.raises(OpenIliasError, match=r"would not be looked at: cup_001/pos/photo.JPG"):
        find_marks(made, workers=1)
    with pytest.raises(OpenIliasError, match="nothing to look for"):
        find_marks(made, FindSettings(faces=(), plates=()))


# ---- pixels


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 34), st.integers(1, 34), st.integers(1, 8), st.data())
def test_a_blurred_region_depends_on_the_means_of_its_cells_alone(
    x: int, y: int, width: int, height: int, cells: int, data: Any
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
    region = Box(x, y, width, height)
    out = blurred(picture, region, cells=cells)
    outside = np.ones((64, 64), bool)
    outside[y : y + height, x : x + width] = False
    assert (out[outside] == picture[outside]).all()

    other, longer = picture.copy(), max(width, height)
    counts = [min(side, max(1, round(cells * side / longer))) for side in (height, width)]
    edges = [np.linspace(0, side, n + 1).round().astype(int) for side, n in zip((height, width), counts, strict=True)]
    for top, bottom in zip(edges[0][:-1] + y, edges[0][1:] + y, strict=True):
        for left, right in zip(edges[1][:-1] + x, edges[1][1:] + x, strict=True):
            cell = other[top:bottom, left:right].reshape(-1, 3)
            other[top:bottom, left:right] = rng.permutation(cell).reshape(bottom - top, right - left, 3)
    assert (blurred(other, region, cells=cells) == out).all()
    assert counts[0] * counts[1] <= cells * cells


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_cut_is_the_largest_one(data: Any) -> None:
    """Against trying every rectangle."""
    side = 24
    boxes = st.builds(Box, st.integers(0, side - 1), st.integers(0, side - 1), st.integers(1, 9), st.integers(1, 9))
    objects = data.draw(st.lists(boxes, min_size=1, max_size=2))
    regions = data.draw(st.lists(boxes, min_size=1, max_size=4))
    best = 0
    inside = np.zeros((side, side), int)
    for x, y, width, height in regions:
        inside[y : y + height, x : x + width] = 1
    sums = np.zeros((side + 1, side + 1), int)
    sums[1:, 1:] = inside.cumsum(0).cumsum(1)
    left, top = min(b.x for b in objects), min(b.y for b in objects)
    right, bottom = (
        max(min(side, b.x + b.width) for b in objects),
        max(min(side, b.y + b.height) for b in objects),
    )
    for x in range(left + 1):
        for end in range(right, side + 1):
            for y in range(top + 1):
                stops = np.arange(bottom, side + 1)
                free = sums[stops, end] - sums[y, end] - sums[stops, x] + sums[y, x] == 0
                sizes = (stops - y)[free] * (end - x)
                best = max(best, sizes.max(initial=0))
    cut = largest_cut(side, side, regions, objects)
    if cut is None:
        assert best < side * 16  # none, or one that is too small to keep
        return
    assert cut.width * cut.height == best
    assert all(overlap(cut, region) == 0 for region in regions)
    for new, old in zip(moved(objects, cut), objects, strict=True):
        assert (new.x + cut.x, new.y + cut.y) == (old.x, old.y)


def test_a_margin_stays_inside_and_is_never_less_than_the_box() -> None:
    assert with_margin(Box(10, 10, 10, 20), 0.15, 100, 100) == Box(8, 7, 14, 26)
    assert with_margin(Box(0, 0, 10, 10), 0.1, 100, 10) == Box(0, 0, 11, 10)
    assert with_margin(Box(10, 10, 5, 5), 0, 100, 100) == Box(10, 10, 5, 5)
    with pytest.raises(ValueError, match="inside"):
        with_margin(Box(100, 0, 5, 5), 0, 100, 100)


# ---- applying


def test_a_blurred_image_conforms_and_nobody_is_recognised(made: Path) -> None:
    with_marks(made, mark(), mark(IMAGES[1], status="proposed"), mark(IMAGES[2], status="rejected"))
    before = tree(made)
    done = apply_marks(made)
    assert (done.changed, done.kept, done.restored) == ((IMAGES[0],), (), ())
    assert done.status == {"applied": 1, "proposed": 1, "rejected": 1}
    after = tree(made)
    assert {name for name in after if after[name] != before[name]} == {f"ilias_core/{IMAGES[0]}", "rows/core.parquet"}
    data = after[f"ilias_core/{IMAGES[0]}"]
    assert conforms(data) == []
    assert place(made).original(IMAGES[0]).read_bytes() == before[f"ilias_core/{IMAGES[0]}"]
    old, new = pixels(place(made).original(IMAGES[0])), pixels(place(made).image(IMAGES[0]))
    x, y, width, height = FACE
    assert np.abs(new - old)[y : y + height, x : x + width].mean() > 15
    far = np.ones(old.shape[:2], bool)
    far[y - 24 : y + height + 24, x - 24 : x + width + 24] = False
    assert np.abs(new - old)[far].max() <= 8  # only coded once more
    assert not load_detector(DetectorSpec("face", "haar", neighbours=2)).find(new.astype(np.uint8))

    row = next(row for row in read_rows(rows_file(made, "core")) if row.id == IMAGES[0])
    assert (row.width, row.height, row.bytes, row.hash) == (SIDE, SIDE, len(data), hash_of_file(data))
    assert row.reencoded
    assert row.author == "ä"
    left = open_decisions(made)
    assert (left.proposed, left.confirmed, left.unfinished, left.bare, left.looked) == (1, 0, False, (), False)
    assert left.any


def test_applying_again_changes_nothing_and_is_always_from_the_original(made: Path) -> None:
    with_marks(made, mark())
    apply_marks(made)
    once = tree(made, private=True)
    done = apply_marks(made)
    assert done.kept == (IMAGES[0],)
    assert tree(made, private=True) == once

    second = mark(IMAGES[0], Box(20, 20, 30, 30))
    with_marks(made, *read_marks(place(made).boxes), second)
    apply_marks(made)
    both = place(made).image(IMAGES[0]).read_bytes()
    undo_marks(made)
    assert not place(made).original(IMAGES[0]).exists()
    apply_marks(made)
    assert place(made).image(IMAGES[0]).read_bytes() == both  # and not the blurred one blurred

    with_marks(made, mark(status="rejected"), mark(IMAGES[0], second.box, "rejected"))
    assert apply_marks(made).restored == (IMAGES[0],)
    assert tree(made) == tree(make_set(made.parent / "fresh"))


def test_undo_restores_every_byte(made: Path) -> None:
    before = tree(made)
    crop = mark(IMAGES[2], Box(20, 10, 160, 30))
    with_marks(made, mark(), crop, mark(IMAGES[3], Box(20, 10, 160, 30)))
    apply_marks(made, ApplySettings(images=(IMAGES[0],)))
    apply_marks(made, ApplySettings(how="crop", images=("*/query/*", IMAGES[3])))
    changed = tree(made)
    assert {name for name in before if changed[name] != before[name]} == {
        *(f"ilias_core/{IMAGES[at]}" for at in (0, 2, 3)),
        "ilias_core/cup_001/query/Q001_00_bbox.txt",
        "ilias_core/hat_002/pos/P002_00_bbox.txt",
        "rows/core.parquet",
    }
    assert undo_marks(made, (IMAGES[0],)).restored == (IMAGES[0],)
    assert undo_marks(made).restored == (IMAGES[2], IMAGES[3])
    assert tree(made) == before
    assert [m.status for m in read_marks(place(made).boxes)] == ["confirmed"] * 3
    assert not (made / "build/anonymise/originals/cup_001").exists()
    with pytest.raises(OpenIliasError, match="No image with boxes"):
        undo_marks(made, ("nothing/*",))


def test_a_crop_moves_the_boxes_and_keeps_the_object(made: Path) -> None:
    (place(made).image(IMAGES[0]).with_name("P001_00_bbox.txt")).write_text("150 120 40 60\n")
    with_marks(made, mark(IMAGES[0], Box(20, 100, 40, 60)))
    apply_marks(made, ApplySettings(how="crop", margin=0))
    data = place(made).image(IMAGES[0]).read_bytes()
    assert conforms(data) == []
    assert Image.open(io.BytesIO(data)).size == (140, 200)  # cut at x = 60
    (box,) = read_boxes(place(made).image(IMAGES[0]).with_name("P001_00_bbox.txt"))
    assert box == Box(90, 120, 40, 60)
    old, new = pixels(place(made).original(IMAGES[0])), pixels(place(made).image(IMAGES[0]))
    assert np.abs(old[:, 60:] - new).mean() < 2
    row = next(row for row in read_rows(rows_file(made, "core")) if row.id == IMAGES[0])
    assert (row.width, row.height) == (140, 200)
    assert apply_marks(made).how == {IMAGES[0]: "crop"}  # as it was done

    apply_marks(made, ApplySettings(how="blur"))
    assert Image.open(place(made).image(IMAGES[0])).size == (SIDE, SIDE)
    assert read_boxes(place(made).image(IMAGES[0]).with_name("P001_00_bbox.txt")) == (Box(150, 120, 40, 60),)
    assert not place(made).original_boxes(IMAGES[0]).exists()


def test_a_crop_that_would_cut_the_object_is_refused_and_nothing_is_changed(made: Path) -> None:
    with_marks(made, mark(), mark(IMAGES[1], Box(30, 130, 20, 20)), mark(IMAGES[3], Box(5, 150, 30, 30)))
    before = tree(made, private=True)
    with pytest.raises(OpenIliasError, match="cutting into the boxes") as caught:
        apply_marks(made, ApplySettings(how="crop"))
    assert IMAGES[1] in str(caught.value)
    assert IMAGES[3] in str(caught.value)
    assert tree(made, private=True) == before
    place(made).image(IMAGES[1]).with_name("P001_01_bbox.txt").unlink()
    with pytest.raises(OpenIliasError, match="nobody knows what may be cut off"):
        apply_marks(made, ApplySettings(how="crop", images=(IMAGES[1],)))


@pytest.mark.parametrize(
    ("marks", "match"),
    [
        ((mark(box=Box(500, 10, 20, 20)),), "outside of this image of 200 x 200"),
        ((mark("cup_001/pos/P001_77.jpg"),), "not in the set: cup_001/pos/P001_77.jpg"),
    ],
)
def test_boxes_that_cannot_be_are_refused(made: Path, marks: tuple[Mark, ...], match: str) -> None:
    with_marks(made, *marks)
    before = tree(made)
    with pytest.raises(OpenIliasError, match=match):
        apply_marks(made)
    assert tree(made) == before


def test_an_image_that_somebody_changed_is_not_overwritten(made: Path) -> None:
    with_marks(made, mark())
    apply_marks(made)
    image, blurry = place(made).image(IMAGES[0]), place(made).image(IMAGES[0]).read_bytes()
    image.write_bytes(encoded(scene(77)))
    for act in (apply_marks, undo_marks, find_marks):
        with pytest.raises(OpenIliasError, match="neither its original nor"):
            act(made)
    assert open_decisions(made).bare == (IMAGES[0],)
    original = place(made).original(IMAGES[0]).read_bytes()
    image.write_bytes(original)  # as collecting the images again would do: seen, and done again
    assert open_decisions(made).bare == (IMAGES[0],)
    assert apply_marks(made).changed == (IMAGES[0],)
    assert image.read_bytes() == blurry
    place(made).original(IMAGES[0]).unlink()
    with pytest.raises(OpenIliasError, match="original of this image is gone"):
        apply_marks(made)


def test_an_image_that_left_the_set_does_not_hold_up_the_others(made: Path) -> None:
    with_marks(made, mark(), mark(IMAGES[3]))
    apply_marks(made)
    place(made).image(IMAGES[0]).unlink()
    for act in (apply_marks, find_marks):
        with pytest.raises(OpenIliasError, match="not in the set"):
            act(made)
    with_marks(made, mark(IMAGES[3], status="applied"))
    assert apply_marks(made).kept == (IMAGES[3],)
    assert undo_marks(made).restored == (IMAGES[3],)
    assert place(made).original(IMAGES[0]).is_file()  # it may come back


def test_boxes_that_were_changed_after_a_crop_are_not_lost(made: Path) -> None:
    with_marks(made, mark(IMAGES[3], Box(20, 10, 160, 30)))
    apply_marks(made, ApplySettings(how="crop"))
    path = place(made).image(IMAGES[3]).with_name("P002_00_bbox.txt")
    path.write_text("1 2 3 4\n")
    with pytest.raises(OpenIliasError, match="changed after the image was cropped"):
        undo_marks(made)
    assert path.read_text() == "1 2 3 4\n"


def test_what_is_not_as_sets_store_it_becomes_so(made: Path) -> None:
    """A turned PNG-like original with EXIF: boxes are in the upright picture."""
    upright = scene(5, face=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(upright).rotate(90, expand=True).save(buffer, "JPEG", quality=95, exif=exif, comment=b"me")
    place(made).image(IMAGES[1]).write_bytes(buffer.getvalue())
    with_marks(made, mark(IMAGES[1]))
    apply_marks(made)
    data = place(made).image(IMAGES[1]).read_bytes()
    assert conforms(data) == []
    new = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    x, y, width, height = FACE
    assert np.abs(new - upright)[:, :100].mean() < 4
    assert np.abs(new - upright)[y : y + height, x : x + width].mean() > 15


def test_a_set_without_a_table_of_rows_is_changed_too(made: Path) -> None:
    shutil.rmtree(made / "rows")
    with_marks(made, mark())
    assert apply_marks(made).without_row == ()
    assert not (made / "rows").exists()
    write_rows(rows_file(made, "core"), [StoredImage(IMAGES[1], "stored")])
    with_marks(made, mark(), mark(IMAGES[3]))
    assert apply_marks(made).without_row == (IMAGES[0], IMAGES[3])


def test_settings_change_the_outcome(made: Path) -> None:
    with_marks(made, mark(), mark(IMAGES[1], status="proposed"))
    outcomes = {}
    for name, options in {
        "usual": {}, "margin": {"margin": 0.5}, "cells": {"cells": 2}, "proposed": {"all_proposed": True},
        "none": {"images": (IMAGES[1],)},
    }.items():  # fmt: skip
        apply_marks(made, ApplySettings(**options))
        outcomes[name] = tuple(tree(made)[f"ilias_core/{item}"] for item in IMAGES[:2])
        undo_marks(made)
        with_marks(made, mark(), mark(IMAGES[1], status="proposed"))
    assert len(set(outcomes.values())) == 5
    apply_marks(made, ApplySettings(margin=0.5))
    assert apply_marks(made).changed == ()  # what was done stays as it was done


# ---- cut off


class Cut(BaseException):
    """As a kill, nothing catches it."""


def _cut_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Die at the replacement or removal of a file after so many."""
    count = 0

    def counted(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count > steps:
                raise Cut
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))


@pytest.mark.parametrize("act", ["apply", "undo"])
def test_cut_off_anywhere_the_same_command_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Every file operation of a run that blurs one image and crops another is the last one once."""
    start = with_marks(make_set(tmp_path / "start"), mark(), mark(IMAGES[3], Box(20, 10, 160, 30)))
    apply_marks(start, ApplySettings(how="crop", images=(IMAGES[3],)))
    if act == "undo":
        apply_marks(start)

    def run(root: Path) -> None:
        if act == "apply":
            apply_marks(root)
            apply_marks(root, ApplySettings(how="blur", margin=0.3, images=(IMAGES[3],)))
        else:
            undo_marks(root)

    whole = tmp_path / "whole"
    shutil.copytree(start, whole)
    run(whole)
    wanted = {name: data for name, data in tree(whole, private=True).items() if "/applied/" not in name}
    for steps in range(200):
        root = tmp_path / "cut"
        shutil.copytree(start, root)
        with monkeypatch.context() as patch:
            _cut_after(patch, steps)
            try:
                run(root)
                ended = True
            except Cut:
                ended = False
        if not ended:
            left = open_decisions(root)
            if act == "apply":
                assert left.any or tree(root) == tree(whole)
            run(root)
        found = {name: data for name, data in tree(root, private=True).items() if "/applied/" not in name}
        assert found == wanted, f"cut off after {steps} steps"
        if ended:
            break
        shutil.rmtree(root)
    assert steps > 15


def test_a_killed_process_is_completed(made: Path) -> None:
    with_marks(made, *(mark(item, status="confirmed") for item in IMAGES))
    fresh = make_set(made.parent / "fresh")
    with_marks(fresh, *(mark(item, status="confirmed") for item in IMAGES))
    apply_marks(fresh)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from openilias.build.anonymise import apply, apply_marks\n"
        "real = apply.make_change\n"
        "def slow(*a):\n    real(*a); time.sleep(0.3)\n"
        "apply.make_change = slow\n"
        "apply_marks(Path(sys.argv[1]))\n"
    )
    kill_when(lambda: place(made).original(IMAGES[1]).exists(), code, made)
    assert open_decisions(made).unfinished
    assert [m.status for m in read_marks(place(made).boxes)] == ["confirmed"] * 4
    apply_marks(made)
    assert tree(made) == tree(fresh)
    assert not open_decisions(made).unfinished


# ---- review


HOSTILE = 'a"<img src=x onerror=alert(1)>&_003'


def test_the_page_is_whole_and_nothing_in_it_is_code(made: Path) -> None:
    folder = made / "ilias_core" / HOSTILE
    shutil.copytree(made / "ilias_core/hat_002", folder)
    item = f"{HOSTILE}/pos/P002_00.jpg"
    with_marks(made, mark(item, status="proposed", source="x</script><script>alert(2)</script>", score=0.5), mark())
    page = write_review(made).read_text(encoding="utf-8")
    assert "<img" not in page
    assert page.count("<script") == 2
    assert "alert(2)" in page  # and it is text
    assert "http" not in page.replace("http-equiv", "")
    assert page.count('class="card"') == 2
    assert page.count("data:image/jpeg;base64,") == 2
    assert write_review(made, all_images=True).read_text(encoding="utf-8").count('class="card"') == 5
    inside = with_marks(made, mark(IMAGES[1], Box(20, 130, 20, 20)))
    assert "is it the object itself" in write_review(inside).read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_table_that_the_page_makes_is_read_back(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "ilias_core/hat_002", made / "ilias_core" / 'k,"ä_9')
    marks = [mark('k,"ä_9/pos/P002_00.jpg', status="proposed", score=0.125, source="hf:a,b"), mark(IMAGES[1])]
    with_marks(made, *marks)
    page = write_review(made).read_text(encoding="utf-8")
    data = page.split('id="data">')[1].split("</script>")[0]
    script = page.split("<script>")[1].split("</script>")[0]
    functions = "function quoted" + script.split("function quoted")[1].split("function save")[0]
    begin = script[script.index("const data") : script.index("const find")]
    code = (
        f"const document = {{getElementById: () => ({{textContent: {json.dumps(data)}}})}};\n{begin}{functions}"
        "for (const row of rows) if (row.status === 'proposed') row.status = 'rejected';\n"
        "rows.push({image: 'hat_002/pos/P002_00.jpg', kind: 'plate', x: 1, y: 2, width: 30, height: 40, "
        "score: null, source: 'hand', status: 'confirmed'}); rows.push(null);\n"
        "process.stdout.write(table());"
    )
    done = subprocess.run(["node", "-e", code], capture_output=True, check=True)
    (tmp_path / "new.csv").write_bytes(done.stdout)
    taken = take_decisions(made, tmp_path / "new.csv")
    assert {(m.image, m.status, m.kind, m.box, m.score) for m in taken} == {
        (marks[0].image, "rejected", "face", FACE, 0.125),
        (IMAGES[1], "confirmed", "face", FACE, None),
        (IMAGES[3], "confirmed", "plate", Box(1, 2, 30, 40), None),
    }
    assert tuple(read_marks(place(made).boxes)) == taken


def test_a_table_without_what_is_applied_is_not_taken(made: Path, tmp_path: Path) -> None:
    with_marks(made, mark())
    apply_marks(made)
    write_marks(tmp_path / "new.csv", [mark(IMAGES[1])])
    with pytest.raises(OpenIliasError, match="applied are not in this table"):
        take_decisions(made, tmp_path / "new.csv")
    write_marks(tmp_path / "new.csv", [mark(status="rejected"), mark("none_1/pos/P1.jpg")])
    with pytest.raises(OpenIliasError, match="not in the set"):
        take_decisions(made, tmp_path / "new.csv")
    write_marks(tmp_path / "new.csv", [mark(status="rejected")])
    take_decisions(made, tmp_path / "new.csv")
    assert apply_marks(made).restored == (IMAGES[0],)


# ---- the command


def test_the_way_through_the_command(made: Path, ilias: Callable[..., Outcome], tmp_path: Path) -> None:
    told = ilias("build", "anonymise", "find", made, "--workers", 1, "--plates", "none", "--json", tmp_path / "f.json")
    assert told.code == 0, told.err
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["boxes"]["face"] >= 1
    assert "review them" in told.out
    assert ilias("build", "anonymise", "review", made).code == 0
    rows = list(csv.reader(place(made).boxes.open(encoding="utf-8")))
    (tmp_path / "b.csv").write_text("\n".join(",".join([*row[:-1], "confirmed"]) for row in rows[1:]))
    bad = ilias("build", "anonymise", "review", made, "--take", tmp_path / "b.csv")
    assert bad.code == 2
    assert "first line must be" in bad.err
    write_marks(tmp_path / "b.csv", [*(m for m in read_marks(place(made).boxes)), mark(IMAGES[1], OBJECT)])
    assert "apply them" in ilias("build", "anonymise", "review", made, "--take", tmp_path / "b.csv").out
    told = ilias("build", "anonymise", "apply", made, "--json", tmp_path / "a.json")
    assert told.code == 0, told.err
    assert "lie mostly in a box of the object" in told.out
    assert "not decided" in told.out
    assert json.loads((tmp_path / "a.json").read_text())["changed"] == [IMAGES[1]]
    told = ilias("build", "anonymise", "apply", made, "--all-proposed")
    assert "proposed" not in told.out
    assert not open_decisions(made).any
    told = ilias("build", "anonymise", "undo", made)
    assert told.code == 0, told.err
    assert tree(made) == tree(make_set(made.parent / "fresh"))
    for arguments in (("find", tmp_path / "none"), ("find", made, "--faces", "dlib"), ("apply", tmp_path)):
        told = ilias("build", "anonymise", *arguments)
        assert told.code == 2
        assert "Traceback" not in told.err
    told = ilias("build", "anonymise", "find", made, "--angles", "a,b")
    assert told.code == 2
    with_marks(made, mark(IMAGES[1], OBJECT))
    told = ilias("build", "anonymise", "apply", made, "--how", "crop", "--image", IMAGES[1])
    assert told.code == 2
    assert "cutting into the boxes" in told.err
    none = ("--faces", "none", "--plates", "none")
    assert "nothing to look for" in ilias("build", "anonymise", "find", made, *none).err
