"""A collector's folder becomes objects of a set: what is read, what is refused, what stays when it grows."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from conftest import Outcome, kill_when
from openilias.build.collect.annotations.marks import Edges, Mark, Marked, Size, matched, placed, turned
from openilias.build.collect.annotations.read import read_annotations
from openilias.build.collect.background import THRESHOLD, background_clutter
from openilias.build.collect.collect import Collected, collect
from openilias.build.collect.evidence import ObjectRecord, judged
from openilias.build.collect.finishing import Checks
from openilias.build.collect.inputs import Request
from openilias.build.collect.names import natural, slug
from openilias.build.collect.near import near_among, near_pairs
from openilias.build.collect.numbers import Numbers, assign, read_numbers
from openilias.build.collect.plan import BoxSource
from openilias.build.collect.values import Details, SourceImage, SourceObject
from openilias.build.normalise import Balance, NormaliseSettings
from openilias.build.stored import StoredImage, read_rows, write_rows
from openilias.core.errors import OpenIliasError
from openilias.data import read_ilias
from openilias.data.verify import verify
from openilias.images.boxes import Box, read_boxes
from openilias.images.tars import write_tar

PLAIN = NormaliseSettings(longest=64, balance=Balance(method="none"))
MODEL, ORIENTATION = 0x0110, 0x0112


def picture(
    path: Path,
    seed: int,
    *,
    size: tuple[int, int] = (96, 72),
    box: tuple[int, int, int, int] | None = None,
    camera: str | None = None,
    orientation: int = 1,
) -> Path:
    """Write a picture of blurred noise, or of a rectangle on plain ground."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    if box is not None:
        image = Image.new("RGB", size, (220, 220, 220))
        ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=(200, 30, 10 + seed % 200))
    exif = Image.Exif()
    if camera:
        exif[MODEL] = camera
    if orientation != 1:
        exif[ORIENTATION] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95, exif=exif) if path.suffix == ".jpg" else image.save(path)
    return path


def folder_of(root: Path, names: tuple[str, ...] = ("Red mug", "Blå kopp"), positives: int = 2) -> Path:
    """Make a collector's folder."""
    for number, name in enumerate(names):
        picture(root / name / "query" / "IMG_1.jpg", 100 * number, box=(20, 10, 60, 50), camera="Old Cam")
        for place in range(positives):
            picture(root / name / "pos" / f"P{place + 2}.png", 100 * number + place + 1)
        (root / name / "query" / "text.txt").write_text(f"a {name}", encoding="utf-8")
    return root


def run(folder: Path, out: Path, **options: Any) -> Collected:
    request = {"cut_off": "none", "settings": PLAIN, "given": Details(licence="CC0")}
    given = {name: options.pop(name) for name in list(options) if name in Request.__dataclass_fields__}
    return collect(Request(folder, **(request | given)), out, **({"workers": 1} | options))


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def kinds(done: Collected) -> dict[str, int]:
    return {kind: count for (_, kind), count in done.report.kinds.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "collected")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "set"


# Names and numbers


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("Red mug", "red_mug"), ("Café  Ünïque!", "cafe_unique"), ("Straße", "strasse"), ("Ærø", "aero"),
        ("茶", "u8336"),
        ("茶碗 2", "u8336_u7897_2"), ("__a--b__", "a_b"), ("ﬁne", "fine"),
        ("!!!", ""), ("İ", "i"), ("²", "2"),
    ],
)  # fmt: skip
def test_names_are_spelt_in_ascii(name: str, spelt: str) -> None:
    assert slug(name) == spelt


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_name_is_spelt_so_and_stays_so(name: str) -> None:
    spelt = slug(name)
    assert set(spelt) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert slug(spelt) == spelt


def test_names_are_ordered_as_people_do() -> None:
    assert sorted(["IMG_10", "IMG_2", "a", "1"], key=natural) == ["1", "IMG_2", "IMG_10", "a"]


def of(name: str, *images: str) -> SourceObject:
    return SourceObject(
        name, tuple(SourceImage(f"{name}/{i}", Path(i), "query" if i[0] == "q" else "pos") for i in images)
    )


def test_numbers_stay_when_objects_and_images_are_added() -> None:
    first = assign([of("b", "q1", "p5")], Numbers({}, {}))
    assert first.images == {"b/q1": "b_000/query/Q000_00.jpg", "b/p5": "b_000/pos/P000_00.jpg"}
    second = assign([of("a", "q1", "p1"), of("b", "q0", "q1", "p1", "p5")], first)
    assert second.images.items() >= first.images.items()
    assert second.objects == {"b": "b_000", "a": "a_001"}
    assert second.images["b/q0"] == "b_000/query/Q000_01.jpg"
    assert second.images["b/p1"] == "b_000/pos/P000_01.jpg"
    # What is listed in another order counts too.
    turned = Numbers(second.objects, dict(reversed(second.images.items())))
    assert assign([of("b", "q7", "p7")], turned).images["b/p7"] == "b_000/pos/P000_02.jpg"
    # What went is not given again.
    third = assign([of("c", "q1", "p1"), of("b", "q2", "p6")], second)
    assert third.objects["c"] == "c_002"
    assert third.images["b/q2"] == "b_000/query/Q000_02.jpg"


def test_blanks_around_names_count(tmp_path: Path) -> None:
    made = assign([of(" b", "q", "p"), of("c ", "q", "p")], Numbers({}, {}))
    (tmp_path / "ids.csv").write_bytes(made.as_csv())
    assert read_numbers(tmp_path / "ids.csv") == made


def set_of(name: str, *images: str) -> SourceObject:
    """Return an object of a set in the core layout."""
    paths = ((image, f"{'query' if image[0] == 'Q' else 'pos'}/{image}.jpg") for image in images)
    sources = (SourceImage(f"{name}/{path}", Path(path), "query" if i[0] == "Q" else "pos") for i, path in paths)
    return SourceObject(name, tuple(sources))


def test_a_set_that_grows_keeps_its_numbers() -> None:
    first = assign([set_of("cup_000", "Q000_00", "P000_00")], Numbers({}, {}))
    grown = [set_of("cup_000", "Q000_00", "P000_00", "P000_05"), set_of("jar_007", "Q007_00", "P007_00")]
    second = assign(grown, first)
    assert second.objects == {"cup_000": "cup_000", "jar_007": "jar_007"}
    assert second.images["cup_000/pos/P000_05.jpg"] == "cup_000/pos/P000_05.jpg"
    assert second.images.items() >= first.images.items()
    # A number that was given is not given again, be its object gone or not.
    third = assign([*grown[1:], set_of("pot_000", "Q000_00", "P000_00")], second)
    assert third.objects["pot_000"] == "pot_000_008"


def test_the_thousandth_object_has_four_digits() -> None:
    made = assign([of(f"o{n:04d}", "q", "p") for n in range(1001)], Numbers({}, {}))
    assert made.objects["o1000"] == "o1000_1000"
    assert made.images["o1000/q"] == "o1000_1000/query/Q1000_00.jpg"


def test_a_file_that_is_for_something_else_now_is_refused() -> None:
    numbers = assign([of("a", "q", "p")], Numbers({}, {}))
    moved = SourceObject("a", (SourceImage("a/q", Path("q"), "pos"),))
    with pytest.raises(OpenIliasError, match="something else now"):
        assign([moved], numbers)


# A whole collection


def test_a_folder_becomes_a_sound_set(folder: Path, out: Path) -> None:
    done = run(folder, out)
    assert done.report.counts == {
        "objects": 2, "image_queries": 2, "text_queries": 2, "positives": 4, "boxes": 0, "rejected": 0, "refused": 0,
    }  # fmt: skip
    made = read_ilias(out)
    assert made.image_queries == ("bla_kopp_000/query/Q000_00.jpg", "red_mug_001/query/Q001_00.jpg")
    assert made.path_of("bla_kopp_000/query/T000.txt").read_text(encoding="utf-8") == "a Blå kopp\n"
    assert made.stated["red_mug_001/pos/P001_00.jpg"].coverage is None
    checked = verify(out, workers=1)
    assert checked is not None
    assert checked.sound, checked.findings
    assert {finding.kind for finding in checked.findings} == {"box-missing"}
    rows = {row.id: row for row in read_rows(out / "rows/core.parquet")}
    row = rows["red_mug_001/query/Q001_00.jpg"]
    assert (row.camera, row.licence, row.format, row.width) == ("Old Cam", "CC0", "JPEG", 64)
    assert row.where == "Red mug/query/IMG_1.jpg"


def test_a_second_run_changes_nothing_and_the_workers_neither(folder: Path, out: Path, tmp_path: Path) -> None:
    first = run(folder, out)
    before = files(out)
    again = run(folder, out)
    assert again.changes == {}
    assert again.report == first.report
    assert files(out) == before
    run(folder, tmp_path / "two", workers=2)
    assert files(tmp_path / "two") == before


def test_what_is_added_is_told_and_nothing_is_renumbered(folder: Path, out: Path) -> None:
    run(folder, out)
    before = files(out / "ilias_core")
    picture(folder / "Red mug" / "pos" / "A0.jpg", 77)
    folder_of(folder, ("Another",))
    done = run(folder, out)
    assert done.changes == {"another_002": "new", "red_mug_001": "changed"}
    after = files(out / "ilias_core")
    assert after.items() >= before.items()
    assert after.keys() - before.keys() >= {"red_mug_001/pos/P001_02.jpg", "another_002/query/Q002_00.jpg"}


def test_a_changed_image_and_text_are_made_anew(folder: Path, out: Path) -> None:
    run(folder, out)
    before = files(out / "ilias_core")
    picture(folder / "Red mug" / "pos" / "P2.png", 999)
    (folder / "Red mug" / "query" / "text.txt").write_text("another text\n", encoding="utf-8")
    assert run(folder, out).changes == {"red_mug_001": "changed"}
    after = files(out / "ilias_core")
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"red_mug_001/pos/P001_00.jpg", "red_mug_001/query/T001.txt"}


def test_what_goes_leaves_only_when_it_is_said(folder: Path, out: Path) -> None:
    run(folder, out)
    shutil.rmtree(folder / "Blå kopp")
    (folder / "Red mug" / "pos" / "P3.png").unlink()
    before = files(out)
    with pytest.raises(OpenIliasError, match="not collected any more"):
        run(folder, out)
    assert {k: v for k, v in files(out).items() if "seen" not in k} == {
        k: v for k, v in before.items() if "seen" not in k
    }
    done = run(folder, out, remove=True)
    assert done.changes == {"bla_kopp_000": "removed", "red_mug_001": "changed"}
    assert read_ilias(out).positives == ("red_mug_001/pos/P001_00.jpg",)
    folder_of(folder, ("Blå kopp",))
    assert run(folder, out).changes == {"bla_kopp_000": "new"}  # with the number that it had


def test_other_settings_stop_it(folder: Path, out: Path) -> None:
    run(folder, out)
    other = PLAIN.model_copy(update={"longest": 48})
    with pytest.raises(OpenIliasError, match=r"longest: 64 -> 48"):
        run(folder, out, settings=other)
    assert set(run(folder, out, settings=other, overwrite=True).changes.values()) == {"changed"}
    assert {row.width for row in read_rows(out / "rows/core.parquet")} == {48}


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_collect import run
run(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "collected", tuple(f"object {n}" for n in range(12)))
    run(folder, tmp_path / "whole")
    out = tmp_path / "set"
    for enough in (1, 5):
        kill_when(
            lambda enough=enough: len(list((out / "ilias_core").glob("*/pos"))) >= enough,
            KILLED, folder, out, Path(__file__).parent,
        )  # fmt: skip
    run(folder, out)
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize("moment", ["begun", "rmtree", "folder", "state"])
def test_killed_between_two_names_it_is_put_into_place(
    folder: Path, out: Path, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, out)
    picture(folder / "Red mug" / "pos" / "P2.png", 999)

    class KilledError(BaseException):
        pass

    real_replace, real_rmtree = Path.replace, shutil.rmtree

    def replace(self: Path, target: Path) -> Path:
        if self.name == {"folder": "folder", "state": "state.json"}.get(moment):
            raise KilledError
        if moment == "begun" and self.is_dir() and self.name.endswith(".partial"):
            raise KilledError
        return real_replace(self, target)

    def rmtree(path: Path, **options: Any) -> None:
        real_rmtree(path, **options)
        if moment == "rmtree" and Path(path).parent.name == "ilias_core":
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        patch.setattr(shutil, "rmtree", rmtree)
        with pytest.raises(KilledError):
            run(folder, out)
    run(folder, out)
    run(folder, tmp_path / "whole")
    assert files(out) == files(tmp_path / "whole")


def test_two_runs_at_once_are_refused(folder: Path, out: Path) -> None:
    from openilias.core.files import owned

    run(folder, out)
    with owned(out / "build/collect"), pytest.raises(OpenIliasError, match="Another process"):
        run(folder, out)


# What other steps did


def blur(out: Path, item: str, *, row: bool = True) -> None:
    """Change an image of the core as anonymisation does."""
    path = out / "ilias_core" / item
    Image.new("RGB", (64, 48), "black").save(path, quality=90, subsampling=0)
    if row:
        import hashlib

        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        table = out / "rows/core.parquet"
        rows = [
            StoredImage(**(vars(one) | ({"sha256": digest, "hash": 7} if one.id == item else {})))
            for one in list(read_rows(table))
        ]
        write_rows(table, rows)


def test_what_another_step_changed_stays(folder: Path, out: Path) -> None:
    run(folder, out)
    item = "red_mug_001/pos/P001_00.jpg"
    blur(out, item)
    (out / "ilias_core/red_mug_001/query/T001.txt").write_text("edited\n")
    before = files(out / "ilias_core")
    assert run(folder, out).changes == {}
    picture(folder / "Red mug" / "pos" / "new.jpg", 5)
    assert run(folder, out).changes == {"red_mug_001": "changed"}
    after = files(out / "ilias_core")
    assert after.items() >= before.items()
    row = next(row for row in read_rows(out / "rows/core.parquet") if row.id == item)
    assert row.hash == 7
    picture(folder / "Red mug" / "pos" / "P2.png", 6)
    with pytest.raises(OpenIliasError, match="its source has changed too"):
        run(folder, out)
    assert files(out / "ilias_core") == after
    run(folder, out, overwrite=True)
    assert (out / "ilias_core" / item).read_bytes() != after[item]


def test_an_image_that_nobody_knows_is_refused(folder: Path, out: Path) -> None:
    run(folder, out)
    blur(out, "red_mug_001/pos/P001_00.jpg", row=False)
    with pytest.raises(OpenIliasError, match="the table of the set does not know it"):
        run(folder, out)


def test_clutter_stays_as_long_as_its_picture_and_boxes(folder: Path, out: Path) -> None:
    run(folder, out)
    listed = out / "image_ids/positive_ids.txt"
    lines = listed.read_text().splitlines()
    listed.write_text("".join(f"{line}{number}\n" for number, line in enumerate(lines, 5)))
    run(folder, out)
    assert [line[-1] for line in listed.read_text().splitlines()] == ["5", "6", "7", "8"]
    (folder / "Red mug" / "pos" / "P2_bbox.txt").write_text("0 0 48 72\n")
    run(folder, out)
    found = dict(line.split(",", 1) for line in listed.read_text().splitlines())
    assert found["red_mug_001/pos/P001_00.jpg"] == "0.5,"
    assert found["red_mug_001/pos/P001_01.jpg"] == ",8"
    # What the step that counts says of an image without boxes stays too: coverage 1, no segments.
    listed.write_text(listed.read_text().replace("P001_01.jpg,,8", "P001_01.jpg,1.0,0"))
    run(folder, out)
    assert "red_mug_001/pos/P001_01.jpg,1.0,0\n" in listed.read_text()


def test_texts_of_the_caption_step_are_listed(folder: Path, out: Path) -> None:
    (folder / "Red mug" / "query" / "text.txt").unlink()
    run(folder, out)
    (out / "ilias_core/red_mug_001/query/T001.txt").write_text("a red mug\n")
    run(folder, out)
    assert "red_mug_001/query/T001.txt" in read_ilias(out).text_queries
    picture(folder / "Red mug" / "pos" / "new.jpg", 5)
    run(folder, out)
    assert (out / "ilias_core/red_mug_001/query/T001.txt").read_text() == "a red mug\n"


# What is refused


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Red mug/query", "should be"),
        ("loose.jpg", "should be"),
        ("Red mug/pos/IMG.HEIC", "not read"),
        ("Red mug/pos/deep/x.jpg", "folder lies"),
        ("Red mug/positives/x.jpg", "Both"),
        ("Red mug/extra/x.jpg", "neither"),
        ("red  MUG/query/x.jpg", "both spelt"),
        ("???/query/x.jpg", "No letter"),
        ("No query/pos/x.jpg", "no query image"),
        ("No positive/query/x.jpg", "no positive"),
        ("Empty/query/", "no query image"),
        ("Red mug/query/more.txt", "more than one text"),
        ("Red mug/pos/gone_bbox.txt", "not here"),
        ("Red mug/pos/P2_url.txt", "no http address"),
    ],
)
def test_a_folder_of_another_shape_is_refused_and_nothing_written(
    folder: Path, out: Path, name: str, said: str
) -> None:
    path = folder / name
    if name == "Red mug/query":
        shutil.rmtree(path)
    if name.endswith("/"):
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"javascript:alert(1)")
    with pytest.raises(OpenIliasError) as caught:
        run(folder, out)
    assert said in str(caught.value)
    assert not out.exists()


def test_no_folder_and_an_empty_one(tmp_path: Path, out: Path) -> None:
    with pytest.raises(OpenIliasError, match="no such folder"):
        run(tmp_path / "nothing", out)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OpenIliasError, match="a file, not a folder"):
        run(tmp_path / "file", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OpenIliasError, match="no objects"):
        run(tmp_path / "empty", out)
    assert not out.exists()


def test_a_set_within_its_own_source_is_refused(folder: Path) -> None:
    for place in (folder, folder / "set"):
        with pytest.raises(OpenIliasError, match="within"):
            run(folder, place)


def test_an_object_that_was_not_collected_here_is_not_touched(folder: Path, out: Path) -> None:
    (out / "ilias_core/theirs_000/query").mkdir(parents=True)
    with pytest.raises(OpenIliasError, match="not collected here"):
        run(folder, out)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("taxonomy.json", "{", "JSON"),
        ("image_ids/positive_ids.txt", "red_mug_001/pos/P001_00.jpg,0,5,18\n", "area_coverage"),
    ],
)
def test_a_file_of_the_set_that_is_read_in_the_end_is_checked_first(
    folder: Path, out: Path, name: str, content: str, said: str
) -> None:
    run(folder, out)
    (out / name).write_text(content)
    picture(folder / "Red mug" / "pos" / "P9.png", 99)
    before = files(out)
    with pytest.raises(OpenIliasError, match=said):
        run(folder, out)
    assert files(out) == before


def test_stores_of_descriptors_are_checked_first(folder: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(OpenIliasError):
        run(folder, out, checks=Checks(descriptors=(tmp_path / "none",)))
    assert not out.exists()


def test_several_errors_are_named_at_once(folder: Path, out: Path) -> None:
    (folder / "Red mug/pos/a.heic").write_bytes(b"")
    (folder / "Red mug/pos/b.tiff").write_bytes(b"")
    with pytest.raises(OpenIliasError) as caught:
        run(folder, out)
    assert "a.heic" in str(caught.value)
    assert "b.tiff" in str(caught.value)


def test_an_image_that_cannot_be_read_is_left_out_and_named(folder: Path, out: Path) -> None:
    (folder / "Red mug/pos/bad.jpg").write_bytes(b"<html>no</html>")
    (folder / "Blå kopp/query/IMG_1.jpg").write_bytes(b"")
    done = run(folder, out)
    assert {"image-not-an-image", "image-empty", "object-incomplete"} <= kinds(done).keys()
    assert done.report.counts["objects"] == 1
    rows = {row.where: row.status for row in read_rows(out / "rows/core.parquet")}
    assert rows["Red mug/pos/bad.jpg"] == "not-an-image"
    assert rows["Blå kopp/query/IMG_1.jpg"] == "empty"
    assert rows["Blå kopp/pos/P2.png"] == "left-out"
    before = files(out)
    run(folder, out)
    assert files(out) == before
    checked = verify(out, workers=1)
    assert checked is not None
    assert checked.sound


# Core layout and tables


def test_a_set_keeps_its_ids(folder: Path, out: Path, tmp_path: Path) -> None:
    run(folder, out)
    (out / "ilias_core/red_mug_001/pos/P001_00_bbox.txt").write_text("1 2 30 20\n")
    (out / "taxonomy.json").write_text('{"household": {"cup": {"other": ["red_mug_001", "bla_kopp_000"]}}}')
    run(out, tmp_path / "again")
    again = read_ilias(tmp_path / "again")
    assert again.positives == read_ilias(out).positives
    assert again.boxes("red_mug_001/pos/P001_00.jpg") == (Box(1, 2, 30, 20),)
    assert again.taxonomy == read_ilias(out).taxonomy
    # Files that conform are kept byte by byte.
    assert (
        files(tmp_path / "again/ilias_core").items()
        >= {name: data for name, data in files(out / "ilias_core").items() if name.endswith(".jpg")}.items()
    )


def test_a_table_places_files_and_says_whose_they_are(tmp_path: Path, out: Path) -> None:
    for number in range(3):
        picture(tmp_path / "flat" / f"{number}.jpg", number)
    picture(tmp_path / "flat" / "unused.jpg", 9)
    table = (
        "file,object,role,licence,author,camera,url,page_url\n"
        "0.jpg,Cup,query,CC BY 4.0,Ann,Cam A,https://a.example/0.jpg,https://a.example/0\n"
        "1.jpg,Cup,pos,,Bob,Cam B,,\n2.jpg,Cup,pos,,,,,\n"
    )
    (tmp_path / "flat/images.csv").write_text(table)
    run(tmp_path / "flat", out)
    rows = {row.id: row for row in read_rows(out / "rows/core.parquet")}
    query = rows["cup_000/query/Q000_00.jpg"]
    assert (query.licence, query.author, query.camera) == ("CC BY 4.0", "Ann", "Cam A")
    assert query.page_url == "https://a.example/0"
    assert (out / "ilias_core/cup_000/query/Q000_00_url.txt").read_text() == "https://a.example/0.jpg\n"
    assert rows["cup_000/pos/P000_00.jpg"].licence == "CC0"
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "missing: file"),
        ("name\nx", "missing: file"),
        ("file,colour\nx,red", "not known"),
        ("file;author\nx;Ann", "semicolons"),
        ("file,file\nx,y", "twice"),
        ("file,author\nx", "1 fields"),
        ("file\nnothing.jpg", "no image"),
        ("file\nRed mug/query/IMG_1.jpg\nRed mug/query/IMG_1.jpg", "twice"),
        ("file,object,role\n../x.jpg,a,pos", "not in the folder"),
        ("file,object,role\nRed mug/query/IMG_1.jpg,a,both", "query or pos"),
        ("file,object,role\nRed mug/query/IMG_1.jpg,a,query\nx,,", "in all rows"),
        ("file,url\nRed mug/query/IMG_1.jpg,ftp://x", "no http"),
        ('file,author\nRed mug/query/IMG_1.jpg,"open', "cannot be read"),
    ],
)
def test_a_malformed_table_is_refused(folder: Path, out: Path, table: str, said: str) -> None:
    (folder / "images.csv").write_text(table)
    with pytest.raises(OpenIliasError) as caught:
        run(folder, out)
    assert said in str(caught.value)
    assert not out.exists()


# Boxes


def label_studio_region(x: float, y: float, w: float, h: float, **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": ["thing"]}
    return {
        "type": "rectanglelabels", "original_width": 96, "original_height": 72, "image_rotation": 0,
        "value": value | more,
    }  # fmt: skip


def annotations(root: Path, form: str) -> Path:
    """Write the box 20 10 60 50 (edges) of a picture of 96 x 72, ``Red mug/query/IMG_1.jpg``, as a tool does."""
    root.mkdir()
    name = "Red mug/query/IMG_1.jpg"
    if form == "coco":
        value: Any = {
            "images": [{"id": 7, "file_name": name, "width": 96, "height": 72}],
            "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [20, 10, 40, 40]}],
            "categories": [{"id": 3, "name": "thing"}],
        }
    elif form == "yolo":
        path = root / "labels" / "Red mug" / "query" / "IMG_1.txt"
        path.parent.mkdir(parents=True)
        path.write_text(f"0 {40 / 96} {30 / 72} {40 / 96} {40 / 72}\n")
        (root / "classes.txt").write_text("thing\n")
        return root
    elif form == "label-studio":
        region = label_studio_region(100 * 20 / 96, 100 * 10 / 72, 100 * 40 / 96, 100 * 40 / 72)
        source = "/data/local-files/?d=photos/Red%20mug/query/IMG_1.jpg"
        value = [{"id": 1, "data": {"image": source}, "annotations": [{"result": [region]}]}]
    elif form == "label-studio-min":
        region = label_studio_region(100 * 20 / 96, 100 * 10 / 72, 100 * 40 / 96, 100 * 40 / 72)
        value = [
            {"image": f"/x/{name}", "id": 1, "label": [region["value"] | {k: region[k] for k in list(region)[1:3]}]}
        ]
    elif form == "cvat":
        (root / "a.xml").write_text(
            f'<?xml version="1.0"?><annotations><version>1.1</version><image id="0" name="{name}" width="96" '
            'height="72"><box label="thing" xtl="20" ytl="10" xbr="60" ybr="50"/><tag label="x"/></image></annotations>'
        )
        return root / "a.xml"
    else:
        (root / "boxes.csv").write_text(f"file,x,y,width,height\n{name},20,10,40,40\n")
        return root / "boxes.csv"
    (root / "a.json").write_text(json.dumps(value))
    return root / "a.json"


@pytest.mark.parametrize("form", ["coco", "yolo", "label-studio", "label-studio-min", "cvat", "ours"])
def test_boxes_of_every_tool_come_to_the_same(folder: Path, out: Path, tmp_path: Path, form: str) -> None:
    run(folder, out, boxes=BoxSource(annotations(tmp_path / "boxes", form)))
    item = "red_mug_001/query/Q001_00.jpg"
    assert read_ilias(out).boxes(item) == (Box(13, 7, 27, 26),)  # two thirds, to the nearest pixel
    asked = BoxSource(tmp_path / "boxes", form.removesuffix("-min"))
    if form != "ours":
        assert run(folder, out, boxes=asked).changes == {}


def seen_box(image: Image.Image) -> tuple[int, int, int, int]:
    red = np.asarray(image.convert("RGB"), int)
    mask = red[..., 0] - red[..., 1] > 80
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("frame", ["raw", "upright"])
def test_boxes_are_where_the_thing_is_however_the_camera_was_held(
    tmp_path: Path, out: Path, orientation: int, frame: str
) -> None:
    folder = tmp_path / "collected"
    path = picture(folder / "cup/query/q.jpg", 1, size=(120, 80), box=(12, 10, 52, 34), orientation=orientation)
    picture(folder / "cup/pos/p.jpg", 2)
    with Image.open(path) as image:
        from PIL import ImageOps

        edges = seen_box(ImageOps.exif_transpose(image)) if frame == "upright" else seen_box(image)
        size = ImageOps.exif_transpose(image).size if frame == "upright" else image.size
    value = {
        "images": [{"id": 1, "file_name": "q.jpg", "width": size[0], "height": size[1]}],
        "annotations": [
            {"image_id": 1, "bbox": [edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]], "category_id": 1}
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(value))
    # Where the picture lies on its side the sizes tell; where it is upside down or mirrored they cannot.
    asked = None if orientation >= 5 else frame
    run(folder, out, boxes=BoxSource(tmp_path / "coco.json", "coco", asked))
    stored = out / "ilias_core/cup_000/query/Q000_00.jpg"
    with Image.open(stored) as image:
        thing = seen_box(image)
    box = read_boxes(stored.with_name("Q000_00_bbox.txt"))[0]
    found = (box.x, box.y, box.x + box.width, box.y + box.height)
    assert max(abs(a - b) for a, b in zip(found, thing, strict=True)) <= 1, (found, thing)


def test_a_frame_that_the_sizes_contradict_is_refused(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "collected"
    picture(folder / "cup/query/q.jpg", 1, size=(120, 80), box=(12, 10, 52, 34), orientation=6)
    picture(folder / "cup/pos/p.jpg", 2)
    image = {"id": 1, "file_name": "q.jpg", "width": 120, "height": 80}
    value = {"images": [image], "annotations": [{"image_id": 1, "bbox": [1, 1, 9, 9]}]}
    (tmp_path / "coco.json").write_text(json.dumps(value))
    with pytest.raises(OpenIliasError, match="of a picture of 120 x 80"):
        run(folder, out, boxes=BoxSource(tmp_path / "coco.json", "coco", "upright"))


def marked(edges: Edges, **more: Any) -> Marked:
    return Marked("x.jpg", "here", (Mark(edges, None, "here"),), **more)


@pytest.mark.parametrize(
    ("edges", "kind"),
    [
        (Edges(math.nan, 0, 5, 5), "box-not-finite"),
        (Edges(0, 0, math.inf, 5), "box-not-finite"),
        (Edges(5, 5, 5, 9), "box-empty"),
        (Edges(9, 5, 5, 9), "box-empty"),
        (Edges(200, 0, 250, 9), "box-outside"),
        (Edges(-9, -9, 0, 0), "box-outside"),
    ],
)
def test_a_box_that_is_none_is_an_error(edges: Edges, kind: str) -> None:
    boxes, findings = placed(marked(edges), Size(100, 50), (100, 50))
    assert not boxes
    assert [(one.severity, one.kind) for one in findings] == [("error", kind)]


def test_a_box_that_reaches_outside_is_cut_and_told() -> None:
    boxes, findings = placed(marked(Edges(-10, 5, 20, 70)), Size(100, 50), (100, 50))
    assert boxes == [Box(0, 5, 20, 45)]
    assert [one.kind for one in findings] == ["box-cut"]
    boxes, findings = placed(marked(Edges(-1, 5, 101, 50)), Size(100, 50), (100, 50))
    assert (boxes, findings) == ([Box(0, 5, 100, 45)], [])


def test_boxes_of_a_smaller_copy_are_enlarged_and_of_another_picture_refused() -> None:
    boxes, findings = placed(marked(Edges(10, 10, 20, 20), size=(100, 50)), Size(1000, 500), (500, 250))
    assert (boxes, findings) == ([Box(50, 50, 50, 50)], [])
    boxes, findings = placed(marked(Edges(10, 10, 20, 20), size=(100, 100)), Size(1000, 500), (500, 250))
    assert [one.kind for one in findings] == ["box-size"]
    _, findings = placed(marked(Edges(10, 10, 20, 20), size=(math.nan, 0)), Size(1000, 500), (500, 250))
    assert [one.kind for one in findings] == ["box-size"]


@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(1e-6, 1), st.floats(1e-6, 1), st.integers(1, 3000), st.integers(1, 3000)
)
@settings(max_examples=200, deadline=None)
def test_a_box_within_a_picture_is_within_the_stored_one(
    x: float, y: float, w: float, h: float, width: int, height: int
) -> None:
    edges = Edges(x, y, x + w, y + h)
    stored = (max(1, width // 3), max(1, height // 3))
    boxes, _ = placed(marked(edges, shares=True), Size(width, height), stored)
    for box in boxes:
        assert box.x >= 0 <= box.y
        assert box.width > 0 < box.height
        assert box.x + box.width <= stored[0]
        assert box.y + box.height <= stored[1]


def test_turned_boxes_are_bounded() -> None:
    assert np.allclose(turned(Edges(0, 0, 4, 2), 90, (0, 0)), (-2, 0, 0, 4))
    assert np.allclose(turned(Edges(0, 0, 4, 2), 90, (2, 1)), (1, -1, 3, 3))


def test_turned_boxes_of_label_studio_and_cvat(tmp_path: Path) -> None:
    region = label_studio_region(50, 25, 25, 25, rotation=90)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"data": {"image": "q.jpg"}, "annotations": [{"result": [region]}]}]))
    found, _ = read_annotations(path)
    boxes, findings = placed(found[0], Size(96, 72), (96, 72))
    assert boxes == [Box(30, 18, 18, 24)]  # it turns clockwise about its upper left corner, 48 18
    assert [one.kind for one in findings] == ["box-shape"]
    path = tmp_path / "a.xml"
    path.write_text(
        '<annotations><image name="q.jpg" width="96" height="72">'
        '<box label="t" xtl="10" ytl="20" xbr="50" ybr="30" rotation="90"/>'
        '<polygon points="1,2;9,2;5,8"/></image></annotations>'
    )
    found, _ = read_annotations(path)
    assert placed(found[0], Size(96, 72), (96, 72))[0] == [Box(25, 5, 10, 40), Box(1, 2, 8, 6)]


def test_outlines_and_turned_boxes_of_yolo(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("0 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n\n1 0.5 0.5 0.2 0.2 0.99\n")
    found, _ = read_annotations(tmp_path)
    assert placed(found[0], Size(100, 100), (100, 100))[0] == [Box(10, 20, 40, 40), Box(40, 40, 20, 20)]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("images/1a2b3c4d-IMG_1.jpg", "a/pos/IMG_1.jpg"),  # COCO and YOLO of Label Studio keep its digits
        ("labels/1a2b3c4d-IMG_1", "a/pos/IMG_1.jpg"),
        ("train/IMG_1_jpg.rf.0123456789abcdef0123456789abcdef", "a/pos/IMG_1.jpg"),
        ("train/b_png.rf.0123456789abcdef0123456789abcdef.jpg", "a/pos/b.png"),
        ("12345678-c.jpg", "a/pos/12345678-c.jpg"),
        ("cafe\u0301.jpg", "a/pos/caf\u00e9.jpg"),
    ],
)
def test_what_tools_add_to_names_is_passed_over(name: str, meant: str) -> None:
    sources = ["a/pos/IMG_1.jpg", "a/pos/b.png", "a/pos/c.jpg", "a/pos/12345678-c.jpg", "a/pos/caf\u00e9.jpg"]
    found, findings = matched([Marked(name, "w", (Mark(Edges(0, 0, 1, 1), None, "w"),))], sources)
    assert (list(found), findings) == ([meant], [])


def test_of_an_almost_square_picture_the_size_itself_tells_the_frame() -> None:
    marked = Marked("n", "w", (Mark(Edges(0, 0, 10, 20), None, "w"),), size=(1000, 990))
    boxes, _ = placed(marked, Size(1000, 990, 6), (990, 1000))
    assert boxes == [Box(970, 0, 20, 10)]


def test_whole_exports_of_yolo(tmp_path: Path) -> None:
    """As they come from Roboflow and Label Studio: with descriptions, notes and names of classes beside the labels."""
    (tmp_path / "one" / "train" / "labels").mkdir(parents=True)
    (tmp_path / "one" / "train" / "labels" / "a.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    (tmp_path / "one" / "README.dataset.txt").write_text("Mugs > 2024\n")
    (tmp_path / "one" / "data.yaml").write_text("train: train/images\nnames: {0: cup, 1: mug}\n")
    (tmp_path / "two" / "labels").mkdir(parents=True)
    (tmp_path / "two" / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "two" / "classes.txt").write_text("mug\n")
    (tmp_path / "two" / "notes.json").write_text('{"categories": []}')
    for name in ("one", "two"):
        marked, _ = read_annotations(tmp_path / name)
        assert [mark.label for one in marked for mark in one.marks] == ["mug"]
    (tmp_path / "one" / "data.yaml").write_text("names: [a\n")
    with pytest.raises(OpenIliasError, match="YAML"):
        read_annotations(tmp_path / "one")


def test_polygons_of_label_studio_are_bounded_and_other_shapes_told(tmp_path: Path) -> None:
    size = {"original_width": 200, "original_height": 100}
    polygon = {"points": [[10, 20], [40, 20], [40, 60]], "polygonlabels": ["mug"]}
    ellipse = {"x": 5, "y": 5, "radiusX": 2, "radiusY": 2, "ellipselabels": ["mug"]}
    task = {"data": {"image": "a.jpg"}, "annotations": [{"result": [{**size, "value": v} for v in (polygon, ellipse)]}]}
    (tmp_path / "ls.json").write_text(json.dumps([task]))
    (tmp_path / "ls-min.json").write_text(json.dumps([{"image": "a.jpg", "label": [{**size, **polygon}]}]))
    cvat = '<annotations><image name="a.jpg" width="200" height="100"><mask rle="1" left="1" top="1"/></image>'
    (tmp_path / "cvat.xml").write_text(f"{cvat}</annotations>")
    for name, boxes, told in (("ls.json", 1, "ellipselabels"), ("ls-min.json", 1, ""), ("cvat.xml", 0, "mask")):
        marked, _ = read_annotations(tmp_path / name)
        found, findings = placed(marked[0], Size(200, 100), (200, 100))
        assert found == [Box(20, 20, 60, 40)][:boxes]
        said = [one.what for one in findings if one.kind == "box-shape-unknown"]
        assert bool(said) == bool(told)
        assert told in "".join(said)


def test_names_are_matched_by_the_end_of_their_paths() -> None:
    sources = ["a/query/1.jpg", "b/query/1.jpg", "a/pos/2.jpg", "a/pos/v.3.png"]
    one = marked(Edges(0, 0, 1, 1))
    names = {
        "C:\\x\\a\\query\\1.jpg": "a/query/1.jpg",
        "2.jpg": "a/pos/2.jpg",
        "2": "a/pos/2.jpg",
        "v.3": "a/pos/v.3.png",
    }
    for name, source in names.items():
        found, findings = matched([Marked(name, "", one.marks)], sources)
        assert (list(found), findings) == ([source], [])
    for name, kind in {
        "1.jpg": "box-image-ambiguous", "9.jpg": "box-image-unknown", "b/query/2.jpg": "box-image-unknown",
        "": "box-image-unknown",
    }.items():  # fmt: skip
        assert [f.kind for f in matched([Marked(name, "", one.marks)], sources)[1]] == [kind], name
    assert [f.kind for f in matched([Marked("2.jpg", "", one.marks)] * 2, sources)[1]] == ["box-twice"]
    assert matched([Marked("elsewhere.jpg", "", ())], sources) == ({}, [])


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE annotations [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    '<annotations><image name="&b;" width="1" height="1"/></annotations>'
)


ONE = '{"images": [{"id": 1, "file_name": "x"}], "annotations": [{"image_id": 1, "bbox": %s}]}'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", "", "not readable JSON"),
        ("a.json", "{}", "not of COCO or Label Studio"),
        ("a.json", "[]", "not of COCO or Label Studio"),
        ("a.json", '{"images": [{"id": 1}]}', "file_name"),
        ("a.json", '{"images": [{"id": 1, "file_name": "x"}, {"id": 1, "file_name": "y"}], "annotations": []}', "own"),
        ("a.json", '{"images": [{"id": 1, "file_name": "x"}]}', "no list of annotations"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}', "no image of the id"),
        ("a.json", ONE % "[1, 2]", "4 num"),
        ("a.json", '{"images": [{"id": 1, "file_name": "x"}], "annotations": [{"image_id": 1}]}', "bbox"),
        ("a.json", ONE % "[1, 2, true, 4]", "number"),
        ("a.json", '[{"data": {}}]', "names no image"),
        ("a.json", '[{"data": {"image": "x.jpg"}, "annotations": [{"result": 5}]}]', "a list as its result"),
        ("a.json", '[{"image": "x.jpg", "l": [{"x": 1, "y": "?", "width": 1, "height": 1}]}]', "Expected a number"),
        ("a.json", '[{"image": "x.jpg", "l": [{"x": 1, "y": 1, "width": 1, "height": 1, "rotation": 9}]}]', "size"),
        ("a.xml", BOMB, "document type"),
        ("a.xml", "<annotations>", "cannot be read"),
        ("a.xml", "<html/>", "not of CVAT"),
        ("a.xml", "<annotations><track/></annotations>", "video"),
        ("a.xml", '<annotations><box xtl="1"/></annotations>', "no image"),
        ("a.xml", '<annotations><image name="x" width="1" height="1"><box xtl="a"/></image></annotations>', "number"),
        ("a.csv", "file,x,y,width\na,1,2,3", "missing: height"),
        ("a.csv", "file,x,y,width,height\na,1,2,3,", "Expected a number"),
        ("a.txt", "0 0.5 0.5 0.1 0.1", "not read from .txt"),
        ("labels/a.txt", "0 0.5 0.5", "class x y width height"),
        ("labels/a.txt", "cup 0.5 0.5 0.1 0.1", "class x y width height"),
        ("labels/a.txt", "0 0.5 0.5 0.1 0.1 0.2 0.3 0.4", "pairs"),
        ("labels/a.txt", "0 a b c d", "Expected a number"),
    ],
)  # fmt: skip
def test_malformed_boxes_are_refused(
    folder: Path, out: Path, tmp_path: Path, name: str, content: str, said: str
) -> None:
    path = tmp_path / "boxes" / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(OpenIliasError) as caught:
        run(folder, out, boxes=BoxSource(path.parent if "/" in name else path))
    assert said in str(caught.value)
    assert not out.exists()


def test_a_bomb_in_another_encoding_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(BOMB.replace('"1.0"?', '"1.0" encoding="utf-16"?').encode("utf-16"))
    with pytest.raises(OpenIliasError, match="document type"):
        read_annotations(tmp_path / "a.xml")


def test_a_folder_of_two_kinds_of_boxes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "q.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(OpenIliasError, match="several kinds"):
        read_annotations(tmp_path)
    assert len(read_annotations(tmp_path, "yolo")[0]) == 1


def test_a_box_of_another_object_is_left_out(folder: Path, out: Path, tmp_path: Path) -> None:
    rows = "Red mug/query/IMG_1.jpg,0,0,48,36,Red Mug\nRed mug/query/IMG_1.jpg,48,36,20,20,blå kopp\n"
    (tmp_path / "b.csv").write_text(f"file,x,y,width,height,label\n{rows}")
    done = run(folder, out, boxes=BoxSource(tmp_path / "b.csv"))
    assert read_ilias(out).boxes("red_mug_001/query/Q001_00.jpg") == (Box(0, 0, 32, 24),)
    assert kinds(done)["box-of-another"] == 1


# Evidence


@pytest.mark.parametrize(
    ("evidence", "public", "cut_off", "status"),
    [
        ("", "", date(2014, 1, 1), "rejected"),
        ("receipt", "", date(2014, 1, 1), "accepted"),
        ("receipt", "2013-12-31", date(2014, 1, 1), "rejected"),
        ("receipt", "2014-01-01", date(2014, 1, 1), "accepted"),
        ("receipt", "2016-01-01", date(2020, 1, 1), "rejected"),
        ("", "", None, "accepted"),
    ],
)
def test_the_rule(evidence: str, public: str, cut_off: date | None, status: str) -> None:
    record = judged(ObjectRecord("a_000", evidence=evidence, first_public=public), cut_off)
    assert record.status == status
    assert judged(record, cut_off) == record
    assert judged(record, None).status == "accepted"  # what the rule rejected is not rejected for good


def test_what_a_person_rejected_stays_so() -> None:
    record = ObjectRecord("a_000", status="rejected", reason="generic design", evidence="x")
    assert judged(record, None).status == "rejected"


def test_objects_without_evidence_are_not_accepted_and_a_table_to_fill_in_is_there(folder: Path, out: Path) -> None:
    with pytest.raises(OpenIliasError, match="None of the 2 objects is accepted"):
        run(folder, out, cut_off=None)
    table = out / "build/collect/objects.csv"
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert {row["status"] for row in rows} == {"rejected"}
    assert {row["cut_off"] for row in rows} == {"2014-01-01"}
    assert (out / "build/collect/rejected.jpg").exists()
    text = table.read_text().splitlines()
    text[1] = "bla_kopp_000,rejected,a well-known painting,Ann,,,2014-01-01,"
    text[2] = "red_mug_001,,,Ann,made by me in 2020,2020-05-01,,household/cups"
    table.write_text("\n".join(text) + "\n")
    done = run(folder, out, cut_off=None)
    assert done.report.counts["objects"] == 1
    assert [one.reason for one in done.report.rejected] == ["a well-known painting"]
    assert read_ilias(out).taxonomy.nodes == {"red_mug_001": ("household", "cups", "other")}
    assert {path.name for path in (out / "ilias_core").iterdir()} == {"red_mug_001"}
    with pytest.raises(OpenIliasError, match="not accepted any more: red_mug_001; rule: it was public on 2020-05-01"):
        run(folder, out, cut_off=date(2021, 1, 1))


def test_lines_that_a_person_edits_in_the_set_hold_and_others_follow_the_collector(folder: Path, out: Path) -> None:
    run(folder, out)
    own, table = folder / "objects.csv", out / "build/collect/objects.csv"
    own.write_text("object,status,reason\nRed mug,rejected,too plain\nBlå kopp,accepted,\n")
    assert run(folder, out).changes == {"red_mug_001": "removed"}
    table.write_text(table.read_text().replace("red_mug_001,rejected,too plain", "red_mug_001,accepted,"))
    assert run(folder, out).changes == {"red_mug_001": "new"}
    own.write_text("object,status,reason\nRed mug,rejected,really\nBlå kopp,rejected,too blue\n")
    assert run(folder, out).changes == {"bla_kopp_000": "removed"}
    assert run(folder, out).changes == {}
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "red_mug" not in line))
    with pytest.raises(OpenIliasError, match="None of the 2"):
        run(folder, out)


def test_evidence_of_the_collector_replaces_what_the_rule_said(folder: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(OpenIliasError, match="None of the 2"):
        run(folder, out, cut_off=None)
    (folder / "objects.csv").write_text("object,evidence\nRed mug,a receipt\n")
    assert run(folder, out, cut_off=None).report.counts["objects"] == 1
    (tmp_path / "o.csv").write_text(
        "object,evidence,status,reason\nBlå kopp,known,,\nred_mug_001,,rejected,too plain\n"
    )
    done = run(folder, out, cut_off=None, objects=tmp_path / "o.csv")
    assert done.changes == {"bla_kopp_000": "new", "red_mug_001": "removed"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("Red mug,maybe,,,", "accepted or rejected"),
        ("Red mug,rejected,,,", "no reason"),
        ("Red mug,,,2014,", "YYYY-MM-DD"),
        ("Red mug,,,2014-13-01,", "YYYY-MM-DD"),
        ("Red mug,,,,a/b/c/d", "coarse/mid/fine"),
        ("Green mug,,,,", "no object 'Green mug'"),
        (",accepted,,,", "names no object"),
        ("Red mug,,,,\nRed mug,,,,", "stands twice"),
        ("Red mug,,,,\nred mug,,,,", "stands twice"),
    ],
)
def test_a_malformed_table_of_objects_is_refused(folder: Path, out: Path, row: str, said: str) -> None:
    (folder / "objects.csv").write_text(f"object,status,reason,first_public,category\n{row}\n")
    with pytest.raises(OpenIliasError) as caught:
        run(folder, out)
    assert said in str(caught.value)


def test_the_taxonomy_holds_against_the_table(folder: Path, out: Path) -> None:
    (folder / "objects.csv").write_text("object,category\nRed mug,household/cups/mug\nBlå kopp,household\n")
    run(folder, out)
    (out / "taxonomy.json").write_text('{"art": {"cups": {"mug": ["red_mug_001"]}}}')
    done = run(folder, out)
    assert kinds(done)["category-differs"] == 1
    assert read_ilias(out).taxonomy.nodes == {
        "red_mug_001": ("art", "cups", "mug"), "bla_kopp_000": ("household", "other", "other"),
    }  # fmt: skip


# Checks


def test_cameras(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "collected"
    cameras = {"good": ("A 1", "B"), "same": ("A 1", "a  1"), "dark": (None, "B")}
    for seed, (name, (query, positive)) in enumerate(cameras.items()):
        picture(folder / name / "query/q.jpg", seed, camera=query)
        picture(folder / name / "pos/p.jpg", seed + 50, camera=positive)
    (tmp_path / "cameras.csv").write_text("model,year,type\na 1,2008,DSLR\n")
    done = run(folder, out, checks=Checks(cameras=tmp_path / "cameras.csv"))
    named = {(one.kind, one.where) for one in done.report.findings if one.kind.startswith("camera")}
    assert named == {("camera-same", "same_002"), ("camera-unknown", "dark_000")}
    lines = (out / "build/collect/cameras.csv").read_text().splitlines()
    assert lines == ["model,year,type,queries,positives,images", "A 1,2008,DSLR,2,1,3", "B,,,0,2,2"]
    assert done.report.without_camera == 1
    assert "| A 1 | 2008 | DSLR | 3 |" in (out / "build/collect/report.md").read_text()


def test_backgrounds() -> None:
    rng = np.random.default_rng(0)
    plain = Image.new("RGB", (300, 200), (200, 210, 220))
    asphalt = Image.fromarray(rng.integers(80, 140, (200, 300, 3), dtype=np.uint8))
    shelf = Image.fromarray(rng.integers(0, 256, (10, 15, 3), dtype=np.uint8)).resize(
        (300, 200), Image.Resampling.NEAREST
    )
    box = (Box(100, 50, 100, 100),)
    for boxes in (box, ()):
        assert background_clutter(plain, boxes) == 0
        assert (background_clutter(asphalt, boxes) or 0) < THRESHOLD
        assert (background_clutter(shelf, boxes) or 0) > THRESHOLD
    thing = plain.copy()
    thing.paste(shelf.crop((100, 50, 200, 150)), (100, 50))
    assert background_clutter(thing, box) == 0
    assert background_clutter(shelf, (Box(0, 0, 300, 200),)) is None


def test_a_query_before_clutter_is_named(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "collected"
    coarse = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    (folder / "cup/query").mkdir(parents=True)
    Image.fromarray(coarse).resize((96, 72), Image.Resampling.NEAREST).save(folder / "cup/query/q.png")
    picture(folder / "cup/pos/p.jpg", 3)
    assert kinds(run(folder, out))["background"] == 1


def naive(core: np.ndarray[Any, Any], others: np.ndarray[Any, Any], most: int) -> set[tuple[int, int, int]]:
    return {
        (i, j, (int(a) ^ int(b)).bit_count())
        for i, a in enumerate(core)
        for j, b in enumerate(others)
        if (int(a) ^ int(b)).bit_count() <= most
    }


@pytest.mark.parametrize("most", [0, 1, 2, 3, 4, 5, 6, 9])
def test_near_hashes_against_a_plain_twin(most: int) -> None:
    rng = np.random.default_rng(most)
    core = rng.integers(0, 2**64, 37, dtype=np.uint64)
    others = np.concatenate((rng.integers(0, 2**64, 150, dtype=np.uint64), core, core, core))
    for place in range(150, len(others)):
        for bit in rng.permutation(64)[: rng.integers(0, most + 3)]:
            others[place] ^= np.uint64(1) << np.uint64(bit)
    rng.shuffle(others)
    found = [tuple(pair) for pair in near_pairs(core, others, most)]
    assert set(found) == naive(core, others, most)
    assert found == sorted(found, key=lambda pair: (pair[1], pair[0]))
    assert len(found) > 20
    among = {tuple(pair) for pair in near_among(others, most)}
    assert among == {pair for pair in naive(others, others, most) if pair[0] < pair[1]}


def test_no_hashes_have_no_pairs() -> None:
    nothing = np.zeros(0, np.uint64)
    for most in (4, 8):
        assert not list(near_pairs(nothing, np.ones(3, np.uint64), most))
        assert not list(near_pairs(np.ones(3, np.uint64), nothing, most))


def with_duplicates(folder: Path, out: Path) -> None:
    """Put the same picture under both objects, beside its query, and among the distractors."""
    source = folder / "Red mug/query/IMG_1.jpg"
    rng = np.random.default_rng(3)
    Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((96, 72), Image.Resampling.BICUBIC).save(
        source
    )
    with Image.open(source) as image:
        image.resize((80, 60)).save(folder / "Red mug/pos/again.jpg", quality=60)
        image.save(folder / "Blå kopp/pos/stray.png")
    run(folder, out)
    rows = {row.id: row for row in read_rows(out / "rows/core.parquet")}
    query = rows["red_mug_001/query/Q001_00.jpg"]
    assert query.hash is not None
    write_rows(
        out / "rows/yfcc100m_0000.parquet",
        [
            StoredImage("far", "stored", hash=query.hash ^ 0xFFFF),
            StoredImage("near", "stored", hash=query.hash ^ 0b101),
            StoredImage("gone", "not-found"),
            StoredImage("failed", "damaged", hash=query.hash),
        ],
    )
    image = (out / "ilias_core" / query.id).read_bytes()
    (out / "yfcc100m").mkdir()
    write_tar(out / "yfcc100m/yfcc100m_0000.tar", [("far.jpg", image), ("near.jpg", image)])


def test_duplicates_are_found_and_decisions_kept(folder: Path, out: Path) -> None:
    with_duplicates(folder, out)
    done = run(folder, out)
    found = {(one.first, one.second): one.kind for one in done.report.pairs}
    assert found["red_mug_001/query/Q001_00.jpg", "yfcc100m_0000.tar/near"] == "distractor"
    assert "objects" in found.values()
    assert "query" in found.values()
    assert not any("far" in second or "failed" in second for _, second in found)
    assert {"duplicate-objects", "duplicate-query", "duplicate-distractor"} <= kinds(done).keys()
    assert (out / "build/collect/pairs.jpg").exists()
    table = out / "build/collect/pairs.csv"
    table.write_text(table.read_text().replace("distractor,proposed", "distractor,rejected"))
    again = run(folder, out)
    assert "duplicate-distractor" not in kinds(again)
    assert "distractor,rejected" in table.read_text()
    table.write_text(table.read_text().replace("proposed", "perhaps"))
    with pytest.raises(OpenIliasError, match="perhaps"):
        run(folder, out)


def test_the_distance_of_duplicates_counts(folder: Path, out: Path) -> None:
    with_duplicates(folder, out)
    near = run(folder, out, checks=Checks(distractor_distance=1))
    assert not any(one.kind == "distractor" for one in near.report.pairs)
    far = run(folder, out, checks=Checks(distractor_distance=16, distance=0))
    assert sum(one.kind == "distractor" and one.second.endswith("far") for one in far.report.pairs) >= 1
    (out / "rows/yfcc100m_0000.parquet").write_bytes(b"PAR1")
    with pytest.raises(OpenIliasError, match="cannot be read"):
        run(folder, out)


def test_descriptors_are_compared_too(folder: Path, out: Path, tmp_path: Path) -> None:
    import h5py

    run(folder, out)
    made = read_ilias(out)
    rng = np.random.default_rng(0)

    def store(partition: str, ids: tuple[str, ...], rows: np.ndarray[Any, Any]) -> Path:
        path = tmp_path / f"features_{partition}.hdf5"
        with h5py.File(path, "w") as file:
            file["features"] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
            file.create_dataset("index", data=list(ids), dtype=h5py.string_dtype("ascii"))
        return path

    queries = rng.standard_normal((2, 16))
    positives = rng.standard_normal((4, 16))
    positives[0] = queries[1]  # of another object
    distractors = rng.standard_normal((5, 16))
    distractors[3] = queries[0]
    stores = (
        store("image_queries", made.image_queries, queries),
        store("positives", made.positives, positives),
        store("distractors_00000", tuple(f"yfcc100m_0000.tar/{n}" for n in range(5)), distractors),
    )
    done = run(folder, out, checks=Checks(descriptors=stores, similarity=0.95, distance=0))
    found = {(one.first, one.second, one.kind) for one in done.report.pairs if one.by == "descriptor"}
    assert found == {
        (made.image_queries[1], made.positives[0], "objects"),
        (made.image_queries[0], "yfcc100m_0000.tar/3", "distractor"),
    }
    # What was found by descriptors stays in the table when they are not given, and so does what a person decides.
    table = out / "build/collect/pairs.csv"
    table.write_text(table.read_text().replace("objects,proposed", "objects,rejected"))
    again = run(folder, out, checks=Checks(distance=0))
    assert {(one.kind, one.status) for one in again.report.pairs} == {
        ("objects", "rejected"),
        ("distractor", "proposed"),
    }
    with pytest.raises(OpenIliasError, match="image queries and positives are compared"):
        run(folder, out, checks=Checks(descriptors=stores[2:]))


# The command


def test_the_command(ilias: Callable[..., Outcome], folder: Path, out: Path, tmp_path: Path) -> None:
    common = ("build", "collect", folder, "--out", out, "--cut-off", "none", "--workers", 1)
    dry = ilias(*common, "--dry-run", "--json", tmp_path / "dry.json")
    assert dry.code == 0, dry.err
    assert not out.exists()
    assert json.loads((tmp_path / "dry.json").read_text())["counts"]["to_make"] == 6
    done = ilias(*common, "--licence", "CC0", "--author", "Ann", "--longest", 48, "--json", tmp_path / "done.json")
    assert done.code == 0, done.err
    assert "2 objects" in done.out
    assert json.loads((tmp_path / "done.json").read_text())["changes"] == {"bla_kopp_000": "new", "red_mug_001": "new"}
    rows = list(read_rows(out / "rows/core.parquet"))
    assert {(row.author, row.width) for row in rows} == {("Ann", 48)}
    assert ilias(*common, "--longest", 48, "--strict").code == 1  # there are warnings
    refused = ilias(*common, "--longest", 64)
    assert (refused.code, "longest: 48 -> 64" in refused.err) == (2, True)
    for bad in (("--boxes-format", "via"), ("--boxes-frame", "left"), ("--cut-off", "2014"), ("--white-balance", "x")):
        assert ilias(*common, *bad).code == 2
    (folder / "Red mug/pos/bad.jpg").write_bytes(b"<svg/>")
    assert ilias(*common, "--longest", 48).code == 1
