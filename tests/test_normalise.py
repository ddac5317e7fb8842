"""One image on its way into a test set: against plain twins, and every output by a parser of its own."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin
from PIL.ImageCms import ImageCmsProfile

from openilias.build.colour import is_srgb
from openilias.build.conformity import conforms, quality_tables
from openilias.build.normalise import Balance, Normalised, NormaliseSettings, normalise
from openilias.build.perceptual import distance, hash_of_file, perceptual_hash
from openilias.build.white_balance import NEUTRAL, gains_of, percentiles, table_of, white_balanced
from openilias.images.decode import UnreadableImageError, decode

PLAIN = NormaliseSettings(balance=Balance(method="none"))
DEFAULT = NormaliseSettings()


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture that JPEG keeps well: blurred noise."""
    coarse = np.random.default_rng(seed).integers(20, 236, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)


def parse_jpeg(data: bytes) -> dict[str, Any]:
    """Read the segments of a JPEG with nothing but the standard at hand."""
    assert data[:2] == b"\xff\xd8"
    at, found = 2, {"order": [], "tables": {}}
    while True:
        assert data[at] == 0xFF, "a marker was expected"
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        body = data[at + 4 : at + 2 + length]
        found["order"].append(marker)
        if marker == 0xDB:
            while body:
                assert body[0] >> 4 == 0
                found["tables"][body[0] & 15] = list(body[1:65])
                body = body[65:]
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, count = struct.unpack(">BHHB", body[:6])
            parts = [tuple(body[6 + 3 * n : 9 + 3 * n]) for n in range(count)]
            found |= {"frame": marker, "bits": bits, "size": (width, height), "parts": parts}
        elif marker == 0xE0:
            found["app0"] = body
        at += 2 + length
        if marker == 0xDA:
            break
    assert data[-2:] == b"\xff\xd9"
    scan = data[at:-2]
    assert not [n for n in range(len(scan) - 1) if scan[n] == 0xFF and scan[n + 1] not in (0, *range(0xD0, 0xD8))]
    return found


def reference_tables(quality: int) -> dict[int, list[int]]:
    """The tables of a quality as libjpeg writes them."""
    return parse_jpeg(encoded(Image.new("RGB", (8, 8)), quality=quality, subsampling=0))["tables"]


def assert_conforms(made: Normalised, longest: int = 500, quality: int = 90) -> None:
    found = parse_jpeg(made.jpeg)
    assert set(found["order"]) <= {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}, "no metadata, no comment, one scan"
    assert found["frame"] == 0xC0
    assert found["bits"] == 8
    assert found["size"] == (made.width, made.height)
    assert 1 <= max(found["size"]) <= longest
    assert [part[1] for part in found["parts"]] == [0x11] * 3
    tables = [found["tables"][part[2]] for part in found["parts"]]
    wanted = reference_tables(quality)
    assert tables == [wanted[0], wanted[1], wanted[1]]
    assert found["app0"][:5] == b"JFIF\0"
    assert len(found["app0"]) == 14
    assert conforms(made.jpeg, longest=longest, quality=quality) == []
    assert hashlib.sha256(made.jpeg).hexdigest() == made.sha256
    assert hash_of_file(made.jpeg) == made.hash


def refused(data: bytes, settings: NormaliseSettings = DEFAULT) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        normalise(data, settings, where="the id")
    assert caught.value.where == "the id"
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes out of a worker process
    assert (again.status, again.where, again.what) == (caught.value.status, "the id", caught.value.what)
    return caught.value.status


def twin_size(width: int, height: int, longest: int) -> tuple[int, int]:
    if max(width, height) <= longest:
        return width, height
    ratio = height / width
    if width >= height:
        return longest, max(1, int(longest * ratio))
    return max(1, int(longest / ratio)), longest


@pytest.mark.parametrize(
    ("width", "height"),
    [(500, 375), (501, 500), (1000, 667), (667, 1000), (3000, 40), (16, 16), (1333, 1000), (499, 2), (20_000, 17)],
)
def test_the_larger_side_is_500_only_when_larger(width: int, height: int) -> None:
    settings = PLAIN.model_copy(update={"least_side": 1})
    made = normalise(encoded(smooth(width, height), "PNG"), settings, where="x")
    assert (made.width, made.height) == twin_size(width, height, 500)
    assert made.original_size == (width, height)
    assert_conforms(made)


@given(st.integers(1, 900), st.integers(1, 900), st.integers(16, 600))
@settings(max_examples=25, deadline=None)
def test_sizes_of_any_picture(width: int, height: int, longest: int) -> None:
    settings = NormaliseSettings(longest=longest, least_side=1)
    made = normalise(encoded(Image.new("RGB", (width, height), "teal"), "PNG"), settings, where="x")
    assert (made.width, made.height) == twin_size(width, height, longest)
    assert_conforms(made, longest)


def twin_shrink(array: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Antialiased bicubic (a = -0.5) along the first axis, in float64."""
    scale = len(array) / size
    rows = []
    for at in range(size):
        centre = (at + 0.5) * scale
        places = np.arange(max(0, int(centre - 2 * scale + 0.5)), min(len(array), int(centre + 2 * scale + 0.5)))
        x = np.abs((places + 0.5 - centre) / scale)
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        weights = np.where(x < 1, near, np.where(x < 2, far, 0))
        rows.append(np.tensordot(weights / weights.sum(), array[places], 1))
    return np.clip(np.stack(rows), 0, 255)


def test_pixels_of_a_smaller_picture_against_a_plain_twin() -> None:
    image = smooth(1000, 640, seed=3)
    made = normalise(encoded(image, "PNG"), PLAIN.model_copy(update={"quality": 100}), where="x")
    twin = twin_shrink(np.asarray(image, float).transpose(1, 0, 2), 500)
    twin = twin_shrink(twin.transpose(1, 0, 2), 320)
    error = np.abs(pixels(made.jpeg) - twin)  # of JPEG of quality 100 as well
    assert error.max() <= 6
    assert error.mean() < 0.8
    lanczos = PLAIN.model_copy(update={"resample": "lanczos"})
    assert (
        normalise(encoded(image, "PNG"), lanczos, where="x").jpeg
        != normalise(encoded(image, "PNG"), PLAIN, where="x").jpeg
    )


# White balance


def light(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    value = value / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def values(linear: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def twin_balance(array: np.ndarray[Any, Any], balance: Balance) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """White balance as one would write it down, over all pixels."""
    flat = array.reshape(-1, 3).astype(float)
    lit = light(flat) if balance.light == "linear" else flat / 255
    mean = lit.mean(0)
    seen = mean
    if balance.method == "white-patch":
        rank = math.ceil(len(flat) * balance.percentile / 100) - 1
        seen = np.sort(lit, axis=0)[max(rank, 0)]
    floor = light(np.array(1.0)) if balance.light == "linear" else 1 / 255
    gains = 1 / np.maximum(seen, floor)
    ratio = gains.max() / gains.min()
    if ratio <= balance.neutral:
        return array, np.ones(3)
    if ratio > balance.limit:
        gains = gains ** (math.log(balance.limit) / math.log(ratio))
    luminance = np.array([0.2126, 0.7152, 0.0722])
    gains = gains * (luminance @ mean) / (luminance @ (gains * mean))
    lit = lit * gains
    out = values(lit) if balance.light == "linear" else np.clip(lit, 0, 1) * 255
    return np.floor(out + 0.5).reshape(array.shape), gains


@pytest.mark.parametrize("method", ["grey-world", "white-patch"])
@pytest.mark.parametrize("lit", ["linear", "srgb"])
@pytest.mark.parametrize("cast", [(1, 1, 1), (0.7, 1, 0.9), (1, 0.8, 0.3), (0.1, 0.9, 0.0)])
def test_white_balance_against_a_plain_twin(method: Any, lit: Any, cast: tuple[float, ...]) -> None:
    array = (np.asarray(smooth(60, 40, seed=5), float) * cast).astype(np.uint8)
    for options in ({}, {"limit": 1.3}, {"limit": 50.0, "percentile": 90.0}, {"neutral": 1.5}):
        balance = Balance(method=method, light=lit, **options)
        found, gains = white_balanced(Image.fromarray(array), balance)
        twin, expected = twin_balance(array, balance)
        assert np.allclose(gains, expected, rtol=2e-4)
        assert np.abs(np.asarray(found, int) - twin).max() <= 1


def test_grey_world_makes_the_mean_grey_and_keeps_its_luminance() -> None:
    array = (np.asarray(smooth(90, 70), float) * (0.75, 0.6, 0.5)).astype(np.uint8)
    found, gains = white_balanced(Image.fromarray(array), Balance(limit=20))
    before, after = light(array.reshape(-1, 3)).mean(0), light(np.asarray(found).reshape(-1, 3)).mean(0)
    assert after.max() / after.min() < 1.01
    luminance = np.array([0.2126, 0.7152, 0.0722])
    assert after @ luminance == pytest.approx(before @ luminance, rel=0.01)
    assert gains[2] > gains[1] > gains[0]


@given(st.tuples(*[st.integers(0, 255)] * 3), st.floats(1, 10), st.sampled_from(["grey-world", "white-patch"]))
def test_a_picture_of_one_colour_is_not_turned_grey(colour: tuple[int, int, int], limit: float, method: Any) -> None:
    histogram = np.zeros((3, 256), np.int64)
    for channel, value in enumerate(colour):
        histogram[channel, value] = 100
    gains = np.array(gains_of(histogram, Balance(limit=limit, method=method)))
    assert gains.max() / gains.min() <= limit * 1.0001
    assert (gains <= limit * 1.0001).all()
    assert (gains >= 0.9999 / limit).all()


def test_a_red_picture_stays_red() -> None:
    made = normalise(encoded(Image.new("RGB", (64, 64), (180, 20, 25)), "PNG"), DEFAULT, where="x")
    red, green, blue = pixels(made.jpeg)[32, 32]
    assert red > 120
    assert max(green, blue) < 60


def test_none_and_neutral_change_nothing() -> None:
    image = smooth(40, 40).convert("L").convert("RGB")
    for balance in (Balance(), Balance(method="white-patch"), Balance(method="none")):
        assert white_balanced(image, balance) == (image, NEUTRAL)
    black = Image.new("RGB", (5, 5))
    assert white_balanced(black, Balance())[1] == NEUTRAL
    cast = Image.new("RGB", (5, 5), (200, 190, 195))
    assert white_balanced(cast, Balance(method="none")) == (cast, NEUTRAL)
    assert white_balanced(cast, Balance())[1] != NEUTRAL


@pytest.mark.parametrize("lit", ["linear", "srgb"])
def test_gains_of_one_keep_every_value(lit: Any) -> None:
    assert (table_of((1.0, 1.0, 1.0), lit) == np.arange(256)).all()
    assert (np.diff(table_of((0.5, 1.4, 2.0), lit).astype(int)) >= 0).all()


def test_percentiles_are_those_of_numpy() -> None:
    array = np.random.default_rng(1).integers(0, 256, (37, 29, 3), dtype=np.uint8)
    histogram = np.array(Image.fromarray(array).histogram(), np.int64).reshape(3, 256)
    for percent in (50.5, 90, 99, 99.9, 100):
        wanted = np.percentile(array.reshape(-1, 3), percent, axis=0, method="inverted_cdf")
        assert percentiles(histogram, Balance(percentile=percent)) == wanted.astype(int).tolist()


# Colours


def profile_of(name: str, white: tuple[float, ...] = (0.9642, 1, 0.82491)) -> bytes:
    """An RGB profile made by hand: sRGB's, with other colorants and gamma (ICC.1, matrix and curves)."""
    colorants = {  # of D50, as published
        "display-p3": [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)],
        "adobe-rgb": [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)],
        "srgb": [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)],
        "srgb gamma 2.2": [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)],
    }[name]

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(value: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, value))

    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 79
    if name in ("adobe-rgb", "srgb gamma 2.2"):
        curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(563 / 256 * 256))
    else:  # the curve of sRGB, in parameters
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        curve = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + b"".join(map(fixed, numbers))
    tags = {b"desc": text, b"wtpt": xyz(white), b"cprt": b"text\0\0\0\0none\0"}
    tags |= {sign: xyz(value) for sign, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=True)}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for sign, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += sign + struct.pack(">II", at + len(body), len(content))
        body += content
    kind = b"mntr" if white[1] == 1 else b"scnr"  # the white of a monitor is not looked at
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"\0" * 4, 0x02400000, kind, b"RGB ", b"XYZ ")
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + b"".join(map(fixed, (0.9642, 1, 0.82491))) + b"\0" * 48
    return head + struct.pack(">I", len(tags)) + table + body


def twin_to_srgb(colour: tuple[int, ...], name: str) -> np.ndarray[Any, Any]:
    """By the primaries as published for D65, no profile at all."""
    chromaticities = {
        "display-p3": [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)],
        "adobe-rgb": [(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)],
        "srgb": [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)],
    }

    def matrix(of: str) -> np.ndarray[Any, Any]:
        columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in chromaticities[of]]).T
        white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
        return columns * np.linalg.solve(columns, white)

    value = np.array(colour, float)
    linear = (value / 255) ** (563 / 256) if name == "adobe-rgb" else light(value)
    return values(np.linalg.inv(matrix("srgb")) @ matrix(name) @ linear)


COLOURS = [(128, 128, 128), (200, 140, 110), (90, 140, 80), (110, 120, 190), (255, 255, 255), (0, 0, 0), (255, 0, 0)]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", ["display-p3", "adobe-rgb"])
def test_profiles_become_srgb(name: str, form: str) -> None:
    profile = profile_of(name)
    assert not is_srgb(profile)
    for colour in COLOURS:
        options: dict[str, Any] = {"quality": 100, "icc_profile": profile}
        options |= {"lossless": True} if form == "WEBP" else {"subsampling": 0} if form == "JPEG" else {}
        data = encoded(Image.new("RGB", (600, 32), colour), form, **options)
        made = normalise(data, PLAIN.model_copy(update={"quality": 100}), where="x")
        assert np.abs(pixels(made.jpeg)[8, 8] - twin_to_srgb(colour, name)).max() <= 3, colour
        assert made.notes == ()
        assert_conforms(made, quality=100)


def srgb_profile() -> bytes:
    return ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_srgb_is_known_by_its_colours_and_changes_nothing() -> None:
    assert is_srgb(srgb_profile())
    assert is_srgb(profile_of("srgb"))
    assert not is_srgb(profile_of("srgb gamma 2.2"))  # differs in the shadows only
    assert not is_srgb(b"junk")
    image = smooth(300, 200)
    plain = encoded(image, "PNG")
    with_profile = encoded(image, "PNG", icc_profile=srgb_profile())
    assert normalise(with_profile, PLAIN, where="x").jpeg == normalise(plain, PLAIN, where="x").jpeg
    renamed = profile_of("adobe-rgb").replace(b"test\0", b"sRGB\0")
    assert not is_srgb(renamed)


def test_white_stays_white_whatever_the_paper() -> None:
    data = encoded(Image.new("RGB", (32, 32), "white"), "PNG", icc_profile=profile_of("adobe-rgb", (0.85, 0.9, 0.6)))
    made = normalise(data, PLAIN, where="x")
    assert made.notes == ()
    assert (pixels(made.jpeg) == 255).all()


@pytest.mark.parametrize("profile", [b"junk", b"\0" * 200, srgb_profile()[:300], profile_of("adobe-rgb")[:-80]])
def test_a_broken_profile_is_noted(profile: bytes) -> None:
    image = smooth(64, 64)
    made = normalise(encoded(image, icc_profile=profile, quality=90, subsampling=0), PLAIN, where="x")
    assert len(made.notes) == 1
    assert "profile" in made.notes[0]
    assert made.reencoded
    assert np.abs(pixels(made.jpeg) - np.asarray(image, int)).mean() < 3
    assert_conforms(made)


def test_a_profile_for_other_pictures_is_noted() -> None:
    cmyk = Image.new("CMYK", (32, 32), (10, 200, 30, 0))
    made = normalise(encoded(cmyk, icc_profile=srgb_profile()), PLAIN, where="x")
    assert "it is for RGB, and the picture is CMYK" in made.notes[0]
    lab = ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert "Lab" in normalise(encoded(smooth(32, 32), icc_profile=lab), PLAIN, where="x").notes[0]


def grey_profile(gamma: float) -> bytes:
    """A profile of grey with a gamma, by hand."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1, 0.82491)))
    tags = {b"wtpt": white, b"kTRC": curve}
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for sign, content in tags.items():
        table += sign + struct.pack(">II", at + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"\0" * 4, 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061) + b"\0" * 48
    return head + struct.pack(">I", len(tags)) + table + body


def cmyk_profile() -> bytes:
    """A profile of a press whose four inks are all grey, by hand: a table of two steps each (ICC.1, lut8Type)."""
    corners = b""
    for at in range(16):
        corners += bytes([0 if at else 255, 128, 128])  # any ink is black
    steps = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1\0\0\0\0\4\3\2\0" + matrix + steps * 4 + corners + steps * 3
    table += b"\0" * (-len(table) % 4)
    tags = {b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)}
    tags |= {b"A2B0": table, b"A2B1": table}
    index, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for sign, content in tags.items():
        index += sign + struct.pack(">II", at + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"\0" * 4, 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061) + b"\0" * 48
    return head + struct.pack(">I", len(tags)) + index + body


def test_cmyk_with_a_profile_of_its_press() -> None:
    inks = {(0, 0, 0, 0): 255, (255, 0, 0, 0): 0, (0, 0, 0, 255): 0, (0, 0, 128, 0): 118}  # L* 50 is about 118
    for ink, grey in inks.items():
        data = encoded(Image.new("CMYK", (620, 40), ink), quality=100, icc_profile=cmyk_profile())
        made = normalise(data, PLAIN, where="x")
        assert made.notes == ()
        assert (made.width, made.height) == (500, 32)
        assert np.abs(pixels(made.jpeg) - grey).max() <= 4, ink
        assert_conforms(made)
    without = normalise(encoded(Image.new("CMYK", (40, 40), (255, 0, 0, 0)), quality=100), PLAIN, where="x")
    assert np.abs(pixels(without.jpeg) - (0, 255, 255)).max() <= 4


@pytest.mark.parametrize("mode", ["L", "I;16", "LA"])
def test_grey_with_a_profile_of_grey(mode: str) -> None:
    value = 100
    image = Image.new("L", (32, 32), value)
    if mode == "I;16":
        image = Image.fromarray(np.full((32, 32), value * 257, np.uint16))
    elif mode == "LA":
        image = Image.merge("LA", (image, Image.new("L", (32, 32), 255)))
    made = normalise(encoded(image, "PNG", icc_profile=grey_profile(1.0)), PLAIN, where="x")
    assert made.notes == ()
    assert np.abs(pixels(made.jpeg) - values(np.array(value / 255))).max() <= 2
    assert_conforms(made)


def test_every_kind_of_picture_becomes_three_channels_over_white() -> None:
    base = smooth(48, 48)
    alpha = Image.new("L", (48, 48), 0)
    palette = base.quantize(16)
    palette.paste(15, (0, 0, 24, 24))
    made = {
        "L": encoded(base.convert("L"), "PNG"),
        "1": encoded(base.convert("1"), "PNG"),
        "P": encoded(base.quantize(16), "PNG"),
        "P transparent": encoded(palette, "PNG", transparency=15),
        "RGBA": encoded(Image.merge("RGBA", (*base.split(), alpha)), "PNG"),
        "CMYK": encoded(base.convert("CMYK"), quality=95),
        "I;16": encoded(Image.fromarray(np.asarray(base.convert("L"), np.uint16) * 257), "PNG"),
        "grey JPEG": encoded(base.convert("L")),
        "BMP": encoded(base, "BMP"),
        "WEBP": encoded(base, "WEBP", lossless=True),
        "GIF": encoded(base.convert("L"), "GIF"),
    }
    found = {name: normalise(data, PLAIN, where="x") for name, data in made.items()}
    for one in found.values():
        assert_conforms(one)
        assert one.reencoded
        assert one.notes == ()
    grey = np.asarray(base.convert("L"), int)[..., None]
    for name in ("L", "I;16", "grey JPEG", "GIF"):
        assert np.abs(pixels(found[name].jpeg) - grey).max() <= 6, name
    for name in ("BMP", "WEBP", "CMYK"):
        assert np.abs(pixels(found[name].jpeg) - np.asarray(base, int)).max() <= 12, name
    assert (pixels(found["RGBA"].jpeg) == 255).all()
    assert pixels(found["P transparent"].jpeg)[2, 2].min() > 240
    assert set(np.unique(pixels(found["1"].jpeg) > 127)) == {False, True}


def test_the_first_picture_of_an_animation() -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    for form in ("GIF", "WEBP", "PNG"):
        options: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
        made = normalise(encoded(frames[0], form, **options), PLAIN, where="x")
        assert np.abs(pixels(made.jpeg)[15, 15] - (255, 0, 0)).max() < 12
        assert (made.width, made.height) == (40, 30)


# Metadata

TURNED: dict[int, Any] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_becomes_upright(orientation: int, form: str) -> None:
    image = smooth(96, 64)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"exif": exif} | ({"lossless": True} if form == "WEBP" else {"quality": 95})
    made = normalise(encoded(image, form, **options), PLAIN, where="x")
    upright = TURNED[orientation](np.asarray(image, int))
    assert np.abs(pixels(made.jpeg) - upright).mean() < 4
    assert made.original_size == upright.shape[1::-1]
    assert_conforms(made)


def with_everything(image: Image.Image, **options: Any) -> bytes:
    """A JPEG with EXIF, GPS, an XMP packet, a comment and a profile."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x9286] = "Canon", "Canon EOS 450D", b"ASCII\0\0\0SECRET"
    exif.get_ifd(0x8769)[0x9003] = "2013:07:04 11:22:33"
    exif.get_ifd(0x8825).update({1: "N", 2: (50.0, 5.0, 12.0), 3: "E", 4: (14.0, 25.0, 1.0)})
    return encoded(image, exif=exif, comment=b"SECRET", xmp=b"<x>SECRET</x>", icc_profile=srgb_profile(), **options)


@pytest.mark.parametrize("skip", [True, False])
def test_metadata_are_read_and_go(skip: bool) -> None:
    data = with_everything(smooth(320, 240).convert("L").convert("RGB"), quality=90, subsampling=0)
    assert data.count(b"SECRET") >= 2
    assert any("EXIF" in one and "XMP" in one and "comment" in one for one in conforms(data))
    made = normalise(data, DEFAULT.model_copy(update={"skip_reencode": skip}), where="x")
    assert (made.camera, made.taken) == ("Canon EOS 450D", "2013-07-04 11:22:33")
    assert b"SECRET" not in made.jpeg
    assert b"Exif" not in made.jpeg
    assert b"ICC_PROFILE" not in made.jpeg
    assert made.reencoded
    assert not Image.open(io.BytesIO(made.jpeg)).getexif()
    assert_conforms(made)


def test_text_of_png_goes() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "SECRET")
    made = normalise(encoded(smooth(40, 40), "PNG", pnginfo=text), PLAIN, where="x")
    assert b"SECRET" not in made.jpeg
    gif = normalise(encoded(smooth(40, 40).convert("L"), "GIF", comment=b"SECRET"), PLAIN, where="x")
    assert b"SECRET" not in gif.jpeg


@pytest.mark.parametrize(
    ("date", "found"),
    [
        ("2013:07:04 11:22:33", "2013-07-04 11:22:33"), ("0000:00:00 00:00:00", None), ("    :  :     :  :  ", None),
        ("2013:13:41 11:22:33", None), ("yesterday", None), ("2013:07:04 11:22:33\0\0", "2013-07-04 11:22:33"),
    ],
)  # fmt: skip
def test_dates(date: str, found: str | None) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = date
    assert normalise(encoded(smooth(32, 32), exif=exif), PLAIN, where="x").taken == found


# Keeping bytes


def test_bytes_that_conform_are_kept() -> None:
    grey = smooth(300, 200).convert("L").convert("RGB")
    data = encoded(grey, quality=90, subsampling=0)
    assert conforms(data) == []
    made = normalise(data, DEFAULT, where="x")
    assert made.jpeg == data
    assert not made.reencoded
    assert_conforms(made)
    with_profile = encoded(grey, quality=90, subsampling=0, icc_profile=srgb_profile())
    assert normalise(with_profile, DEFAULT, where="x").jpeg == with_profile
    always = normalise(data, DEFAULT.model_copy(update={"skip_reencode": False}), where="x")
    assert (always.width, always.gains) == (made.width, made.gains)
    coloured = encoded(smooth(300, 200), quality=90, subsampling=0)
    assert normalise(coloured, PLAIN, where="x").jpeg == coloured
    assert normalise(coloured, DEFAULT, where="x").reencoded


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"quality": 89, "subsampling": 0}, "tables"), ({"quality": 91, "subsampling": 0}, "tables"),
        ({"quality": 90, "subsampling": 2}, "sampling"), ({"quality": 90, "subsampling": 1}, "sampling"),
        ({"quality": 90, "subsampling": 0, "progressive": True}, "coding"),
        ({"quality": 90, "subsampling": 0, "comment": b"x"}, "metadata"),
        ({"quality": 90, "subsampling": 0, "icc_profile": profile_of("display-p3")}, "profile"),
    ],
)  # fmt: skip
def test_what_does_not_conform_is_named_and_encoded_anew(options: dict[str, Any], word: str) -> None:
    data = encoded(smooth(200, 150), **options)
    found = conforms(data)
    assert [one.partition(":")[0] for one in found] == [word]
    made = normalise(data, PLAIN, where="x")
    assert made.jpeg != data
    assert_conforms(made)


def segment(data: bytes, marker: int, content: bytes) -> bytes:
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


def test_conformity_of_other_damages() -> None:
    good = encoded(smooth(200, 150), quality=90, subsampling=0)
    assert conforms(good) == []

    def words(data: bytes, **options: Any) -> set[str]:
        return {one.partition(":")[0] for one in conforms(data, **options)}

    assert words(b"hello") == words(encoded(smooth(9, 9), "PNG")) == {"format"}
    assert words(good + b"<script>") == {"metadata"}
    assert words(good, longest=199) == {"size"}
    assert words(good, quality=91) == {"tables"}
    assert words(encoded(smooth(200, 150).convert("L"), quality=90)) == {"sampling"}
    scan = good[good.index(b"\xff\xda") : -2]
    assert "coding" in words(good[:-2] + scan + b"\xff\xd9")
    assert "damage" in words(good[:-2])
    assert "damage" in words(good[: len(good) // 2])
    assert words(segment(good, 0xE0, b"JFIF\0\1\1\0\0\1\0\1\1\1abc")) == {"metadata"}, "a thumbnail"
    assert words(segment(good, 0xEE, b"Adobe\0d\0\0\0\0\1")) == {"metadata"}
    assert words(segment(good, 0xF7, b"anything")) == {"metadata"}
    assert words(segment(good, 0xDD, b"\0\0")) == set(), "restarts, of which there are none, belong to decoding"
    padded = srgb_profile() + bytes(5000)
    assert words(encoded(smooth(200, 150), quality=90, subsampling=0, icc_profile=padded)) == {"metadata"}
    exif = Image.Exif()
    exif[0x0112] = 6
    assert words(encoded(smooth(200, 150), quality=90, subsampling=0, exif=exif)) == {"metadata", "orientation"}
    for data in (b"\xff\xd8\xff", b"\xff\xd8\xff\xc0\0\2", good[:30], b"\xff\xd8\xff\xdb\0\3\0\xff\xd9"):
        assert conforms(data)


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 100])
def test_tables_are_those_of_libjpeg(quality: int) -> None:
    wanted = reference_tables(quality)
    assert [list(table) for table in quality_tables(quality)] == [wanted[0], wanted[1]]


@given(st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_conformity_of_any_bytes_is_a_list(junk: bytes, at: int) -> None:
    good = encoded(Image.new("RGB", (16, 16), "teal"), quality=90, subsampling=0)
    for data in (junk, b"\xff\xd8\xff" + junk, good[:at] + junk + good[at:], good[:at] + junk):
        assert all(isinstance(one, str) for one in conforms(data))
        try:
            made = normalise(data, DEFAULT, where="x")
        except UnreadableImageError:
            continue
        assert_conforms(made)


# What is refused


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def png_of(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


NOT_IMAGES = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    "svg behind a declaration": b'<?xml version="1.0"?><!DOCTYPE svg><svg/>',
    "billion laughs": b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "a">]><l>&a;</l>',
    "html": b"<!DOCTYPE html><html><body>429</body></html>",
    "html in capitals": b"\n\n  <HTML><BODY>gone</BODY></HTML>",
    "json": b' {"error": "not found"}',
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3",
    "text": b"Not found",
    "zip": b"PK\3\4" + b"\0" * 40,
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "zeros": b"\0" * 4096,
}


@pytest.mark.parametrize("name", sorted(NOT_IMAGES))
def test_what_is_no_image(name: str) -> None:
    assert refused(NOT_IMAGES[name]) == "not-an-image"
    told = {"svg": "SVG", "html": "HTML", "json": "JSON", "pdf": "PDF", "zip": "not known", "postscript": "PostScript"}
    with pytest.raises(UnreadableImageError, match=told.get(name, "it is|not known")):
        normalise(NOT_IMAGES[name], DEFAULT, where="x")


def test_every_refusal_has_a_word() -> None:
    good = encoded(smooth(120, 90))
    assert refused(b"") == "empty"
    assert refused(encoded(smooth(40, 40), "TIFF")) == "other-format"
    assert refused(b"\0\0\0\x1cftypavif" + b"\0" * 50) == "other-format"
    assert refused(good[: len(good) // 2]) == "truncated"
    assert refused(good[:-2]) == "truncated"
    assert refused(good[:20]) == "truncated"
    png = encoded(smooth(120, 90), "PNG")
    assert refused(png[: len(png) // 2]) == "truncated"
    assert refused(png[:-12]) == "truncated"
    webp = encoded(smooth(120, 90), "WEBP")
    assert refused(webp[: len(webp) // 2]) in ("truncated", "damaged")
    assert refused(png_of(64, 64)) in ("truncated", "damaged")
    assert refused(png_of(30_000, 30_000)) == "bomb"
    assert refused(png_of(100_000, 1)) == "bomb"
    assert refused(encoded(smooth(15, 400), "PNG")) == "too-small"
    assert refused(encoded(Image.new("1", (1, 1)), "GIF")) == "too-small"
    assert refused(segment(good, 0xFE, b"x") + b"x" * 10, DEFAULT.model_copy(update={"most_pixels": 9})) == "bomb"


def test_limits_are_looked_at_before_anything_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    def never(self: object) -> None:
        raise AssertionError

    data = encoded(smooth(120, 90))
    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    for changed, status in (
        ({"most_side": 119}, "bomb"),
        ({"most_pixels": 10_799}, "bomb"),
        ({"least_side": 91}, "too-small"),
    ):
        assert refused(data, DEFAULT.model_copy(update=changed)) == status


def test_a_jpeg_with_endless_scans() -> None:
    data = encoded(smooth(64, 64), progressive=True)
    at = data.rindex(b"\xff\xda")
    assert refused(data[:at] + data[at:-2] * 200 + b"\xff\xd9") == "bomb"


def test_damaged_data_are_kept_with_a_note_or_refused() -> None:
    data = bytearray(encoded(smooth(200, 150), quality=95))
    start = data.rindex(b"\xff\xda") + 400
    data[start : start + 2] = b"\xff\xd3"  # a restart where there are none
    made = normalise(bytes(data), PLAIN, where="x")
    assert "damaged" in made.notes[0]
    assert made.reencoded
    assert_conforms(made)
    assert refused(bytes(data), PLAIN.model_copy(update={"damaged": "refuse"})) == "damaged"


def test_pictures_that_are_something_else_too_lose_it() -> None:
    data = encoded(smooth(64, 64), quality=90, subsampling=0) + b"<html><script>alert(1)</script>"
    made = normalise(data, PLAIN, where="x")
    assert b"script" not in made.jpeg
    assert_conforms(made)


# The hash


def twin_hash(image: Image.Image) -> int:
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BILINEAR), float)
    k, x = np.arange(1, 9)[:, None], np.arange(32)[None]
    basis = np.cos(math.pi * k * (2 * x + 1) / 64)
    waves = (basis @ grey @ basis.T).reshape(-1)
    bits = waves > np.median(waves)
    return int("".join("1" if bit else "0" for bit in bits), 2)


def test_the_hash_against_a_plain_twin() -> None:
    for seed in range(20):
        image = smooth(80 + seed, 60, seed)
        assert distance(perceptual_hash(image), twin_hash(image)) <= 1
    assert perceptual_hash(Image.new("RGB", (50, 50), "orange")) == 0
    assert 0 <= perceptual_hash(smooth(50, 50)) < 2**64


# Real photographs


def some(photos: Path, count: int) -> list[Path]:
    found = sorted((photos / "distractors").glob("*.jpg"))
    return found[:: max(1, len(found) // count)][:count]


def test_real_photographs(photos: Path) -> None:
    hashes = []
    for path in some(photos, 24):
        data = path.read_bytes()
        made = normalise(data, DEFAULT, where=path.name)
        assert_conforms(made)
        assert max(made.gains) / min(made.gains) <= 1.5001
        twin, gains = twin_balance(np.asarray(decode(data, where="x")), DEFAULT.balance)
        assert np.allclose(made.gains, gains, rtol=1e-4)
        if made.reencoded:
            assert np.abs(pixels(made.jpeg) - twin).mean() < 2.5
        small = encoded(Image.open(path).convert("RGB").resize((250, 200)), quality=50)
        assert distance(made.hash, hash_of_file(small)) <= 12
        assert distance(made.hash, perceptual_hash(Image.open(path))) <= 12
        hashes.append(made.hash)
    apart = [distance(a, b) for n, a in enumerate(hashes) for b in hashes[:n]]
    assert 26 < np.mean(apart) < 38


def test_what_was_normalised_is_kept_the_next_time(photos: Path) -> None:
    made = [normalise(path.read_bytes(), DEFAULT, where="x") for path in some(photos, 24)]
    within = [one for one in made if max(one.gains) / min(one.gains) < 1.45]  # others were corrected in part
    again = [normalise(one.jpeg, DEFAULT, where="x").reencoded for one in within]
    assert len(within) >= 8
    assert again.count(True) <= 1  # where much was cut off at 255


def test_photographs_that_are_stored_already_are_kept(photos: Path) -> None:
    kept = [normalise(path.read_bytes(), PLAIN, where="x").reencoded for path in some(photos, 24)]
    assert kept.count(False) >= 20  # the folder was made by the same rule, without white balance


SCRIPT = """
import json, sys
from pathlib import Path
from openilias.build.normalise import NormaliseSettings, normalise
made = [normalise(Path(name).read_bytes(), NormaliseSettings(), where="x") for name in sys.argv[1:]]
print(json.dumps([[one.sha256, one.hash, one.gains] for one in made]))
"""


def test_the_same_bytes_twice_and_in_another_process(tmp_path: Path) -> None:
    files = []
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, data in enumerate(
        [
            encoded(smooth(700, 500), quality=80, exif=exif),
            encoded(smooth(90, 300), "PNG", icc_profile=profile_of("adobe-rgb")),
            encoded(smooth(333, 222).convert("CMYK")),
        ]
    ):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(data)
    here = [normalise(file.read_bytes(), DEFAULT, where="x") for file in files]
    assert here == [normalise(file.read_bytes(), DEFAULT, where="y") for file in files]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, files)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[one.sha256, one.hash, list(one.gains)] for one in here]


def test_settings_are_strict_and_say_all() -> None:
    assert set(DEFAULT.model_dump()) == {
        "longest", "resample", "balance", "quality", "skip_reencode", "damaged", "least_side", "most_side",
        "most_pixels",
    }  # fmt: skip
    for wrong in ({"quality": 0}, {"unknown": 1}, {"balance": {"method": "other"}}, {"balance": {"limit": 0.5}}):
        with pytest.raises(ValueError, match="validation error"):
            NormaliseSettings.model_validate(wrong)


def test_tables_behind_the_scan_are_not_believed() -> None:
    other, good = (encoded(smooth(64, 48), quality=quality, subsampling=0) for quality in (30, 90))
    start, end = good.index(b"\xff\xdb"), good.index(b"\xff\xc0")
    mixed = other[:-2] + good[start:end] + other[-2:]
    found = conforms(mixed)
    assert any(one.startswith("coding") for one in found)
    made = normalise(mixed, NormaliseSettings(balance=Balance(method="none")), where="it")
    assert made.reencoded
    assert_conforms(made)
