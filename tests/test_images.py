from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from openilias.core.errors import OpenIliasError
from openilias.images.boxes import Box, coverage, read_boxes
from openilias.images.decode import UnreadableImageError, decode, upright_size
from openilias.images.resize import longest_size, pad_to, pad_to_multiple, resize
from openilias.images.tars import index_tar, read_member, write_tar


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    image = picture(16, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "PNG", exif=exif)
    turned = decode(data, where="x")
    assert turned.size == ((8, 16) if orientation >= 5 else (16, 8))
    assert upright_size(data, where="x") == turned.size
    assert decode(data, where="x", upright=False).size == (16, 8)
    first = np.asarray(image)[0, 0]
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert (np.asarray(turned)[corner[orientation]] == first).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = picture(9, 7, "L")
    image = Image.fromarray(np.asarray(grey, np.uint16) * 257) if mode == "I;16" else picture(9, 7, mode)
    form = "JPEG" if mode == "CMYK" else "PNG"
    found = decode(encoded(image, form), where="x")
    assert (found.mode, found.size) == ("RGB", (9, 7))


@pytest.mark.parametrize(
    "data", [b"", b"not an image", encoded(picture(64, 64))[:-300], encoded(picture(8, 8), "PNG")[:30]]
)
def test_broken_images_are_named(data: bytes) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decode(data, where="the id")
    assert caught.value.where == "the id"
    assert "0x" not in str(caught.value)


def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openilias.images.decode.MOST_PIXELS", 99)
    with pytest.raises(UnreadableImageError, match="10 x 10"):
        decode(encoded(picture(10, 10)), where="x")


SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(SIZES, st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_resize_small_center_square_equal_torchvision(size: tuple[int, int], resolution: int) -> None:
    image = picture(*size)
    if max(size) / min(size) * resolution > 3000:
        return
    twins = {
        "small": transforms.Resize(resolution),
        "center": transforms.Compose([transforms.Resize(resolution), transforms.CenterCrop(resolution)]),
        "square": transforms.Resize((resolution, resolution)),
    }
    for rule, twin in twins.items():
        assert (np.asarray(resize(image, rule, resolution)) == np.asarray(twin(image))).all(), rule


@given(SIZES, st.integers(1, 500))
def test_longest_side(size: tuple[int, int], resolution: int) -> None:
    width, height = longest_size(*size, resolution)
    assert max(width, height) == resolution
    small, large = min(size), max(size)
    expected = max(1, int(resolution * (small / large))), max(1, int(resolution / (large / small)))
    assert min(width, height) in expected


def test_longest_truncates_and_is_bicubic() -> None:
    image = picture(333, 499)
    assert resize(image, "longest", 384).size == (256, 384)
    twin = image.resize((256, 384), Image.Resampling.BICUBIC)
    assert (np.asarray(resize(image, "longest", 384)) == np.asarray(twin)).all()
    assert resize(picture(1000, 1), "longest", 100).size == (100, 1)


def test_padding_puts_the_odd_pixel_right_and_below() -> None:
    array = np.ones((3, 5, 6), np.float32)
    padded = pad_to(array, 8, 9)
    assert padded.shape == (3, 8, 9)
    assert (padded[:, 1:6, 1:7] == 1).all()
    assert padded.sum() == array.sum()
    twin = torch.nn.functional.pad(torch.from_numpy(array), (1, 1, 4, 5))
    assert (pad_to_multiple(array, (14, 4)) == twin.numpy()).all()
    assert pad_to_multiple(array, (5, 3)).shape == array.shape
    assert pad_to(array, 2, 2).shape == array.shape


@st.composite
def boxes_in(draw: st.DrawFn) -> tuple[int, int, tuple[Box, ...]]:
    width, height = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    box = st.builds(Box, st.integers(0, 35), st.integers(0, 35), st.integers(1, 40), st.integers(1, 40))
    return width, height, tuple(draw(st.lists(box, max_size=5)))


@given(boxes_in())
def test_coverage_equals_painted_pixels(case: tuple[int, int, tuple[Box, ...]]) -> None:
    width, height, boxes = case
    canvas = np.zeros((height, width), bool)
    for box in boxes:
        canvas[box.y : box.y + box.height, box.x : box.x + box.width] = True
    assert coverage(boxes, width=width, height=height) == pytest.approx(canvas.mean(), abs=1e-12)


def test_box_files(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text("1 2 3 4\n\n5 6 7 8\n")
    assert read_boxes(path) == ((1, 2, 3, 4), (5, 6, 7, 8))
    for text in ("1 2 3", "1 2 3 x", "1 2 0 4", "-1 2 3 4", "1.5 2 3 4", "é"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(OpenIliasError) as caught:
            read_boxes(path)
        assert str(path) in str(caught.value.where)


def test_tar_round_trip_and_same_bytes(tmp_path: Path) -> None:
    members = [("a.jpg", b"one"), ("./v1.0/b.jpg", b"two" * 400), ("a.seg.jpg", b"no"), ("z.png", b"no")]
    write_tar(tmp_path / "x.tar", members)
    found = index_tar(tmp_path / "x.tar")
    assert [member.key for member in found] == ["a", "v1.0/b"]
    assert [read_member(tmp_path / "x.tar", member) for member in found] == [b"one", b"two" * 400]
    write_tar(tmp_path / "y.tar", members)
    assert (tmp_path / "x.tar").read_bytes() == (tmp_path / "y.tar").read_bytes()
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert {(info.mtime, info.uid, info.uname) for info in tar} == {(0, 0, "")}


def test_damaged_tars_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, [("a.jpg", b"1" * 2000), ("b.jpg", b"2" * 2000)])
    whole = path.read_bytes()
    for data in (whole[:3000], b"", b"junk" * 1000):
        path.write_bytes(data)
        with pytest.raises(OpenIliasError) as caught:
            index_tar(path)
        assert caught.value.where == str(path)
    write_tar(path, [("a.jpg", b"1"), ("./a.jpg", b"2")])
    with pytest.raises(OpenIliasError, match="key 'a'"):
        index_tar(path)
    with pytest.raises(OpenIliasError, match="No such file"):
        index_tar(tmp_path / "none.tar")
