"""Publishing a set: what is refused, what is written, that nothing private is, and that it can be fetched again."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import re
import resource
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import Outcome, kill_when
from faulty_server import FaultyServer
from openilias.build.caption import Caption, apply_captions, write_captions
from openilias.build.publish import publishing
from openilias.build.publish.browse import Entry, PageJob, Shot, render
from openilias.build.publish.checks import check_files
from openilias.build.publish.datasheet import read_answers
from openilias.build.publish.decisions import find_decisions
from openilias.build.publish.facts import Manifest, manifests_of, public_leaves
from openilias.build.publish.markdown import link, plain, table
from openilias.build.publish.outputs import Output
from openilias.build.publish.publishing import MANIFEST, Published, check, publish
from openilias.build.publish.questions import KEYS, OPTIONAL, QUESTIONS
from openilias.build.publish.rows import facts_of_rows, write_public
from openilias.build.publish.settings import PublishSettings
from openilias.build.publish.verify_published import verify_published
from openilias.build.stored import StoredImage, read_rows, rows_file, write_rows
from openilias.core.errors import OpenIliasError
from openilias.core.findings import Finding
from openilias.data import Item, read_ilias
from openilias.data.download import download
from openilias.data.http import Patience
from openilias.data.ilias import find_ilias
from openilias.data.rehash import rehash
from openilias.data.verify import verify
from openilias.images.tars import TarReader, write_tar
from publish_world import CANARY, all_distractors, jpeg, make_set, write

PAIRS = "build/collect/pairs.csv"
SETTINGS = PublishSettings(name="tiny", version="1.0")
PRIVATE = (CANARY.encode(), CANARY.upper().encode(), base64.b64encode(CANARY.encode())[:8])


@pytest.fixture(scope="session")
def whole_set(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Path:
    """A set that may be published; do not change it."""
    return make_set(tmp_path_factory.mktemp("publish") / "set", tiny_root)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, whole_set: Path) -> Published:
    """That set, published; do not change it."""
    return publish(whole_set, whole_set.parent / "published", SETTINGS, workers=1)


@pytest.fixture
def own(tmp_path: Path, whole_set: Path) -> Path:
    """A set that may be changed."""
    return Path(shutil.copytree(whole_set, tmp_path / "set"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kinds(findings: tuple[Finding, ...], severity: str = "error") -> set[str]:
    return {one.kind for one in findings if one.severity == severity}


def image_of(root: Path, pattern: str = "P*.jpg") -> Path:
    return sorted((root / "ilias_core").rglob(pattern))[0]


# What is published


def test_what_is_published(published: Published) -> None:
    names = set(contents(published.folder))
    assert names == {
        "ilias_core.tar", "taxonomy.json", "attribution.csv.gz", "LICENSES.md", "DATASHEET.md", "checksums.txt",
        MANIFEST,
        "image_ids/image_query_ids.txt", "image_ids/text_query_ids.txt", "image_ids/positive_ids.txt",
        "image_ids/distractor_ids.txt.gz", "image_ids/mini_ilias_yfcc100m_ids.txt", "image_ids/mini_random_0_ids.txt",
        "yfcc100m/yfcc100m_0000.tar", "yfcc100m/yfcc100m_0001.tar", "rows/core.parquet", "rows/yfcc100m_0000.parquet",
        "rows/yfcc100m_0001.parquet", "browse/index.html", "browse/distractors.html",
        *(f"browse/objects-{number:04d}.html" for number in range(1, 5)),
    }  # fmt: skip
    assert set(published.files) == names - {"checksums.txt", MANIFEST}
    assert published.fresh
    assert not [one for one in published.findings if one.severity == "error"]


def test_the_tar_of_the_objects(published: Published, whole_set: Path) -> None:
    with tarfile.open(published.folder / "ilias_core.tar") as tar:
        members = tar.getmembers()
        names = [member.name for member in members]
        assert names == sorted(names)
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        found = {m.name.removeprefix("ilias_core/"): tar.extractfile(m).read() for m in members}  # type: ignore[union-attr]
    assert found == contents(whole_set / "ilias_core")
    assert any(name.endswith("_url.txt") for name in found)


@pytest.mark.parametrize("url_base", [None, "https://data.example/tiny/v1/"])
def test_it_can_be_fetched_again_and_is_the_set(
    published: Published, whole_set: Path, tmp_path: Path, url_base: str | None
) -> None:
    folder = published.folder
    if url_base is not None:
        settings = SETTINGS.model_copy(update={"url_base": url_base.rstrip("/")})
        folder = publish(whole_set, tmp_path / "out", settings, workers=1).folder
        text = (folder / "checksums.txt").read_text()
        assert f"  {url_base}rows/core.parquet\n" in text
        croissant = json.loads((folder / "croissant.json").read_text())
        assert {one["contentUrl"] for one in croissant["distribution"]} >= {f"{url_base}ilias_core.tar"}
    with FaultyServer() as server:
        server.files = {f"/any/where/{name}": data for name, data in contents(folder).items()}
        done = download(
            tmp_path / "ilias",
            ["core", "ids", "mini", "shards", "about"],
            source=f"{server.base}/any/where",
            patience=Patience(retries=0),
        )
    assert not done.failures
    assert all(file.published for file in done.files)
    here = tmp_path / "ilias"
    assert contents(here / "ilias_core") == contents(whole_set / "ilias_core")
    assert contents(here / "yfcc100m") == contents(whole_set / "yfcc100m")
    assert contents(here / "browse") == contents(folder / "browse")
    for name in ("text_query_ids.txt", "positive_ids.txt", "image_query_ids.txt"):
        assert (here / "image_ids" / name).read_bytes() == (whole_set / "image_ids" / name).read_bytes()
    assert json.loads((here / "taxonomy.json").read_text()) == json.loads((whole_set / "taxonomy.json").read_text())
    one, other = read_ilias(whole_set), read_ilias(here)
    assert (one.annotations, one.relevance) == (other.annotations, other.relevance)
    assert list(one.checksums) != list(other.checksums)
    packed = (here / "image_ids" / "distractor_ids.txt.gz").read_bytes()
    assert gzip.decompress(packed).decode().splitlines() == all_distractors(whole_set)
    again = rehash(here)
    assert not again.failures
    assert {file.status for file in again.files} == {"sound"}
    verified = verify(here, workers=1)
    assert verified is not None
    assert verified.sound
    # A rotten file is found by the same command.
    rows = here / "rows" / "core.parquet"
    rows.write_bytes(rows.read_bytes() + b"x")
    assert [file.path for file in rehash(here).failures] == ["rows/core.parquet"]


def test_places_without_rows_say_so(tmp_path: Path) -> None:
    with FaultyServer() as server:
        server.files = {"/checksums.txt": b""}
        with pytest.raises(OpenIliasError, match="No rows"):
            download(tmp_path / "x", ["about"], source=server.base, patience=Patience(retries=0))


def test_rows_are_of_the_published_images_and_say_nothing_private(published: Published, whole_set: Path) -> None:
    for name in ("core", "yfcc100m_0000", "yfcc100m_0001"):
        before = {row.id: row for row in read_rows(rows_file(whole_set, name))}
        after = {row.id: row for row in read_rows(rows_file(published.folder, name))}
        lost = before.keys() - after.keys()
        assert [before[item].status == "stored" for item in lost] == [name == "core"]
        for item, row in after.items():
            assert (row.where, row.notes) == (None, None)
            for column in ("url", "licence", "licence_url", "author", "page_url", "camera", "taken", "sha256", "hash"):
                assert getattr(row, column) == getattr(before[item], column)


def test_attribution_is_a_table_that_people_can_open(published: Published, whole_set: Path) -> None:
    text = gzip.decompress((published.folder / "attribution.csv.gz").read_bytes()).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    images = {*read_ilias(whole_set).image_queries, *read_ilias(whole_set).positives, *all_distractors(whole_set)}
    assert [row["id"] for row in rows if row["id"] not in images] == []
    assert len(rows) == len(images)
    assert {row["author"] for row in rows} >= {"'=cmd|' /C calc'!A0", 'A, "B" C', "plain", "Zoë 1"}
    assert {row["licence"] for row in rows} == {"CC BY 2.0"}
    text = (published.folder / "LICENSES.md").read_text()
    assert "| [CC BY 2.0](<https://creativecommons.org/licenses/by/2.0/>) | 14 | 14 |" in text


# Nothing private


def unpacked(folder: Path) -> dict[str, bytes]:
    """All bytes of a published folder, and what is packed in them."""
    found = {}
    for name, data in contents(folder).items():
        found[name] = data
        if name.endswith(".gz"):
            found[f"{name}:"] = gzip.decompress(data)
        elif name.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data))
            found[f"{name}:"] = repr(table.to_pylist()).encode() + repr(table.schema.metadata).encode()
        elif name.endswith(".html"):
            pictures = re.findall(rb"base64,([A-Za-z0-9+/=]+)", data)
            found[f"{name}:"] = b"".join(base64.b64decode(one) for one in pictures)
    return found


def test_nothing_private_is_published(published: Published, whole_set: Path, tmp_path: Path) -> None:
    everything = unpacked(published.folder)
    private = b"".join(unpacked(whole_set / "build").values()) + unpacked(whole_set)["rows/core.parquet:"]
    assert private.count(CANARY.encode()) > 20
    for name, data in everything.items():
        for word in (*PRIVATE, str(tmp_path.parent).encode(), b"/home/", b"/tmp/", b"sk-"):
            assert word not in data, (name, word)
    for original in (whole_set / "build" / "anonymise" / "originals").rglob("*.jpg"):
        picture = original.read_bytes()
        middle = picture[len(picture) // 2 :][:200]  # behind the tables, which all have in common
        assert not [name for name, data in everything.items() if middle in data]
    datasheet = everything["DATASHEET.md"].decode()
    assert "| model | some-vlm |" in datasheet
    assert "| nested.quality | 90 |" in datasheet
    assert "Describe \\| the &#60;b&#62;object&#60;/b&#62;." in datasheet


def test_settings_of_the_steps_without_places_and_keys() -> None:
    made_from = {
        "a": 1, "b": {"deep": [1, 2.5, None, True]}, "token": "x", "source_folder": "y", "api_keys": ["z"],
        "profile": "kept", "c": "/x", "d": "C:\\x", "e": "~/x", "f": "see http://h/x", "g": ["ok", "../x"],
        "h": [{"i": "in a list"}], "j": "a/b",
    }  # fmt: skip
    leaves = public_leaves(made_from)
    assert leaves == [
        ("a", "1"),
        ("b.deep", "1, 2.5, none, yes"),
        ("profile", "kept"),
        ("h[0].i", "in a list"),
        ("j", "a/b"),
    ]


# What is refused: a harm, and the kind of what is found


def _plain_jpeg(root: Path) -> None:
    image_of(root).write_bytes(jpeg((9, 80, 200), quality=70))


def _exif(root: Path) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0110] = CANARY
    Image.open(image_of(root)).save(buffer, "JPEG", quality=90, subsampling=0, exif=exif)
    image_of(root).write_bytes(buffer.getvalue())


def _remove(folder: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / folder)


def _undo(root: Path) -> None:
    original = next((root / "build" / "anonymise" / "originals").rglob("*.jpg"))
    shutil.copy(original, image_of(root))


def _status(table: str, old: str, new: str) -> Callable[[Path], None]:
    def harm(root: Path) -> None:
        path = root / "build" / table
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return harm


def _repack(root: Path, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> None:
    tar = root / "yfcc100m" / "yfcc100m_0001.tar"
    with TarReader(tar) as reader:
        members = [(f"{key}.jpg", data) for key, data in reader]
    write_tar(tar, change(members))


def _owner(root: Path) -> None:
    tar = root / "yfcc100m" / "yfcc100m_0001.tar"
    with TarReader(tar) as reader:
        members = list(reader)
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as made:
        for key, data in members:
            info = tarfile.TarInfo(f"{key}.jpg")
            info.size, info.uname = len(data), CANARY
            made.addfile(info, io.BytesIO(data))


def _rows(name: str, **changes: object) -> Callable[[Path], None]:
    """Change the first row of a table."""

    def harm(root: Path) -> None:
        rows = list(read_rows(rows_file(root, name)))
        first = StoredImage(**{**rows[0].__dict__, **changes})
        write_rows(rows_file(root, name), [first, *rows[1:]])

    return harm


def _twice(root: Path) -> None:
    rows = list(read_rows(rows_file(root, "core")))
    write_rows(rows_file(root, "core"), [rows[0], *rows])


def _alike(root: Path) -> None:
    one = image_of(root)
    twin = one.with_name(one.name.replace("P", "P").replace(".jpg", "x.jpg"))
    for target in (twin, twin.with_name(twin.name.replace("x.jpg", "X.jpg"))):
        shutil.copy(one, target)
    shutil.rmtree(root / "image_ids")


def _private_link(root: Path) -> None:
    target = root / "build" / "anonymise" / "moved.jpg"
    image_of(root, "Q*.jpg").rename(target)
    image_of(root, "P*.jpg").parent.parent.joinpath("query", "Q000_00.jpg").symlink_to(target)


def _loose(root: Path) -> None:
    (root / "distractors").mkdir()
    (root / "distractors" / "x.jpg").write_bytes(jpeg((1, 2, 3)))


def _rename_shard(root: Path) -> None:
    (root / "yfcc100m" / "yfcc100m_0001.tar").rename(root / "yfcc100m" / "mine.tar")


def _text(path: str, text: str) -> Callable[[Path], None]:
    def harm(root: Path) -> None:
        (root / path).write_text(text)

    return harm


def _pair(root: Path, kind: str) -> None:
    first, second = read_ilias(root).positives[:2]
    (root / PAIRS).write_text(f"first,second,by,value,kind,status\n{first},{second},hash,3,{kind},confirmed\n")


def _url(root: Path) -> None:
    next((root / "ilias_core").rglob("*_url.txt")).write_text(f"/home/{CANARY}/x.jpg\n")


HARMS: dict[str, tuple[Callable[[Path], None], str]] = {
    "another quality": (_plain_jpeg, "image-nonconforming"),
    "EXIF": (_exif, "image-nonconforming"),
    "a changed image": (_plain_jpeg, "row-differs"),
    "an anonymisation that was undone": (_undo, "anonymisation-undone"),
    "proposed boxes": (_status("anonymise/boxes.csv", "rejected", "proposed"), "decision-open"),
    "boxes that are not applied": (_status("anonymise/boxes.csv", "applied", "confirmed"), "decision-open"),
    "a draft": (_status("caption/captions.csv", "accepted", "draft"), "decision-open"),
    "a rejected object": (_status("collect/objects.csv", "accepted", "rejected"), "object-rejected"),
    "an early object": (_status("collect/objects.csv", "2019-01-02", "2001-01-02"), "object-early"),
    "an unknown status": (_status("caption/captions.csv", "accepted", "perhaps"), "table-malformed"),
    "a table without a header": (_status("caption/captions.csv", "status", "state"), "table-malformed"),
    "a table with an open quote": (_status("caption/captions.csv", "accepted", '"accepted'), "table-unreadable"),
    "undecided duplicates": (_text("build/collect/duplicates.csv", "one,other,status\na,b,open\n"), "decision-open"),
    "undecided pairs": (
        _text(PAIRS, "first,second,by,value,kind,status\na,b,hash,3,views,Proposed\n"),
        "decision-open",
    ),
    "a pair that is the same": (lambda root: _pair(root, "objects"), "duplicate-kept"),
    "a set that nobody has looked at": (_remove("build/anonymise"), "faces-open"),
    "an image that nobody has looked at": (_plain_jpeg, "faces-open"),
    "an anonymisation that was cut off": (_text("build/anonymise/unfinished.json", "{}"), "anonymisation-unfinished"),
    "a side file": (lambda root: _repack(root, lambda m: [*m, ("x.json", b"{}")]), "shard-side-files"),
    "a member that is no image": (lambda root: _repack(root, lambda m: [*m, ("x.png", b"1")]), "shard-member"),
    "an image without a row": (
        lambda root: _repack(root, lambda m: [*m, ("x.jpg", jpeg((7, 7, 7)))]),
        "licence-unknown",
    ),
    "a row without an image": (lambda root: _repack(root, lambda m: m[1:]), "row-without-image"),
    "a distractor that does not conform": (
        lambda root: _repack(root, lambda m: [(m[0][0], jpeg((7, 7, 7), quality=50)), *m[1:]]),
        "image-nonconforming",
    ),
    "an owner": (_owner, "shard-owner"),
    "a cut shard": (lambda root: os.truncate(root / "yfcc100m" / "yfcc100m_0001.tar", 9000), "shard-unreadable"),
    "a row of other bytes": (_rows("yfcc100m_0001", sha256="0" * 64), "row-differs"),
    "a row without a digest": (_rows("yfcc100m_0001", sha256=None), "row-differs"),
    "no licence": (_rows("yfcc100m_0001", licence=" ", licence_url=None), "licence-unknown"),
    "no licence of an object": (_rows("core", licence=None, licence_url=""), "licence-unknown"),
    "a local address": (_rows("core", page_url=f"file:///home/{CANARY}"), "row-address"),
    "a password": (_rows("yfcc100m_0000", url="https://me:secret@host.example/x"), "row-address"),
    "rows twice": (_twice, "row-twice"),
    "no table": (lambda root: rows_file(root, "yfcc100m_0001").unlink(), "licence-unknown"),
    "a damaged table": (lambda root: rows_file(root, "yfcc100m_0001").write_bytes(b"PAR1"), "shard-unreadable"),
    "a damaged table of objects": (lambda root: rows_file(root, "core").write_bytes(b"PAR1"), "rows-unreadable"),
    "names that differ in case": (_alike, "names-alike"),
    "a link to what is private": (_private_link, "file-private"),
    "a local path as an address": (_url, "url-private"),
    "distractors that are files": (_loose, "distractors-loose"),
    "a name of a shard": (_rename_shard, "shard-name"),
    "ids of a list that are nowhere": (_text("image_ids/mini_random_1_ids.txt", "nowhere\n"), "mini-missing"),
    "ids of a list that stand twice": (_text("image_ids/mini_random_1_ids.txt", "a\na\n"), "id-duplicate"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_in_the_way_is_named(own: Path, harm: str) -> None:
    harms, kind = HARMS[harm]
    harms(own)
    found = check_files(own, SETTINGS, workers=1).findings
    assert kind in kinds(found), found


def test_all_that_is_in_the_way_is_told_at_once_and_nothing_is_written(own: Path, out: Path) -> None:
    for harm in ("a draft", "no licence", "EXIF", "a side file", "undecided duplicates"):
        HARMS[harm][0](own)
    (own / "image_ids" / "mini_ilias_yfcc100m_ids.txt").write_text("nowhere\n")  # verification finds it
    told: list[Finding] = []
    with pytest.raises(OpenIliasError) as error:
        publish(own, out, SETTINGS, workers=1, told=told.extend)
    assert "more errors follow" in str(error.value)
    wanted = {"decision-open", "licence-unknown", "image-nonconforming", "shard-side-files", "mini-missing"}
    assert wanted <= kinds(tuple(told))
    assert not out.exists()
    assert not list(out.parent.glob(".out*"))


def test_findings_of_a_kind_are_counted_when_they_are_many(own: Path) -> None:
    rows = [row.__dict__ | {"sha256": "0" * 64} for row in read_rows(rows_file(own, "core"))]
    write_rows(rows_file(own, "core"), [StoredImage(**row) for row in rows] * 1)
    found = check_files(own, SETTINGS, workers=1).findings
    assert sum(one.kind == "row-differs" for one in found) == 14


def test_no_set(tmp_path: Path, whole_set: Path) -> None:
    with pytest.raises(OpenIliasError, match="no such benchmark"):
        check(tmp_path / "nothing", SETTINGS)
    shutil.copytree(whole_set / "image_ids", tmp_path / "set" / "image_ids")
    with pytest.raises(OpenIliasError, match="objects of this set are not here"):
        check(tmp_path / "set", SETTINGS)


def test_open_decisions_can_be_published_and_are_recorded(own: Path, out: Path) -> None:
    for harm in ("a draft", "proposed boxes", "undecided duplicates", "a rejected object"):
        HARMS[harm][0](own)
    with pytest.raises(OpenIliasError):
        publish(own, out, SETTINGS, workers=1)
    done = publish(own, out, SETTINGS.model_copy(update={"allow_open": True}), workers=1)
    text = (out / "DATASHEET.md").read_text()
    assert "**Published with open decisions:**" in text
    for what in (
        "1 text queries are drafts",
        "1 boxes of faces",
        "1 pairs of near-duplicates",
        "1 rejected objects are still",
    ):
        assert f"- {what}" in text
    assert "decision-open" in kinds(done.findings, "warning")
    assert CANARY not in text


def test_unknown_licences_are_given_or_allowed_and_counted(own: Path, out: Path, tmp_path: Path) -> None:
    HARMS["no licence of an object"][0](own)
    HARMS["an image without a row"][0](own)
    rows_file(own, "yfcc100m_0000").unlink()
    (own / "image_ids" / "distractor_ids.txt.gz").unlink()  # made anew
    given = SETTINGS.model_copy(update={"licence": "CC-BY-4.0"})
    unknown = [one.where for one in check_files(own, given, workers=1).findings if one.kind == "licence-unknown"]
    assert unknown == ["yfcc100m_0000.tar", "yfcc100m_0001.tar"]
    done = publish(own, out, given.model_copy(update={"allow_unknown_licence": True}), workers=1)
    assert done.facts.unknown_licences == 9
    text = (out / "LICENSES.md").read_text()
    assert "| unknown | 0 | 9 |" in text
    assert "| CC-BY-4.0 | 1 | 0 |" in text
    assert "The licence of 9 images is not known" in (out / "DATASHEET.md").read_text()
    rows = {row.id: row for row in read_rows(rows_file(out, "yfcc100m_0000"))}
    with TarReader(out / "yfcc100m" / "yfcc100m_0000.tar") as reader:
        for key, data in reader:
            assert (rows[key].bytes, rows[key].licence, rows[key].width is None) == (len(data), None, False)
    assert [row.licence for row in read_rows(rows_file(out, "core"))].count("CC-BY-4.0") == 1
    text = gzip.decompress((out / "attribution.csv.gz").read_bytes()).decode()
    assert text.count("\n") == 1 + 14 + 15
    with pytest.raises(OpenIliasError, match="made from something else"):
        publish(own, out, SETTINGS.model_copy(update={"allow_unknown_licence": True}), workers=1)


# The folder


def test_the_same_bytes_by_any_number_of_workers_and_after_kills(
    own: Path, out: Path, published: Published, tmp_path: Path
) -> None:
    expected = contents(published.folder)
    done = publish(own, out, SETTINGS, workers=2)
    assert contents(out) == expected
    assert done.files == published.files
    other = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path\n"
        "from openilias.build.publish import publishing, outputs\n"
        "from openilias.build.publish.settings import PublishSettings\n"
        "import time; write = outputs.Output.write\n"
        "def slow(self, name, make):\n    time.sleep(0.1); return write(self, name, make)\n"
        "outputs.Output.write = slow\n"
        "settings = PublishSettings(name='tiny', version='1.0')\n"
        "publishing.publish(Path(sys.argv[1]), Path(sys.argv[2]), settings, workers=1)\n"
    )
    for name in ("ilias_core.tar", "rows/yfcc100m_0000.parquet", "browse/objects-0002.html"):
        kill_when((other / name).is_file, code, own, other)
        assert not (other / "checksums.txt").exists()
        assert json.loads((other / MANIFEST).read_text())["complete"] is False
        with pytest.raises(OpenIliasError, match="cut off"):
            verify_published(other)
    before = {name: (other / name).stat().st_ino for name in ("ilias_core.tar", "rows/core.parquet")}
    publish(own, other, SETTINGS, workers=1)
    assert contents(other) == expected
    assert {name: (other / name).stat().st_ino for name in before} == before


def test_nothing_is_done_twice(own: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(own, out, SETTINGS, workers=1)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(publishing, "verified", never)
    monkeypatch.setattr("openilias.build.publish.shards._check", never)  # not even after linking changed the inodes
    done = publish(own, out, SETTINGS, workers=1)
    assert not done.fresh
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    monkeypatch.undo()
    (out / "rows" / "core.parquet").unlink()
    assert publish(own, out, SETTINGS, workers=1).fresh
    assert not verify_published(out).findings


def test_another_set_or_version_is_refused_or_replaces_it(own: Path, out: Path) -> None:
    publish(own, out, SETTINGS, workers=1)
    before = contents(out)
    with pytest.raises(OpenIliasError, match=r'version: "1.0" -> "1.1"'):
        publish(own, out, SETTINGS.model_copy(update={"version": "1.1"}), workers=1)
    shutil.rmtree(own / "ilias_core" / image_of(own).parent.parent.name)
    shutil.rmtree(own / "image_ids")
    with pytest.raises(OpenIliasError, match="made from something else"):
        publish(own, out, SETTINGS, workers=1)
    assert contents(out) == before
    publish(own, out, SETTINGS, workers=1, overwrite=True)
    assert not verify_published(out).findings
    assert not list(out.parent.glob(".out*"))
    assert contents(out) != before


def test_folders_in_the_way(own: Path, out: Path, tmp_path: Path) -> None:
    for place in (own, own / "published", tmp_path):
        with pytest.raises(OpenIliasError, match="over, into or around itself"):
            publish(own, place, SETTINGS, workers=1)
    # Looks like one of ours, and is somebody's download: nothing of it may be removed.
    shutil.copytree(own / "image_ids", out / "image_ids")
    with pytest.raises(OpenIliasError, match="holds no published set"):
        publish(own, out, SETTINGS, workers=1, overwrite=True)
    assert contents(out / "image_ids") == contents(own / "image_ids")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OpenIliasError, match="is a file"):
        publish(own, tmp_path / "file", SETTINGS, workers=1)


def test_shards_are_linked_copied_or_left(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "yfcc100m" / "yfcc100m_0000.tar").rename(tmp_path / "elsewhere.tar")
    (own / "yfcc100m" / "yfcc100m_0000.tar").symlink_to(tmp_path / "elsewhere.tar")
    lines = {}
    for way in ("link", "copy", "leave"):
        out = tmp_path / way
        publish(own, out, SETTINGS.model_copy(update={"shards": way}), workers=1)
        lines[way] = (out / "checksums.txt").read_text().splitlines()[:3]
        done = verify_published(out)
        assert not done.findings
        assert done.elsewhere == (2 if way == "leave" else 0)
    assert lines["link"] == lines["copy"] == lines["leave"]
    linked = tmp_path / "link" / "yfcc100m" / "yfcc100m_0000.tar"
    assert not linked.is_symlink()
    assert linked.samefile(tmp_path / "elsewhere.tar")
    assert not (tmp_path / "copy" / "yfcc100m" / "yfcc100m_0000.tar").samefile(tmp_path / "elsewhere.tar")
    assert not (tmp_path / "leave" / "yfcc100m").exists()

    def another_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("openilias.build.publish.outputs.os.link", another_disk)
    with pytest.raises(OpenIliasError, match=r"(?s)cross-device.*--shards copy"):
        publish(own, tmp_path / "other", SETTINGS, workers=1)


def test_a_disk_that_is_too_small(own: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(OpenIliasError, match="too small"):
        publish(own, out, SETTINGS.model_copy(update={"shards": "copy"}), workers=1)
    assert not out.exists()


def test_a_set_that_changes_meanwhile(own: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = publishing.verified

    def change(*arguments: object, **options: object) -> object:
        found = verified(*arguments, **options)  # type: ignore[arg-type]
        image_of(own, "T*.txt").write_text("other words\n")
        return found

    monkeypatch.setattr(publishing, "verified", change)
    with pytest.raises(OpenIliasError, match="changed since it was checked"):
        publish(own, out, SETTINGS, workers=1)
    assert not out.exists()


@pytest.mark.parametrize("name", ["core", "yfcc100m_0001"])
def test_tables_that_change_meanwhile(own: Path, out: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    facts_of = publishing.facts_of

    def change(*arguments: object) -> object:
        _rows(name, author=CANARY)(own)
        return facts_of(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(publishing, "facts_of", change)
    with pytest.raises(OpenIliasError, match="changed while they were published"):
        publish(own, out, SETTINGS, workers=1)
    assert not (out / "checksums.txt").exists()
    monkeypatch.undo()
    publish(own, out, SETTINGS, workers=1, overwrite=True)
    assert not verify_published(out).findings


def test_a_published_folder_is_verified(own: Path, out: Path) -> None:
    publish(own, out, SETTINGS.model_copy(update={"shards": "copy"}), workers=1)
    assert verify_published(out).sound == 22
    (out / "rows" / "core.parquet").write_bytes(b"x")
    (out / "browse" / "index.html").unlink()
    (out / "notes.txt").write_text("mine")
    (out / "yfcc100m" / "yfcc100m_0001.tar").unlink()
    found = {(one.kind, one.where) for one in verify_published(out).findings}
    assert found == {
        ("file-differs", "rows/core.parquet"),
        ("file-missing", "browse/index.html"),
        ("file-missing", "yfcc100m/yfcc100m_0001.tar"),
        ("file-unlisted", "notes.txt"),
    }
    sums = out / "checksums.txt"
    sums.write_text(sums.read_text().replace("DATASHEET", "DATASHEAT"))
    assert "checksums-differ" in {one.kind for one in verify_published(out).findings}
    with pytest.raises(OpenIliasError, match="not a published set"):
        verify_published(own)


# Datasheet


def test_the_datasheet_asks_what_nobody_answered(published: Published) -> None:
    text = (published.folder / "DATASHEET.md").read_text()
    for section in QUESTIONS:
        assert f"\n## {section}\n" in text
    assert text.count("*Not answered.*") == len(published.unanswered) > 20
    assert not OPTIONAL & set(published.unanswered)
    for line in (
        "| objects | 4 |",
        "| distractors | 14 |",
        "| E-510 | 7 |",
        "| 2014-05-01 | 4 |",
        "| 2013 | 14 |",
        "| face | applied | 1 |",
        "by the reason: 404: 2.",
        "evidence of it of 4",
        "4 accepted",
        "28 images were encoded anew",
    ):
        assert line in text, line


def test_answers_of_the_makers(own: Path, out: Path) -> None:
    (own / "datasheet.yaml").write_text("purpose: To *find* things.\ncount: All of them.\nuses-other: More.\n")
    done = publish(own, out, SETTINGS, workers=1)
    text = (out / "DATASHEET.md").read_text()
    assert "purpose" not in done.unanswered
    assert "To *find* things." in text
    assert text.index("| objects | 4 |") < text.index("All of them.")
    assert "More." in text
    (own / "datasheet.yaml").write_text("purpose: Another.\n")
    with pytest.raises(OpenIliasError, match="answers"):
        publish(own, out, SETTINGS, workers=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("porpose: x\n", "no such questions: porpose"),
        ("- a\n", "must be 'key: text'"),
        ("count: 3\n", "must be 'key: text'"),
        ("a: [\n", "cannot be read"),
        ("a: \xff", "cannot be read"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "d.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(OpenIliasError, match=message):
        read_answers(path)
    path.write_text("")
    assert read_answers(path) == {}
    assert len(set(KEYS)) == len(KEYS)


def test_text_of_others_stays_text_in_markdown() -> None:
    assert plain("a|b <i>\n# `x` [y](z)&") == "a\\|b &#60;i&#62; \\# \\`x\\` \\[y\\](z)&#38;"
    assert link("x", "https://a.example/b") == "[x](<https://a.example/b>)"
    assert link("x", "javascript:alert(1)") == link("x", "https://a/>)<script>") == "x"
    assert table(("a", "b"), [("x", 1234)]) == "| a | b |\n| --- | ---: |\n| x | 1,234 |"


# Pages


class _Refs(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "src":
                self.loaded.append(value or "")
            elif name == "href":
                (self.links if tag == "a" else self.loaded).append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            assert not name.startswith("on")


def refs(text: str) -> _Refs:
    parser = _Refs()
    parser.feed(text)
    return parser


def test_pages_ask_for_nothing_and_their_links_lead_somewhere(published: Published) -> None:
    pages = {path.name: refs(path.read_text()) for path in (published.folder / "browse").iterdir()}
    for name, page in pages.items():
        assert all(one.startswith("data:image/jpeg;base64,") for one in page.loaded), name
        assert not page.tags & {"script", "iframe", "object", "link", "base", "form"}
        for target in page.links:
            if target.startswith("https://"):
                continue
            file, _, anchor = target.partition("#")
            assert file.startswith("../") or file in pages, target
            assert (published.folder / "browse" / file).is_file()
            assert not anchor or anchor in pages[file].ids
    text = (published.folder / "browse" / "objects-0001.html").read_text()
    assert text.count("<rect ") == 2 * text.count('<figure class="shot"')
    assert "Zoë" in text
    assert "url(" not in text


def test_pages_of_hostile_names_and_broken_images(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    (tmp_path / "t.txt").write_text(f"{evil}\n")
    (tmp_path / "x.jpg").write_bytes(b"no image")
    (tmp_path / "good.jpg").write_bytes(jpeg((1, 2, 3)))
    from openilias.build.publish.browse import Credit

    credit = Credit(evil, "https://a.example/", evil, "https://a.example/?a=b&c")
    shots = tuple(
        Shot(Item(f"{evil}/{name}", tmp_path / name), None, credit) for name in ("x.jpg", "good.jpg", "gone.jpg")
    )
    entry = Entry(evil, (evil,), shots, shots, (tmp_path / "t.txt",), 3)
    job = PageJob(Output(tmp_path), "p.html", evil, SETTINGS, entries=(entry,), shots=shots)
    text = render(job)
    assert "<script" not in text
    page = refs(text)
    assert len([one for one in page.loaded if one.startswith("data:")]) == 3
    assert "3 more are not shown" in text
    assert re.fullmatch(r"o-[A-Za-z0-9_.-]+", page.ids[0])


def test_pages_stay_small_however_large_the_set_is(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openilias.build.publish.browse.PER_PAGE", 1)
    monkeypatch.setattr("openilias.build.publish.browse._MOST_POSITIVES", 1)
    monkeypatch.setattr("openilias.build.publish.browse._DISTRACTORS", 4)
    monkeypatch.setattr("openilias.build.publish.browse._MOST_ON_INDEX", 3)
    tree = json.loads((own / "taxonomy.json").read_text())
    names = [name for mid in tree.values() for fine in mid.values() for part in fine.values() for name in part]
    (own / "taxonomy.json").write_text(json.dumps({"all": {"one": {"kind": names}}}))
    from openilias.build.publish.browse import pages_of

    pages = pages_of(check_files(own, SETTINGS, workers=1), SETTINGS, Output(own), ())
    assert [page.title for page in pages] == ["", *(f"all, {n} of 4" for n in range(1, 5)), "Distractors"]
    assert all(len(page.entries) == 1 and len(page.entries[0].positives) == 1 for page in pages[1:5])
    assert len(pages[-1].shots) == 4
    assert {shot.item.id.partition("/")[0] for shot in pages[-1].shots} == {"yfcc100m_0000.tar", "yfcc100m_0001.tar"}
    assert {shot for _, part in pages[0].groups for _, _, shot in part} == {None}
    assert [(page.before, page.behind) for page in pages[1:3]] == [
        ("index.html", "objects-0002.html"),
        ("objects-0001.html", "objects-0003.html"),
    ]


# Rows in numbers


def test_rows_are_counted_streaming(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = (
        StoredImage(str(number), "stored" if number % 10 else "404", licence=f"L{number % 3}",
                    taken=("2012:01:01", "x")[number % 2])
        for number in range(25_000)
    )  # fmt: skip
    write_rows(path, rows)
    facts = facts_of_rows(path)
    assert facts.statuses == {"404": 2500, "stored": 22_500}
    assert sum(facts.licences.values()) == len(facts.stored) == 22_500
    assert facts.years == {"2012": 10_000, "": 12_500}
    few = facts_of_rows(path, "X", frozenset(("1", "2", "3")))
    assert few.licences == {("L1", ""): 1, ("L2", ""): 1, ("L0", ""): 1}
    assert facts_of_rows(tmp_path / "none").stored == {}


# The command


Ilias = Callable[..., Outcome]


def test_the_command(ilias: Ilias, own: Path, out: Path, tmp_path: Path) -> None:
    line = ("build", "publish", own, "--out", out, "--name", "tiny", "--version", "1.0", "--workers", 1)
    done = ilias(*line, "--dry-run")
    assert (done.code, done.out) == (0, f"{own}: it can be published\n")
    assert not out.exists()
    HARMS["a draft"][0](own)
    done = ilias(*line, "--dry-run", "--json", tmp_path / "f.json")
    assert done.code == 2
    assert "error decision-open: 1" in done.err
    assert [one["kind"] for one in json.loads((tmp_path / "f.json").read_text())["findings"]] == ["decision-open"]
    done = ilias(*line)
    assert done.code == 2
    assert "text queries are drafts" in done.err
    assert not out.exists()
    done = ilias(*line, "--allow-open", "--depth", "bytes", "--shards", "copy", "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    assert "4 objects, 4 image and 4 text queries, 10 positives, 14 distractors in 2 shards" in done.out
    assert "questions of the datasheet are open" in done.out
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["counts"]["distractors"] == 14
    assert result["open"]
    done = ilias(*line, "--allow-open", "--depth", "bytes", "--shards", "copy")
    assert "it was there already, whole" in done.out
    done = ilias("build", "verify-published", out)
    assert (done.code, done.out) == (0, f"{out}: 22 files are sound, 0 findings\n")
    (out / "LICENSES.md").write_text("x")
    done = ilias("build", "verify-published", out)
    assert done.code == 1
    assert "file-differs" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", "a/b"), "name"),
        (("--name", ""), "name"),
        (("--version", "../1"), "version"),
        (("--licence", "x\ny"), "a licence is a line of text"),
        (("--url-base", "ftp://x/"), "no http or https URL"),
        (("--url-base", "https://u:p@x/"), "user name"),
        (("--url-base", "https://x/?q"), "without a query"),
        (("--shards", "move"), "move"),
        (("--workers", "0"), "greater than or equal to 1"),
        (("--longest", "100"), "image-nonconforming"),
        (("--quality", "80"), "image-nonconforming"),
    ],
)
def test_wrong_options(ilias: Ilias, whole_set: Path, out: Path, options: tuple[str, str], message: str) -> None:
    given = {"--name": "tiny", "--version": "1.0", "--out": str(out), "--workers": "1"} | {options[0]: options[1]}
    done = ilias("build", "publish", whole_set, *(word for pair in given.items() for word in pair))
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())
    assert not out.exists()


def test_every_line_of_a_long_table_is_read_or_named(own: Path) -> None:
    names = [path.name for path in sorted((own / "ilias_core").iterdir())]
    write(own / "build" / "caption" / "captions.csv", "\ufeffobject,category,status,text",
          *(f'{name},x,accepted,"two\nlines, ""quoted"""' for name in names), "", "short,line")  # fmt: skip
    found = check_files(own, SETTINGS, workers=1)
    assert found.decisions.captions == {"accepted": 4}
    (bad,) = [one for one in found.findings if one.kind == "table-malformed"]
    assert bad.where.endswith("line 11")


def test_decisions_that_are_made_are_none_in_the_way(own: Path) -> None:
    for kind in ("views", "distractor"):
        _pair(own, kind)
        found = kinds(check_files(own, SETTINGS, workers=1).findings)
        assert found == ({"duplicate-kept"} if kind == "distractor" else set())
    (own / PAIRS).write_text(
        "first,second,by,value,kind,status\na,b,hash,3,objects,REJECTED\na,b,hash,3,query,confirmed\n"
    )
    objects = own / "build" / "collect" / "objects.csv"
    objects.write_text(objects.read_text().replace(",accepted,", ",,", 1))
    assert not kinds(check_files(own, SETTINGS, workers=1).findings)


def test_settings_of_a_step_that_stand_alone(own: Path) -> None:
    (own / "build" / "collect" / "settings.json").write_text(json.dumps({"balance": {"method": "grey-world"}}))
    found = [one for one in manifests_of(own) if one.step == "collect"]
    assert found == [Manifest("collect", "settings", (("balance.method", "grey-world"),))]


def test_a_licence_that_has_an_address_is_known(own: Path) -> None:
    _rows("core", licence=None, licence_url="https://a.example/licence")(own)
    checked = check_files(own, SETTINGS.model_copy(update={"licence": "CC0"}), workers=1)
    assert checked.core.rows.licences[("https://a.example/licence", "https://a.example/licence")] == 1
    assert not kinds(checked.findings)


def test_the_set_is_a_benchmark_that_every_command_reads(whole_set: Path) -> None:
    assert not [one for one in find_ilias(whole_set).findings if one.severity == "error"]


def test_ids_are_no_formulas_in_the_attribution(tmp_path: Path) -> None:
    ids = ["=HYPERLINK(1)/query/Q000_00.jpg", "-1+2/query/Q001_00.jpg", "cup/query/Q002_00.jpg"]
    write_rows(tmp_path / "core.parquet", [StoredImage(item, "stored", licence="CC0") for item in ids])
    places = tmp_path / "rows.parquet", tmp_path / "part.gz"
    write_public(tmp_path / "core.parquet", *places, licence=None, only=frozenset(ids), lacking=[], prefix="")
    lines = gzip.decompress(places[1].read_bytes()).decode().splitlines()
    assert [line.split(",")[0].strip('"') for line in lines] == [f"'{ids[0]}", f"'{ids[1]}", ids[2]]
    write_public(
        tmp_path / "core.parquet", *places, licence=None, only=frozenset(ids), lacking=[], prefix="a_0000.tar/"
    )
    lines = gzip.decompress(places[1].read_bytes()).decode().splitlines()
    assert lines[0].startswith(f'"a_0000.tar/{ids[0]}"')


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0c", "\x1c"])
def test_tables_of_decisions_may_hold_odd_ends_of_lines(own: Path, odd: str) -> None:
    """Answers of models may; CSV has no quotes around them."""
    table = own / "build/caption/captions.csv"
    before = find_decisions(own, set(), set(), allow_open=False)[0].captions
    write_captions(table, [Caption("cup", status="accepted", text="a cup", raw=f"a{odd}cup")])
    found, findings = find_decisions(own, set(), set(), allow_open=False)
    assert (found.captions, sum(before.values()) > 1) == ({"accepted": 1}, True)
    assert not [one for one in findings if one.kind == "table-malformed"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_fills_is_told_and_the_rest_follows(own: Path, out: Path) -> None:
    with largest_file(30_000), pytest.raises(OpenIliasError, match="cannot be written: File too large") as refused:
        publish(own, out, SETTINGS, workers=1)
    assert refused.value.where
    assert "run the same command again" in str(refused.value.fix)
    assert not (out / "checksums.txt").exists()
    publish(own, out, SETTINGS, workers=1)
    assert not verify_published(out).findings


def test_links_to_another_disk_are_refused_before_the_work(
    own: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "check_files", None)
    monkeypatch.setattr(publishing, "_standing", lambda path: Path("/proc"))
    with pytest.raises(OpenIliasError, match="on another disk than this shard"):
        publish(own, out, SETTINGS, workers=1)
    assert not out.exists()


def test_texts_that_are_not_what_was_decided_are_open(own: Path) -> None:
    """A text that a model wrote and a person rejected must not be published because nobody ran `apply` since."""
    table = own / "build/caption/captions.csv"
    name = read_ilias(own).text_queries[0].partition("/")[0]
    for path in (own / "ilias_core" / name / "query").glob("T*.txt"):
        path.unlink()
    write_captions(table, [Caption(name, status="accepted", text="a cup")])
    apply_captions(own)
    captions, found = Caption(name, status="accepted", text="a cup"), {}
    for caption in (captions, replace(captions, status="rejected"), replace(captions, text="a blue cup")):
        write_captions(table, [caption])
        decisions, findings = find_decisions(own, {name}, set(), allow_open=False)
        found[caption.status, caption.text] = [one.what for one in findings if "decided" in one.what]
        assert bool(decisions.open) == bool(found[caption.status, caption.text])
    assert [len(what) for what in found.values()] == [0, 1, 1]
    write(table, "object,status", "cup,accepted")
    assert "table-malformed" in kinds(find_decisions(own, {name}, set(), allow_open=False)[1])
