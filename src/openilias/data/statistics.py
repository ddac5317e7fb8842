"""The statistics of a benchmark (paper, section 3.2, Figs. 3 and I, Table A, supplement C)."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.ids import object_of
from openilias.core.progress import Step, progress
from openilias.data.benchmark import Benchmark, Item
from openilias.data.taxonomy import Taxonomy
from openilias.images.boxes import Box, coverage
from openilias.images.decode import camera_of, upright_size

GRID = 64
"""Cells of the heat map along each side."""

ANYWHERE = 0.3825978
"""Mean distance from the centre of a point that may be anywhere in the unit square."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spread:
    """How some numbers are spread."""

    count: int
    least: float
    median: float
    mean: float
    most: float


def spread(values: npt.ArrayLike) -> Spread | None:
    """Summarise numbers (N,); None if there are none."""
    array = np.asarray(values, np.float64)
    if not len(array):
        return None
    return Spread(len(array), *(float(f(array)) for f in (np.min, np.median, np.mean, np.max)))


@dataclass(frozen=True)
class ImageSet:
    """The image queries or the positives.

    Attributes:
        images: how many the benchmark names.
        boxes: (images,) boxes of each, in the order of the ids; (0,) if the images are not here.
        sizes: (images, 2) width and height in pixels, upright; (0, 2) if the images are not here.
        coverage: (M,) share of the image inside its boxes, in [0, 1], of the M images of which it is known.
    """

    images: int
    boxes: Ints
    sizes: Ints
    coverage: Floats


@dataclass(frozen=True)
class Category:
    """A node of the taxonomy and how many objects of the benchmark it holds; names may be ``other``."""

    coarse: str
    mid: str
    fine: str
    objects: int


@dataclass(frozen=True)
class Statistics:
    """What section 3.2 of the paper counts.

    Attributes:
        name: of the benchmark.
        fingerprint: of the benchmark.
        queries: the image queries.
        positives: the positives.
        text_words: (T,) words of each text query; (0,) if the texts are not here.
        text_queries: how many there are.
        per_object: (O,) positives of each object, in the order of the objects.
        without_query: objects that no image query asks for.
        clutter: (C,) segments outside the boxes, of the positives of which it is stated.
        distractors: how many; None if there is neither a list of them nor a shard.
        counted: where that number is from.
        shards: shards of distractors that are here.
        heat: (GRID, GRID) mean over the positives with boxes of how much of each cell of the image they cover, in
            [0, 1]; row 0 is the top. None without any.
        centre_distance: mean distance of the centres of the boxes of positives from those of their images, in
            units of the width and height (see :data:`ANYWHERE`). None without any.
        coverage_gap: largest difference between the stated coverage of a positive and that of its boxes.
        categories: sorted; of the objects that the taxonomy names.
        levels: categories on the coarse, mid and fine level, the unassigned not counted.
        nodes: the same with ``other`` counted as a category.
        uncategorised: objects that the taxonomy does not name.
        cameras: (camera model, images) of the queries and positives that name theirs, by falling count, then by name.
    """

    name: str
    fingerprint: str
    queries: ImageSet
    positives: ImageSet
    text_words: Ints
    text_queries: int
    per_object: Ints
    without_query: int
    clutter: Ints
    distractors: int | None
    counted: Literal["id list", "shards", "nothing"]
    shards: int
    heat: Floats | None
    centre_distance: float | None
    coverage_gap: float | None
    categories: tuple[Category, ...]
    levels: tuple[int, int, int]
    nodes: tuple[int, int, int]
    uncategorised: int
    cameras: tuple[tuple[str, int], ...]

    @property
    def objects(self) -> int:
        """Objects with positives."""
        return len(self.per_object)

    @property
    def boxes(self) -> Ints:
        """Boxes of each image, queries first."""
        return np.concatenate((self.queries.boxes, self.positives.boxes))

    @property
    def with_camera(self) -> int:
        """Queries and positives that name their camera."""
        return sum(images for _, images in self.cameras)

    @property
    def without_camera(self) -> int:
        """Queries and positives that are here and name none."""
        return len(self.boxes) - self.with_camera

    @property
    def below_half(self) -> float | None:
        """Share of the positives of which less than half lies inside boxes."""
        known = self.positives.coverage
        return float((known < 0.5).mean()) if len(known) else None


def box_cells(boxes: Sequence[Box], *, width: int, height: int, grid: int = GRID) -> Floats:
    """Return how much of each cell of an image lies inside at least one box: (grid, grid) in [0, 1], exactly.

    The image is cut into grid x grid equal cells, whatever its shape. What a box has outside does not count.

    Args:
        boxes: in pixels.
        width: of the image, in pixels.
        height: of the image, in pixels.
        grid: cells along each side.
    """
    xs = np.unique(np.clip([v for b in boxes for v in (b.x, b.x + b.width)], 0, width)) / width * grid
    ys = np.unique(np.clip([v for b in boxes for v in (b.y, b.y + b.height)], 0, height)) / height * grid
    if len(xs) < 2 or len(ys) < 2:
        return np.zeros((grid, grid))
    covered = np.zeros((len(ys) - 1, len(xs) - 1))
    middle_x, middle_y = (xs[1:] + xs[:-1]) / 2 / grid * width, (ys[1:] + ys[:-1]) / 2 / grid * height
    for b in boxes:
        rows = (middle_y > b.y) & (middle_y < b.y + b.height)
        covered[np.ix_(rows, (middle_x > b.x) & (middle_x < b.x + b.width))] = 1
    cells: Floats = np.clip(_overlaps(ys, grid) @ covered @ _overlaps(xs, grid).T, 0, 1)
    return cells


def _overlaps(edges: Floats, grid: int) -> Floats:
    """Return the lengths (grid, intervals) that the unit cells share with the intervals between sorted edges."""
    cells = np.arange(grid)[:, None]
    shared: Floats = np.clip(np.minimum(edges[1:], cells + 1) - np.maximum(edges[:-1], cells), 0, None)
    return shared


def centre_distances(boxes: Sequence[Box], *, width: int, height: int) -> list[float]:
    """Return how far the centre of each box is from that of the image, in units of its width and height.

    A box is cut to the image first; one that lies outside has no centre.
    """
    found = []
    for b in boxes:
        left, right = min(b.x, width), min(b.x + b.width, width)
        top, bottom = min(b.y, height), min(b.y + b.height, height)
        if right > left and bottom > top:
            found.append(float(np.hypot((left + right) / 2 / width - 0.5, (top + bottom) / 2 / height - 0.5)))
    return found


def categories_of(taxonomy: Taxonomy, objects: Iterable[str]) -> tuple[Category, ...]:
    """Count the objects of each node of a taxonomy that has any; sorted."""
    nodes = Counter(taxonomy.nodes[name] for name in objects if name in taxonomy.nodes)
    return tuple(Category(*node, count) for node, count in sorted(nodes.items()))


def measure(benchmark: Benchmark) -> Statistics:
    """Count a benchmark. Of its images only queries and positives are opened, and no pixel is decoded.

    Distractors are counted by ``distractor_ids.txt.gz`` where it is there, else by the shards.

    Raises:
        OpenIliasError: an image, a box file, a text or a shard is missing or damaged.
    """
    here = benchmark.core.is_dir()
    total = len(benchmark.image_queries) + len(benchmark.positives) if here else 0
    with progress("count", total=total, unit="images") as step:
        queries = _Gathered(benchmark, benchmark.image_queries, here=here, step=step)
        positives = _Gathered(benchmark, benchmark.positives, here=here, step=step)
    objects = benchmark.relevance
    asked = {object_of(item) for item in benchmark.image_queries}
    known = Taxonomy({name: node for name, node in benchmark.taxonomy.nodes.items() if name in objects})
    distractors, counted = _count_distractors(benchmark)
    stated = (benchmark.stated[item].clutter for item in benchmark.positives if item in benchmark.stated)
    return Statistics(
        name=benchmark.root.resolve().name,
        fingerprint=benchmark.fingerprint,
        queries=queries.freeze(),
        positives=positives.freeze(),
        text_words=_ints([_words(benchmark.path_of(item)) for item in benchmark.text_queries] if here else []),
        text_queries=len(benchmark.text_queries),
        per_object=_ints([len(items) for items in objects.values()]),
        without_query=len(objects.keys() - asked),
        clutter=_ints([value for value in stated if value is not None]),
        distractors=distractors,
        counted=counted,
        shards=len(benchmark.distractor_shards),
        heat=positives.heat / positives.framed if positives.framed else None,
        centre_distance=float(np.mean(positives.distances)) if positives.distances else None,
        coverage_gap=positives.gap,
        categories=categories_of(known, objects),
        levels=known.counts(),
        nodes=_node_counts(known),
        uncategorised=len(objects.keys() - known.nodes.keys()) if benchmark.taxonomy.nodes else 0,
        cameras=tuple(sorted((queries.cameras + positives.cameras).items(), key=lambda pair: (-pair[1], pair[0]))),
    )


class _Gathered:
    """One pass over the images of a partition: numbers of each image, sums of what is drawn."""

    def __init__(self, benchmark: Benchmark, ids: tuple[str, ...], *, here: bool, step: Step) -> None:
        self.ids, self.heat, self.framed = ids, np.zeros((GRID, GRID)), 0
        self.boxes: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.coverage: list[float] = []
        self.distances: list[float] = []
        self.cameras: Counter[str] = Counter()
        self.gap: float | None = None
        for item in ids:
            stated = benchmark.stated[item].coverage if item in benchmark.stated else None
            if here:
                measured = self._look(benchmark, item)
                step()
                if stated is not None and measured is not None:
                    self.gap = max(self.gap or 0.0, abs(stated - measured))
                stated = measured if stated is None else stated
            if stated is not None:
                self.coverage.append(stated)

    def _look(self, benchmark: Benchmark, item: str) -> float | None:
        boxes = benchmark.boxes(item)
        data = Item(item, benchmark.path_of(item)).read()
        width, height = upright_size(data, where=item)
        if (camera := camera_of(data)) is not None:
            self.cameras[camera] += 1
        self.boxes.append(len(boxes))
        self.sizes.append((width, height))
        if not boxes:
            return None
        self.heat += box_cells(boxes, width=width, height=height)
        self.framed += 1
        self.distances += centre_distances(boxes, width=width, height=height)
        return coverage(boxes, width=width, height=height)

    def freeze(self) -> ImageSet:
        sizes = _ints(self.sizes).reshape(-1, 2)
        return ImageSet(len(self.ids), _ints(self.boxes), sizes, np.array(self.coverage, np.float64))


def _ints(values: Sequence[int] | Sequence[tuple[int, int]]) -> Ints:
    return np.array(values, np.int64)


def _words(path: Path) -> int:
    try:
        return len(path.read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise OpenIliasError(f"This text query cannot be read: {error}.", where=path, fix="Complete it.") from None


def _node_counts(taxonomy: Taxonomy) -> tuple[int, int, int]:
    coarse, mid, fine = (len({node[: depth + 1] for node in taxonomy.nodes.values()}) for depth in range(3))
    return coarse, mid, fine


def _count_distractors(benchmark: Benchmark) -> tuple[int | None, Literal["id list", "shards", "nothing"]]:
    if benchmark.id_list is not None:
        return count_lines(benchmark.id_list), "id list"
    if not benchmark.distractor_shards:
        return None, "nothing"
    total = 0
    with progress("count", total=len(benchmark.distractor_shards), unit="shards") as step:
        for shard in benchmark.distractor_shards:
            total += len(shard.items())
            step()
    return total, "shards"


def count_lines(path: Path) -> int:
    """Count the lines of a gzip file that are not empty, block by block.

    Raises:
        OpenIliasError: the file is damaged.
    """
    lines, last = 0, b"\n"
    try:
        with gzip.open(path) as handle:
            while block := handle.read(1 << 20):
                # A line is counted at its first byte.
                joined = np.frombuffer(last + block, np.uint8)
                ends = (joined == ord("\n")) | (joined == ord("\r"))
                lines += int((ends[:-1] & ~ends[1:]).sum())
                last = block[-1:]
    except (OSError, EOFError, zlib.error) as error:
        raise OpenIliasError(f"This id list cannot be read: {error}.", where=path, fix="Download it again.") from None
    return lines
