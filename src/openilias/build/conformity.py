"""Whether a stored image is what the paper stores: JPEG of quality 90, 4:4:4, at most 500 px, sRGB, no metadata.

Supplement, "Downloading and storing images". Everything is read from the segments of the file (ITU-T T.81, annex B);
what Pillow would say of it is not asked, except for the orientation and whether the pixels are whole.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np

from openilias.build.colour import is_srgb
from openilias.images.decode import UnreadableImageError, examine

# ITU-T T.81, annex K: luminance and chrominance of quality 50, in rows.
_LUMINANCE = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMINANCE = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
_ORDER = sorted(range(64), key=lambda at: (at // 8 + at % 8, at // 8 if (at // 8 + at % 8) % 2 else at % 8))

_SOI, _EOI, _SOS, _DQT, _DHT, _DRI, _COM, _APP0 = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xFE, 0xE0
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NEEDED = _FRAMES | {_SOS, _DQT, _DHT, _DRI}  # to decode
_MOST_PROFILE = 4096  # bytes: an sRGB profile has three thousand, and a larger one may hold anything
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # within coded data; FF00 and restarts belong to them
_ICC = b"ICC_PROFILE\0"


@dataclass(frozen=True)
class Segment:
    """A marker of a JPEG other than those of its beginning and end, and what it holds."""

    marker: int
    content: bytes


@dataclass(frozen=True)
class Structure:
    """The segments of a JPEG file.

    Attributes:
        segments: in the order of the file.
        ended: the marker of the end was found.
        behind: how many bytes follow the end.
    """

    segments: tuple[Segment, ...]
    ended: bool
    behind: int


def structure_of(data: bytes) -> Structure | None:
    """Return the segments of a JPEG file; None for another file. A broken one has those before the damage."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    segments: list[Segment] = []
    at = 2
    while True:
        found = _MARKER.search(data, at)
        if found is None:
            return Structure(tuple(segments), ended=False, behind=0)
        marker, at = data[found.end() - 1], found.end()
        if marker == _EOI:
            return Structure(tuple(segments), ended=True, behind=len(data) - at)
        if marker in (0x01, _SOI):
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            return Structure(tuple(segments), ended=False, behind=0)
        segments.append(Segment(marker, data[at + 2 : at + length]))
        at += length


def quality_tables(quality: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the quantisation tables of a quality (1 to 100), luminance and chrominance, in the order of a file.

    The scale is that of the Independent JPEG Group, which is what "quality 90" means.
    """
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = []
    for text in (_LUMINANCE, _CHROMINANCE):
        base = [int(word) for word in text.split()]
        tables.append(tuple(min(255, max(1, (base[at] * scale + 50) // 100)) for at in _ORDER))
    return tables[0], tables[1]


def profile_in(structure: Structure) -> bytes | None:
    """Return the colour profile that a JPEG carries, put together; None if it carries none."""
    parts = [s.content for s in structure.segments if s.marker == 0xE2 and s.content.startswith(_ICC)]
    parts.sort(key=lambda part: part[len(_ICC) : len(_ICC) + 1])
    return b"".join(part[len(_ICC) + 2 :] for part in parts) if parts else None


def conforms(data: bytes, *, longest: int = 500, quality: int = 90) -> list[str]:
    """Say what of a stored image does not conform; nothing if all does.

    Each finding begins with one of ``format``, ``damage``, ``coding``, ``sampling``, ``tables``, ``size``,
    ``metadata``, ``orientation``, ``profile``.

    Args:
        data: the bytes of the file.
        longest: larger side at most, in pixels.
        quality: whose tables it must have.
    """
    structure = structure_of(data)
    if structure is None:
        return ["format: it is no JPEG"]
    found = structural(structure, longest=longest, quality=quality)
    try:
        facts = examine(data, where="this image")
    except UnreadableImageError as error:
        return [*found, f"damage: {error.what}"]
    if facts.damage is not None:
        found.append(f"damage: {facts.damage}")
    if facts.orientation != 1:
        found.append(f"orientation: {facts.orientation} instead of 1")
    return found


def structural(structure: Structure, *, longest: int, quality: int) -> list[str]:
    """Say what of the segments of a JPEG does not conform, as :func:`conforms`, without looking at its pixels."""
    found = []
    if not structure.ended:
        found.append("damage: it ends without the marker of the end")
    if structure.behind:
        found.append(f"metadata: {structure.behind} bytes behind its end")
    frames = [segment for segment in structure.segments if segment.marker in _FRAMES]
    scans = sum(segment.marker == _SOS for segment in structure.segments)
    if len(frames) != 1 or scans != 1 or frames[0].marker != 0xC0:
        kinds = ", ".join(f"SOF{frame.marker - 0xC0}" for frame in frames) or "none"
        found.append(f"coding: {scans} scans of the frame {kinds} instead of one of SOF0, baseline")
    if scans and structure.segments[-1].marker != _SOS:
        # Tables there decode nothing, and would be taken for those that do.
        found.append("coding: there are segments behind the scan")
    found += _frame(frames[0].content, structure, longest, quality) if frames else []
    names = [_named(segment) for segment in structure.segments]
    extra = sorted({name for name in names if name is not None})
    if extra:
        found.append(f"metadata: {', '.join(extra)}")
    profile = profile_in(structure)
    if profile is not None and len(profile) > _MOST_PROFILE:
        found.append(f"metadata: a colour profile of {len(profile)} bytes")
    elif profile is not None and not is_srgb(profile):
        found.append("profile: its colours are not sRGB")
    return found


def _frame(content: bytes, structure: Structure, longest: int, quality: int) -> list[str]:
    if len(content) < 6 or len(content) < 6 + 3 * content[5]:
        return ["damage: its frame header is cut off"]
    precision, height, width, count = struct.unpack(">BHHB", content[:6])
    components = [content[6 + 3 * at : 9 + 3 * at] for at in range(count)]
    found = []
    if not 0 < max(width, height) <= longest or min(width, height) < 1:
        found.append(f"size: {width} x {height}, and {longest} is the longest")
    if precision != 8:
        found.append(f"coding: {precision} bits instead of 8")
    sampling = ", ".join(f"{part[1] >> 4}x{part[1] & 15}" for part in components)
    if sampling != "1x1, 1x1, 1x1":
        found.append(f"sampling: {sampling or 'no components'} instead of 4:4:4, 1x1, 1x1, 1x1")
    tables = _tables(structure)
    luminance, chrominance = quality_tables(quality)
    wanted = [luminance, chrominance, chrominance]
    if [tables.get(part[2]) for part in components] != wanted[: len(components)]:
        found.append(f"tables: they are not those of quality {quality}")
    return found


def _tables(structure: Structure) -> dict[int, tuple[int, ...]]:
    """Return the quantisation tables by number, in the order of the file."""
    tables = {}
    for segment in structure.segments:
        content = segment.content if segment.marker == _DQT else b""
        while content:
            wide, number = content[0] >> 4, content[0] & 15
            size = 128 if wide else 64
            values = np.frombuffer(content[1 : 1 + size].ljust(size, b"\0"), ">u2" if wide else "u1")
            tables[number] = tuple(values.tolist())
            content = content[1 + size :]
    return tables


def _named(segment: Segment) -> str | None:
    """Name a segment that holds more than what decoding needs; a JFIF header without a thumbnail does not."""
    if segment.marker == _COM:
        return "a comment"
    if not _APP0 <= segment.marker <= 0xEF:
        return None if segment.marker in _NEEDED else f"a segment FF{segment.marker:02X}"
    content = segment.content
    if segment.marker == _APP0 and content.startswith(b"JFIF\0") and len(content) == 14 and content[12:] == b"\0\0":
        return None
    if segment.marker == 0xE2 and content.startswith(_ICC):
        return None  # judged by its colours
    for start, name in (
        (b"Exif\0", "EXIF"),
        (b"http://ns.adobe.com/x", "XMP"),
        (b"Photoshop", "IPTC"),
        (b"MPF", "MPF"),
    ):
        if content.startswith(start):
            return name
    return f"APP{segment.marker - _APP0}"
