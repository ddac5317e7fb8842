from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile
from torchvision import transforms

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Compat, ResizeRule
from openilias.images.boxes import Box, coverage, read_boxes
from openilias.images.decode import ImageFacts, UnreadableImageError, camera_of, decode, examine, upright_size
from openilias.images.prepare import Preparation
from openilias.images.resize import longest_size, resize
from openilias.images.tars import index_tar, read_member, write_tar

pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\.")


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


def exif_block(orientation: int, order: str = "<") -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "LHHHLHHL", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    """Put a segment behind the first two bytes of a JPEG."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def png(size: tuple[int, int], bits: int, colour: int, rows: list[bytes], *extra: bytes) -> bytes:
    """Write a PNG by hand; ``extra`` chunks come before the pixels."""
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", *size, bits, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


def colours(data: bytes, **options: Any) -> list[tuple[int, ...]]:
    """Decode and list the pixels."""
    image = decode(data, where="x", **options)
    assert image.mode == "RGB"
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()]


def refused(data: bytes, **options: Any) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(data, where="the id", **options)
    assert caught.value.where == "the id"
    assert caught.value.fix
    return caught.value.what


TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("compat", ["paper", "official"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_every_format(orientation: int, form: str, compat: Compat) -> None:
    flat = np.array([[250, 40, 10, 90], [60, 200, 5, 160]], np.uint8)
    pixels = np.stack([flat.repeat(16, 0).repeat(16, 1)] * 3, -1)  # whole blocks, which JPEG keeps
    exif = b"Exif\0\0" + exif_block(orientation, "<" if orientation % 2 else ">")
    options: dict[str, Any] = {"exif": exif}
    data = encoded(Image.fromarray(pixels), form, **options | ({"lossless": True} if form == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as plain:
        assert plain.getexif()[0x0112] == orientation
    found = decode(data, where="x", compat=compat)
    assert np.abs(np.asarray(found, int) - TURNED[orientation](pixels)).max() <= 2
    assert upright_size(data, where="x") == found.size
    facts = examine(data, where="x")
    assert (facts.size, facts.upright_size, facts.orientation) == ((64, 32), found.size, orientation)
    stored = decode(data, where="x", upright=False, compat=compat)
    assert np.abs(np.asarray(stored, int) - pixels).max() <= 2


@pytest.mark.parametrize(
    "block",
    [b"", b"II", b"junk" * 9, exif_block(6)[:12], exif_block(0), exif_block(9), b"II*\0\xff\xff\xff\xff" + b"\0" * 20],
)
def test_a_broken_exif_block_leaves_the_image_as_stored(block: bytes) -> None:
    image = picture(16, 8)
    jpeg = encoded(image)
    plain = colours(jpeg)
    assert colours(with_segment(jpeg, 0xE1, b"Exif\0\0" + block)) == plain
    assert colours(with_segment(jpeg, 0xE1, b"Exif\0\0" + block), compat="official") == plain
    whole = png((1, 1), 8, 2, [b"\1\2\3"], chunk(b"eXIf", block))
    assert colours(whole) == [(1, 2, 3)]
    late = exif_block(6)[:-4] + b"\xff\xff\xff\x7f"  # what follows the first directory is damaged
    assert decode(with_segment(jpeg, 0xE1, b"Exif\0\0" + late), where="x").size == (8, 16)


def test_orientation_of_xmp_and_of_late_and_old_chunks() -> None:
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="8"/>'
    jpeg = with_segment(encoded(picture(16, 8)), 0xE1, xmp)
    assert upright_size(jpeg, where="x") == (8, 16)
    both = with_segment(jpeg, 0xE1, b"Exif\0\0" + exif_block(1))
    assert upright_size(both, where="x") == (16, 8)
    rows = [b"\1" * 2]
    plain = png((2, 1), 8, 0, rows)
    late = plain[:-12] + chunk(b"eXIf", exif_block(6)) + plain[-12:]
    hexed = b"\nexif\n" + b"%8d\n" % 26 + exif_block(6).hex().encode()
    old = png((2, 1), 8, 0, rows, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexed)))
    xml = png((2, 1), 8, 0, rows, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp[29:]))
    for data in (late, old, xml):
        assert upright_size(data, where="x") == decode(data, where="x").size == (1, 2)


def camera_block(name: bytes, kind: int = 2) -> bytes:
    """EXIF with the tag Model of a kind: 1 bytes, 2 text, 3 a number, 7 undefined."""
    name = name if kind == 3 else name.ljust(5, b"\0")
    count, value = (1, name) if kind == 3 else (len(name), struct.pack("<L", 26))
    return b"II*\0" + struct.pack("<LHHHL", 8, 1, 0x0110, kind, count) + value + b"\0" * 4 + name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (b"Canon EOS 450D\0", "Canon EOS 450D"), (b"  NIKON D3000  \0\0\0", "NIKON D3000"), (b"\0 X  1 \0 ", "X  1"),
        (b"DiIMAGE X1\0left over", "DiIMAGE X1"), (b"a\x1b[31mred", "a[31mred"), (b"\0\0\0\0\0", None),
        (b"      ", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [1, 2, 7])
def test_cameras_are_told_without_blanks_and_nuls(name: bytes, found: str | None, kind: int) -> None:
    block = camera_block(name, kind)
    assert camera_of(with_segment(encoded(picture(16, 8)), 0xE1, b"Exif\0\0" + block)) == found
    assert camera_of(png((1, 1), 8, 2, [b"\1\2\3"], chunk(b"eXIf", block))) == found


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "MPO"])
def test_camera_of_every_format(form: str) -> None:
    exif = Image.Exif()
    assert camera_of(encoded(picture(9, 7), form, exif=exif)) is None
    exif[0x010F], exif[0x0110] = "NIKON CORPORATION", "NIKON D3000"
    assert camera_of(encoded(picture(9, 7), form, exif=exif)) == "NIKON D3000"


@pytest.mark.parametrize(
    "block",
    [
        b"", b"II", b"junk" * 9, exif_block(6), camera_block(b"A Camera")[:12], camera_block(b"A Camera")[:24],
        camera_block(struct.pack("<HH", 7, 0), 3), b"II*\0\xff\xff\xff\xff" + b"\0" * 20,
    ],
)  # fmt: skip
def test_a_broken_exif_block_names_no_camera(block: bytes) -> None:
    assert camera_of(with_segment(encoded(picture(16, 8)), 0xE1, b"Exif\0\0" + block)) is None
    assert camera_of(png((1, 1), 8, 2, [b"\1\2\3"], chunk(b"eXIf", block))) is None


@pytest.mark.parametrize(
    "data", [b"", b"not an image", encoded(picture(8, 8), "PNG")[:30], encoded(picture(8, 8), "GIF")]
)
def test_what_has_no_exif_names_no_camera(data: bytes) -> None:
    assert camera_of(data) is None


def test_grey_of_every_depth() -> None:
    assert colours(png((2, 1), 8, 0, [b"\x07\xc8"])) == [(7,) * 3, (200,) * 3]
    assert colours(png((4, 1), 1, 0, [b"\x50"])) == [(0,) * 3, (255,) * 3, (0,) * 3, (255,) * 3]
    assert colours(png((4, 1), 2, 0, [b"\x1b"])) == [(0,) * 3, (85,) * 3, (170,) * 3, (255,) * 3]
    values = (0, 128, 129, 257, 300, 32_768, 65_535)
    expected = [0, 0, 1, 1, 1, 128, 255]  # value / 257, rounded
    data = png((7, 1), 16, 0, [struct.pack(">7H", *values)])
    assert colours(data) == [(v,) * 3 for v in expected]
    assert colours(data, compat="official") == [(min(v, 255),) * 3 for v in values]


def test_colour_of_16_bits_is_its_high_byte() -> None:
    row = struct.pack(">6H", 0x00FF, 0x1280, 0x12FF, 0xFFFF, 0xFEFF, 0x8000)
    for compat in ("paper", "official"):
        assert colours(png((2, 1), 16, 2, [row]), compat=compat) == [(0, 0x12, 0x12), (255, 0xFE, 0x80)]


def over_white(value: int, alpha: int) -> int:
    return round((value * alpha + 255 * (255 - alpha)) / 255)


def test_what_is_transparent_lies_over_white() -> None:
    pixels = [(200, 10, 0, 255), (200, 10, 0, 0), (200, 10, 0, 51), (0, 0, 0, 128)]
    row = b"".join(bytes(pixel) for pixel in pixels)
    expected = [tuple(over_white(v, a) for v in (r, g, b)) for r, g, b, a in pixels]
    assert expected[2] == (244, 206, 204)
    dropped = [pixel[:3] for pixel in pixels]
    rgba = png((4, 1), 8, 6, [row])
    webp = encoded(Image.open(io.BytesIO(rgba)), "WEBP", lossless=True, exact=True)
    for data in (rgba, webp):
        assert colours(data) == expected
        assert colours(data, compat="official") == dropped
    grey = png((2, 1), 8, 4, [bytes([100, 51, 0, 0])])
    assert colours(grey) == [(224,) * 3, (255,) * 3]
    assert colours(grey, compat="official") == [(100,) * 3, (0,) * 3]


def test_palettes() -> None:
    table = chunk(b"PLTE", bytes([255, 0, 0, 0, 100, 0, 0, 0, 50]))
    row = bytes([0, 1, 2])
    plain = [(255, 0, 0), (0, 100, 0), (0, 0, 50)]
    assert colours(png((3, 1), 8, 3, [row], table)) == plain
    assert colours(png((3, 1), 2, 3, [b"\x18"], table)) == plain
    partly = png((3, 1), 8, 3, [row], table, chunk(b"tRNS", bytes([51, 0])))
    one = png((3, 1), 8, 3, [row], table, chunk(b"tRNS", bytes([255, 0])))
    assert colours(partly) == [(255, 204, 204), (255,) * 3, (0, 0, 50)]
    assert colours(one) == [(255, 0, 0), (255,) * 3, (0, 0, 50)]
    for data in (partly, one):
        assert colours(data, compat="official") == plain


def test_one_transparent_colour() -> None:
    clear = [(255,) * 3]
    for bits, row, key, other in ((8, b"\7\x08", 7, 8), (16, b"\1\1\1\2", 0x0101, 1)):
        found = colours(png((2, 1), bits, 0, [row], chunk(b"tRNS", struct.pack(">H", key))))
        assert found == [*clear, (other,) * 3]
    rgb = png((2, 1), 8, 2, [bytes([1, 2, 3, 1, 2, 4])], chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    assert colours(rgb) == [*clear, (1, 2, 4)]
    assert colours(rgb, compat="official") == [(1, 2, 3), (1, 2, 4)]


def without_segment(data: bytes, marker: int) -> bytes:
    start = data.index(bytes([0xFF, marker]))
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def test_cmyk_jpegs() -> None:
    ink = (30, 120, 200, 60)
    data = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
    expected = [round((255 - v) * (255 - ink[3]) / 255) for v in ink[:3]]
    bare = without_segment(data, 0xEE)
    assert b"Adobe" in data
    assert b"Adobe" not in bare
    for found in (colours(data), colours(bare), colours(data, compat="official")):
        assert np.abs(np.array(found) - expected).max() <= 2
    # Transform 2 of Adobe's marker: what is stored is Y, Cb, Cr and K, all inverted.
    at = data.index(b"Adobe") + 11
    ycck = data[:at] + b"\2" + data[at + 1 :]
    y, cb, cr, k = (255 - v for v in ink)
    red, green, blue = y + 1.402 * (cr - 128), y - 0.344 * (cb - 128) - 0.714 * (cr - 128), y + 1.772 * (cb - 128)
    light = [round(min(max(255 - v, 0), 255) * k / 255) for v in (red, green, blue)]
    assert np.abs(np.array(colours(ycck)) - light).max() <= 2


def test_colour_profiles_are_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")
    image = picture(16, 16)
    as_meant = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(swapped)), ImageCms.createProfile("sRGB")
    )
    assert np.abs(np.asarray(as_meant, int) - np.asarray(image)).max() > 50
    for form in ("JPEG", "PNG", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encoded(image, form, icc_profile=swapped, **options)
        assert colours(data) == colours(encoded(image, form, **options))
        assert examine(data, where="x").has_icc
        assert not examine(encoded(image, form, **options), where="x").has_icc


def test_of_several_pictures_the_first_counts() -> None:
    for form in ("MPO", "GIF", "WEBP", "PNG"):
        red, blue = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 255))
        data = encoded(red, form, save_all=True, append_images=[blue])
        assert np.abs(np.array(colours(data)) - (255, 0, 0)).max() <= 3, form
        facts = examine(data, where="x")
        assert (facts.format, facts.several) == (form, True)
        assert not examine(encoded(Image.new("RGB", (16, 16)), form), where="x").several
    assert examine(encoded(picture(16, 16), "MPO"), where="x").format == "JPEG"


def test_gifs_and_bmps() -> None:
    image = picture(20, 10, "P")
    assert colours(encoded(image, "GIF")) == colours(encoded(image.convert("RGB"), "BMP"))
    two = Image.new("P", (2, 1))
    two.putpalette([9, 9, 9, 80, 90, 100])
    two.putpixel((1, 0), 1)
    data = encoded(two, "GIF", transparency=0)
    assert colours(data) == [(255,) * 3, (80, 90, 100)]
    assert colours(data, compat="official") == [(9,) * 3, (80, 90, 100)]


FOREIGN = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "Photoshop": b"8BPS\0\1" + b"\0" * 6 + b"\0\3\0\0\0\1\0\0\0\1\0\x08\0\3" + b"\0" * 20,
    "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "TIFF": encoded(picture(16, 16), "TIFF"),
    "HTML": b"<!DOCTYPE html><html><body>404</body></html>",
    "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
    "PDF": b"%PDF-1.7\n",
    "not known": encoded(picture(4, 4), "PPM"),
    "empty": b"",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_formats_are_refused_by_name(name: str) -> None:
    assert name in refused(FOREIGN[name])
    with pytest.raises(UnreadableImageError, match=name):
        upright_size(FOREIGN[name], where="x")


def bombs() -> dict[str, bytes]:
    gif = encoded(picture(4, 4), "GIF")
    webp = encoded(picture(4, 4, "RGBA"), "WEBP", lossless=True, exif=exif_block(1))
    assert webp[12:16] == b"VP8X"
    jpeg = encoded(picture(4, 4))
    frame = jpeg.index(b"\xff\xc0") + 5
    progressive = encoded(picture(64, 64), progressive=True)
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    side = 13_400
    real = png((side, side), 1, 0, [b"\0" * (side // 8)] * side)
    assert len(real) < 100_000
    return {
        "a PNG's header": png((100_000, 100_000), 8, 2, [b"\0"]),
        "a PNG that keeps its word": real,
        "a GIF's screen": gif[:6] + b"\xff\xff\xff\xff" + gif[10:],
        "a WebP's canvas": webp[:24] + b"\xff" * 6 + webp[30:],
        "a JPEG's frame": jpeg[:frame] + b"\xff\xdc\xff\xdc" + jpeg[frame + 4 :],
        "a JPEG of many scans": progressive[:-2] + last * 200 + b"\xff\xd9",
        "a BMP": encoded(picture(4, 4), "BMP")[:18] + struct.pack("<ii", 50_000, -50_000) + b"\1\0\x18\0" + b"\0" * 40,
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused(name: str) -> None:
    started = time.perf_counter()
    assert "This image claims" in (said := refused(bombs()[name])) or "more than 100 scans" in said
    assert time.perf_counter() - started < 2


def test_bombs_in_what_is_not_used_are_never_unpacked() -> None:
    packed = zlib.compress(b"\0" * 50_000_000)
    started = time.perf_counter()
    for extra in (
        chunk(b"zTXt", b"Comment\0\0" + packed),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + packed),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed),
        chunk(b"iCCP", b"profile\0\0" + packed),
    ):
        with contextlib.suppress(UnreadableImageError):
            assert colours(png((1, 1), 8, 2, [b"\1\2\3"], extra)) == [(1, 2, 3)]
    assert time.perf_counter() - started < 2
    assert colours(png((1, 1), 8, 2, [b"\1\2\3" + b"\0" * 50_000_000])) == [(1, 2, 3)]


def test_what_follows_the_end_of_a_jpeg_is_not_its_own() -> None:
    data = encoded(picture(40, 30))
    film = b"\xff\xda\0\0" * 500
    assert colours(data + film) == colours(data)
    assert not examine(data + film, where="x").progressive


def test_a_gif_cut_after_its_first_picture_is_read() -> None:
    frames = [picture(16, 16, "P", seed) for seed in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    first = colours(encoded(frames[0], "GIF"))
    found = [cut for cut in range(len(data) // 3, len(data), 5) if decodes(data[:cut], first)]
    assert found
    for cut in found:
        assert examine(data[:cut], where="x").format == "GIF"


def decodes(data: bytes, wanted: list[tuple[int, ...]]) -> bool:
    try:
        return colours(data) == wanted
    except UnreadableImageError:
        return False


def test_large_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openilias.images.decode.MOST_BYTES", 99)
    assert "bytes" in refused(encoded(picture(10, 10)))


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
    ],
)
def test_cut_files_are_refused_or_whole(form: str, options: dict[str, Any]) -> None:
    data = encoded(picture(24, 17), form, **options)
    whole = colours(data)
    accepted = []
    for end in range(0, len(data), 7):
        try:
            found = colours(data[:end])
        except UnreadableImageError:
            continue
        assert found == whole, end
        accepted.append(end)
    assert all(end > len(data) - 32 for end in accepted)
    refused(data[:-30])


def test_a_switch_that_would_hide_truncated_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(OpenIliasError, match="fill in what truncated images lack"):
        decode(encoded(picture(9, 9)), where="x")


def test_progressive_equals_baseline() -> None:
    image = picture(70, 50)
    assert colours(encoded(image, progressive=True)) == colours(encoded(image))
    assert examine(encoded(image, progressive=True), where="x").progressive
    assert not examine(encoded(image), where="x").progressive


def test_very_wide_rows_take_no_longer_than_others() -> None:
    started = time.perf_counter()
    assert decode(encoded(Image.new("L", (20_000_000, 1)), "BMP"), where="x").size == (20_000_000, 1)
    assert time.perf_counter() - started < 10


def test_nothing_is_printed(tmp_path: Path) -> None:
    side = 9_600  # more than Pillow takes without a warning
    large = png((side, side), 1, 0, [b"\0" * (side // 8)] * side)
    broken = with_segment(encoded(picture(16, 8)), 0xE1, b"Exif\0\0" + exif_block(6)[:12])
    palette = png((1, 1), 8, 3, [b"\0"], chunk(b"PLTE", b"\1\2\3"), chunk(b"tRNS", b"\7"))
    damaged = bytearray(encoded(picture(64, 64)))
    damaged[-200:-100] = b"\0" * 100
    code = (
        "import sys\nfrom pathlib import Path\nfrom openilias.images.decode import decode, examine\n"
        "for path in sys.argv[1:]:\n"
        "    for compat in ('paper', 'official'):\n"
        "        decode(Path(path).read_bytes(), where='x', compat=compat)\n"
        "    examine(Path(path).read_bytes(), where='x')\n"
    )
    paths = [tmp_path / str(number) for number in range(4)]
    for path, data in zip(paths, (large, broken, palette, bytes(damaged)), strict=True):
        path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


FUZZED = {
    (form, mode): encoded(picture(13, 9, mode), form, **options)
    for form, mode, options in (
        ("JPEG", "RGB", {"exif": exif_block(6)}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "L", {"progressive": True}),
        ("PNG", "RGBA", {"exif": exif_block(6)}),
        ("PNG", "P", {}),
        ("WEBP", "RGBA", {"exif": exif_block(6)}),
        ("WEBP", "RGB", {"exif": camera_block(b"A Camera")}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("MPO", "RGB", {"save_all": True, "append_images": [picture(13, 9)]}),
    )
}


@given(
    st.sampled_from(sorted(FUZZED)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    st.sampled_from(["paper", "official"]),
)
@settings(max_examples=1200, deadline=None)
def test_damaged_bytes_raise_one_error_only(
    kind: tuple[str, str], changes: list[tuple[float, int]], compat: Compat
) -> None:
    data, told = bytearray(FUZZED[kind]), []
    for place, value in changes:
        # Headers are short; half of the changes fall into them.
        data[int(place * 2 * (len(data) if place < 0.5 else 80)) % len(data)] = value
    for read in (decode, upright_size, examine):
        try:
            read(bytes(data), where="x", **({"compat": compat} if read is decode else {}))
        except UnreadableImageError as error:
            told.append(error)
    assert (camera_of(bytes(data)) or "x").isprintable()
    assert all(error.where == "x" and " at 0x" not in error.what for error in told)


@given(st.binary(max_size=400), st.sampled_from([b"", *(data[:20] for data in FUZZED.values())]))
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_one_error_only(data: bytes, start: bytes) -> None:
    with contextlib.suppress(UnreadableImageError):
        decode(start + data, where="x")


def test_the_header_tells_the_size_that_is_decoded() -> None:
    for data in FUZZED.values():
        found = decode(data, where="x")
        assert upright_size(data, where="x") == found.size == examine(data, where="x").upright_size


def test_facts() -> None:
    facts = examine(encoded(picture(9, 7)), where="x")
    assert facts == ImageFacts("JPEG", "RGB", (9, 7), (9, 7), 1, False, False, False, None)
    modes = {form + " " + mode: examine(data, where="x").mode for (form, mode), data in FUZZED.items()}
    assert modes == {
        "JPEG RGB": "RGB",
        "JPEG CMYK": "CMYK",
        "JPEG L": "L",
        "PNG RGBA": "RGBA",
        "PNG P": "P",
        "WEBP RGBA": "RGB",
        "WEBP RGB": "RGB",
        "GIF P": "P",
        "BMP RGB": "RGB",
        "MPO RGB": "RGB",
    }
    assert all(examine(data, where="x").damage is None for data in FUZZED.values())
    assert examine(png((1, 1), 16, 0, [b"\1\1"]), where="x").mode == "I;16"


def test_damage_that_decoders_pass_over_is_told() -> None:
    data = encoded(picture(64, 64))
    garbage = data[:-2] + b"\x00\x12\x34" + data[-2:]
    middle = len(data) // 2
    grey = data[:middle] + b"\0" * 400 + data[middle + 400 :]
    early = data[:middle] + b"\xff\xd9"
    assert colours(garbage) == colours(data)
    for damaged, word in ((garbage, "extraneous"), (grey, "Corrupt"), (early, "Corrupt")):
        assert decode(damaged, where="x").size == (64, 64)
        assert word in (examine(damaged, where="x").damage or "")
    assert "Premature end" in (examine(data[:middle], where="x").damage or "")  # which decode refuses
    good = png((1, 1), 8, 2, [b"\1\2\3"])
    at = good.index(b"IEND") - 8
    bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    assert colours(bad) == colours(good)
    assert "checksum" in (examine(bad, where="x").damage or "")
    assert examine(good, where="x").damage is None
    assert examine(encoded(picture(4, 4, "CMYK")), where="x").damage is None


@pytest.mark.parametrize("size", [(1, 1), (20_000, 50), (50, 20_000), (2, 1), (1, 3000)])
@pytest.mark.parametrize("rule", get_args(ResizeRule))
def test_extreme_sizes_are_resized_by_every_rule(size: tuple[int, int], rule: ResizeRule) -> None:
    image = decode(encoded(Image.new("RGB", size, (9, 99, 199)), quality=95), where="x")
    assert image.size == size
    found = resize(image, rule, 48)
    expected = {"square": (48, 48), "center": (48, 48)}
    width, height = size
    if rule == "small":
        expected["small"] = (48, 48 * height // width) if width <= height else (48 * width // height, 48)
    shape = found.shape[1], found.shape[0]
    assert min(shape) >= 1
    assert shape == expected.get(rule, shape)
    if rule in ("longest", "pad"):
        assert max(shape) == 48
    assert np.abs(found.astype(int) - (9, 99, 199)).max() <= 4


@pytest.mark.parametrize("rule", ["small", "center"])
def test_what_would_be_resized_to_too_many_pixels_is_refused(rule: ResizeRule) -> None:
    with pytest.raises(UnreadableImageError, match="384 x 7680000"):
        resize(Image.new("RGB", (1, 20_000)), rule, 384)


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
        assert (resize(image, rule, resolution) == np.asarray(twin(image))).all(), rule


@given(SIZES, st.integers(1, 500))
def test_longest_side(size: tuple[int, int], resolution: int) -> None:
    width, height = longest_size(*size, resolution)
    assert max(width, height) == resolution
    small, large = min(size), max(size)
    expected = max(1, int(resolution * (small / large))), max(1, int(resolution / (large / small)))
    assert min(width, height) in expected


def test_longest_truncates_and_is_bicubic() -> None:
    image = picture(333, 499)
    twin = image.resize((256, 384), Image.Resampling.BICUBIC)
    assert (resize(image, "longest", 384) == np.asarray(twin)).all()
    assert resize(picture(1000, 1), "longest", 100).shape == (1, 100, 3)


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


@given(SIZES, st.integers(2, 300), st.sampled_from(get_args(ResizeRule)))
@settings(max_examples=60, deadline=None)
def test_torchvision_differs_by_two_grey_levels_at_most(
    size: tuple[int, int], resolution: int, rule: ResizeRule
) -> None:
    # Far from black and white: values beyond them are cut between the two directions, which go in another order.
    image = picture(*size).point(lambda value: 64 + value // 2)
    if max(size) / min(size) * resolution > 3000:
        return
    ours = resize(image, rule, resolution, "torchvision")
    assert ours.shape == resize(image, rule, resolution).shape
    assert np.abs(ours.astype(int) - resize(image, rule, resolution)).max() <= 2


def twin_mask(size: tuple[int, int], boxes: tuple[Box, ...], height: int, width: int) -> np.ndarray:
    mask = torch.zeros(size[1], size[0])
    for x, y, w, h in boxes:
        mask[y : y + h, x : x + w] = 1
    return torch.nn.functional.interpolate(mask[None, None], size=(height, width), mode="nearest")[0, 0].numpy()


BOXES = (Box(10, 20, 60, 30), Box(50, 40, 30, 200))


@given(st.integers(90, 300), st.integers(70, 300), st.integers(8, 300))
@settings(max_examples=40, deadline=None)
def test_masks_are_the_nearest_pixels_of_the_union(width: int, height: int, resolution: int) -> None:
    image = picture(width, height)
    found = Preparation(resolution, boxes="mask")(image, BOXES)
    assert (found[:, :, :3] == resize(image, "longest", resolution)).all()
    assert (found[:, :, 3] == twin_mask(image.size, BOXES, *found.shape[:2])).all()


def test_crops_go_around_all_boxes_and_end_at_the_image() -> None:
    image = picture(100, 120)
    found = Preparation(64, boxes="crop")(image, BOXES)
    assert (found == resize(image.crop((10, 20, 80, 120)), "longest", 64)).all()
    both = Preparation(64, boxes="mask+crop")(image, BOXES)
    assert (both[:, :, :3] == found).all()
    cut = twin_mask(image.size, BOXES, 120, 100)[20:120, 10:80]
    twin = torch.nn.functional.interpolate(
        torch.from_numpy(cut.copy())[None, None], size=found.shape[:2], mode="nearest"
    )
    assert (both[:, :, 3] == twin[0, 0].numpy()).all()
    official = Preparation(64, boxes="mask+crop", compat="official")(image, BOXES)
    assert (official[:, :, 3] == twin_mask(image.size, BOXES, *found.shape[:2])).all()
    assert (official[:, :, 3] != both[:, :, 3]).any()


@pytest.mark.parametrize("rule", get_args(ResizeRule))
def test_the_mask_follows_the_resize_rule(rule: ResizeRule) -> None:
    """White inside the boxes and black outside: the mask must be where the white is."""
    pixels = np.zeros((120, 200, 3), np.uint8)
    pixels[30:90, 40:120] = 255
    found = Preparation(80, rule, boxes="mask")(Image.fromarray(pixels), (Box(40, 30, 80, 60),))
    assert ((found[:, :, 0] > 127) != found[:, :, 3]).mean() < 0.03


@pytest.mark.parametrize("use", ["mask", "crop", "mask+crop"])
@pytest.mark.parametrize("boxes", [(), (Box(500, 10, 20, 20),)])
def test_boxes_that_are_needed_must_be_there(use: str, boxes: tuple[Box, ...]) -> None:
    with pytest.raises(OpenIliasError, match=r"no box|outside it"):
        Preparation(64, boxes=use)(picture(100, 80), boxes)
    assert Preparation(64)(picture(100, 80), boxes).shape == (51, 64, 3)
