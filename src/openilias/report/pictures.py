"""Thumbnails: where the pictures are, each drawn once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw

from openilias.core.errors import OpenIliasError
from openilias.core.executors import usable_cores
from openilias.core.ids import distractor_shard, object_of
from openilias.data import Benchmark, Item
from openilias.images.boxes import Box
from openilias.images.decode import decode

IMAGES = "images"
SIDE = 220
QUALITY = 80
BOX_COLOUR = (255, 214, 10)
_BOX_EDGE = (24, 24, 24)


@dataclass(frozen=True)
class Picture:
    """A thumbnail, or why there is none. Where only its boxes cannot be read it has a file and a problem."""

    id: str
    file: str | None
    width: int
    height: int
    problem: str | None = None


@dataclass(frozen=True)
class Images:
    """Where thumbnails are written, and how a page refers to them.

    Attributes:
        folder: which is made.
        href: of the folder, from the page.
    """

    folder: Path
    href: str = IMAGES

    def write(self, name: str, image: Image.Image) -> str:
        """Write a picture; return its file from the page."""
        self.folder.mkdir(parents=True, exist_ok=True)
        image.save(self.folder / name, "JPEG", quality=QUALITY, optimize=True)
        return f"{self.href}/{name}"


def find_items(benchmark: Benchmark, ids: Iterable[str]) -> dict[str, Item]:
    """Find where the images of database ids are.

    Only the tars that are needed are indexed, each once. Ids that are not there, or whose tar cannot be read,
    are left out.
    """
    return locate(benchmark, ids)[0]


def locate(benchmark: Benchmark, ids: Iterable[str]) -> tuple[dict[str, Item], dict[str, str]]:
    """Return the items that are there, and for each tar that cannot be read the reason."""
    wanted = set(ids)
    found = {item: Item(item, benchmark.path_of(item)) for item in wanted.intersection(benchmark.positives)}
    tars = {distractor_shard(item) for item in wanted} - {None}
    reasons: dict[str, str] = {}
    for shard in benchmark.distractor_shards:
        if shard.tar is not None and shard.name not in tars:
            continue
        try:
            found.update((item.id, item) for item in shard.items() if item.id in wanted)
        except OpenIliasError as error:
            reasons[shard.name] = plain_reason(error, benchmark)
    return found, reasons


def plain_reason(error: OpenIliasError, benchmark: Benchmark) -> str:
    """Return the message of an error without paths and memory addresses, which differ between runs."""
    text = error.what.replace(str(benchmark.root), benchmark.root.resolve().name)
    return re.sub(r" ?<[^<>]* at 0x[0-9a-fA-F]+>", "", text)


def thumbnail_name(item: str) -> str:
    """Return a file name that is safe on every system and differs for different ids."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", item).strip("-")[-60:]
    return f"{readable}-{hashlib.sha256(item.encode()).hexdigest()[:10]}.jpg"


def thumbnail(image: Image.Image, boxes: Iterable[Box]) -> Image.Image:
    """Return a picture of at most :data:`SIDE` pixels with the boxes drawn on it.

    Args:
        image: upright.
        boxes: in pixels of ``image``; what they have outside it is not drawn.
    """
    scale = min(1.0, SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.LANCZOS)
    small.info = {}  # Pillow would write the comments of the original into the thumbnail.
    draw = ImageDraw.Draw(small)
    for box in boxes:
        left, right = (min(round(x * scale), size[0] - 1) for x in (box.x, box.x + box.width))
        top, bottom = (min(round(y * scale), size[1] - 1) for y in (box.y, box.y + box.height))
        # A dark line around the bright one keeps the box visible on any picture.
        draw.rectangle((left, top, right, bottom), outline=_BOX_EDGE, width=5)
        if right - left > 2 and bottom - top > 2:
            draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=BOX_COLOUR, width=3)
    return small


@dataclass
class Pictures:
    """Thumbnails in a folder, each written once; one that is there already is kept."""

    benchmark: Benchmark
    images: Images
    items: Mapping[str, Item]
    reasons: Mapping[str, str]
    done: dict[str, Picture] = field(default_factory=dict)

    def of(self, item: str) -> Picture:
        """Return the thumbnail of an image."""
        if item not in self.done:
            self.done[item] = self._make(item)
        return self.done[item]

    def fail(self, item: str, problem: str) -> Picture:
        """Say why there is none."""
        self.done[item] = Picture(item, None, 0, 0, problem)
        return self.done[item]

    def _make(self, item: str) -> Picture:
        source = self.items.get(item)
        if source is None:
            return Picture(item, None, 0, 0, self._absence(item))
        boxes, problem = self._boxes(item)
        kept = self.images.folder / thumbnail_name(item)
        if kept.is_file():
            with Image.open(kept) as there:
                return Picture(item, f"{self.images.href}/{kept.name}", *there.size, problem)
        try:
            image = decode(source.read(), where=item)
        except OpenIliasError as error:
            return Picture(item, None, 0, 0, plain_reason(error, self.benchmark))
        small = thumbnail(image, boxes)
        return Picture(item, self.images.write(thumbnail_name(item), small), small.width, small.height, problem)

    def _absence(self, item: str) -> str:
        shard = distractor_shard(item)
        if shard is None:
            return "This image is not in the benchmark folder."
        names = {s.name for s in self.benchmark.distractor_shards}
        if shard not in names:
            return f"The shard {shard} is not in the benchmark folder."
        return self.reasons.get(shard, f"The shard {shard} has no such image.")

    def _boxes(self, item: str) -> tuple[tuple[Box, ...], str | None]:
        if object_of(item) not in self.benchmark.relevance:
            return (), None
        try:
            return self.benchmark.boxes(item), None
        except OpenIliasError as error:
            return (), plain_reason(error, self.benchmark)


def asked_of(query: str, pictures: Pictures, *, is_text: bool) -> tuple[str | None, Picture]:
    """Return the text of a text query, and the picture of an image query or the problem with either."""
    if not is_text:
        return None, pictures.of(query)
    try:
        data = Item(query, pictures.benchmark.path_of(query)).read()
        return data.decode("utf-8").strip(), Picture(query, None, 0, 0)
    except OpenIliasError as error:
        return None, pictures.fail(query, plain_reason(error, pictures.benchmark))
    except UnicodeDecodeError:
        return None, pictures.fail(query, "This text is not UTF-8.")


def pictures_of(benchmark: Benchmark, ids: Iterable[str], images: Images) -> Pictures:
    """Find queries and database images; their thumbnails are drawn when they are asked for."""
    wanted, queries = set(ids), set(benchmark.image_queries)
    found, reasons = locate(benchmark, wanted - queries)
    found.update((item, Item(item, benchmark.path_of(item))) for item in wanted & queries)
    return Pictures(benchmark, images, found, reasons)


def draw_all(pictures: Pictures, ids: Iterable[str]) -> dict[str, Picture]:
    """Draw the thumbnails of many images at a time."""
    wanted = list(dict.fromkeys(ids))
    with ThreadPoolExecutor(usable_cores()) as pool:
        return dict(zip(wanted, pool.map(pictures.of, wanted), strict=True))


def show(benchmark: Benchmark, ids: Iterable[str], out: Path) -> list[tuple[str | None, Picture]]:
    """Write the thumbnails of any ids of a benchmark to ``out/images``; return the text or the picture of each."""
    wanted, texts = list(ids), set(benchmark.text_queries)
    pictures = pictures_of(benchmark, wanted, Images(out / IMAGES))
    return [asked_of(item, pictures, is_text=item in texts) for item in wanted]
