"""Sheets to look at: pairs side by side, and rejected objects with their reasons (Fig. A of the paper)."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from openilias.build.collect.pairs import Pair
from openilias.build.sheet import write_sheet
from openilias.core.errors import OpenIliasError
from openilias.core.ids import distractor_shard
from openilias.data.benchmark import SourceShard
from openilias.data.ilias import TAR_FOLDERS
from openilias.images.decode import decode

MOST_PAIRS, MOST_REJECTED = 60, 200
_TILE, _GAP, _LINE = 180, 8, 13
_PAPER, _INK, _MISSING = (255, 255, 255), (30, 30, 30), (225, 225, 225)
_LETTERS = 30  # of a line of text below a tile

Tile = tuple[bytes | None, str]
"""The bytes of a picture, None if there is none, and what stands below it."""


def _tile(data: bytes | None) -> Image.Image:
    if data is not None:
        try:
            image = decode(data, where="")
            image.thumbnail((_TILE, _TILE), Image.Resampling.BICUBIC)
            return image
        except OpenIliasError:
            pass  # an empty tile: what cannot be read is named by the report
    return Image.new("RGB", (_TILE, _TILE), _MISSING)


def grid(rows: Sequence[Sequence[Tile]]) -> Image.Image:
    """Lay tiles out in rows, with their texts below."""
    texts = [[textwrap.wrap(text, _LETTERS)[:5] for _, text in row] for row in rows]
    heights = [_TILE + _LINE * max((len(lines) for lines in row), default=0) + 2 * _GAP for row in texts]
    width = max(len(row) for row in rows) * (_TILE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, sum(heights) + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    top = _GAP
    for row, lines, height in zip(rows, texts, heights, strict=True):
        for place, (data, _) in enumerate(row):
            left = _GAP + place * (_TILE + _GAP)
            sheet.paste(_tile(data), (left, top))
            for number, line in enumerate(lines[place]):
                draw.text((left, top + _TILE + 2 + number * _LINE), line, fill=_INK, font=font)
        top += height
    return sheet


def write_rejected(objects: Sequence[tuple[str, str, Path | None]], out: Path, *, columns: int = 5) -> None:
    """Draw rejected objects: their id, the reason, and a picture; without any the sheet is removed."""
    tiles = [(_bytes(path), f"{name}: {reason}") for name, reason, path in objects[:MOST_REJECTED]]
    _write([tiles[start : start + columns] for start in range(0, len(tiles), columns)], out)


def write_pairs(root: Path, core: Path, pairs: Sequence[Pair], out: Path, *, columns: int = 2) -> None:
    """Draw the first pairs that are not rejected side by side; without any the sheet is removed."""
    shown = [pair for pair in pairs if pair.status != "rejected"][:MOST_PAIRS]
    read = _reader(root, core, (pair.second for pair in shown))
    tiles: list[Tile] = []
    for pair in shown:
        value = f"{pair.value:.0f} bits" if pair.by == "hash" else f"{pair.value:.3f}"
        tiles += [(read(pair.first), f"{pair.first} ({pair.kind}, {value})"), (read(pair.second), pair.second)]
    _write([tiles[start : start + 2 * columns] for start in range(0, len(tiles), 2 * columns)], out)


def _write(rows: Sequence[Sequence[Tile]], out: Path) -> None:
    if rows:
        write_sheet(grid(rows), out)
    else:
        out.unlink(missing_ok=True)


def _bytes(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError:
        return None


def _reader(root: Path, core: Path, ids: Iterable[str]) -> Callable[[str], bytes | None]:
    """Return what gives the bytes of an image of the core or of a shard; each shard is opened once."""
    wanted: dict[str, set[str]] = {}
    for item in ids:
        if (shard := distractor_shard(item)) is not None:
            wanted.setdefault(shard, set()).add(item)
    found: dict[str, bytes | None] = {}
    for shard, items in wanted.items():
        found |= _of_shard(root, shard, items)
    return lambda item: found[item] if item in found else _bytes(core / item)


def _of_shard(root: Path, shard: str, items: set[str]) -> Mapping[str, bytes]:
    path = next((root / folder / shard for folder in TAR_FOLDERS if (root / folder / shard).is_file()), None)
    if path is None:
        return {}
    try:
        return {
            item.id: item.read() for item in SourceShard(shard, "distractors", tar=path).items() if item.id in items
        }
    except OpenIliasError:
        return {}
