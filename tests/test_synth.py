"""The generated benchmark: complete, consistent, and the same bytes every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from openilias.build import synth
from openilias.build.scenes import _pose, photograph, place, take_portrait, take_scene, visible_box
from openilias.build.surfaces import _SURFACES
from openilias.build.synth import SynthSettings, build_synth
from openilias.build.textures import lettering, outline_points, paint_pattern
from openilias.build.things import Pose, Thing, extent, make_solid, make_thing, pose_thing
from openilias.build.words import (
    KINDS,
    OUTLINES,
    PATTERNS,
    STYLES,
    describe,
    make_design,
    object_names,
    palette,
)
from openilias.core.errors import OpenIliasError
from openilias.core.files import sha256_of
from openilias.images.boxes import coverage, read_boxes
from openilias.images.tars import index_tar, read_member

SMALL = SynthSettings(objects=3, distractors=7, size=160, positives=(2, 4), shard=4, seed=5)


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
        "checksums.txt", "ilias_core", "image_ids", "synth.json", "taxonomy.json", "yfcc100m",
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
    build_synth(tmp_path / "again", SMALL, workers=2)
    assert digests(tmp_path / "again") == digests(made)


def test_another_seed_makes_other_pictures_and_names(made: Path, tmp_path: Path) -> None:
    other = SMALL.model_copy(update={"seed": 6, "objects": 1, "distractors": 1})
    build_synth(tmp_path / "other", other, workers=1)
    assert objects(tmp_path / "other")[0].name != next(p.name for p in objects(made) if p.name.endswith("_000"))
    pictures = {name: value for name, value in digests(tmp_path / "other").items() if name.endswith((".jpg", ".tar"))}
    assert not set(pictures.values()) & set(digests(made).values())


def test_fewer_objects_are_the_same_objects(tmp_path: Path, made: Path) -> None:
    build_synth(tmp_path / "one", SMALL.model_copy(update={"objects": 1, "distractors": 0}), workers=1)
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
        {"positives": (0, 3)}, {"size": 10}, {"shard": 0}, {"colour": "red"},
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
        for word in (
            kind.fine,
            design.words[0].upper(),
            design.words[1].title(),
            design.mark,
            *design.colours[2:],
        ):
            assert word in text
    assert "an exhibition poster" in describe(make_design((1, 2), KINDS[2])).lower()


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


def test_box_shows_three_faces_when_turned_and_one_from_the_front() -> None:
    thing = make_thing(make_design((4,), KINDS[9]), 60)
    assert len(pose_thing(thing, Pose(0.0, 0.0, 0.0, 50.0, lying=False))) == 1
    turned = pose_thing(thing, Pose(0.6, -0.4, 0.1, 4.0, lying=False))
    assert len(turned) == 3
    wide, tall = extent(turned)
    assert wide * tall == pytest.approx(1, rel=1e-4)
    assert len({patch.light for patch in turned}) == 3


@pytest.mark.parametrize("lying", [False, True])
def test_no_pose_hides_the_print(lying: bool) -> None:
    thing = make_thing(make_design((4,), KINDS[4]), 20)
    for seed in range(40):
        for yaw in (-3.0, 0.0, 3.0):
            pose = _pose(np.random.default_rng(seed), thing, lying=lying, camera=(yaw, 0.7 if lying else -0.4))
            assert len(pose_thing(thing, pose)) == 1


def test_visible_box_is_tight_and_clipped() -> None:
    white = Thing("flat", 2.0, 0.0, (np.full((20, 40, 4), 255, np.uint8),))
    front = pose_thing(white, Pose(0.0, 0.0, 0.0, 5.0, lying=False))
    for centre, expected in (((50.0, 40.0), (30, 30, 40, 20)), ((10.0, 40.0), (0, 30, 30, 20))):
        canvas = np.zeros((80, 100, 3), np.float32)
        shown = place(canvas, front, centre, 800.0, shadow=0)
        assert shown is not None
        box = visible_box(*shown)
        assert box is not None
        assert np.abs(np.array(box) - expected).max() <= 1
        inside = canvas[box.y : box.y + box.height, box.x : box.x + box.width]
        assert inside.sum() > 0.98 * canvas.sum()
    assert place(np.zeros((80, 100, 3), np.float32), front, (300.0, 40.0), 800.0, shadow=0) is None


def test_shadow_darkens_beside_the_thing_only() -> None:
    white = Thing("flat", 1.0, 0.0, (np.full((20, 20, 4), 255, np.uint8),))
    canvas = np.full((100, 100, 3), 200, np.float32)
    place(canvas, pose_thing(white, Pose(0.0, 0.0, 0.0, 5.0, lying=False)), (50.0, 50.0), 1600.0, shadow=0.5)
    assert canvas[72, 55].max() < 180
    assert canvas[5, 5].min() == 200


def test_camera_of_no_strength_changes_nothing() -> None:
    canvas = np.random.default_rng(0).uniform(0, 255, (30, 40, 3)).astype(np.float32)
    image = photograph(np.random.default_rng(1), canvas, strength=0)
    assert np.abs(image - canvas).max() <= 0.51
    assert np.abs(photograph(np.random.default_rng(1), canvas, strength=1) - canvas).max() > 2


def test_scene_gives_the_share_asked_for() -> None:
    thing = make_thing(make_design((4,), KINDS[0]), 100)
    things = [make_solid(np.random.default_rng(i), 30) for i in range(20)]
    shares = []
    for seed in range(12):
        image, box = take_scene(np.random.default_rng(seed), (120, 160), thing, 0.1, things)
        assert image.shape == (120, 160, 3)
        assert box is not None
        shares.append(coverage((box,), width=160, height=120))
    assert np.median(shares) == pytest.approx(0.1, abs=0.01)
    assert max(shares) < 0.12
    assert take_scene(np.random.default_rng(0), (120, 160), None, 0.1, things)[1] is None


def test_portrait_is_mostly_its_thing() -> None:
    for number, kind in enumerate(KINDS):
        thing = make_thing(make_design((4, number), kind), 100)
        image, box = take_portrait(np.random.default_rng(number), (120, 160), thing)
        assert max(box.width / image.shape[1], box.height / image.shape[0]) > 0.7
