"""Tar shards: the index against the standard library, random access, streaming, hostile files, exact bytes."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openilias.core.errors import OpenIliasError
from openilias.core.files import sha256_of
from openilias.images import tar_index
from openilias.images.tar_index import scan_once
from openilias.images.tars import MOST_BYTES, TarReader, image_name, index_tar, read_member, scan_tar, write_tar

IMAGES = [(f"{number:04d}.jpg", bytes([number % 251]) * (number * 37 % 2000)) for number in range(40)]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    write_tar(tmp_path / "s.tar", IMAGES)
    return tmp_path / "s.tar"


def twin(path: Path) -> list[tuple[str, bytes]]:
    """The images as the standard library has them."""
    with tarfile.open(path) as tar:
        return [
            (info.name.removesuffix(".jpg"), tar.extractfile(info).read())
            for info in tar
            if info.isreg() and info.name.endswith(".jpg")
        ]


def made(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], form: int) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def info(name: str, size: int = 0, **about: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    for key, value in about.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_index_is_that_of_the_standard_library(tmp_path: Path, form: int) -> None:
    long = "n" * (90 if form == tarfile.USTAR_FORMAT else 160)
    names = ["a.jpg", "deep/er/b.jpg", f"{long}.jpg", f"{'d' * 80}/{long}.jpg", "ü" * 30 + ".jpg", "last.jpg"]
    members = [(info(name, number * 300, mtime=1234.5), b"x" * number * 300) for number, name in enumerate(names)]
    path = made(tmp_path / "x.tar", members, form)
    with TarReader(path) as reader:
        assert list(reader) == twin(path)
        assert [reader.read(place) for place in reversed(range(len(reader)))] == [d for _, d in reversed(twin(path))]
    found = index_tar(path)
    assert [read_member(path, member) for member in found] == [data for _, data in twin(path)]
    assert [found.key(place) for place in range(len(found))] == [member.key for member in found]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0."), min_size=1, max_size=120)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=12, unique_by=lambda pair: pair[0]),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_any_names_and_sizes(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]], form: int
) -> None:
    path = tmp_path_factory.mktemp("tars") / "x.tar"
    made(path, [(info(f"{name}.jpg", len(data)), data) for name, data in members], form)
    scan = scan_tar(path)
    assert not scan.broken
    with TarReader(path, scan.index) as reader:
        read = dict(reader)
    usable = {name: data for name, data in members if name.isprintable() and "\\" not in name}
    assert read == usable
    assert len(scan.unusable) == len(members) - len(usable)


def test_side_files_are_counted_and_lost_images_are_named(tmp_path: Path) -> None:
    names = ["a.jpg", "a.json", "a.mask.png", "b.JPG", "c.x.jpg", "d.png", "e", "folder/", "./f.jpg", "._a.jpg", ".jpg"]
    members = [(info(name, type=tarfile.DIRTYPE if name[-1] == "/" else tarfile.REGTYPE), b"") for name in names]
    scan = scan_tar(made(tmp_path / "x.tar", members, tarfile.GNU_FORMAT))
    assert [member.key for member in scan.index] == ["a", "f"]
    assert [member.name for member in scan.unusable] == ["b.JPG", "c.x.jpg", "d.png"]
    assert "only 'jpg' counts" in scan.unusable[0].reason
    assert "the key ends at the first dot: 'c'" in scan.unusable[1].reason
    assert scan.others == {"/": 1, ".jpg": 2, ".json": 1, ".png": 1, "no ending": 1}
    assert sum(scan.others.values()) + len(scan.unusable) + len(scan.index) == len(names)


def test_endings_without_number_take_little_memory(tmp_path: Path) -> None:
    members = [(info(f"x.{number}"), b"") for number in range(200)]
    scan = scan_tar(made(tmp_path / "x.tar", members, tarfile.GNU_FORMAT))
    assert len(scan.others) == 21
    assert sum(scan.others.values()) == 200


def test_a_pipe_is_no_tar(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(OpenIliasError, match="no regular file"):
        scan_tar(tmp_path / "x.tar")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_tar_is_refused(shard: Path, share: float) -> None:
    data = shard.read_bytes()
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    shard.write_bytes(data[: int(share * end)])
    with pytest.raises(OpenIliasError, match="truncated"):
        index_tar(shard)
    # What lies before the cut is still told, for the verifier.
    assert 0 < len(scan_tar(shard).index) < len(IMAGES)


def test_one_closing_block_is_enough_and_none_is_not(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    data = shard.read_bytes()
    shard.write_bytes(data[: end + 512])
    assert len(index_tar(shard)) == len(IMAGES)
    shard.write_bytes(data[:end])
    with pytest.raises(OpenIliasError, match="without the closing blocks"):
        index_tar(shard)


def test_every_damaged_header_byte_is_noticed(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("b.jpg", b"2")])
    whole = (tmp_path / "x.tar").read_bytes()
    for byte in [*range(1024, 1024 + 345, 7), 1024 + 124, 1024 + 148, 1024 + 156]:
        data = bytearray(whole)
        data[byte] ^= 0x11
        (tmp_path / "y.tar").write_bytes(bytes(data))
        scan = scan_tar(tmp_path / "y.tar")
        assert scan.broken, byte
        assert [member.key for member in scan.index] == ["a"]


def test_signed_checksums_of_old_programs_are_known(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("ü.jpg", b"1")])
    data = bytearray((tmp_path / "x.tar").read_bytes())
    rest = data[:148] + data[156:512]
    signed = 256 + sum(value - 256 if value > 127 else value for value in rest)
    data[148:156] = b"%06o\0 " % signed
    (tmp_path / "x.tar").write_bytes(bytes(data))
    assert index_tar(tmp_path / "x.tar").key(0) == "ü"


def test_large_sizes_in_base_256_and_negative_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    for size, what in ((2**40, "truncated within"), (-5, "negative size")):
        block = bytearray(tarfile.TarInfo("a.jpg").tobuf())
        block[124:136] = struct.pack(">B3xQ", 0x80, size) if size >= 0 else b"\xff" + (2**88 + size).to_bytes(11, "big")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        path.write_bytes(bytes(block) + bytes(1024))
        assert any(what in one for one in scan_tar(path).broken), scan_tar(path).broken


def test_pax_headers_are_read_and_distrusted(tmp_path: Path) -> None:
    def pax(records: bytes, kind: bytes = b"x") -> list[tuple[tarfile.TarInfo, bytes]]:
        return [(info("p", len(records), type=kind), records), (info("a.jpg", 4), b"four")]

    good = made(tmp_path / "g.tar", pax(record("path", "z/y.jpg")), tarfile.GNU_FORMAT)
    assert [member.key for member in index_tar(good)] == ["z/y"]
    for records, what in (
        (b"99 path=x\n", "damaged"),
        (b"junk", "damaged"),
        (b"0 x=y\n", "damaged"),
        (b"-5 x=y\n", "damaged"),
        (record("size", "many"), "states the size"),
        (record("size", "-1"), "negative size"),
        (record("size", "999999"), "truncated"),
    ):
        path = made(tmp_path / "b.tar", pax(records), tarfile.GNU_FORMAT)
        assert any(what in one for one in scan_tar(path).broken), (records, scan_tar(path).broken)
    path = made(tmp_path / "b.tar", pax(record("path", "evil.jpg"), b"g"), tarfile.GNU_FORMAT)
    assert any("renames or resizes all" in one for one in scan_tar(path).broken)
    path = made(tmp_path / "b.tar", pax(record("comment", "harmless"), b"g"), tarfile.GNU_FORMAT)
    assert len(index_tar(path)) == 1
    path = made(tmp_path / "b.tar", pax(record("GNU.sparse.major", "1")), tarfile.GNU_FORMAT)
    assert "sparse" in scan_tar(path).unusable[0].reason


def record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest) + 2 if len(rest) + 2 >= 10 else len(rest) + 1
    return str(length).encode() + rest


def test_a_very_long_name_is_not_kept(tmp_path: Path) -> None:
    path = made(tmp_path / "x.tar", [(info("n" * 5000 + ".jpg", 1), b"1")], tarfile.GNU_FORMAT)
    (member,) = scan_tar(path).unusable
    assert "5004 bytes" in member.reason
    assert len(member.name) < 100


def test_a_huge_image_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    member = info("a.jpg", MOST_BYTES + 1)
    with path.open("wb") as out:
        out.write(member.tobuf())
        out.truncate(512 + -(-member.size // 512) * 512 + 1024)
    assert "are refused" in scan_tar(path).unusable[0].reason


def test_a_shard_that_shrinks_after_it_was_indexed(shard: Path) -> None:
    index = index_tar(shard)
    shard.write_bytes(shard.read_bytes()[:2000])
    with TarReader(shard, index) as reader, pytest.raises(OpenIliasError, match="shorter than its index"):
        reader.read(len(reader) - 1)
    with pytest.raises(OpenIliasError, match="cannot be read"):
        TarReader(shard.with_name("none.tar"))


def test_streaming_holds_one_image(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, ((f"{number}.jpg", bytes(500_000)) for number in range(40)))
    with TarReader(path) as reader:
        tracemalloc.start()
        count = sum(len(data) for _, data in reader)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert count == 20_000_000
    assert peak < 3_000_000


# The kept index


def test_a_shard_is_scanned_once(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    first = scan_once(shard, kept)
    monkeypatch.setattr(tar_index, "scan_tar", lambda path: pytest.fail("scanned again"))
    again = scan_once(shard, kept)
    assert again.index.keys.to_pylist() == first.index.keys.to_pylist()
    assert np.array_equal(again.index.offsets, first.index.offsets)
    assert np.array_equal(again.index.sizes, first.index.sizes)
    assert (again.unusable, again.strange, dict(again.others)) == (first.unusable, first.strange, dict(first.others))


def test_a_changed_shard_is_scanned_again(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    scan_once(shard, kept)
    write_tar(shard, IMAGES[:3])
    assert len(scan_once(shard, kept).index) == 3
    before = shard.stat()
    write_tar(shard, [(name, data[::-1]) for name, data in IMAGES[:2]] + [("new.jpg", IMAGES[2][1])])
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert scan_once(shard, kept).index.key(2) == "new"
    # Neither is one that was written over in place, of the same size and with its time put back.
    stat = shard.stat()
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(bytes(data))
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    monkeypatch.setattr(tar_index, "scan_tar", lambda path: pytest.fail("as it should"))
    with pytest.raises(pytest.fail.Exception, match="as it should"):
        scan_once(shard, kept)
    monkeypatch.undo()
    # The same name elsewhere is another shard.
    other = Path(shutil.copytree(shard.parent, tmp_path / "elsewhere")) / shard.name
    write_tar(other, IMAGES[:1])
    assert len(scan_once(other, kept).index) == 1


@pytest.mark.parametrize("harm", [lambda p: p.write_bytes(b"junk"), lambda p: p.write_bytes(p.read_bytes()[:100])])
def test_a_damaged_index_is_made_again(shard: Path, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    scan_once(shard, tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    harm(file)
    assert len(scan_once(shard, tmp_path / "kept").index) == len(IMAGES)


def test_a_refused_shard_leaves_no_index(shard: Path, tmp_path: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:3000])
    assert scan_once(shard, tmp_path / "kept").broken
    assert not (tmp_path / "kept").exists()


# The writer


def test_the_same_members_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("x.tar", "y.tar"):
        write_tar(tmp_path / name, IMAGES)
    assert sha256_of(tmp_path / "x.tar") == sha256_of(tmp_path / "y.tar")
    # Recorded: the bytes may depend on no machine, time or version of Python either.
    assert sha256_of(tmp_path / "x.tar") == "630dc7464c60c461a46deaf4428c7b8b8e98d47f1a70dfe40d47d670d4f200e7"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg", "a.jpg"], "stands twice"),
        (["../a.jpg"], "points outside"),
        (["/a.jpg"], "points outside"),
        (["a\n.jpg"], "not plain text"),
        (["n" * 300 + ".jpg"], "cannot be written"),
    ],
)
def test_names_that_must_not_be_written(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(OpenIliasError, match=message):
        write_tar(tmp_path / "x.tar", [(name, b"") for name in names])


def test_keys_that_a_tar_cannot_hold() -> None:
    assert image_name("folder.d/key") == "folder.d/key.jpg"
    for key in ("a.b", "folder/", ""):
        with pytest.raises(OpenIliasError, match="cannot hold the key"):
            image_name(key)
