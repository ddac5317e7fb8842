"""The statistics of a benchmark: against brute force, counts by hand, figures, and the command."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from openilias.build.generated.camera import CAMERAS
from openilias.core.errors import OpenIliasError
from openilias.data import Benchmark, read_ilias
from openilias.data.benchmark import Item
from openilias.data.statistics import (
    ANYWHERE,
    GRID,
    Category,
    box_cells,
    centre_distances,
    count_lines,
    measure,
    spread,
)
from openilias.images.boxes import Box, coverage
from openilias.images.tars import write_tar
from openilias.report.statistics import (
    as_json,
    clutter_edges,
    csv_files,
    figures,
    mid_categories,
    positives_histogram,
    rows,
    write_statistics,
)

Ilias = Callable[..., Any]
boxes_of = st.lists(
    st.builds(Box, st.integers(0, 24), st.integers(0, 24), st.integers(1, 30), st.integers(1, 30)), max_size=5
)


def mask_of(boxes: list[Box], width: int, height: int) -> np.ndarray:
    mask = np.zeros((height, width))
    for b in boxes:
        mask[b.y : b.y + b.height, b.x : b.x + b.width] = 1
    return mask


def naive_cells(boxes: list[Box], width: int, height: int, grid: int) -> np.ndarray:
    """Every pixel as grid x grid small ones, so that each cell is height x width of them."""
    fine = np.kron(mask_of(boxes, width, height), np.ones((grid, grid)))
    return fine.reshape(grid, height, grid, width).mean(axis=(1, 3))


@settings(max_examples=60, deadline=None)
@given(boxes=boxes_of, width=st.integers(1, 23), height=st.integers(1, 23), grid=st.integers(1, 9))
def test_cells_are_those_of_the_pixels(boxes: list[Box], width: int, height: int, grid: int) -> None:
    cells = box_cells(boxes, width=width, height=height, grid=grid)
    np.testing.assert_allclose(cells, naive_cells(boxes, width, height, grid), atol=1e-9)
    assert cells.mean() == pytest.approx(coverage(tuple(boxes), width=width, height=height))


def test_centre_distances() -> None:
    whole, corner, cut, outside = Box(0, 0, 40, 20), Box(0, 0, 20, 10), Box(20, 0, 1000, 20), Box(40, 0, 5, 5)
    assert centre_distances([whole, corner, cut, outside], width=40, height=20) == [
        0,
        pytest.approx(np.hypot(0.25, 0.25)),
        0.25,
    ]
    points = np.random.default_rng(0).random((200_000, 2)) - 0.5
    assert np.hypot(*points.T).mean() == pytest.approx(ANYWHERE, abs=1e-3)


def test_spread() -> None:
    assert spread([]) is None
    found = spread([3, 1, 8])
    assert found is not None
    assert (found.count, found.least, found.median, found.mean, found.most) == (3, 1, 3, 4, 8)


def picture(path: Path, size: tuple[int, int], boxes: str | None, *, orientation: int = 1, camera: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if camera:
        exif[0x0110] = camera
    Image.new("RGB", size).save(path, exif=exif)
    if boxes is not None:
        path.with_name(f"{path.stem}_bbox.txt").write_text(boxes)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two objects, counted by hand below."""
    root = tmp_path / "small"
    core = root / "ilias_core"
    picture(core / "cup_001/query/Q001_00.jpg", (40, 20), "0 0 40 20\n")
    (core / "cup_001/query/T001.txt").write_text("a  red cup\n")
    picture(core / "cup_001/pos/P001_00.jpg", (20, 40), "0 0 20 20\n", orientation=6, camera="B 2 ")  # upright: 40 x 20
    picture(core / "cup_001/pos/P001_01.jpg", (40, 20), "0 0 10 10\n30 10 10 10\n")
    picture(core / "hat_002/query/Q002_00.jpg", (10, 30), None, camera="A 1")
    picture(core / "hat_002/query/Q002_01.jpg", (10, 30), "0 0 10 3\n", camera="B 2")
    picture(core / "hat_002/pos/P002_00.jpg", (64, 64), "", camera="A 1")
    (core / "hat_002/query/T002.txt").write_text("hat")
    picture(core / "pen_003/pos/P003_00.jpg", (8, 8), "0 0 8 8\n", camera="C")
    taxonomy = {"thing": {"kitchen": {"cup": ["cup_001"]}, "other": {"other": ["hat_002"]}}}
    (root / "taxonomy.json").write_text(json.dumps(taxonomy))
    (root / "yfcc100m").mkdir()
    for shard, count in (("a", 3), ("b", 2)):
        members = [(f"{shard}{n}.jpg", b"x") for n in range(count)]
        write_tar(root / "yfcc100m" / f"{shard}.tar", [*members, ("note.json", b"{}")])
    return root


def test_counts_by_hand(small: Path) -> None:
    s = measure(read_ilias(small))
    assert (s.objects, s.without_query, s.text_queries) == (3, 1, 2)
    assert (s.queries.images, s.positives.images) == (3, 4)
    assert s.queries.boxes.tolist() == [1, 0, 1]
    assert s.positives.boxes.tolist() == [1, 2, 0, 1]
    assert s.positives.sizes.tolist() == [[40, 20], [40, 20], [64, 64], [8, 8]]
    assert s.queries.coverage.tolist() == pytest.approx([1, 0.1])
    assert s.positives.coverage.tolist() == pytest.approx([0.5, 0.25, 1])
    assert s.below_half == pytest.approx(1 / 3)
    assert s.per_object.tolist() == [2, 1, 1]
    assert s.text_words.tolist() == [3, 1]
    assert (s.distractors, s.counted, s.shards) == (5, "shards", 2)
    assert s.centre_distance == pytest.approx((0.25 + 2 * np.hypot(0.375, 0.25) + 0) / 4)
    assert s.categories == (Category("thing", "kitchen", "cup", 1), Category("thing", "other", "other", 1))
    assert (s.levels, s.nodes, s.uncategorised) == ((1, 1, 1), (1, 2, 2), 1)
    assert (s.coverage_gap, len(s.clutter)) == (None, 0)
    assert s.cameras == (("A 1", 2), ("B 2", 2), ("C", 1))
    assert (s.with_camera, s.without_camera) == (5, 2)
    left, corners, whole = np.zeros((3, GRID, GRID))
    left[:, : GRID // 2] = 1
    corners[: GRID // 2, : GRID // 4] = corners[GRID // 2 :, 3 * GRID // 4 :] = 1
    whole[:] = 1
    assert s.heat is not None
    np.testing.assert_allclose(s.heat, (left + corners + whole) / 3, atol=1e-12)


def test_the_heat_map_of_a_benchmark_is_the_mean_of_its_masks(tiny: Benchmark) -> None:
    s = measure(tiny)
    masks = [
        naive_cells(list(tiny.boxes(item)), *Image.open(tiny.path_of(item)).size, GRID)
        for item in tiny.positives[:1]
    ]  # fmt: skip
    cells = [
        box_cells(tiny.boxes(item), width=w, height=h)
        for item in tiny.positives
        for w, h in [Image.open(tiny.path_of(item)).size]
    ]
    np.testing.assert_allclose(cells[:1], masks, atol=1e-9)
    np.testing.assert_allclose(s.heat, np.mean(cells, axis=0), atol=1e-12)


def test_stated_attributes(tiny: Benchmark) -> None:
    s = measure(tiny)
    assert sorted(s.clutter) == sorted(tiny.stated[item].clutter or 0 for item in tiny.positives)
    assert s.positives.coverage.tolist() == [tiny.stated[item].coverage for item in tiny.positives]
    assert s.coverage_gap == pytest.approx(0, abs=1e-5)
    assert (s.distractors, s.counted) == (14, "id list")


def test_the_gap_between_stated_and_measured_coverage(tiny_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_root, tmp_path / "copy"))
    path = root / "image_ids" / "positive_ids.txt"
    first, *others = path.read_text().splitlines()
    item, area, clutter = first.split(",")
    shifted = float(area) - 0.25 if float(area) > 0.5 else float(area) + 0.25
    path.write_text("\n".join([f"{item},{shifted},{clutter}", *others]))
    assert measure(read_ilias(root)).coverage_gap == pytest.approx(0.25, abs=1e-5)


def official_like() -> dict[str, dict[str, dict[str, list[str]]]]:
    """A taxonomy with 8 / 42 / 38 categories and 8 / 48 / 81 nodes, as the official one."""
    taxonomy: dict[str, dict[str, dict[str, list[str]]]] = {f"coarse{n}": {} for n in range(8)}
    for n in range(42):
        fines = {f"fine{n}": [f"a_{n}"]} if n < 38 else {}
        taxonomy[f"coarse{n % 8}"][f"mid{n}"] = fines | ({"other": [f"b_{n}"]} if n >= 5 else {})
    for n in range(6):
        taxonomy[f"coarse{n}"]["other"] = {"other": [f"c_{n}"]}
    return taxonomy


def lists_only(root: Path, objects: list[str]) -> Path:
    """A benchmark of which only the id lists are here."""
    lists = root / "image_ids"
    lists.mkdir(parents=True)
    (lists / "image_query_ids.txt").write_text("".join(f"{name}/query/Q_00.jpg,url\n" for name in objects))
    (lists / "text_query_ids.txt").write_text("".join(f"{name}/query/T.txt\n" for name in objects))
    (lists / "positive_ids.txt").write_text(
        "".join(f"{name}/pos/P_00.jpg,0.{n % 9}5,{n}\n" for n, name in enumerate(objects))
    )
    return root


def test_three_levels_as_published(tmp_path: Path) -> None:
    taxonomy = official_like()
    objects = sorted(
        name for mids in taxonomy.values() for fines in mids.values() for f in fines.values() for name in f
    )
    root = lists_only(tmp_path / "lists", objects)
    (root / "taxonomy.json").write_text(json.dumps(taxonomy))
    s = measure(read_ilias(root))
    assert (s.levels, s.nodes) == ((8, 42, 38), (8, 48, 81))
    assert sum(category.objects for category in s.categories) == len(objects)
    bars = mid_categories(s)
    assert len(bars) == 48
    sizes = [sum(bar[2] for bar in bars if bar[0] == name) for name in dict.fromkeys(bar[0] for bar in bars)]
    assert sizes == sorted(sizes, reverse=True)
    assert [bar[1] for bar in bars if bar[0] == "coarse0"][-1] == "other"


def test_without_images(tmp_path: Path) -> None:
    s = measure(read_ilias(lists_only(tmp_path / "lists", ["a_1", "b_2"])))
    assert (s.heat, s.centre_distance, s.distractors, s.counted) == (None, None, None, "nothing")
    assert (len(s.boxes), s.queries.images, len(s.positives.coverage)) == (0, 2, 2)
    shown = {row.label: row.value for row in rows(s)}
    assert (shown["boxes"], shown["camera models"]) == ("-", "-")
    assert (as_json(s)["boxes"], as_json(s)["cameras"]) == (None, None)
    assert (s.cameras, s.without_camera) == ((), 0)
    assert "cameras.csv" not in csv_files(s)
    assert set(figures(s)) == {"positives_per_object", "clutter", "coverage"}


@pytest.mark.parametrize("text", ["", "\n\n", "a", "a\nb", "a\n\nb\n", "a\r\nb\r\n", "\na\n"])
def test_lines_are_counted(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.gz").write_bytes(gzip.compress(text.encode()))
    assert count_lines(tmp_path / "l.gz") == len(text.split())


def test_lines_across_blocks(tmp_path: Path) -> None:
    line = "yfcc100m_0000.tar/abc_0000\n"
    (tmp_path / "l.gz").write_bytes(gzip.compress((line * 100_000).encode(), 1))
    assert count_lines(tmp_path / "l.gz") == 100_000


def test_bins(small: Path) -> None:
    s = measure(read_ilias(small))
    assert positives_histogram(s) == [(1, 2), (2, 1)]
    assert clutter_edges(s) == [0, 1]


def test_tables_and_csv_agree(tiny: Benchmark) -> None:
    s = measure(tiny)
    files = csv_files(s)
    assert sum(int(line.split(",")[1]) for line in files["positives_per_object.csv"].splitlines()[1:]) == s.objects
    assert sum(int(line.split(",")[2]) for line in files["clutter.csv"].splitlines()[1:]) == len(s.clutter)
    coverages = [line.split(",") for line in files["coverage.csv"].splitlines()[1:]]
    assert sum(int(line[3]) for line in coverages) == len(tiny.positives)
    assert sum(int(line[2]) for line in coverages) == len(tiny.image_queries)
    cells = [float(line.split(",")[2]) for line in files["heat_map.csv"].splitlines()[1:]]
    np.testing.assert_allclose(np.reshape(cells, (GRID, GRID)), s.heat, atol=1e-6)
    value = as_json(s)
    assert value["positives"]["boxes"] + value["image_queries"]["boxes"] == value["boxes"] == s.boxes.sum()
    assert value["positives_per_object"]["histogram"] == {str(n): objects for n, objects in positives_histogram(s)}


def test_cameras_are_shown(small: Path, tiny: Benchmark) -> None:
    s = measure(read_ilias(small))
    (row,) = [row for row in rows(s) if row.label == "camera models"]
    assert row.value == "3, named by 5 of 7 images"
    assert row.published == "15 of more than 100 images each, named by 3,946"
    assert as_json(s)["cameras"] == {"models": 3, "images": {"A 1": 2, "B 2": 2, "C": 1}, "images_without": 2}
    assert csv_files(s)["cameras.csv"] == "camera,images\nA 1,2\nB 2,2\nC,1\n"
    made = measure(tiny)
    assert {camera for camera, _ in made.cameras} <= {model for _, model, _ in CAMERAS}
    assert made.with_camera == len(tiny.image_queries) + len(tiny.positives)


def test_each_image_is_read_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = Item.read
    monkeypatch.setattr(Item, "read", lambda item: (read.append(item.id), real(item))[1])
    measure(read_ilias(small))
    assert len(read) == len(set(read)) == 7


def test_figures_cut_nothing_off(tmp_path: Path, tiny: Benchmark) -> None:
    taxonomy = {
        "a coarse category of a long name": {f"a mid category of a long name {n}": {"x": [f"o_{n}"]} for n in range(30)}
    }
    root = lists_only(tmp_path / "lists", [f"o_{n}" for n in range(30)])
    (root / "taxonomy.json").write_text(json.dumps(taxonomy))
    for benchmark in (tiny, read_ilias(root)):
        for name, figure in figures(measure(benchmark)).items():
            figure.draw_without_rendering()
            box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            assert box.x0 > -0.02, name
            assert box.y0 > -0.02, name
            assert box.x1 < width + 0.02, name
            assert box.y1 < height + 0.02, name


def test_equal_statistics_give_equal_bytes(tiny: Benchmark, tmp_path: Path) -> None:
    import matplotlib as mpl

    s, before = measure(tiny), dict(mpl.rcParams)
    names = write_statistics(s, tmp_path / "one")
    assert dict(mpl.rcParams) == before
    mpl.rcParams["font.size"] = 20
    try:
        write_statistics(s, tmp_path / "two")
    finally:
        mpl.rcParams["font.size"] = before["font.size"]
    assert {"heat_map.svg", "heat_map.png", "categories.svg", "clutter.png", "coverage.svg", "statistics.json"} <= set(
        names
    )
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(names)


def test_what_is_in_the_way_stays(tiny: Benchmark, tmp_path: Path) -> None:
    s, out = measure(tiny), tmp_path / "out"
    out.mkdir()
    write_statistics(s, out)
    write_statistics(s, out)
    (out / "mine.txt").write_text("precious")
    with pytest.raises(OpenIliasError, match="holds no statistics"):
        write_statistics(s, out)
    assert (out / "mine.txt").read_text() == "precious"
    with pytest.raises(OpenIliasError, match="holds no statistics"):
        write_statistics(s, out / "mine.txt")


def test_the_command(ilias: Ilias, tiny_root: Path, tmp_path: Path) -> None:
    outcome = ilias("data", "stats", tiny_root, "--out", tmp_path / "s", "--json", tmp_path / "s.json")
    assert outcome.code == 0, outcome.err
    assert "4,715" not in outcome.out
    value = json.loads((tmp_path / "s.json").read_text())
    assert (value["objects"], value["distractors"]["images"]) == (4, 14)
    assert (tmp_path / "s" / "positives_per_object.svg").read_text().startswith("<?xml")
    beside = ilias("data", "stats", tiny_root, "--published")
    assert "4,715" in beside.out
    assert "8 / 42 / 38" in beside.out
    assert "Example: ilias data stats" in " ".join(ilias("data", "stats", "--help").out.split())


@pytest.mark.parametrize("damage", ["image", "no image", "text", "boxes", "list", "way"])
def test_wrong_input(ilias: Ilias, tiny_root: Path, tmp_path: Path, damage: str) -> None:
    root = Path(shutil.copytree(tiny_root, tmp_path / "copy"))
    out = tmp_path / "out"
    if damage == "image":
        next(root.glob("ilias_core/*/pos/*.jpg")).write_bytes(b"broken")
    elif damage == "no image":
        next(root.glob("ilias_core/*/pos/*.jpg")).unlink()
    elif damage == "text":
        next(root.glob("ilias_core/*/query/T*.txt")).write_bytes(b"\xff\xff")
    elif damage == "boxes":
        next(root.glob("ilias_core/*/pos/*_bbox.txt")).write_text("1 2 3\n")
    elif damage == "list":
        path = root / "image_ids" / "distractor_ids.txt.gz"
        path.write_bytes(path.read_bytes()[:-12])
    else:
        out.write_text("precious")
    outcome = ilias("data", "stats", root, "--out", out)
    assert outcome.code == 2, outcome.out
    assert outcome.err.startswith("error:")
    assert out.exists() == (damage == "way")


def test_figures_need_no_global_state(tiny_root: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom openilias.data import read_ilias\n"
        "from openilias.data.statistics import measure\nfrom openilias.report.statistics import figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"figures(measure(read_ilias(Path({str(tiny_root)!r}))))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_photographs(photos: Path) -> None:
    benchmark = read_ilias(photos)
    s = measure(benchmark)
    assert s.objects == len(benchmark.relevance)
    assert s.boxes.sum() == sum(len(benchmark.boxes(i)) for i in (*benchmark.image_queries, *benchmark.positives))
    assert s.heat is not None
    assert s.heat.mean() == pytest.approx(s.positives.coverage[: len(benchmark.positives)].mean(), abs=1e-9)
