"""Contact sheets: a benchmark at a glance."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw

from openilias.core.errors import OpenIliasError
from openilias.core.files import write_bytes
from openilias.core.ids import object_of
from openilias.data import Benchmark, Item
from openilias.images.decode import decode

_GAP = 6
_PAPER = (255, 255, 255)


def _thumbnail(item: Item, height: int) -> tuple[Image.Image, float]:
    """Return an upright picture of a height in pixels, and by how much it was scaled."""
    image = decode(item.read(), where=item.id)
    scale = height / image.height
    return image.resize((max(1, round(image.width * scale)), height), Image.Resampling.LANCZOS), scale


def _in_turns(benchmark: Benchmark) -> list[str]:
    """Return the objects so that coarse categories take turns, and in each its leaves, before one comes again."""
    leaves: dict[tuple[str, ...], list[str]] = {}
    for name in sorted({object_of(item) for item in benchmark.image_queries}):
        leaves.setdefault(benchmark.taxonomy.nodes.get(name, ("",)), []).append(name)
    place = {
        leaf: sum(other[0] == leaf[0] and other < leaf for other in leaves) for leaf in leaves
    }  # within its coarse category
    ranked = [(turn, place[leaf], leaf, name) for leaf, names in leaves.items() for turn, name in enumerate(names)]
    return [name for _, _, _, name in sorted(ranked)]


def _row(benchmark: Benchmark, items: list[str], height: int, *, boxes: bool) -> list[Image.Image]:
    row = []
    for item in items:
        image, scale = _thumbnail(Item(item, benchmark.path_of(item)), height)
        if boxes:
            draw = ImageDraw.Draw(image)
            for x, y, wide, tall in benchmark.boxes(item):
                corners = [x * scale, y * scale, (x + wide) * scale - 1, (y + tall) * scale - 1]
                draw.rectangle(corners, outline=(255, 40, 40), width=2)
        row.append(image)
    return row


def _lay_out(rows: list[list[Image.Image]], height: int, *, apart: int) -> Image.Image:
    """Put rows of pictures of one height below each other; ``apart`` pixels follow the first of a row."""
    width = max(sum(image.width for image in row) + _GAP * (len(row) + 1) + apart for row in rows)
    sheet = Image.new("RGB", (width, (height + _GAP) * len(rows) + _GAP), _PAPER)
    for number, row in enumerate(rows):
        x = _GAP
        for place, image in enumerate(row):
            sheet.paste(image, (x, _GAP + number * (height + _GAP)))
            x += image.width + _GAP + (apart if place == 0 else 0)
    return sheet


def object_sheet(
    benchmark: Benchmark, *, rows: int = 10, columns: int = 6, height: int = 120, boxes: bool = False
) -> Image.Image:
    """Show some objects: the query and positives of each in a row.

    Args:
        benchmark: whose.
        rows: objects; the categories take turns.
        columns: pictures of a row, the query among them.
        height: of each picture in pixels.
        boxes: draw the boxes.

    Raises:
        OpenIliasError: the benchmark has no image queries, or a picture cannot be read.
    """
    shown = _in_turns(benchmark)[:rows]
    if not shown:
        raise OpenIliasError("This benchmark has no image queries to show.", where=benchmark.root)
    queries: dict[str, str] = {}
    for item in benchmark.image_queries:
        queries.setdefault(object_of(item), item)
    pictures = [
        _row(benchmark, [queries[name], *benchmark.relevance[name][: columns - 1]], height, boxes=boxes)
        for name in shown
    ]
    return _lay_out(pictures, height, apart=2 * _GAP)


def _distractors(benchmark: Benchmark) -> Iterator[Item]:
    for shard in benchmark.shards("distractors"):
        yield from shard.items()


def distractor_sheet(benchmark: Benchmark, *, rows: int = 10, columns: int = 8, height: int = 120) -> Image.Image:
    """Show the first distractors in a grid.

    Raises:
        OpenIliasError: the benchmark has no distractors, or a picture cannot be read.
    """
    items = list(islice(_distractors(benchmark), rows * columns))
    if not items:
        raise OpenIliasError("This benchmark has no distractors to show.", where=benchmark.root)
    images = [_thumbnail(item, height)[0] for item in items]
    return _lay_out([images[start : start + columns] for start in range(0, len(images), columns)], height, apart=0)


def write_sheet(sheet: Image.Image, out: Path, *, quality: int = 85) -> None:
    """Write a sheet as JPEG or PNG, by the ending of ``out``.

    Raises:
        OpenIliasError: another ending.
    """
    endings = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
    kind = endings.get(out.suffix.lower())
    if kind is None:
        raise OpenIliasError(
            f"A sheet is written as .jpg or .png, not as {out.suffix or 'a file without ending'}.",
            where=out,
            fix="Give --out FILE.jpg.",
        )
    buffer = io.BytesIO()
    sheet.save(buffer, kind, **({"quality": quality, "optimize": True} if kind == "JPEG" else {}))
    write_bytes(out, buffer.getvalue())
