"""Every way in which we damage a benchmark, what the verifier must say of it, and what the extraction must do."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from openilias.core.files import sha256_of
from openilias.core.ids import Partition
from openilias.core.manifests import write_manifest

Outcome = Literal["describes", "skips", "stops"]


@dataclass(frozen=True)
class Copy:
    """A copy of a sound benchmark with tars, and the files of it that are damaged."""

    root: Path

    @property
    def core(self) -> Path:
        return next(path for path in (self.root / "ilias_core", self.root / "core") if path.is_dir())

    @property
    def object(self) -> Path:
        return min(self.core.iterdir())

    @property
    def other(self) -> Path:
        return max(self.core.iterdir())

    @property
    def positive(self) -> Path:
        return min((self.object / "pos").glob("P*.jpg"))

    @property
    def query(self) -> Path:
        return min((self.object / "query").glob("Q*.jpg"))

    @property
    def text(self) -> Path:
        return min((self.object / "query").glob("T*.txt"))

    @property
    def box(self) -> Path:
        return self.positive.with_name(f"{self.positive.stem}_bbox.txt")

    @property
    def lists(self) -> Path:
        return self.root / "image_ids"

    @property
    def tar(self) -> Path:
        return min(self.root.glob("*/*.tar"))

    def edit(self, path: Path, change: Callable[[str], str]) -> None:
        path.write_text(change(path.read_text()))

    def members(self) -> list[tuple[tarfile.TarInfo, bytes]]:
        with tarfile.open(self.tar) as tar:
            return [(info, tar.extractfile(info).read()) for info in tar]

    def retar(self, *extra: tuple[tarfile.TarInfo, bytes]) -> None:
        """Write the first tar again, the extra members first, and state its new checksum."""
        members = [*extra, *self.members()]
        with tarfile.open(self.tar, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as tar:
            for info, data in members:
                tar.addfile(info, io.BytesIO(data))
        self.restate()

    def restate(self) -> None:
        path = self.root / "checksums.txt"
        lines = [line for line in path.read_text().splitlines() if not line.endswith(f"/{self.tar.name}")]
        path.write_text("\n".join([*lines, f"{sha256_of(self.tar)}  x/{self.tar.name}"]) + "\n")


def member(name: str, data: bytes = b"", **about: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in about.items():
        setattr(info, key, value)
    return info, data


def photo(colour: int = 90) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").point(lambda value: (value + colour) % 256).save(out, "JPEG")
    return out.getvalue()


def other_format(name: str) -> Callable[[Copy], None]:
    def change(at: Copy) -> None:
        with Image.open(at.positive) as image:
            image.convert("RGB").save(at.positive, name)

    return change


def write(pick: Callable[[Copy], Path], data: bytes) -> Callable[[Copy], None]:
    return lambda at: void(pick(at).write_bytes(data))


def void(_: object) -> None:
    """A lambda of several effects returns nothing."""


def cut(pick: Callable[[Copy], Path], share: float) -> Callable[[Copy], None]:
    def change(at: Copy) -> None:
        path = pick(at)
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        if path.suffix == ".tar":
            at.restate()

    return change


def bomb() -> bytes:
    header = struct.pack(">LLBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**6))), (b"IEND", b""))
    packed = (struct.pack(">L", len(d)) + k + d + struct.pack(">L", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def scramble(data: bytes) -> bytes:
    """Overwrite entropy-coded data in the middle of a JPEG with a marker that has no place there."""
    middle = len(data) * 2 // 3
    return data[:middle] + b"\xff\xd3" * 40 + data[middle + 80 :]


def with_comment(data: bytes) -> bytes:
    """Add a comment to a JPEG: other bytes, the same pixels."""
    return data[:2] + b"\xff\xfe\x00\x06note" + data[2:]


def replace_with(make: Callable[[Path], object]) -> Callable[[Copy], None]:
    def change(at: Copy) -> None:
        path = at.positive
        path.unlink()
        make(path)

    return change


def first_line(path: Callable[[Copy], Path], change: Callable[[str], str]) -> Callable[[Copy], None]:
    def edit(text: str) -> str:
        line, newline, rest = text.partition("\n")
        return change(line) + newline + rest

    return lambda at: at.edit(path(at), edit)


def field(number: int, value: str) -> Callable[[str], str]:
    def change(line: str) -> str:
        words = line.split(",")
        words[number] = value
        return ",".join(words)

    return change


def positives(at: Copy) -> Path:
    return at.lists / "positive_ids.txt"


def turn(at: Copy) -> None:
    """State an orientation that turns the picture on its side: the box no longer fits."""
    with Image.open(at.positive) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        size = (max(image.size), min(image.size)) if image.size[0] != image.size[1] else (200, 100)
        image.resize(size).save(at.positive, exif=exif)
    at.box.write_text(f"{size[0] - 20} 0 20 20\n")


def without_positives(at: Copy) -> None:
    name = at.object.name
    at.edit(positives(at), lambda text: "".join(x for x in text.splitlines(True) if not x.startswith(f"{name}/")))


def taxonomy(change: Callable[[dict[str, dict[str, dict[str, list[str]]]]], None]) -> Callable[[Copy], None]:
    def damage(at: Copy) -> None:
        path = at.root / "taxonomy.json"
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree))

    return damage


def names_twice(tree: dict[str, dict[str, dict[str, list[str]]]]) -> None:
    names = [name for mids in tree.values() for fines in mids.values() for found in fines.values() for name in found]
    tree["again"] = {"again": {"again": names[:1]}}


def forget(tree: dict[str, dict[str, dict[str, list[str]]]]) -> None:
    next(iter(next(iter(next(iter(tree.values())).values())).values())).pop()


def moved(at: Copy) -> None:
    new = at.positive.with_name("P777_00.jpg")
    at.edit(positives(at), lambda text: text.replace(f"/{at.positive.name},", f"/{new.name},", 1))
    shutil.move(at.box, new.with_name("P777_00_bbox.txt"))
    shutil.move(at.positive, new)


def append(pick: Callable[[Copy], Path], data: Callable[[Copy], bytes]) -> Callable[[Copy], None]:
    def change(at: Copy) -> None:
        path = pick(at)
        path.write_bytes(path.read_bytes() + data(at))
        at.restate()

    return change


def harm_header(at: Copy) -> None:
    data = bytearray(at.tar.read_bytes())
    info = at.members()[1][0]
    data[info.offset + 124] ^= 1  # the size
    at.tar.write_bytes(bytes(data))
    at.restate()


def new_tar(make: Callable[[bytes], bytes]) -> Callable[[Copy], None]:
    def change(at: Copy) -> None:
        at.tar.write_bytes(make(at.tar.read_bytes()))
        at.restate()

    return change


def huge_member(at: Copy) -> None:
    """A member of 300 MB, of which the disk holds nothing."""
    size = 300 * 2**20
    info = tarfile.TarInfo("zz.jpg")
    info.size = size
    with at.tar.open("r+b") as out:
        last = at.members()[-1][0]
        out.seek(last.offset_data + -(-last.size // 512) * 512)
        out.write(info.tobuf())
        out.truncate(out.tell() + size + 1024)
    (at.root / "checksums.txt").unlink()


def huge_pax(at: Copy) -> None:
    info = tarfile.TarInfo("PaxHeaders/x")
    info.type, info.size = tarfile.XHDTYPE, 2**31
    at.tar.write_bytes(info.tobuf() + at.tar.read_bytes())
    at.restate()


def without_closing(at: Copy) -> None:
    last = at.members()[-1][0]
    end = last.offset_data + -(-last.size // 512) * 512
    at.tar.write_bytes(at.tar.read_bytes()[:end])
    at.restate()


def relist(change: Callable[[list[str]], list[str]]) -> Callable[[Copy], None]:
    def damage(at: Copy) -> None:
        path = at.lists / "distractor_ids.txt.gz"
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        path.write_bytes(gzip.compress("\n".join(change(lines)).encode()))

    return damage


def same_pixels(at: Copy) -> None:
    at.retar(member("copy.jpg", with_comment(at.positive.read_bytes())))


def twin_objects(at: Copy) -> None:
    shutil.copy(at.positive, min((at.other / "pos").glob("P*.jpg")))


def rename_object(at: Copy, name: str) -> None:
    """Give an object another name, in its files and in all lists."""
    old = at.object.name
    for path in (*at.lists.glob("*.txt"), at.root / "taxonomy.json"):
        at.edit(path, lambda text: text.replace(old, name))
    at.object.rename(at.core / name)


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def loose_distractor(at: Copy) -> None:
    (at.root / "distractors").mkdir(exist_ok=True)
    (at.root / "distractors" / "loose.jpg").write_bytes(photo(7))


def training(at: Copy, label: str | None) -> None:
    folder = at.root / "train"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(photo(3))
    pq.write_table(pa.table({"id": ["a.jpg"], "label": [label], "domain": ["x"]}), folder / "labels.parquet")


def cut_off(at: Copy) -> None:
    write_manifest(at.root / "benchmark.json", kind="benchmark", made_from={}, complete=False)


def without_queries(at: Copy) -> None:
    name = at.object.name
    for path in at.lists.glob("*query_ids.txt"):
        at.edit(path, lambda text: "".join(x for x in text.splitlines(True) if not x.startswith(f"{name}/")))
    shutil.rmtree(at.object / "query")


def second_positive(at: Copy) -> None:
    positives = sorted((at.object / "pos").glob("P*.jpg"))
    shutil.copy(positives[0], positives[1])


def copy_of_shard(at: Copy) -> None:
    other = at.root / ("distractors" if at.tar.parent.name == "yfcc100m" else "yfcc100m")
    other.mkdir(exist_ok=True)
    shutil.copy(at.tar, other / at.tar.name)


def empty_shard(at: Copy) -> None:
    with tarfile.open(at.tar, "w"):
        pass
    at.restate()


@dataclass(frozen=True)
class Damage:
    """One damage.

    Attributes:
        name: what is done.
        do: does it.
        says: severity and kind of the finding that the verifier must make.
        extract: what the extraction does without options.
        skipping: what it does with ``--skip-unreadable``.
        partition: of what.
    """

    name: str
    do: Callable[[Copy], object]
    says: str
    extract: Outcome
    skipping: Outcome
    partition: Partition = "positives"


def of_core(name: str, do: Callable[[Copy], object], says: str, extract: Outcome, skipping: Outcome) -> Damage:
    return Damage(name, do, says, extract, skipping)


def of_tar(name: str, do: Callable[[Copy], object], says: str, extract: Outcome, skipping: Outcome) -> Damage:
    return Damage(name, do, says, extract, skipping, "distractors")


def in_tar(
    name: str, says: str, skipping: Outcome, *extra: tuple[tarfile.TarInfo, bytes], extract: Outcome = "stops"
) -> Damage:
    return of_tar(name, lambda at: at.retar(*extra), says, extract, skipping)


DAMAGES: tuple[Damage, ...] = (
    of_core("an image is missing", lambda at: at.positive.unlink(), "error image-missing", "stops", "stops"),
    of_core("an empty image", write(lambda at: at.positive, b""), "error image-unreadable", "stops", "skips"),
    of_core("a truncated JPEG", cut(lambda at: at.positive, 0.6), "error image-unreadable", "stops", "skips"),
    of_core("random bytes", write(lambda at: at.positive, random.Random(0).randbytes(5000)),
            "error image-unreadable", "stops", "skips"),
    of_core("a text called .jpg", write(lambda at: at.positive, b"not here"),
            "error image-unreadable", "stops", "skips"),
    of_core("a PNG of 60,000 x 60,000", write(lambda at: at.positive, bomb()),
            "error image-unreadable", "stops", "skips"),
    of_core("an EPS program", write(lambda at: at.positive, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
            "error image-unreadable", "stops", "skips"),
    of_core("JPEG data overwritten in the middle",
            lambda at: at.positive.write_bytes(scramble(at.positive.read_bytes())),
            "warning image-damaged", "describes", "describes"),
    of_core("a PNG called .jpg", other_format("PNG"), "note image-other-format", "describes", "describes"),
    of_core("a WebP called .jpg", other_format("WEBP"), "note image-other-format", "describes", "describes"),
    of_core("a pipe instead of an image", replace_with(os.mkfifo), "error image-unreadable", "stops", "stops"),
    of_core("a link that leads nowhere", replace_with(lambda path: path.symlink_to("none")),
            "error link-dangling", "stops", "stops"),
    of_core("a folder instead of an image", replace_with(lambda path: path.mkdir()),
            "error image-unreadable", "stops", "stops"),
    of_core("an image with a wrong name", lambda at: shutil.copy(at.query, at.positive.with_name("photo.JPG")),
            "error image-misnamed", "describes", "describes"),
    of_core("an image that is not listed", lambda at: at.positive.with_name("P000_99.jpg").write_bytes(photo()),
            "warning not-listed", "describes", "describes"),
    of_core("a file moved from another object", moved, "warning number-differs", "describes", "describes"),
    of_core("a box file without its image", lambda at: shutil.copy(at.box, at.box.with_name("P000_98_bbox.txt")),
            "warning side-file-alone", "describes", "describes"),
    of_core("an id listed twice", lambda at: at.edit(positives(at), lambda text: text + text.splitlines()[0] + "\n"),
            "error id-duplicate", "stops", "stops"),
    of_core("an id that points outside", first_line(positives, field(0, "../pos/P000_00.jpg")),
            "error id-malformed", "stops", "stops"),
    of_core("a coverage of 1.5", first_line(positives, field(1, "1.5")), "error attribute-range", "stops", "stops"),
    of_core("a clutter of 'many'", first_line(positives, field(2, "many")),
            "error attribute-malformed", "stops", "stops"),
    of_core("a list that is not text", write(positives, b"\xff\xfe\x00junk\xff"),
            "error list-unreadable", "stops", "stops"),
    of_core("a coverage that the boxes do not have", first_line(positives, field(1, "0.001")),
            "warning coverage-differs", "describes", "describes"),
    of_core("a box of words", write(lambda at: at.box, b"left top 10 10\n"), "error box-malformed", "stops", "stops"),
    of_core("a box without area", write(lambda at: at.box, b"5 5 0 10\n"), "error box-empty", "stops", "stops"),
    of_core("a box file that is not text", write(lambda at: at.box, b"\xff\x00\x01"),
            "error box-unreadable", "stops", "stops"),
    of_core("a box outside the image", write(lambda at: at.box, b"0 0 9000 10\n"),
            "error box-outside", "describes", "describes"),
    of_core("a box of the image before it is turned", turn, "error box-outside", "describes", "describes"),
    of_core("a pipe instead of a box file", lambda at: replaced(at.box, os.mkfifo), "error box-unreadable",
            "stops", "stops"),
    of_core("a link instead of the taxonomy",
            lambda at: replaced(at.root / "taxonomy.json", lambda path: path.symlink_to("x")),
            "error taxonomy-unreadable", "stops", "stops"),
    of_core("2,000 boxes", write(lambda at: at.box, b"1 1 2 2\n" * 2000), "error box-many", "stops", "stops"),
    of_core("no box file", lambda at: at.box.unlink(), "warning box-missing", "describes", "describes"),
    of_core("an empty text query", write(lambda at: at.text, b" \n"), "error text-empty", "describes", "describes"),
    of_core("a text query that is not UTF-8", write(lambda at: at.text, b"caf\xe9"),
            "error text-not-utf8", "describes", "describes"),
    of_core("no text query", lambda at: at.text.unlink(), "error text-missing", "describes", "describes"),
    of_core("a taxonomy cut in half", cut(lambda at: at.root / "taxonomy.json", 0.5),
            "error taxonomy-unreadable", "stops", "stops"),
    of_core("an object in two categories", taxonomy(names_twice), "error taxonomy-duplicate", "stops", "stops"),
    of_core("an object without category", taxonomy(forget), "warning taxonomy-lacks", "describes", "describes"),
    of_core("an object without positives", without_positives, "error object-without-positives", "stops", "stops"),
    of_core("no queries", lambda at: [path.write_text("") for path in at.lists.glob("*query_ids.txt")],
            "error no-queries", "stops", "stops"),
    of_core("a taxonomy of another shape", write(lambda at: at.root / "taxonomy.json", b'{"a": {"b": ["c"]}}'),
            "error taxonomy-malformed", "stops", "stops"),
    of_core("a taxonomy of other objects", taxonomy(lambda tree: tree.update(art={"x": {"y": ["nobody_999"]}})),
            "warning taxonomy-unknown", "describes", "describes"),
    of_core("an object nobody asks for", without_queries, "warning object-without-queries", "describes", "describes"),
    of_core("an empty object", lambda at: (at.core / "empty_998").mkdir(), "warning object-empty",
            "describes", "describes"),
    of_core("a name that is not ASCII", lambda at: rename_object(at, "café_000"), "warning id-not-ascii",
            "describes", "describes"),
    of_core("a file name that is no text", lambda at: at.positive.with_name("P\udce9.jpg").touch(),
            "error name-not-text", "describes", "describes"),
    of_core("a file that does not belong there", lambda at: at.positive.with_name("notes.doc").touch(),
            "note stray-file", "describes", "describes"),
    of_core("a hidden file", lambda at: at.positive.with_name(".DS_Store").touch(), "note hidden-file",
            "describes", "describes"),
    of_core("a folder among the positives", lambda at: at.positive.with_name("more").mkdir(),
            "warning stray-folder", "describes", "describes"),
    of_core("a file instead of a folder", lambda at: replaced(at.object / "query", Path.touch),
            "error not-a-folder", "stops", "stops"),
    of_core("a text query with control characters", write(lambda at: at.text, b"a \x07 cup"),
            "warning text-control", "describes", "describes"),
    of_core("a folder instead of a text query", lambda at: replaced(at.text, Path.mkdir),
            "error text-unreadable", "describes", "describes"),
    of_core("one text for two objects",
            lambda at: shutil.copy(at.text, min((at.other / "query").glob("T*.txt"))),
            "warning text-duplicate", "describes", "describes"),
    of_core("a box twice", lambda at: at.edit(at.box, lambda text: text + text), "warning box-duplicate",
            "describes", "describes"),
    of_core("a positive twice", second_positive, "warning duplicate-object", "describes", "describes"),
    of_core("a training list without labels", lambda at: training(at, label=None), "error training-malformed",
            "describes", "describes"),
    of_core("a training image that is not listed", lambda at: training(at, label="mug"), "warning training-not-listed",
            "describes", "describes"),
    of_core("both core folders", lambda at: [(at.root / name).mkdir(exist_ok=True) for name in ("core", "ilias_core")],
            "error two-cores", "stops", "stops"),
    of_core("a query among its positives", lambda at: shutil.copy(at.query, at.positive),
            "error duplicate-query", "describes", "describes"),
    of_core("one picture of two objects", twin_objects, "error duplicate-objects", "describes", "describes"),
    of_tar("a positive among the distractors, other bytes", same_pixels,
           "error duplicate-distractor", "describes", "describes"),
    in_tar("a distractor twice", "note duplicate-distractors", "describes",
           member("twin_a.jpg", photo()), member("twin_b.jpg", photo()), extract="describes"),
    of_tar("a tar cut in an image", cut(lambda at: at.tar, 0.55), "error shard-broken", "stops", "stops"),
    of_tar("a tar without its closing blocks", without_closing, "error shard-broken", "stops", "stops"),
    of_tar("a damaged header", harm_header, "error shard-broken", "stops", "stops"),
    of_tar("a tar in gzip", new_tar(gzip.compress), "error shard-broken", "stops", "stops"),
    of_tar("an empty file", new_tar(lambda _: b""), "error shard-broken", "stops", "stops"),
    of_tar("no tar at all", new_tar(lambda data: random.Random(0).randbytes(len(data))),
           "error shard-broken", "stops", "stops"),
    of_tar("two tars in one file", append(lambda at: at.tar, lambda at: at.tar.read_bytes()),
           "error shard-broken", "stops", "stops"),
    of_tar("an extended header of 2 GiB", huge_pax, "error shard-broken", "stops", "stops"),
    in_tar("a key twice", "error key-duplicate", "stops", member("k.jpg", photo(1)), member("./k.jpg", photo(2))),
    in_tar("a dotted key", "error member-unusable", "skips", member("a.b.jpg", photo())),
    in_tar("an image called .JPG", "error member-unusable", "skips", member("a.JPG", photo())),
    in_tar("an image called .png", "error member-unusable", "skips", member("a.png", photo())),
    in_tar("a name with ..", "error member-unusable", "skips", member("../../etc/a.jpg", photo())),
    in_tar("an absolute name", "error member-unusable", "skips", member("/etc/a.jpg", photo())),
    in_tar("a name with a line break", "error member-unusable", "skips", member("a\nb.jpg", photo())),
    in_tar("a name that is not UTF-8", "error member-unusable", "skips", member("caf\udce9.jpg", photo())),
    in_tar("a symbolic link", "error member-unusable", "skips",
           member("a.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    in_tar("a hard link", "error member-unusable", "skips", member("a.jpg", type=tarfile.LNKTYPE, linkname="b.jpg")),
    in_tar("a device", "error member-unusable", "skips", member("a.jpg", type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    in_tar("a sparse file", "error member-unusable", "skips", member("a.jpg", photo(), type=tarfile.GNUTYPE_SPARSE)),
    of_tar("an image of 300 MB", huge_member, "error member-unusable", "stops", "skips"),
    in_tar("a link that is no image", "warning member-strange", "describes",
           member("latest", type=tarfile.SYMTYPE, linkname="a.jpg"), extract="describes"),
    in_tar("an empty member", "error image-unreadable", "skips", member("a.jpg")),
    in_tar("a member that is no image", "error image-unreadable", "skips", member("a.jpg", b"<html>404</html>")),
    in_tar("a truncated JPEG in a tar", "error image-unreadable", "skips", member("a.jpg", photo()[:700])),
    in_tar("broken side files", "note side-files", "describes", member("s.jpg", photo()), member("s.json", b"{"),
           member("s.mask.png", b""), extract="describes"),
    of_tar("another checksum", lambda at: at.edit(at.root / "checksums.txt", lambda text: "0" * 64 + text[64:]),
           "error checksum-differs", "describes", "describes"),
    of_tar("a checksum that is none", lambda at: at.edit(at.root / "checksums.txt", lambda text: "xyz" + text[64:]),
           "error checksum-malformed", "stops", "stops"),
    of_tar("no checksum of a shard", lambda at: (at.root / "checksums.txt").write_text(f"{'0' * 64}  x/y.txt\n"),
           "warning checksum-missing", "describes", "describes"),
    of_tar("two checksums of a shard",
           lambda at: at.edit(at.root / "checksums.txt", lambda text: text + "0" * 64 + text[64:]),
           "error checksum-contradiction", "stops", "stops"),
    of_tar("a shard called .TAR", lambda at: shutil.copy(at.tar, at.tar.with_suffix(".TAR")),
           "error distractor-unused", "describes", "describes"),
    of_tar("a note beside the shards", lambda at: at.tar.with_name("README").touch(),
           "note stray-file", "describes", "describes"),
    of_tar("a distractor in a folder that is not listed", loose_distractor, "error listed-lacks",
           "describes", "describes"),
    of_tar("a pipe instead of a shard", lambda at: replaced(at.tar, os.mkfifo), "error shard-unreadable",
           "stops", "stops"),
    of_tar("a shard whose name is no text", lambda at: shutil.copy(at.tar, at.tar.with_name("x\udcff.tar")),
           "error name-not-text", "stops", "stops"),
    of_tar("a benchmark whose writing was cut off", cut_off, "error benchmark-unfinished", "stops", "stops"),
    of_tar("a shard without images", empty_shard, "warning shard-empty", "describes", "describes"),
    of_tar("a shard in both folders", copy_of_shard, "error shard-duplicate", "stops", "stops"),
    of_tar("a shard is missing", lambda at: at.tar.unlink(), "error shard-missing", "describes", "describes"),
    of_tar("a listed distractor is not there", relist(lambda lines: [*lines, lines[0] + "x"]),
           "error listed-missing", "describes", "describes"),
    of_tar("a distractor is not listed", relist(lambda lines: lines[1:]),
           "error listed-lacks", "describes", "describes"),
    of_tar("a distractor is listed twice", relist(lambda lines: [*lines, lines[0]]),
           "error id-duplicate", "describes", "describes"),
    of_tar("an id list cut off", cut(lambda at: at.lists / "distractor_ids.txt.gz", 0.7),
           "error list-unreadable", "describes", "describes"),
    of_tar("a mini list of unknown keys",
           lambda at: (at.lists / "mini_ilias_yfcc100m_ids.txt").write_text("nobody\n"),
           "error mini-missing", "describes", "describes"),
)  # fmt: skip
