"""Matches drawn, and two image files matched from the command line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.report.matches import COLOURS, draw_matches

Ilias = Callable[..., Any]
PAIRS = np.array([[0, 1], [1, 0], [2, 2]])


def grey(height: int, width: int, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def geometry(*places: tuple[float, float]) -> np.ndarray:
    return np.array([(y, x, 1, 1) for y, x in places], np.float32)


QUERY = geometry((0.1, 0.2), (0.5, 0.5), (0.9, 0.8))
IMAGE = geometry((0.5, 0.3), (0.1, 0.6), (0.9, 0.9))


# --- the picture ---


@pytest.mark.parametrize("sizes", list(itertools.product([(60, 90), (200, 50), (1, 400), (300, 1)], repeat=2)))
@pytest.mark.parametrize("side", [40, 173, 1600])
def test_both_are_shown_at_one_height_within_the_side(sizes: Any, side: int) -> None:
    query, image = grey(*sizes[0], 50), grey(*sizes[1], 200)
    drawn = draw_matches(query, image, QUERY, IMAGE, PAIRS[:0], side=side)
    assert drawn.dtype == np.uint8
    assert max(drawn.shape[:2]) <= side
    assert drawn.shape[0] <= max(sizes[0][0], sizes[1][0])
    row = drawn[0, :, 0].tolist()
    widths = [row.count(value) for value in (50, 255, 200)]
    assert row == [50] * widths[0] + [255] * widths[1] + [200] * widths[2]
    assert min(widths) >= 1
    if {*sizes} <= {(60, 90), (200, 50)} and drawn.shape[0] > 20:  # the others are lines
        for width, (high, wide) in zip((widths[0], widths[2]), sizes, strict=True):
            assert width == pytest.approx(drawn.shape[0] * wide / high, abs=1)


def test_lines_go_from_descriptor_to_descriptor() -> None:
    query, image = grey(200, 300), grey(100, 100)
    plain, drawn = (draw_matches(query, image, QUERY, IMAGE, pairs) for pairs in (PAIRS[:0], PAIRS))
    height, width = drawn.shape[:2]
    assert (height, width) == (200, 300 + 2 + 200)
    changed = (plain != drawn).any(2)
    ends = []
    for (one, other), colour in zip(PAIRS, COLOURS, strict=False):  # from top to bottom already
        start = QUERY[one, [1, 0]] * (299, 199)
        end = IMAGE[other, [1, 0]] * (199, 199) + (302, 0)
        for x, y in (start, end):
            assert np.abs(drawn[round(float(y)), round(float(x))].astype(int) - colour).max() <= 2
        middle = (start + end) / 2
        assert changed[round(float(middle[1])) - 1 : round(float(middle[1])) + 2, round(float(middle[0]))].any()
        ends += [start, end]
    # Nothing else is drawn: what has changed lies near one of the three lines.
    places = np.argwhere(changed)[:, ::-1].astype(float)
    near = np.zeros(len(places), bool)
    for start, end in zip(ends[::2], ends[1::2], strict=True):
        along = ((places - start) @ (end - start) / ((end - start) ** 2).sum()).clip(0, 1)
        near |= np.linalg.norm(places - start - along[:, None] * (end - start), axis=1) < 6
    assert near.all()


def test_only_the_first_pairs_are_drawn() -> None:
    picture = grey(100, 100)
    drawn = [draw_matches(picture, picture, QUERY, IMAGE, PAIRS, most=most) for most in (0, 1, 2, 3)]
    for most in range(4):
        assert (drawn[most] == draw_matches(picture, picture, QUERY, IMAGE, PAIRS[:most])).all()
    assert all((one != other).any() for one, other in itertools.pairwise(drawn))


def test_pictures_and_pairs_that_are_none_are_refused() -> None:
    good = grey(9, 9)
    for bad in (good[..., 0], good.astype(np.float32), good[:0], np.zeros((9, 9, 4), np.uint8)):
        with pytest.raises(OpenIliasError, match="is no RGB picture"):
            draw_matches(good, bad, QUERY, IMAGE, PAIRS)
    for pair in ([3, 0], [0, 3], [-1, 0]):
        with pytest.raises(OpenIliasError, match="a descriptor that is not there"):
            draw_matches(good, good, QUERY, IMAGE, np.array([pair]))


# --- two files ---


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, the same one seen at a slant, and one without anything in it."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    picture = np.asarray(small.resize((600, 400), Image.Resampling.BICUBIC))
    slanted = cv2.warpPerspective(picture, SLANT, (600, 450))
    Image.fromarray(picture).save(folder / "query.png")
    Image.fromarray(slanted).save(folder / "image.png")
    Image.new("RGB", (300, 600), (90, 90, 90)).save(folder / "plain.jpg")
    (folder / "no.jpg").write_text("<html>not found</html>")
    return folder


SLANT = np.array([[0.9, 0.05, 10.0], [0.02, 1.0, 15.0], [5e-4, 2e-4, 1.0]])


def test_two_files_are_matched(files: Path, tmp_path: Path, ilias: Ilias) -> None:
    common = ["local", "match", files / "query.png", files / "image.png", "--resolution", 600, "--tolerance", 2]

    def match(*more: object) -> dict[str, Any]:
        done = ilias(*common, *more, "--out", tmp_path / "m.png", "--json", tmp_path / "m.json")
        assert done.code == 0, done.err
        made: dict[str, Any] = json.loads((tmp_path / "m.json").read_text())
        said = f"{made['tentative']:,} tentative matches, {made['inliers']:,} inliers"
        assert done.out == f"{tmp_path / 'm.png'}: {said}\n"
        return made

    found = match("--estimator", "homography")
    with Image.open(tmp_path / "m.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        assert picture.height == 450
        assert picture.width == pytest.approx(2 + 675 + 600, abs=4)
        drawn = np.asarray(picture)
    assert found["query"] > 100
    assert found["inliers"] > 0.5 * found["tentative"] > 50
    corners = np.array([[[50.0, 50], [550, 50], [50, 350], [550, 350]]])
    there = cv2.perspectiveTransform(corners, np.array(found["matrix"]))
    assert np.abs(there - cv2.perspectiveTransform(corners, SLANT)).max() < 2
    affine = match()
    assert affine["inliers"] < 0.8 * found["inliers"]
    assert affine["matrix"][2] == [0, 0, 1]
    # Every option changes something.
    assert match("--estimator", "homography", "--least", found["inliers"] + 1)["inliers"] == 0
    assert match("--cosine", 0.9) == affine
    assert match("--cosine", 0.99)["tentative"] < affine["tentative"] < match("--cosine", 0.8)["tentative"]
    assert match("--tolerance", 20)["inliers"] > affine["inliers"]
    assert match("--hypotheses", 1) != affine
    assert match("--most", 30)["query"] == 30
    assert match("--resolution", 300) != affine
    assert match("--estimator", "homography", "--lines", 1)["inliers"] == found["inliers"]
    assert (np.asarray(Image.open(tmp_path / "m.png")) != drawn).any()
    match("--side", 300)
    assert max(Image.open(tmp_path / "m.png").size) <= 300


def test_a_picture_without_anything_matches_nothing(files: Path, tmp_path: Path, ilias: Ilias) -> None:
    for estimator in ("affine", "homography"):
        done = ilias(
            "local", "match", files / "query.png", files / "plain.jpg", "--estimator", estimator, "--out",
            tmp_path / "m.jpg", "--json", tmp_path / "m.json",
        )  # fmt: skip
        assert done.code == 0, done.err
        assert "0 tentative matches, 0 inliers" in done.out
        assert json.loads((tmp_path / "m.json").read_text())["matrix"] is None
        with Image.open(tmp_path / "m.jpg") as picture:
            assert picture.format == "JPEG"


@pytest.mark.parametrize("name", ["aliked", "timm:vit_tiny_patch16_224"])
def test_any_model_matches_a_picture_with_itself(files: Path, tmp_path: Path, ilias: Ilias, name: str) -> None:
    if name == "aliked":
        pytest.importorskip("kornia")
    query = files / "query.png"
    options = ["--model", name, "--random-weights", 0, "--resolution", 160, "--scales", "0.7,1", "--cosine", 0.9999]
    done = ilias("local", "match", query, query, *options, "--out", tmp_path / "m.png", "--json", tmp_path / "m.json")
    assert done.code == 0, done.err
    made = json.loads((tmp_path / "m.json").read_text())
    assert made["inliers"] >= 0.5 * made["query"] > 10


def test_what_cannot_be_matched_is_refused(files: Path, tmp_path: Path, ilias: Ilias) -> None:
    good, out = files / "query.png", tmp_path / "m.png"
    before = good.read_bytes()
    for arguments, message in (
        ((good, files / "gone.png", "--out", out), "This image cannot be read: No such file"),
        ((files, good, "--out", out), "This image cannot be read: "),
        ((good, files / "no.jpg", "--out", out), "HTML"),
        ((good, good, "--out", tmp_path / "m.gif"), "written as .png or .jpg, not as .gif"),
        ((good, good, "--out", tmp_path / "m"), "a file without ending"),
        ((good, files / "image.png", "--out", good), "one of the images that are matched"),
        ((good, good, "--out", out, "--model", "nothing"), "nothing"),
        ((good, good, "--out", out, "--random-weights", 0), "sift has no weights"),
        ((good, good, "--out", out, "--scales", "x"), "not numbers"),
        ((good, good, "--out", out, "--estimator", "fundamental"), "fundamental"),
    ):
        done = ilias("local", "match", *arguments)
        assert done.code == 2, arguments
        assert message in " ".join(done.err.split())
        assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())
    assert good.read_bytes() == before


def test_photographs_of_one_thing_match_and_others_do_not(photos: Path, tmp_path: Path, ilias: Ilias) -> None:
    one, other = (photos / "core" / name for name in ("alpro_blueberry_soyghurt_038", "buddha_head_001"))
    counts = []
    for image in (one / "pos" / "P038_02.jpg", other / "pos" / "P001_01.jpg"):
        done = ilias(
            "local", "match", one / "query" / "Q038_00.jpg", image, "--estimator", "homography", "--tolerance", 8,
            "--out", tmp_path / "m.png", "--json", tmp_path / "m.json",
        )  # fmt: skip
        assert done.code == 0, done.err
        counts.append(json.loads((tmp_path / "m.json").read_text())["inliers"])
    assert counts[0] > 60
    assert counts[1] < 10
