"""The generated benchmark: complete, consistent, and the same bytes every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from conftest import kill_when
from openilias.build.generated import pictures as pictures_module
from openilias.build.generated import synth
from openilias.build.generated.camera import CAMERAS, camera_exif, photograph
from openilias.build.generated.designs import (
    DETAILS,
    OUTLINES,
    PATTERNS,
    TRAITS,
    Design,
    describe,
    make_design,
    make_variant,
)
from openilias.build.generated.knobs import Knobs, Shot, Streams, draw_shot
from openilias.build.generated.layers import (
    Layer,
    cast_shadow,
    cut_by_frame,
    cut_share,
    hidden_share,
    make_layer,
    paste,
    visible_box,
)
from openilias.build.generated.pictures import design_of_lesson, design_of_object, make_distractors, make_object
from openilias.build.generated.scenes import Taken, take_portrait, take_scene
from openilias.build.generated.solids import Part, see
from openilias.build.generated.surfaces import _SURFACES
from openilias.build.generated.synth import SynthSettings, build_synth
from openilias.build.generated.textures import draw_shape, lettering, outline_points, paint_pattern
from openilias.build.generated.things import Pose, Thing, extent, make_solid, make_thing, pose_thing, spun, turned
from openilias.build.generated.views import angle_between, hero_pose, query_view, tilt_away, turn_away
from openilias.build.generated.words import KINDS, STYLES, object_names, palette
from openilias.build.sheet import distractor_sheet, object_sheet, write_sheet
from openilias.core.errors import OpenIliasError
from openilias.core.files import sha256_of
from openilias.data import read_ilias, read_training_set
from openilias.data.verify import verify
from openilias.images.boxes import coverage, read_boxes
from openilias.images.decode import camera_of
from openilias.images.tars import index_tar, read_member

SMALL = SynthSettings(
    objects=3, distractors=7, size=160, positives=(2, 4), shard=4, seed=5, train=2, train_images=(2, 3),
    knobs=Knobs(hard=0.5),
)  # fmt: skip
EASY = {"viewpoint": 10, "scale": 0.2, "occlusion": 0, "illumination": 0.5, "blur": 0.3, "clutter": 8, "crop": 0}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_of(path) for path in files}


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").splitlines()


def objects(folder: Path) -> list[Path]:
    return sorted((folder / "ilias_core").iterdir())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "out"
    build_synth(out, SMALL, workers=1)
    return out


def test_folders_are_as_in_the_official_layout(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == [
        "checksums.txt", "ilias_core", "image_ids", "synth.json", "synth_distractors.parquet",
        "synth_positives.parquet", "taxonomy.json", "train", "yfcc100m",
    ]  # fmt: skip
    folders = objects(made)
    assert sorted(folder.name[-4:] for folder in folders) == ["_000", "_001", "_002"]
    for folder in folders:
        number = folder.name[-3:]
        assert sorted(path.name for path in (folder / "query").iterdir()) == [
            f"Q{number}_00.jpg", f"Q{number}_00_bbox.txt", f"T{number}.txt",
        ]  # fmt: skip
        pictures = sorted((folder / "pos").glob("*.jpg"))
        assert [path.stem for path in pictures] == [f"P{number}_{i:02d}" for i in range(len(pictures))]
        assert 2 <= len(pictures) <= 4
        assert len(list((folder / "pos").iterdir())) == 2 * len(pictures)


def test_pictures_have_the_larger_side_asked_for_and_boxes_inside(made: Path) -> None:
    pictures = sorted((made / "ilias_core").rglob("*.jpg"))
    shapes = set()
    for path in pictures:
        with Image.open(path) as image:
            image.load()
            assert image.mode == "RGB"
            width, height = image.size
        assert max(width, height) == SMALL.size
        shapes.add(width > height)
        (box,) = read_boxes(path.with_name(f"{path.stem}_bbox.txt"))
        assert box.x + box.width <= width
        assert box.y + box.height <= height
    assert shapes == {True, False}


def test_id_lists_agree_with_the_files(made: Path) -> None:
    core, ids = made / "ilias_core", made / "image_ids"
    queries = [line.split(",") for line in lines(ids / "image_query_ids.txt")]
    assert [item for item, _ in queries] == sorted(str(p.relative_to(core)) for p in core.rglob("query/*.jpg"))
    assert all(item.split("/")[0] == name for item, name in queries)
    texts = lines(ids / "text_query_ids.txt")
    assert texts == sorted(str(p.relative_to(core)) for p in core.rglob("T*.txt"))
    positives = [line.split(",")[0] for line in lines(ids / "positive_ids.txt")]
    assert positives == sorted(str(p.relative_to(core)) for p in core.rglob("pos/*.jpg"))
    taxonomy = json.loads((made / "taxonomy.json").read_bytes())
    leaves = [
        name for mids in taxonomy.values() for fines in mids.values() for names in fines.values() for name in names
    ]
    assert sorted(leaves) == [folder.name for folder in objects(made)]


def test_distractor_list_agrees_with_the_tars(made: Path) -> None:
    shards = sorted((made / "yfcc100m").iterdir())
    assert [shard.name for shard in shards] == ["yfcc100m_0000.tar", "yfcc100m_0001.tar"]
    found = [f"{shard.name}/{member.key}" for shard in shards for member in index_tar(shard)]
    listed = gzip.decompress((made / "image_ids" / "distractor_ids.txt.gz").read_bytes()).decode().splitlines()
    assert found == listed
    assert listed[0] == "yfcc100m_0000.tar/d0000000"
    assert listed[-1] == "yfcc100m_0001.tar/d0000006"
    sums = dict(reversed(line.split("  ")) for line in lines(made / "checksums.txt"))
    assert sums == {f"yfcc100m/{shard.name}": sha256_of(shard) for shard in shards}
    contents = {read_member(shard, member) for shard in shards for member in index_tar(shard)}
    assert len(contents) == SMALL.distractors
    for jpeg in contents:
        with Image.open(io.BytesIO(jpeg)) as image:
            image.load()
            assert max(image.size) == SMALL.size


def test_attributes_match_the_boxes(made: Path) -> None:
    shares, counts = [], []
    for line in lines(made / "image_ids" / "positive_ids.txt"):
        item, share, clutter = line.split(",")
        path = made / "ilias_core" / item
        with Image.open(path) as image:
            width, height = image.size
        assert float(share) == coverage(read_boxes(path.with_name(f"{path.stem}_bbox.txt")), width=width, height=height)
        shares.append(float(share))
        counts.append(int(clutter))
    assert set(np.digitize(shares, [0.0688, 0.1353, 0.2730])) == {0, 1, 2, 3}
    assert set(np.digitize(counts, [18, 33, 53])) == {0, 1, 2, 3}


def test_same_bytes_whatever_the_workers(made: Path, tmp_path: Path) -> None:
    build_synth(tmp_path / "two", SMALL, workers=2)
    assert digests(tmp_path / "two") == digests(made)
    # Several jobs of distractors, in whatever order the four processes come to them.
    many = SynthSettings(objects=2, distractors=26, size=64, positives=(1, 1), knobs=Knobs(clutter=(0, 4), hard=0.5))
    for workers in (1, 4):
        build_synth(tmp_path / str(workers), many, workers=workers)
    assert digests(tmp_path / "4") == digests(tmp_path / "1")


def test_killed_it_goes_on_to_the_same_bytes(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom openilias.build.generated import synth\n"
        "real = synth._write_shard\n"
        "def slow(*arguments):\n    real(*arguments)\n    time.sleep(30)\n"
        "synth._write_shard = slow\n"
        "settings = synth.SynthSettings.model_validate_json(sys.argv[2])\n"
        "synth.build_synth(Path(sys.argv[1]), settings, workers=1)\n"
    )
    kill_when(lambda: list(tmp_path.glob(".out.*/.shards/0000.json")), code, out, SMALL.model_dump_json())
    assert not out.exists()
    (tar,) = tmp_path.glob(".out.*/yfcc100m/yfcc100m_0000.tar")
    node = tar.stat().st_ino
    build_synth(out, SMALL, workers=1)
    assert digests(out) == digests(made)
    assert (out / "yfcc100m" / tar.name).stat().st_ino == node
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_runs_do_not_meet(made: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom openilias.build.generated import synth\n"
        "settings = synth.SynthSettings.model_validate_json(sys.argv[2])\n"
        "real = synth._write_core\n"
        "def slow(*arguments):\n    real(*arguments)\n    time.sleep(4)\n"
        "synth._write_core = slow\n"
        "synth.build_synth(Path(sys.argv[1]), settings, workers=1)\n"
    )
    out = tmp_path / "out"
    first = subprocess.Popen([sys.executable, "-c", code, str(out), SMALL.model_dump_json()])
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".out.*/ilias_core")) and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(OpenIliasError, match="Another process"):
        build_synth(out, SMALL, workers=1)
    assert first.wait(120) == 0
    assert digests(out) == digests(made)


def test_lost_files_are_noticed(made: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    build_synth(out, SMALL, workers=1)
    (out / "a note of mine").touch()
    build_synth(out, SMALL, workers=1)
    next(out.glob("yfcc100m/*.tar")).unlink()
    with pytest.raises(OpenIliasError, match="missing, added or changed"):
        build_synth(out, SMALL, workers=1)


@pytest.mark.parametrize("size", [64, 100])
def test_the_corners_of_all_knobs(size: int, tmp_path: Path) -> None:
    hard = {
        "viewpoint": 180,
        "scale": 0.002,
        "occlusion": 0.9,
        "illumination": 5,
        "blur": 20,
        "clutter": 72,
        "crop": 0.9,
    }
    for number, knobs in enumerate((hard, hard | {"occlusion": 0, "clutter": 0}, {"scale": 0.9, "crop": 0.9})):
        settings = SynthSettings(
            objects=24, distractors=0, size=size, positives=(1, 1), knobs=Knobs.model_validate(knobs)
        )
        build_synth(tmp_path / str(number), settings, workers=1)
        outcome = verify(tmp_path / str(number), workers=1)
        assert outcome is not None
        assert outcome.sound


def test_a_ring_has_a_hole() -> None:
    pictures = []
    for name in ("ring", "circle"):
        image = np.zeros((60, 60, 3), np.uint8)
        draw_shape(image, np.random.default_rng(0), name, 5, (30, 30, 25), [(255, 255, 255)])
        pictures.append(image)
    ring, circle = pictures
    assert circle[30, 30].tolist() == [255] * 3
    assert ring[30, 30].tolist() == [0] * 3
    assert ring[30, 10].tolist() == [255] * 3


def test_a_hard_negative_can_be_told_from_its_object() -> None:
    """These four once looked just like their objects."""
    settings = SynthSettings(objects=200, distractors=1500, knobs=Knobs(hard=1, closeness=(1, 1)))
    for index, number in ((181, 178), (954, 29), (1274, 25), (1430, 171)):
        design, differs = pictures_module._other(settings, number, index, 1.0)
        assert len(differs) == 1
        object_ = design_of_object(settings, number)
        look, other = (np.asarray(_portrait(d), int) for d in (object_, design))
        assert (np.abs(look - other).max(2) > 24).mean() > 0.0004


def _portrait(design: Design) -> np.ndarray:
    thing = make_thing(design, 300)
    streams = Streams(0, 1)
    return take_portrait(streams, (300, 300), thing, query_view(streams.of("viewpoint"), thing)).image


def test_how_strong_a_blur_is_says_nothing_of_its_kind() -> None:
    strengths: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2000):
        streams = Streams(0, number)
        strengths[bool(streams.of("shake").random() < 0.15)].append(draw_shot(Knobs(), streams, (0, 0)).blur)
    assert abs(np.mean(strengths[True]) - np.mean(strengths[False])) < 0.06


def test_a_failure_before_the_first_shard_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "write_tar", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_synth(tmp_path / "out", SMALL, workers=1)
    assert not list(tmp_path.iterdir())


def test_another_seed_makes_other_pictures_and_names(made: Path, tmp_path: Path) -> None:
    other = SMALL.model_copy(update={"seed": 6, "objects": 1, "distractors": 1})
    build_synth(tmp_path / "other", other, workers=1)
    assert objects(tmp_path / "other")[0].name != next(p.name for p in objects(made) if p.name.endswith("_000"))
    pictures = {name: value for name, value in digests(tmp_path / "other").items() if name.endswith((".jpg", ".tar"))}
    assert not set(pictures.values()) & set(digests(made).values())


def test_fewer_objects_are_the_same_objects(tmp_path: Path, made: Path) -> None:
    build_synth(tmp_path / "one", SMALL.model_copy(update={"objects": 1, "distractors": 0, "train": 0}), workers=1)
    one = hashlib.sha256(next((tmp_path / "one").rglob("Q000_00.jpg")).read_bytes()).hexdigest()
    assert one == sha256_of(next(made.rglob("Q000_00.jpg")))
    assert lines(tmp_path / "one" / "checksums.txt") == []
    assert gzip.decompress((tmp_path / "one/image_ids/distractor_ids.txt.gz").read_bytes()) == b""


def test_same_settings_are_not_generated_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("generated again")

    monkeypatch.setattr(synth, "_write_core", fail)
    build_synth(made, SMALL, workers=1)


def test_other_settings_and_foreign_folders_are_refused(made: Path, tmp_path: Path) -> None:
    before = digests(made)
    with pytest.raises(OpenIliasError, match="seed: 5 -> 6"):
        build_synth(made, SMALL.model_copy(update={"seed": 6}), workers=1)
    assert digests(made) == before
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OpenIliasError, match="holds no synthetic benchmark"):
        build_synth(tmp_path, SMALL, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("stop")

    monkeypatch.setattr(synth, "_write_distractors", fail)
    with pytest.raises(RuntimeError, match="stop"):
        build_synth(tmp_path / "out", SMALL.model_copy(update={"objects": 1}), workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"objects": 0}, {"objects": 1000}, {"distractors": -1}, {"seed": -1}, {"positives": (4, 3)},
        {"positives": (0, 3)}, {"size": 10}, {"shard": 0}, {"colour": "red"}, {"train": -1}, {"train_images": (3, 2)},
        {"knobs": {"colour": 1}},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SynthSettings.model_validate(wrong)


def test_workers_are_checked(tmp_path: Path) -> None:
    with pytest.raises(OpenIliasError, match="at least one worker"):
        build_synth(tmp_path / "out", SMALL, workers=0)


def test_names_are_unique_ascii_and_numbered() -> None:
    names = object_names(np.random.default_rng(0), 999)
    assert len({name.rsplit("_", 1)[0] for name in names}) == 999
    assert [name[-4:] for name in names] == [f"_{number:03d}" for number in range(999)]
    assert all(name.isascii() and name == name.lower() for name in names)


def test_no_category_is_the_reserved_word() -> None:
    assert "other" not in {word for kind in KINDS for word in (kind.coarse, kind.mid, kind.fine)}


def test_text_names_what_the_design_has() -> None:
    for number, kind in enumerate(KINDS):
        design = make_design((1, 2, number), kind)
        text = describe(design)
        assert text.isascii()
        assert text.count(".") == 1
        words = (kind.fine, design.title.upper(), design.second.title(), design.mark, *design.colours[2:])
        assert not [word for word in words if word not in text]
    exhibition = next(kind for kind in KINDS if kind.fine == "exhibition poster")
    assert "an exhibition poster" in describe(make_design((1, 2), exhibition)).lower()


def test_first_two_colours_contrast() -> None:
    for number in range(50):
        names, values = palette(np.random.default_rng(number), 5)
        assert len(set(names)) == 5
        light = values[:2].astype(float) @ (0.3, 0.6, 0.1)
        assert abs(light[0] - light[1]) > 20


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_show_both_colours(name: str) -> None:
    image = paint_pattern(name, np.random.default_rng(1), (60, 80), [(250, 0, 0), (0, 0, 250), (0, 9, 0), (9, 9, 9)])
    assert image.shape == (60, 80, 3)
    assert (image[..., 0] > 100).any()
    assert (image[..., 2] > 100).any() == (name != "plain")


@pytest.mark.parametrize("name", OUTLINES)
def test_outlines_have_about_unit_radius(name: str) -> None:
    radius = np.hypot(*outline_points(name, 6, np.random.default_rng(2)).T)
    assert 0.9 < radius.max() < 1.5
    assert radius.min() > 0.05


@pytest.mark.parametrize("style", STYLES)
def test_lettering_differs_with_the_style(style: str) -> None:
    mask = lettering("GLORP", style)
    assert mask.dtype == np.uint8
    assert mask.max() > 200
    assert style == "light" or mask.shape != lettering("GLORP", "light").shape or (
        mask != lettering("GLORP", "light")
    ).any()  # fmt: skip


@pytest.mark.parametrize("number", range(len(_SURFACES)))
def test_surfaces_are_textured_pictures(number: int) -> None:
    canvas = _SURFACES[number](np.random.default_rng(3), (90, 120))
    assert canvas.shape == (90, 120, 3)
    assert canvas.dtype == np.float32
    assert np.isfinite(canvas).all()
    assert canvas.std(axis=(0, 1)).min() > 0.5


def kind_of(fine: str) -> int:
    return next(number for number, kind in enumerate(KINDS) if kind.fine == fine)


def thing_of(fine: str, pixels: int = 60, key: int = 4) -> Thing:
    return make_thing(make_design((key,), KINDS[kind_of(fine)]), pixels)


def test_box_shows_three_faces_when_turned_and_one_from_the_front() -> None:
    thing = thing_of("cereal box")
    assert len(pose_thing(thing, Pose(turned(), 50.0))) == 1
    seen = pose_thing(thing, Pose(turned(yaw=0.6, pitch=-0.4, roll=0.1), 4.0))
    assert len(seen) == 3
    wide, tall = extent(seen)
    assert wide * tall == pytest.approx(1, rel=1e-4)
    assert len({patch.light for patch in seen}) == 3
    back = pose_thing(thing, Pose(turned(yaw=np.pi), 50.0))
    assert len(back) == 1
    assert back[0].face is thing.faces[5]


def test_flat_things_have_no_back() -> None:
    assert pose_thing(thing_of("concert poster"), Pose(turned(yaw=np.pi), 5.0)) == []


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.form not in ("flat", "cut", "round")], ids=lambda kind: kind.fine
)
def test_another_side_of_a_solid_looks_different(kind: Any) -> None:
    thing = make_thing(make_design((4,), kind), 60)
    front, back = (
        make_layer(pose_thing(thing, Pose(turned(yaw=yaw, pitch=-0.2), 4.0), 50), 50, (40, 40)) for yaw in (0.2, 2.8)
    )
    assert min(front.alpha.mean(), back.alpha.mean()) > 0.2
    height, width = (min(a, b) for a, b in zip(front.alpha.shape, back.alpha.shape, strict=True))
    assert np.abs(front.colour[:height, :width] - back.colour[:height, :width]).mean() > 8


def test_ball_is_a_disc_lit_from_the_upper_left() -> None:
    grey = Part("ellipsoid", np.full((2, 2, 3), 200, np.uint8), frame=np.eye(3) * 0.5, gloss=0)
    face, quad = see((grey,), turned(), 50.0, 100)
    alpha = face[..., 3] / 255
    assert alpha.mean() == pytest.approx(np.pi / 4, abs=0.01)
    assert np.ptp(quad[:, 0]) * 50 == pytest.approx(1, abs=0.02)
    side = len(face)
    assert face[side // 4, side // 4, 0] > 2 * face[-side // 4, -side // 4, 0]


def test_lathe_agrees_with_a_block_and_an_ellipsoid_of_its_shape() -> None:
    paint = np.full((2, 2, 3), 200, np.uint8)
    y = np.linspace(-0.5, 0.5, 41)
    profile = np.stack([y, np.sqrt(np.maximum(0.25 - y * y, 0))], 1)
    turn = turned(yaw=0.3, pitch=-0.6, roll=0.2)
    turned_ball, _ = see((Part("lathe", paint, profile=profile, gloss=0),), turn, 4.0, 90)
    ball, _ = see((Part("ellipsoid", paint, frame=np.eye(3) * 0.5, gloss=0),), turn, 4.0, 90)
    height, width = (min(a, b) for a, b in zip(ball.shape[:2], turned_ball.shape[:2], strict=True))
    assert np.abs(np.subtract(ball.shape[:2], turned_ball.shape[:2])).max() <= 2
    assert np.abs(ball[:height, :width].astype(float) - turned_ball[:height, :width]).mean() < 6


def test_a_mug_is_open_and_a_can_is_not() -> None:
    for fine, inside in (("printed mug", True), ("soup can", False)):
        design = make_design((4,), KINDS[kind_of(fine)])
        design = replace(design, rgb=((250, 250, 250),) * 4 + ((250, 0, 0),))
        layer = make_layer(pose_thing(make_thing(design, 60), Pose(turned(pitch=-1.2), 4.0), 60), 60, (50, 50))
        middle = layer.colour[layer.alpha.shape[0] // 3, layer.alpha.shape[1] // 3]
        assert (middle[0] > 3 * middle[1]) == inside


def test_spinning_keeps_the_box_normal() -> None:
    wide, tall = extent(spun(pose_thing(thing_of("concert poster"), Pose(turned(), 5.0)), 0.7))
    assert wide * tall == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("degrees", [0.0, 15.0, 40.0, 70.0, 110.0])
@pytest.mark.parametrize("fine", ["concert poster", "soup can", "cereal box", "cloth animal"])
def test_views_are_as_far_from_the_query_as_asked(fine: str, degrees: float) -> None:
    thing = thing_of(fine, 16)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        view = query_view(rng, thing)
        seen = turned(yaw=view[0], pitch=view[1])
        for manner in ("table", "shelf", "above"):
            pose, _ = hero_pose(thing, view, degrees, np.random.default_rng(seed), manner)
            angle = angle_between(pose.turn, seen)
            if not thing.flat:
                assert angle == pytest.approx(degrees, abs=0.1)
            else:  # it lies turned by a given roll, and is never seen from its edge
                assert abs(angle - min(degrees, 75)) < 17
            assert pose_thing(thing, pose, 20)


def test_angles_come_from_plain_vectors() -> None:
    assert angle_between(turned(yaw=0.5), turned()) == pytest.approx(np.degrees(0.5))
    assert angle_between(turned(pitch=-0.3, roll=2), turned()) == pytest.approx(np.degrees(0.3))
    assert tilt_away((0.0, 0.0), 33.0, 2.0) == pytest.approx(np.radians(33))
    yaw, pitch = turn_away((0.2, -0.2), 120, np.random.default_rng(0), (-0.5, 0.0))
    assert -0.5 <= pitch <= 0
    assert angle_between(turned(yaw=yaw, pitch=pitch), turned(yaw=0.2, pitch=-0.2)) == pytest.approx(120)


def white(aspect: float) -> Thing:
    return Thing("flat", aspect, faces=(np.full((20, int(20 * aspect), 4), 255, np.uint8),))


def layer_at(centre: tuple[float, float], area: float = 800.0, aspect: float = 2.0) -> Layer:
    return make_layer(pose_thing(white(aspect), Pose(turned(), 5.0)), float(np.sqrt(area)), centre)


def test_visible_box_is_tight_and_clipped() -> None:
    for centre, expected in (((50.0, 40.0), (30, 30, 40, 20)), ((10.0, 40.0), (0, 30, 30, 20))):
        canvas = np.zeros((80, 100, 3), np.float32)
        layer = layer_at(centre)
        paste(canvas, layer)
        box = visible_box(layer, (80, 100))
        assert box is not None
        assert np.abs(np.array(box) - expected).max() <= 1
        inside = canvas[box.y : box.y + box.height, box.x : box.x + box.width]
        assert inside.sum() > 0.98 * canvas.sum()
    assert visible_box(layer_at((300.0, 40.0)), (80, 100)) is None
    assert visible_box(layer_at((-300.0, 40.0)), (80, 100)) is None


def test_hidden_and_cut_shares_are_those_of_rectangles() -> None:
    hero = layer_at((50.0, 40.0))
    assert hidden_share(hero, [], (80, 100)) == pytest.approx(0, abs=1e-6)
    assert hidden_share(hero, [layer_at((70.0, 40.0))], (80, 100)) == pytest.approx(0.5, abs=0.03)
    # What the frame cuts off is neither hidden nor of the thing that is there.
    half_out = hero.moved(-50, 0)
    assert cut_share(half_out, (80, 100)) == pytest.approx(0.5, abs=0.03)
    assert hidden_share(half_out, [layer_at((10.0, 40.0))], (80, 100)) == pytest.approx(1, abs=0.06)
    assert cut_share(hero, (80, 100)) == pytest.approx(0, abs=1e-6)
    for side in range(4):
        assert cut_share(cut_by_frame(hero, (80, 100), 0.3, side), (80, 100)) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("standing", [False, True])
def test_shadow_darkens_beside_the_thing_only(standing: bool) -> None:
    canvas = np.full((100, 100, 3), 200, np.float32)
    layer = layer_at((40.0, 50.0), 1600.0, 1.0)
    cast_shadow(canvas, layer, 0.5, standing=standing)
    assert canvas[(62, 63) if standing else (72, 45)].max() < 180
    assert canvas[5, 5].min() == 200


def test_camera_of_no_strength_changes_nothing() -> None:
    canvas = np.random.default_rng(0).uniform(0, 255, (30, 40, 3)).astype(np.float32)
    still = photograph(Streams(1), canvas, illumination=0, blur=0, noise=0)
    assert np.abs(still - canvas).max() <= 0.51
    for strengths in ((1, 0, 0), (0, 20, 0), (0, 0, 1)):
        image = photograph(Streams(1), canvas, **dict(zip(("illumination", "blur", "noise"), strengths, strict=True)))
        assert np.abs(image - canvas).max() > 2


def test_every_picture_names_a_camera(made: Path) -> None:
    models = {model: maker for maker, model, _ in CAMERAS}
    shards = sorted((made / "yfcc100m").iterdir())
    pictures = [path.read_bytes() for path in made.rglob("*.jpg")]
    pictures += [read_member(shard, member) for shard in shards for member in index_tar(shard)]
    assert len(pictures) > SMALL.objects + SMALL.distractors
    for jpeg in pictures:
        with Image.open(io.BytesIO(jpeg)) as image:
            assert image.getexif()[0x010F] == models[camera_of(jpeg) or ""]


def test_cameras_have_uneven_shares_and_tell_nothing_apart() -> None:
    drawn = np.array([[camera_exif(Streams(0, n, i))[0x0110] for i in range(4)] for n in range(1000)])
    shares = {model: share for _, model, share in CAMERAS}
    assert sum(shares.values()) == 100
    for model, share in shares.items():
        assert 100 * (drawn == model).mean() == pytest.approx(share, abs=2)
    same = sum(share * share for share in shares.values()) / 10_000
    for column in range(1, 4):
        assert (drawn[:, 0] == drawn[:, column]).mean() == pytest.approx(same, abs=0.03)
    assert same < 0.15


def test_the_camera_changes_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    def pictures() -> list[bytes]:
        settings = SMALL.model_copy(update={"size": 64})
        object_ = make_object(settings, 1)
        distractors = make_distractors(settings, range(2))
        return [object_.query, *(one.jpeg for one in (*object_.positives, *distractors))]

    named = pictures()
    monkeypatch.setattr(pictures_module, "camera_exif", lambda streams: b"")
    for with_camera, without in zip(named, pictures(), strict=True):
        assert camera_of(with_camera) is not None
        assert camera_of(without) is None
        # Behind JFIF, the first 20 bytes, stands EXIF; all else is the same.
        more = len(with_camera) - len(without)
        assert 0 < more < 120
        assert with_camera[:20] + with_camera[20 + more :] == without


def shot(**changes: float) -> Shot:
    return Shot(**(EASY | changes))


def scene(seed: int, hero: Thing | None, clutter: int = 8, **changes: float) -> Taken:
    things = [make_solid(np.random.default_rng(i)) for i in range(clutter)]
    view = (0.1, -0.2)
    return take_scene(Streams(seed), (120, 160), hero, view, shot(clutter=clutter, **changes), things)


def test_scene_gives_the_share_asked_for() -> None:
    thing = thing_of("concert poster", 100)
    shares = []
    for seed in range(12):
        taken = scene(seed, thing, scale=0.1)
        assert taken.image.shape == (120, 160, 3)
        assert taken.box is not None
        shares.append(coverage((taken.box,), width=160, height=120))
    assert np.median(shares) == pytest.approx(0.1, abs=0.01)
    assert max(shares) < 0.12
    assert scene(0, None).box is None


def test_portrait_is_mostly_its_thing() -> None:
    for number, kind in enumerate(KINDS):
        thing = make_thing(make_design((4, number), kind), 100)
        taken = take_portrait(Streams(number), (120, 160), thing, query_view(np.random.default_rng(number), thing))
        assert taken.box is not None
        assert max(taken.box.width / 160, taken.box.height / 120) > 0.7


@pytest.mark.parametrize("fine", ["concert poster", "soup can", "cereal box", "wooden figure"])
def test_occlusion_and_crop_are_as_asked(fine: str) -> None:
    thing = thing_of(fine, 80)
    for share in (0.2, 0.5):
        hidden = [scene(seed, thing, occlusion=share).occlusion for seed in range(6)]
        assert np.abs(np.array(hidden) - share).max() < 0.06
        cut = [scene(seed, thing, crop=share).crop for seed in range(6)]
        assert np.abs(np.array(cut) - share).max() < 0.06
    assert scene(0, thing).occlusion == pytest.approx(0, abs=1e-6)


def test_occlusion_covers_the_thing_and_nothing_else_moves() -> None:
    # A thing of one colour that nothing else has: its pixels can be counted.
    thing = Thing("flat", 1.0, faces=(np.dstack([np.full((40, 40), v, np.uint8) for v in (255, 0, 255, 255)]),))

    def pink(taken: Taken) -> int:
        image = taken.image.astype(int)
        return int(((image[..., 0] - image[..., 1] > 90) & (image[..., 2] - image[..., 1] > 90)).sum())

    for seed in range(4):
        free, hidden = (scene(seed, thing, occlusion=share, illumination=0, blur=0) for share in (0, 0.5))
        assert pink(hidden) / pink(free) == pytest.approx(0.5, abs=0.1)
        assert hidden.box == free.box


def test_boxes_are_inside_the_frame_under_crop() -> None:
    thing = thing_of("soup can", 80)
    for seed in range(8):
        box = scene(seed, thing, crop=0.4).box
        assert box is not None
        assert min(box.x, box.y) >= 0
        assert box.x + box.width <= 160
        assert box.y + box.height <= 120
        assert 0 in (box.x, box.y, 160 - box.x - box.width, 120 - box.y - box.height)


def gradient(image: Any) -> float:
    grey = image.astype(float).mean(2)
    return float((np.diff(grey, axis=0) ** 2).mean() + (np.diff(grey, axis=1) ** 2).mean())


def test_every_knob_of_a_positive_changes_its_picture_as_it_says() -> None:
    thing = thing_of("cereal box", 80)
    before = scene(3, thing)
    assert gradient(scene(3, thing, blur=3).image) < 0.5 * gradient(before.image)
    assert gradient(scene(3, thing, clutter=40).image) > gradient(scene(3, thing, clutter=0).image)
    assert scene(3, thing, viewpoint=50).viewpoint == pytest.approx(50, abs=0.1)
    light = [scene(3, thing, illumination=strength).image.astype(float) for strength in (0, 0.5, 3)]
    assert 0 < np.abs(light[1] - light[0]).mean() < np.abs(light[2] - light[0]).mean()
    # Pose and place stay: the box is the same, to the pixel.
    for change in ({"blur": 3}, {"illumination": 3}, {"clutter": 40}, {"occlusion": 0.4}):
        assert scene(3, thing, **change).box == before.box, change


def test_knobs_take_numbers_ranges_and_text() -> None:
    assert Knobs.model_validate({"viewpoint": 40}) == Knobs.model_validate({"viewpoint": "40"})
    assert Knobs.model_validate({"viewpoint": "10:40"}).viewpoint == (10, 40)
    assert Knobs.model_validate({"clutter": "3:9"}).clutter == (3, 9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"viewpoint": "40:10"}, "exceeds"), ({"viewpoint": 181}, "180"), ({"viewpoint": "a"}, "low:high"),
        ({"viewpoint": "1:2:3"}, "low:high"), ({"scale": 0}, "0.002"), ({"scale": (0.5, 0.2)}, "exceeds"),
        ({"occlusion": 0.95}, "0.9"), ({"crop": -0.1}, "0"), ({"blur": 21}, "20"), ({"clutter": 73}, "72"),
        ({"clutter": 1.5}, "integer"), ({"closeness": 1.1}, "1"), ({"hard": 2}, "1"), ({"illumination": 6}, "5"),
        ({"occlusion": 0.2, "clutter": 0}, "in front count"), ({"blur": True}, "tuple"), ({"zoom": 1}, "zoom"),
        ({"blur": "nan"}, "blur"),
    ],
)  # fmt: skip
def test_wrong_knobs_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Knobs.model_validate(wrong)


def test_drawn_values_lie_in_their_ranges_and_do_not_depend_on_each_other() -> None:
    ranges = {"viewpoint": (10, 20), "scale": (0.1, 0.2), "occlusion": (0.1, 0.2), "clutter": (5, 9), "blur": (1, 2)}
    shots = [draw_shot(Knobs.model_validate(ranges), Streams(seed), (0, 0)) for seed in range(40)]
    for name, (low, high) in ranges.items():
        values = [getattr(one, name) for one in shots]
        assert low <= min(values) < max(values) <= high
    changed = [draw_shot(Knobs.model_validate(ranges | {"blur": 5}), Streams(seed), (0, 0)) for seed in range(40)]
    assert [replace(one, blur=0) for one in changed] == [replace(one, blur=0) for one in shots]
    assert draw_shot(Knobs(occlusion=(0.3, 0.3)), Streams(1), (0, 0)).clutter >= 1


def test_side_table_says_what_each_positive_was_asked(made: Path) -> None:
    rows = pq.read_table(made / "synth_positives.parquet").to_pylist()
    stated = [line.split(",") for line in lines(made / "image_ids" / "positive_ids.txt")]
    assert [(row["id"], row["clutter"]) for row in rows] == [(item, int(clutter)) for item, _, clutter in stated]
    for row, (_, share, _) in zip(rows, stated, strict=True):
        assert 0 <= row["viewpoint"] <= 75
        assert float(share) <= row["scale"] * 1.15 + 0.01
        if row["crop"] == 0 and row["scale"] < 0.3:
            assert float(share) == pytest.approx(row["scale"], rel=0.2)


def test_fixed_knobs_reach_the_files(tmp_path: Path) -> None:
    knobs = Knobs.model_validate(EASY | {"clutter": 5, "crop": 0.3, "occlusion": 0.2})
    build_synth(tmp_path / "b", SMALL.model_copy(update={"knobs": knobs, "distractors": 0, "objects": 2}), workers=1)
    for row in pq.read_table(tmp_path / "b" / "synth_positives.parquet").to_pylist():
        assert row["crop"] == pytest.approx(0.3, abs=0.06)
        assert row["occlusion"] == pytest.approx(0.2, abs=0.06)
        assert (row["clutter"], row["illumination"], row["blur"]) == (5, 0.5, 0.3)


def test_knobs_of_positives_leave_queries_and_distractors_alone(made: Path, tmp_path: Path) -> None:
    knobs = Knobs.model_validate(EASY | {"hard": 0.5})
    build_synth(tmp_path / "b", SMALL.model_copy(update={"knobs": knobs, "train": 0}), workers=1)
    one, other = digests(tmp_path / "b"), digests(made)
    for name in one:
        if "/query/" in name or name.endswith(".tar"):
            assert one[name] == other[name], name
        if "/pos/" in name and name.endswith(".jpg"):
            assert one[name] != other.get(name)


def test_hard_negatives_are_listed_and_differ_from_their_objects(made: Path) -> None:
    rows = pq.read_table(made / "synth_distractors.parquet").to_pylist()
    distractors = make_distractors(SMALL, range(SMALL.distractors))
    ids = gzip.decompress((made / "image_ids" / "distractor_ids.txt.gz").read_bytes()).decode().split()
    assert [row["id"] for row in rows] == [
        item for item, one in zip(ids, distractors, strict=True) if one.object is not None
    ]
    assert 0 < len(rows) < SMALL.distractors
    assert {row["object"] for row in rows} <= {folder.name for folder in objects(made)}
    for row in rows:
        assert row["differs"]
        assert 0.3 <= row["closeness"] <= 1


def test_more_hard_negatives_are_the_same_and_others() -> None:
    def hard(share: float) -> set[int]:
        settings = SMALL.model_copy(update={"knobs": Knobs(hard=share), "size": 64})
        return {i for i, one in enumerate(make_distractors(settings, range(8))) if one.object is not None}

    assert hard(0) == set()
    assert hard(0.4) < hard(1) == set(range(8))


@pytest.mark.parametrize("kind", KINDS[:6], ids=lambda kind: kind.fine)
def test_variants_share_as_many_traits_as_asked(kind: Any) -> None:
    design = make_design((1, 2), kind)
    seen: list[set[str]] = []
    for closeness in (1.0, 0.75, 0.5, 0.0):
        other, differs = make_variant(design, (9, 9), closeness)
        assert other.kind == kind
        assert len(differs) == max(1, round((1 - closeness) * len(TRAITS)))
        for name, fields in TRAITS.items():
            same = all(getattr(design, field) == getattr(other, field) for field in fields)
            assert same == (name not in differs), name
        seen.append(set(differs))
    assert seen[0] <= set(DETAILS)
    assert seen[0] < seen[1] < seen[2] < seen[3] == set(TRAITS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.fine)
def test_a_close_variant_looks_alike_but_not_the_same(kind: Any) -> None:
    design = make_design((1, 2), kind)

    def face(of: Any) -> Any:
        patches = pose_thing(make_thing(of, 200), Pose(turned(), 5.0), 200)
        return make_layer(patches, 200, (150, 150)).colour

    plain = face(design)
    for key in range(4):
        near = face(make_variant(design, (9, key), 1.0)[0])
        far = face(make_variant(design, (9, key), 0.0)[0])
        assert near.shape == plain.shape
        apart = np.abs(near - plain)
        assert apart.max() > 30
        assert apart.mean() < 12
        if far.shape == plain.shape:
            assert np.abs(far - plain).mean() > 2 * apart.mean()


def test_training_split_has_other_instances(made: Path) -> None:
    training = read_training_set(made / "train")
    assert len(training.classes) == SMALL.train
    assert 2 * SMALL.train <= len(training) <= 3 * SMALL.train
    assert set(training.domains) <= {kind.coarse for kind in KINDS}
    for item in training.ids:
        with Image.open(training.path_of(item)) as image:
            assert max(image.size) == SMALL.size
    files = sorted(path.relative_to(made / "train").as_posix() for path in (made / "train").rglob("*.jpg"))
    assert files == sorted(training.ids)
    lessons = [design_of_lesson(SMALL, number) for number in range(40)]
    others = [design_of_object(SMALL, number) for number in range(40)]
    assert not {(d.title, d.rgb) for d in lessons} & {(d.title, d.rgb) for d in others}


def test_objects_are_of_many_kinds_that_take_turns() -> None:
    kinds = [design_of_object(SMALL, number).kind for number in range(len(KINDS))]
    assert kinds == list(KINDS)
    assert len({kind.form for kind in KINDS}) >= 12
    assert len({kind.coarse for kind in KINDS[:3]}) == 3


def test_pictures_do_not_depend_on_what_was_made_before() -> None:
    settings = SMALL.model_copy(update={"size": 96})
    first = make_object(settings, 1)
    make_object(settings, 2)
    make_distractors(settings, range(3))
    assert make_object(settings, 1) == first


def test_sheets_show_what_is_there(made: Path, tmp_path: Path) -> None:
    benchmark = read_ilias(made)
    sheet = object_sheet(benchmark, rows=5, columns=3, height=40)
    assert sheet.height == 3 * 46 + 6
    assert object_sheet(benchmark, rows=1, columns=3, height=40).height == 46 + 6
    framed = object_sheet(benchmark, rows=5, columns=3, height=40, boxes=True)
    assert framed.size == sheet.size
    assert framed.tobytes() != sheet.tobytes()
    assert distractor_sheet(benchmark, rows=9, columns=4, height=40).height == 2 * 46 + 6
    for name in ("a.jpg", "a.png"):
        write_sheet(sheet, tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.size == sheet.size
    with pytest.raises(OpenIliasError, match=r"not as \.gif"):
        write_sheet(sheet, tmp_path / "a.gif")
    empty = replace(benchmark, distractor_shards=())
    with pytest.raises(OpenIliasError, match="no distractors"):
        distractor_sheet(empty)


def test_command_line_passes_the_knobs_on(ilias: Any, tmp_path: Path) -> None:
    options = "--objects 1 --distractors 2 --train 1 --size 64 --workers 1 --viewpoint 10:20 --scale 0.2 --occlusion 0"
    options += " --illumination 2 --blur 1 --clutter 3 --crop 0 --closeness 1 --hard 1"
    assert ilias("build", "synth", "--out", tmp_path / "b", *options.split()).code == 0
    asked = json.loads((tmp_path / "b" / "synth.json").read_text())["made_from"]["knobs"]
    assert asked == {
        "viewpoint": [10, 20], "scale": [0.2, 0.2], "occlusion": [0, 0], "illumination": [2, 2], "blur": [1, 1],
        "clutter": [3, 3], "crop": [0, 0], "closeness": [1, 1], "hard": 1,
    }  # fmt: skip
    assert len(pq.read_table(tmp_path / "b" / "synth_distractors.parquet")) == 2
    assert ilias("build", "sheet", tmp_path / "b", "--out", tmp_path / "s.png", "--rows", 1).code == 0
    with Image.open(tmp_path / "s.png") as image:
        assert image.height == 132
    outcome = ilias("build", "sheet", tmp_path / "b", "--out", tmp_path / "s.bmp")
    assert outcome.code == 2
    assert ".bmp" in outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--viewpoint x", "knobs.viewpoint"), ("--blur 3:1", "exceeds"), ("--clutter 99", "knobs.clutter"),
        ("--hard 2", "knobs.hard"), ("--occlusion 0.3 --clutter 0", "in front count"),
    ],
)  # fmt: skip
def test_command_line_refuses_wrong_knobs(ilias: Any, tmp_path: Path, options: str, message: str) -> None:
    outcome = ilias("build", "synth", "--out", tmp_path / "b", *options.split())
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "b").exists()
