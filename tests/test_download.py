"""Downloading from servers that stall, break off, lie: what is at its name is whole, and nothing else ever is."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import random
import re
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

import faulty_server as faults
from conftest import Outcome, kill_when
from faulty_server import Fault, FaultyServer
from openilias.core.errors import OpenIliasError
from openilias.data import read_ilias
from openilias.data.addresses import Guard, RefusedAddressError, guard_of, host_of, kind_of_address
from openilias.data.download import Downloaded, FileOutcome, download
from openilias.data.http import Client, Patience, RequestError, back_off, retry_after
from openilias.data.listings import links_below
from openilias.data.published_places import choose_shards, parse_checksums, parse_shards, source_of
from openilias.data.rehash import rehash
from openilias.data.unpack import leading_folder, read_members, unpack
from openilias.data.verify import verify

QUICK = Patience(
    retries=3, stall=0.5, first_wait=0.01, longest_wait=0.05, longest_retry_after=0.4, redirects=4, progress=1000
)
ROOT = "/ilias_data"
SHARD = "yfcc100m/yfcc100m_0000.tar"
AT = f"{ROOT}/{SHARD}"
QUERIES = "image_ids/image_query_ids.txt"
CORE = {
    "bird_000/query/Q000_00.jpg": b"query" * 900,
    "bird_000/query/Q000_00_bbox.txt": b"1 2 3 4\n",
    "bird_000/pos/P000_00.jpg": b"positive" * 900,
    "cup_001/query/T001.txt": "a cup, caf\u00e9".encode(),
    "cup_001/pos/P001_00.jpg": b"cup" * 9000,
    "cup_001/pos/P001_01.jpg": b"",
}


def noise(seed: int, size: int = 300_000) -> bytes:
    return random.Random(seed).randbytes(size)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar_of(members: dict[str, bytes], *, folders: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in folders:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


PUBLISHED = {
    "ilias_core.tar": tar_of({f"ilias_core/{name}": data for name, data in CORE.items()}, folders=("ilias_core",)),
    "image_ids/image_query_ids.txt": b"bird_000/query/Q000_00.jpg,x\n",
    "image_ids/text_query_ids.txt": b"cup_001/query/T001.txt\n",
    "image_ids/positive_ids.txt": b"bird_000/pos/P000_00.jpg,0.5,3\n",
    "image_ids/distractor_ids.txt.gz": gzip.compress(b"yfcc100m_0000.tar/a\n"),
    "image_ids/mini_ilias_yfcc100m_ids.txt": b"a\nb\n",
    **{f"yfcc100m/yfcc100m_{n:04d}.tar": noise(n) for n in range(4)},
    "features/siglip/features_positives.hdf5": noise(10, 5000),
    "features/siglip/features_text_queries.hdf5": noise(11, 4000),
    "features/dino/features_positives.hdf5": noise(12, 3000),
    "similarities/siglip.json": b"{}\n",
    "lin_adapt_layers/siglip b.pth": noise(13, 2000),
}


def checksums(published: dict[str, bytes]) -> bytes:
    listed = [path for path in published if path.endswith(".tar")]
    lines = [f"{sha(published[path])}  https://vrg.fel.cvut.cz/ilias_data/{path}\n" for path in listed]
    return "".join(lines).encode()


def page(*links: str) -> bytes:
    rows = "".join(f'<tr><td><a href="{link}">{link}</a></td></tr>' for link in links)
    return f"<html><body><h1>Index of</h1><table>{rows}</table><hr></body></html>".encode()


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as made:
        made.files = {f"{ROOT}/{path}": data for path, data in PUBLISHED.items()}
        made.files[f"{ROOT}/checksums.txt"] = checksums(PUBLISHED)
        sort = "?C=N;O=D"
        made.files[f"{ROOT}/features/"] = page(sort, "/ilias_data/", "siglip/", "dino/")
        made.files[f"{ROOT}/features/siglip/"] = page("../", "features_positives.hdf5", "features_text_queries.hdf5")
        made.files[f"{ROOT}/features/dino/"] = page("/ilias_data/features/dino/features_positives.hdf5")
        made.files[f"{ROOT}/similarities/"] = page("siglip.json")
        made.files[f"{ROOT}/lin_adapt_layers/"] = page("siglip%20b.pth")
        made.files[f"{ROOT}/lin_adapt_layers/siglip%20b.pth"] = PUBLISHED["lin_adapt_layers/siglip b.pth"]
        yield made


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


Get = Callable[..., Downloaded]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "ilias"


@pytest.fixture
def get(server: FaultyServer, out: Path) -> Get:
    def run(*what: str, **options: object) -> Downloaded:
        chosen = {"source": server.base + ROOT, "patience": QUICK, "jobs": 2} | options
        return download(out, *([what] if what else []), **chosen)

    return run


@pytest.fixture
def one(get: Get) -> Callable[[], FileOutcome]:
    """Download the first shard."""

    def run(**options: object) -> FileOutcome:
        return get("shards", shards="0", **options).files[0]

    return run


One = Callable[..., FileOutcome]


def hidden(out: Path) -> list[str]:
    return sorted(path.name for path in out.rglob("*.partial"))


def whole(out: Path, path: str = SHARD) -> bool:
    return (out / path).read_bytes() == PUBLISHED[path] and not hidden(out)


# What comes


def test_a_server_that_has_died_is_not_asked_for_every_file(get: Get, out: Path, server: FaultyServer) -> None:
    shards = {f"yfcc100m/yfcc100m_{number:04d}.tar": b"a tar" for number in range(40)}
    server.files |= {f"{ROOT}/{path}": data for path, data in shards.items()}
    server.files[f"{ROOT}/checksums.txt"] = checksums(shards)
    for number in range(5, 40):
        server.always[f"{ROOT}/yfcc100m/yfcc100m_{number:04d}.tar"] = faults.says(503)
    done = get("shards", shards="0-39", jobs=2)
    assert len([file for file in done.files if file.status == "fetched"]) == 5
    untried = [file for file in done.files if "does not answer any more" in str(file.note)]
    assert 20 <= len(untried) <= 27
    assert {file.status for file in untried} == {"failed"}
    assert not any(server.gets(f"{ROOT}/{file.path}") for file in untried)
    server.always.clear()
    again = get("shards", shards="0-39", jobs=2)
    assert not again.failures
    assert [file.status for file in again.files].count("there") == 5


def test_what_is_usual(get: Get, out: Path) -> None:
    done = get()
    assert {file.path: file.status for file in done.files} == dict.fromkeys(
        ["ilias_core.tar", *(path for path in PUBLISHED if "_ids.txt" in path and "mini" not in path)], "fetched"
    )
    found = {p.relative_to(out / "ilias_core").as_posix(): p for p in (out / "ilias_core").rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == CORE
    assert not (out / "ilias_core.tar").exists()
    assert (out / "checksums.txt").read_bytes() == checksums(PUBLISHED)
    assert all(whole(out, file.path) for file in done.files[1:])
    assert [file.published for file in done.files] == [True, False, False, False, False]
    assert done.files[0].note == "unpacked to ilias_core/, 6 files"
    assert done.files[1].note == "no checksum is published"
    assert not done.failures


def test_nothing_is_fetched_twice(get: Get, server: FaultyServer) -> None:
    get("core", "ids", "shards")
    before = len(server.log)
    again = get("core", "ids", "shards")
    assert {file.status for file in again.files} == {"there"}
    assert [(m, p) for m, p, *_ in server.log[before:] if m == "GET"] == [("GET", f"{ROOT}/checksums.txt")]
    assert not [p for m, p, *_ in server.log[before:] if m == "HEAD" and p.endswith(".tar")]  # known by its record


def test_what_others_brought_is_taken_by_its_size(one: One, out: Path, server: FaultyServer) -> None:
    (out / SHARD).parent.mkdir(parents=True)
    (out / SHARD).write_bytes(bytes(300_000))
    found = one()
    assert found.status == "there"
    assert "not digested" in str(found.note)
    assert not server.gets(AT)
    (out / SHARD).write_bytes(bytes(299_999))
    assert one().status == "fetched"
    assert whole(out)


def test_a_file_that_changed_since_it_came_is_not_trusted(one: One, out: Path, server: FaultyServer) -> None:
    one()
    (out / SHARD).write_bytes(bytes(10))
    assert one().status == "fetched"
    assert whole(out)
    server.files[AT] = noise(99)
    server.files[f"{ROOT}/checksums.txt"] = checksums({SHARD: noise(99)})
    assert one().status == "fetched"
    assert (out / SHARD).read_bytes() == noise(99)


def test_shards_are_chosen_by_number(get: Get, out: Path) -> None:
    get("shards", shards="0, 2-3")
    assert sorted(path.name for path in (out / "yfcc100m").iterdir()) == [f"yfcc100m_{n:04d}.tar" for n in (0, 2, 3)]
    assert len(get("mini", shards="1").files) == 2  # a shard that is named is asked for
    assert len(get("shards").files) == 4


def test_folders_are_read_and_filtered(get: Get, out: Path) -> None:
    done = get("features", "similarities", "layers")
    assert all(whole(out, path) for path in PUBLISHED if path.startswith(("features", "simil", "lin_adapt")))
    assert {file.note for file in done.files} == {"no checksum is published"}
    shutil.rmtree(out)
    assert len(get("features", only="*text*").files) == 1
    assert len(get("features", only="siglip/*").files) == 2
    assert len(get("features", only="features_positives.hdf5").files) == 2
    with pytest.raises(OpenIliasError, match="takes nothing of features"):
        get("features", only="*.zip")


def test_the_tar_is_kept_if_asked(get: Get, out: Path, server: FaultyServer) -> None:
    get("core", keep_tar=True)
    assert (out / "ilias_core.tar").read_bytes() == PUBLISHED["ilias_core.tar"]
    get("core")
    assert (out / "ilias_core.tar").exists()  # it was asked for once
    (out / "ilias_core.tar").unlink()
    get("core", keep_tar=True)
    assert (out / "ilias_core.tar").read_bytes() == PUBLISHED["ilias_core.tar"]


def test_a_tar_that_is_here_is_digested_before_it_is_unpacked(get: Get, out: Path, server: FaultyServer) -> None:
    out.mkdir()
    good = PUBLISHED["ilias_core.tar"]
    (out / "ilias_core.tar").write_bytes(good)
    get("core")
    assert (out / "ilias_core").is_dir()
    assert (out / "ilias_core.tar").exists()  # somebody else's
    assert not server.gets(f"{ROOT}/ilias_core.tar")
    shutil.rmtree(out)
    out.mkdir()
    (out / "ilias_core.tar").write_bytes(good[:-1] + b"x")
    get("core")
    assert len(server.gets(f"{ROOT}/ilias_core.tar")) == 1


def test_a_run_killed_before_it_removed_the_tar(get: Get, out: Path) -> None:
    get("core", keep_tar=True)
    record = out / ".downloads" / "ilias_core.tar.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"kept": False}))
    get("core")
    assert not (out / "ilias_core.tar").exists()


def test_another_core_is_published(get: Get, out: Path, server: FaultyServer) -> None:
    get("core")
    server.files[f"{ROOT}/checksums.txt"] = checksums({"ilias_core.tar": b"other"})
    done = get("core")
    assert "move ilias_core away" in str(done.failures[0].note)
    assert (out / "ilias_core").is_dir()


def test_what_comes_is_a_benchmark(get: Get, out: Path, server: FaultyServer, tiny_root: Path) -> None:
    core = {p.relative_to(tiny_root).as_posix(): p for p in (tiny_root / "ilias_core").rglob("*") if p.is_file()}
    published = {"ilias_core.tar": tar_of({name: path.read_bytes() for name, path in core.items()})}
    for folder in ("image_ids", "yfcc100m"):
        published |= {f"{folder}/{path.name}": path.read_bytes() for path in (tiny_root / folder).iterdir()}
    server.files = {f"{ROOT}/{path}": data for path, data in published.items()}
    server.files[f"{ROOT}/checksums.txt"] = checksums(published)
    assert not get("core", "ids", "shards").failures
    assert read_ilias(out).fingerprint == read_ilias(tiny_root).fingerprint
    outcome = verify(out, workers=1)
    assert outcome is not None
    assert outcome.sound
    assert not {kind for _, kind in outcome.kinds} & {"stray-file", "hidden-file"}


# Faults


FAULTS: dict[str, tuple[list[Fault], list[tuple[str | None, bool]]]] = {
    "a reset": ([faults.resets(120_000)], [(None, False), ("bytes=120000-", True)]),
    "a truncated body": ([faults.truncates(70_000)], [(None, False), ("bytes=70000-", True)]),
    "a stall": ([faults.stalls(50_000)], [(None, False), ("bytes=50000-", True)]),
    "a stall before the head": ([faults.stalls_before_the_head], [(None, False), (None, False)]),
    "a drip": ([faults.drips], []),
    "an error of the server": ([faults.says(500), faults.says(502)], [(None, False)] * 3),
    "no HTTP": ([faults.garbage], [(None, False)] * 2),
    "wrong bytes once": ([faults.serves(noise(77))], [(None, False)] * 2),
    "too few wrong bytes": ([faults.serves(b"<html>quota</html>")], [(None, False)] * 2),
    "a server without ranges": (
        [faults.ignores_ranges_and_resets(90_000), faults.ignores_ranges],
        [(None, False), ("bytes=90000-", False)],
    ),
    "more failures than retries, with progress": (
        [faults.resets(30_000) for _ in range(6)],
        [(None, False), *((f"bytes={n}0000-", True) for n in (3, 6, 9, 12, 15, 18))],
    ),
    "no length": ([faults.chunked], [(None, False)]),
    "a connection that ends too early": ([faults.without_end(40_000)], [(None, False), ("bytes=40000-", False)]),
    "a redirect": ([faults.says(302, Location=f"{ROOT}/yfcc100m/../{SHARD}")], []),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_got_over(one: One, out: Path, server: FaultyServer, fault: str) -> None:
    script, asked = FAULTS[fault]
    server.faults[AT] = list(script)
    begun = time.monotonic()
    done = one()
    assert done.status == "fetched", done.note
    assert time.monotonic() - begun < 6
    assert done.sha256 == sha(PUBLISHED[SHARD])
    assert whole(out)
    assert not server.faults[AT]
    if asked:
        assert [(ranged, condition is not None) for ranged, condition in server.gets(AT)] == asked


LOST: dict[str, tuple[Fault, str, int]] = {
    "always 503": (faults.says(503), r"503 .*\(4 tries\)", 4),
    "always 404": (faults.says(404), "404", 1),
    "forbidden": (faults.says(403), "403", 1),
    "always wrong bytes": (faults.serves(noise(78)), "wrong bytes came twice", 2),
    "always stalled": (faults.stalls_before_the_head, "nothing came for 0.5 s", 4),
    "without end": (faults.endless, "more bytes came than the 300000", 1),
    "redirected in a circle": (faults.says(302, Location=AT), "more than 4 redirects", 1),
    "redirected to nowhere": (faults.says(302), "302 without an address", 1),
    "packed": (faults.says(200, Content_Encoding="gzip"), "packed as 'gzip'", 1),
    "a part that nobody asked for": (faults.says(206), "the answer is 206", 1),
    "to a private address": (faults.says(302, Location="http://10.0.0.1/x"), "10.0.0.1 is a private address", 1),
    "to the address of secrets": (faults.says(302, Location="http://169.254.169.254/"), "a link-local address", 1),
    "to a hidden address": (faults.says(301, Location="http://[::ffff:192.168.0.1]/"), "a private address", 1),
    "to a file": (faults.says(302, Location="file:///etc/passwd"), "no http or https URL", 1),
    "with a password": (faults.says(302, Location="http://a:b@127.0.0.1/"), "holds a user name", 1),
    "to a number": (faults.says(302, Location="http://2130706433:1/"), "2130706433", 1),
}


@pytest.mark.parametrize("fault", LOST)
def test_a_file_that_cannot_be_had_is_named_and_does_not_stop_the_others(
    get: Get, out: Path, server: FaultyServer, fault: str
) -> None:
    script, message, times = LOST[fault]
    server.always[AT] = script
    done = get("shards", shards="0-1")
    assert [file.status for file in done.files] == ["failed", "fetched"]
    assert done.failures == done.files[:1]
    assert re.search(message, str(done.files[0].note)), done.files[0].note
    assert len(server.gets(AT)) == (times if "circle" not in fault else 5)
    assert not (out / SHARD).exists()
    assert whole(out, "yfcc100m/yfcc100m_0001.tar")
    del server.always[AT]
    again = get("shards", shards="0-1")
    assert [file.status for file in again.files] == ["fetched", "there"]
    assert whole(out)


def test_a_file_that_is_not_there_is_known_before(one: One, server: FaultyServer) -> None:
    del server.files[AT]
    assert "404" in str(one().note)
    assert not server.gets(AT)


@pytest.mark.parametrize("status", [403, 405, 501])
def test_servers_that_do_not_like_to_be_asked_for_sizes(one: One, out: Path, server: FaultyServer, status: int) -> None:
    server.heads[AT] = faults.says(status)
    assert one().status == "fetched"
    assert whole(out)
    assert one().status == "there"


def test_what_comes_may_not_be_more_than_anybody_said(one: One, server: FaultyServer) -> None:
    server.heads[AT] = faults.says(405)
    server.always[AT] = faults.endless
    patience = Patience(retries=1, first_wait=0.01, most_unstated=2**20)
    assert "more bytes came than 1048576, and no end is stated" in str(one(patience=patience).note)


def test_without_length_and_checksum_nothing_is_known_to_be_whole(get: Get, out: Path, server: FaultyServer) -> None:
    at = f"{ROOT}/{QUERIES}"
    server.heads[at] = faults.says(405)
    server.always[at] = faults.without_end()
    done = get("ids")
    assert "may not be whole" in str(done.failures[0].note)
    assert not (out / QUERIES).exists()
    server.always[at] = faults.chunked
    assert not get("ids").failures


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_packed_files_come_as_they_are(get: Get, out: Path, server: FaultyServer, encoding: str) -> None:
    server.headers[f"{ROOT}/image_ids/distractor_ids.txt.gz"] = {"Content-Encoding": encoding}  # as Apache does
    get("ids")
    assert whole(out, "image_ids/distractor_ids.txt.gz")


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("dated", [False, True])
def test_a_server_is_not_asked_before_it_wants_to(one: One, server: FaultyServer, status: int, dated: bool) -> None:
    wish = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True) if dated else "60"
    server.faults[AT] = [faults.says(status, Retry_After=wish)]
    begun = time.monotonic()
    assert one().status == "fetched"
    assert 0.4 <= time.monotonic() - begun < 5  # as long as it is borne with, not the 0.05 s of other failures


def test_retry_after_is_read() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after(None, now) is None
    assert retry_after(" 120 ", now) == 120
    assert retry_after("9" * 400, now) == float("inf")
    assert retry_after("Thu, 01 Jan 2026 00:01:30 GMT", now) == 90
    assert retry_after("Thu, 01 Jan 2026 00:01:30 -0000", now) == 90
    assert retry_after("Thu, 01 Jan 2015 00:00:00 GMT", now) == 0
    assert retry_after("-5", now) is None
    assert retry_after("soon", now) is None
    for huge in ("Thu, 9999999999999999999999 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 +99999999999999"):
        assert retry_after(huge, now) is None


def test_waiting_doubles_up_to_a_limit_and_is_spread() -> None:
    patience = Patience(first_wait=1, longest_wait=10)
    assert [back_off(n, patience, 0.999999) for n in (1, 2, 3, 4, 5, 99999)] == pytest.approx([1, 2, 4, 8, 10, 10])
    assert back_off(3, patience, 0) == 2


# Going on


def test_a_file_that_changed_meanwhile_begins_anew(get: Get, out: Path, server: FaultyServer) -> None:
    path = "features/siglip/features_positives.hdf5"  # nobody publishes its checksum
    at = f"{ROOT}/{path}"
    server.always[at] = faults.resets(2000)
    patience = Patience(retries=0, first_wait=0.01)
    assert get("features", only="siglip/*pos*", patience=patience).failures
    assert len(hidden(out)) == 2
    del server.always[at]
    server.files[at] = noise(55, 5000)
    assert not get("features", only="siglip/*pos*").failures
    assert server.gets(at)[-1] == ("bytes=2000-", faults.tag_of(PUBLISHED[path]))
    assert (out / path).read_bytes() == noise(55, 5000)
    assert not hidden(out)


def test_a_server_that_continues_another_file_is_found_out(get: Get, out: Path, server: FaultyServer) -> None:
    path = "features/siglip/features_positives.hdf5"
    at = f"{ROOT}/{path}"

    def other(handler: faults.Handler, data: bytes) -> None:
        handler.start(206, 6000, Content_Range="bytes 2000-7999/8000")
        handler.wfile.write(bytes(6000))

    def from_elsewhere(handler: faults.Handler, data: bytes) -> None:
        handler.start(206, 4000, Content_Range="bytes 1000-4999/5000")
        handler.wfile.write(data[1000:])

    for lie in (other, from_elsewhere):
        server.faults[at] = [faults.resets(2000), lie]
        assert not get("features", only="siglip/*pos*").failures
        assert whole(out, path)
        (out / path).unlink()


def test_leftovers_of_former_versions_go(one: One, out: Path, server: FaultyServer) -> None:
    server.always[AT] = faults.resets(200_000)
    one(patience=Patience(retries=0))
    del server.always[AT]
    server.files[AT] = noise(99)
    server.files[f"{ROOT}/checksums.txt"] = checksums({SHARD: noise(99)})
    assert one().status == "fetched"
    assert not hidden(out)


def test_without_validator_and_checksum_nothing_is_continued(get: Get, out: Path, server: FaultyServer) -> None:
    at = f"{ROOT}/{QUERIES}"
    server.files[at] = noise(5, 9000)
    server.faults[at] = [faults.ignores_ranges_and_resets(5000)]
    assert not get("ids").failures
    assert server.gets(at) == [(None, None)] * 2


def test_a_file_that_shrank_begins_anew(one: One, out: Path, server: FaultyServer) -> None:
    server.faults[AT] = [faults.resets(200_000), faults.says(416, Content_Range="bytes */100")]
    assert one().status == "fetched"
    assert whole(out)
    assert server.gets(AT)[-1] == (None, None)


def test_a_file_without_a_checksum_that_shrank_begins_anew(get: Get, out: Path, server: FaultyServer) -> None:
    for told in ("bytes */100", ""):
        server.faults[f"{ROOT}/{QUERIES}"] = [faults.resets(20), faults.says(416, Content_Range=told)]
        assert not get("ids").failures
        assert whole(out, QUERIES)
        shutil.rmtree(out)


def test_all_had_come_and_only_the_name_was_missing(one: One, out: Path, server: FaultyServer) -> None:
    server.always[AT] = faults.resets(299_000)
    one(patience=Patience(retries=0))
    partial = next(path for path in (out / "yfcc100m").iterdir() if path.stat().st_size == 299_000)
    partial.write_bytes(PUBLISHED[SHARD])
    del server.always[AT]
    assert one().status == "fetched"
    assert server.gets(AT)[-1][0] == "bytes=300000-"
    assert whole(out)


def test_spoilt_leftovers_are_found_by_the_digest(one: One, out: Path, server: FaultyServer) -> None:
    server.always[AT] = faults.resets(200_000)
    one(patience=Patience(retries=0))
    partial = next(path for path in (out / "yfcc100m").iterdir() if path.stat().st_size == 200_000)
    partial.write_bytes(bytes(200_000))
    del server.always[AT]
    assert one().status == "fetched"
    assert whole(out)


def test_what_came_from_one_place_is_continued_from_another(one: One, out: Path, server: FaultyServer) -> None:
    server.always[AT] = faults.resets(200_000)
    one(patience=Patience(retries=0))
    for path, data in list(server.files.items()):
        server.files[f"/copy{path}"] = data
    done = one(source=f"{server.base}/copy{ROOT}")
    assert done.status == "fetched"
    assert server.gets(f"/copy{AT}") == [("bytes=200000-", None)]
    assert whole(out)


CODE = (
    "import sys\nfrom pathlib import Path\nfrom openilias.data.download import download\n"
    "download(Path(sys.argv[1]), sys.argv[3:], source=sys.argv[2], shards='0')\n"
)


def test_killed_it_goes_on(one: One, out: Path, server: FaultyServer) -> None:
    server.files[AT] = noise(3, 3_000_000)
    server.files[f"{ROOT}/checksums.txt"] = checksums({SHARD: server.files[AT]})
    server.always[AT] = faults.slowly(100_000, 0.1)

    def seen() -> bool:
        return any(p.stat().st_size > 1_000_000 for p in (out / "yfcc100m").glob(".*") if p.exists())

    kill_when(seen, CODE, out, server.base + ROOT, "shards")
    assert not (out / SHARD).exists()
    here = max(path.stat().st_size for path in (out / "yfcc100m").iterdir())
    assert 1_000_000 < here < 3_000_000
    del server.always[AT]
    done = one()
    assert (done.status, done.here) == ("fetched", here)
    assert server.gets(AT)[-1][0] == f"bytes={here}-"
    assert (out / SHARD).read_bytes() == noise(3, 3_000_000)
    assert not hidden(out)


def test_killed_while_it_unpacks_it_begins_that_anew(get: Get, out: Path, server: FaultyServer) -> None:
    code = (
        "import time, openilias.data.unpack as u\nreal = u._copy\n"
        "def slow(*a):\n    time.sleep(0.4)\n    return real(*a)\nu._copy = slow\n"
    )
    kill_when(lambda: list(out.glob(".ilias_core.*/*/*/*")), code + CODE.replace(", shards='0'", ""), out,
              server.base + ROOT, "core")  # fmt: skip
    assert not (out / "ilias_core").exists()
    assert (out / "ilias_core.tar").exists()
    left = next(out.glob(".ilias_core.*"))
    (left / "stray.txt").write_text("of a killed run")
    get("core")
    assert len(server.gets(f"{ROOT}/ilias_core.tar")) == 1
    found = {p.relative_to(out / "ilias_core").as_posix() for p in (out / "ilias_core").rglob("*") if p.is_file()}
    assert found == set(CORE)
    assert not (out / "ilias_core.tar").exists()
    assert not hidden(out)


def test_two_runs_at_once(get: Get, out: Path, server: FaultyServer) -> None:
    server.faults[AT] = [faults.slowly(30_000, 0.1)]
    outcomes: dict[str, Downloaded] = {}
    first = threading.Thread(target=lambda: outcomes.update(first=get("shards", jobs=1)))
    first.start()
    while not hidden(out):
        time.sleep(0.01)
    outcomes["second"] = get("shards", jobs=1)
    first.join()
    assert not outcomes["first"].failures
    assert [file.path for file in outcomes["second"].failures] == [SHARD]
    assert "Another process" in str(outcomes["second"].failures[0].note)
    assert all(len(server.gets(f"{ROOT}/yfcc100m/yfcc100m_{n:04d}.tar")) == 1 for n in range(4))
    assert [file.status for file in outcomes["first"].files] == ["fetched", "there", "there", "there"]
    assert all(whole(out, f"yfcc100m/yfcc100m_{n:04d}.tar") for n in range(4))


# The disk


def test_a_disk_that_is_too_small_is_said_before(
    get: Get, out: Path, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1_000_000
    monkeypatch.setattr("openilias.data.download.shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(OpenIliasError, match=r"1\.3 MB are needed, 1\.0 MB are free, 260\.0 kB are missing"):
        get("shards")
    assert not out.exists()
    get("shards", shards="0-2")
    get("shards")  # only what is left counts
    free = 2 * len(PUBLISHED["ilias_core.tar"])
    with pytest.raises(OpenIliasError, match="are missing"):
        get("core")  # the tar and what is unpacked from it, and some to spare


def test_a_disk_that_fills_stops_everything_and_nothing_is_lost(
    one: One, out: Path, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openilias.data import fetch

    real = fetch._Kept.write

    def full(self: fetch._Kept, block: bytes) -> None:
        if self.have >= 150_000:
            with fetch._disk(out):
                raise OSError(28, "No space left on device")
        real(self, block)

    server.faults[AT] = [faults.resets(150_000)]
    with monkeypatch.context() as patch:
        patch.setattr(fetch._Kept, "write", full)
        with pytest.raises(OpenIliasError, match="No space left on device"):
            one()
    assert not (out / SHARD).exists()
    assert one().here == 150_000
    assert whole(out)


def test_dry_run_writes_nothing(get: Get, out: Path, server: FaultyServer) -> None:
    done = get("core", "shards", dry_run=True)
    assert not out.exists()
    assert {file.status for file in done.files} == {"to fetch"}
    assert done.left == sum(len(data) for path, data in PUBLISHED.items() if path.endswith(".tar"))
    assert done.room == int(1.05 * (done.left + len(PUBLISHED["ilias_core.tar"])))
    server.always[AT] = faults.resets(100_000)
    get("shards", shards="0-1", patience=Patience(retries=0))
    done = get("shards", dry_run=True)
    assert [(file.status, file.here) for file in done.files] == [
        ("to fetch", 100_000), ("there", 0), ("to fetch", 0), ("to fetch", 0),
    ]  # fmt: skip
    assert done.left == 800_000


def test_folders_in_the_way(one: One, out: Path) -> None:
    (out / SHARD).mkdir(parents=True)
    assert "a folder is in its place" in str(one().note)


# Verifying again


def test_everything_is_digested_again(get: Get, out: Path, server: FaultyServer) -> None:
    get("core", "ids", "shards", "features")
    asked = len(server.log)
    done = rehash(out)
    assert {file.status for file in done.files} == {"sound"}
    assert len(done.files) == 1 + 4 + 4 + 3
    (out / SHARD).write_bytes(bytes(300_000))
    (out / QUERIES).write_bytes(PUBLISHED[QUERIES].swapcase())
    (out / "ilias_core/bird_000/pos/P000_00.jpg").write_bytes(b"x")
    (out / "ilias_core/cup_001/query/T001.txt").unlink()
    (out / "image_ids/mini_ilias_yfcc100m_ids.txt").write_bytes(b"of unknown origin")
    for _ in range(2):  # what is wrong stays wrong
        done = rehash(out)
        assert {file.path for file in done.failures} == {
            SHARD, QUERIES, "ilias_core/bird_000/pos/P000_00.jpg", "ilias_core/cup_001/query/T001.txt"
        }  # fmt: skip
    assert [file.path for file in done.files if file.status == "unknown"] == ["image_ids/mini_ilias_yfcc100m_ids.txt"]
    assert len(server.log) == asked
    get("ids", "shards")  # though their sizes are right
    assert whole(out)
    assert whole(out, QUERIES)
    assert {file.path.partition("/")[0] for file in rehash(out).failures} == {"ilias_core"}


def test_a_part_is_verified(get: Get, out: Path) -> None:
    get("ids", "shards", "features")
    assert [file.path for file in rehash(out, shards="1-2,7").files] == [
        "yfcc100m/yfcc100m_0001.tar", "yfcc100m/yfcc100m_0002.tar"
    ]  # fmt: skip
    assert len(rehash(out, ["ids"]).files) == 4
    assert len(rehash(out, ["features"], only="*text*").files) == 1
    with pytest.raises(OpenIliasError, match="Nothing of what is asked for"):
        rehash(out, ["core"])
    with pytest.raises(OpenIliasError, match="no such folder"):
        rehash(out / "none")


# Where it comes from


@pytest.fixture
def mirror(server: FaultyServer) -> str:
    """A hub that has everything but the last shard; its lists have pages of two files."""
    have = {path: data for path, data in PUBLISHED.items() if "0003" not in path} | {".gitattributes": b"x"}
    for path, data in have.items():
        server.files[f"/datasets/vrg/ilias/resolve/main/{path.replace(' ', '%20')}"] = data
    api = "/api/datasets/vrg/ilias/tree/main"
    for folder in ("", "image_ids", "yfcc100m", "features", "similarities", "lin_adapt_layers"):
        files = [path for path in have if (path.startswith(f"{folder}/") if folder else "/" not in path)]
        entries: list[dict[str, object]] = [{"type": "directory", "path": "features/siglip", "size": 0, "oid": "1"}]
        for path in files:
            lfs = {"oid": sha(have[path]), "size": len(have[path]), "pointerSize": 130}
            large = path.endswith((".tar", ".hdf5"))
            entries.append(
                {"type": "file", "path": path, "size": len(have[path]), "oid": "1"} | ({"lfs": lfs} if large else {})
            )
        first = f"{api}/{folder}?recursive=true" if folder else api
        urls = [first, *(f"{first}{'&' if folder else '?'}cursor={n}" for n in range(1, len(entries)))]
        for number, url in enumerate(urls):
            server.files[url] = json.dumps(entries[2 * number : 2 * number + 2]).encode()
            if 2 * number + 2 < len(entries):
                server.headers[url] = {"Link": f'<{server.base}{urls[number + 1]}>; rel="next"'}
    return f"{server.base}/datasets/vrg/ilias"


def test_the_mirror(get: Get, out: Path, server: FaultyServer, mirror: str) -> None:
    done = get("core", "ids", "features", "layers", shards="0-2", source=mirror)
    assert not done.failures
    assert whole(out)
    assert whole(out, "lin_adapt_layers/siglip b.pth")
    assert len(done.files) == 1 + 4 + 3 + 3 + 1
    assert {file.path for file in done.files if file.published} == {
        file.path for file in done.files if file.path.endswith((".tar", ".hdf5"))
    }
    assert not [entry for entry in server.log if entry[0] == "HEAD"]  # the list says the sizes
    assert {file.status for file in rehash(out).files} == {"sound"}


def test_what_the_mirror_lacks(get: Get, server: FaultyServer, mirror: str, out: Path) -> None:
    server.files["/datasets/vrg/ilias/resolve/main/checksums.txt"] = checksums(PUBLISHED)
    with pytest.raises(
        OpenIliasError, match=r"1 of these files are not on the mirror: yfcc100m/yfcc100m_0003"
    ) as error:
        get("shards", source=mirror)
    assert "https://vrg.fel.cvut.cz/ilias_data" in str(error.value)
    with pytest.raises(OpenIliasError, match="No files are listed in similarities"):
        del server.files["/api/datasets/vrg/ilias/tree/main/similarities?recursive=true"]
        get("similarities", source=mirror)
    server.files["/datasets/vrg/ilias/resolve/main/checksums.txt"] = checksums({SHARD: b"other"})
    with pytest.raises(OpenIliasError, match="other files than the list of checksums says"):
        get("shards", source=mirror, shards="0")
    assert not out.exists()


@pytest.mark.parametrize(
    "text",
    ["<html>", "{}", "[1]", '[{"type": "file"}]', '[{"type": "file", "path": "a", "size": 1, "lfs": {"oid": "x"}}]']
    + [f'[{{"type": "file", "path": "a", "size": {size}}}]' for size in ("1e999", "-5", f"1{'0' * 400}")],
)
def test_a_list_of_a_hub_that_is_none(get: Get, server: FaultyServer, mirror: str, text: str) -> None:
    server.files["/api/datasets/vrg/ilias/tree/main"] = text.encode()
    with pytest.raises(OpenIliasError, match="no list of files of a hub"):
        get("core", source=mirror)


def test_a_list_that_goes_on_elsewhere(get: Get, server: FaultyServer, mirror: str) -> None:
    server.headers["/api/datasets/vrg/ilias/tree/main"] = {"Link": '<http://127.0.0.2/x>; rel="next"'}
    with pytest.raises(OpenIliasError, match="another host"):
        get("core", source=mirror)


def test_sources() -> None:
    assert source_of("portal").url(SHARD) == f"https://vrg.fel.cvut.cz/ilias_data/{SHARD}"
    hub = source_of("mirror")
    assert hub.url(SHARD) == f"https://huggingface.co/datasets/vrg-prague/ilias/resolve/main/{SHARD}"
    api = "https://huggingface.co/api/datasets/vrg-prague/ilias/tree/main"
    assert hub.tree("features", recursive=True) == f"{api}/features?recursive=true"
    assert not source_of("http://10.0.0.1/ilias/").hub
    for bad in ("nowhere", "ftp://x/y", "file:///x", "http://", "http://a:b@x/", "http://x/?q=1", "http://x:0/"):
        with pytest.raises(OpenIliasError, match="no source"):
            source_of(bad)


def test_hostile_links_are_left_out() -> None:
    folder = "http://here.org/data/features/"
    hostile = [
        "../", "../../etc/passwd", "/data/", "/etc/passwd", "//there.org/x", "http://there.org/data/features/x",
        "https://here.org/data/features/x", "javascript:alert(1)", "data:text/plain,x", "mailto:x@y", "?C=N;O=D",
        "%2e%2e/x", "..%2fx", "a%2f..%2f..%2fx", "x%00y", "x%0ay", "a%5cb", ".hidden", "", "./", "deep/er/x", "x?y=1",
        "http://[", "http://here.org:99/data/features/x", "%ff" * 80, "a" * 300, "/data/features", "#top",
    ]  # fmt: skip
    found = links_below(page("good.hdf5", "b%20c.h5", "sub/", *hostile).decode(), folder)
    assert found == ["b c.h5", "good.hdf5", "sub/"]
    assert links_below("<a href=x><a name=z><a href><p href=w>", folder) == ["x"]
    assert links_below("", folder) == []


def test_a_folder_in_itself_ends(get: Get, server: FaultyServer) -> None:
    for depth in range(12):
        server.files[f"{ROOT}/similarities/{'a/' * depth}"] = page("a/", "x.json")
    assert len(get("similarities", dry_run=True).files) == 6


def test_lists_of_checksums() -> None:
    a, b = "a" * 64, "B" * 64
    text = f"{a}  https://vrg.fel.cvut.cz/ilias_data/ilias_core.tar\n\n{b}  yfcc100m/x.tar\n{a}  https://else.org/x\n"
    assert parse_checksums(text, "http://h/d", where="w") == {"ilias_core.tar": a, "yfcc100m/x.tar": b.lower()}
    assert parse_checksums(f"{a}  http://h/d/x\n", "http://h/d", where="w") == {"x": a}
    assert parse_checksums(f"{a}  http://h/ilias_data/../../x\n", "http://h", where="w") == {}
    moved = (
        f"{a}  https://own.org/v1/ilias_core.tar\n{b}  https://own.org/v1/rows/core.parquet\n{a}  https://else.org/x\n"
    )
    assert parse_checksums(moved, "http://h", where="w") == {"ilias_core.tar": a, "rows/core.parquet": b.lower()}
    with pytest.raises(OpenIliasError, match="Expected"):
        parse_checksums("<html>\n", "http://h", where="w")
    with pytest.raises(OpenIliasError, match="Two different"):
        parse_checksums(f"{a}  x\n{b}  x\n", "http://h", where="w")


def test_ranges_of_shards() -> None:
    assert parse_shards("0-2, 20") == (range(3), range(20, 21))
    for bad in ("", "a", "3-1", "1-", "-1", "1,,2", "0x1", "9" * 12):
        with pytest.raises(OpenIliasError, match="no range of shards"):
            parse_shards(bad)
    listed = [f"yfcc100m/yfcc100m_{n:04d}.tar" for n in (3, 1, 2)]
    assert choose_shards(listed, (range(2, 4), range(2, 3)), where="w") == [listed[2], listed[0]]
    several = ["yfcc100m/own_0001.tar", *listed]
    assert choose_shards(several, (range(1, 2),), where="w") == [several[0], listed[1]]
    for wanted in ((range(1, 10),), (range(999_999_999),)):
        with pytest.raises(OpenIliasError, match="These shards are not listed"):
            choose_shards(listed, wanted, where="w")
    with pytest.raises(OpenIliasError, match="No shards are listed"):
        choose_shards(["ilias_core.tar"], None, where="w")


def test_a_place_that_does_not_answer(get: Get, server: FaultyServer, out: Path) -> None:
    server.always[f"{ROOT}/checksums.txt"] = faults.says(503)
    with pytest.raises(OpenIliasError, match="could not be fetched: 503"):
        get()
    with pytest.raises(OpenIliasError, match="connection failed"):
        get(source="http://127.0.0.1:9/ilias_data", patience=Patience(retries=0))
    server.always[f"{ROOT}/checksums.txt"] = faults.endless
    with pytest.raises(OpenIliasError, match="more than 67108864 bytes"):
        get()
    server.always[f"{ROOT}/checksums.txt"] = faults.serves(b"<html>log in</html>")
    with pytest.raises(OpenIliasError, match="no list of checksums"):
        get()
    assert not out.exists()


def test_a_place_without_checksums(get: Get, server: FaultyServer) -> None:
    del server.files[f"{ROOT}/checksums.txt"]
    done = get()
    assert not done.failures
    assert {file.published for file in done.files} == {False}
    assert all("no checksum is published" in str(file.note) for file in done.files)
    with pytest.raises(OpenIliasError, match="No shards are listed"):
        get("shards")


# Addresses


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", "public"), ("2606:4700::1111", "public"), ("127.0.0.1", "loopback"), ("::1", "loopback"),
        ("10.1.2.3", "private"), ("172.16.0.1", "private"), ("192.168.1.1", "private"), ("100.64.0.1", "private"),
        ("fd00::1", "private"), ("169.254.169.254", "link-local"), ("fe80::1%eth0", "link-local"),
        ("0.0.0.0", "reserved"), ("224.0.0.1", "reserved"), ("255.255.255.255", "reserved"),
        ("::ffff:127.0.0.1", "loopback"), ("64:ff9b::a00:1", "private"), ("2002:7f00:1::", "loopback"),
    ],
)  # fmt: skip
def test_kinds_of_addresses(address: str, kind: str) -> None:
    assert kind_of_address(address) == kind


def test_guards() -> None:
    guard = guard_of("http://10.0.0.1/x")
    guard.check("http://10.0.0.2/")
    guard.check("http://anything.org/")
    for bad in ("http://127.0.0.1/", "http://169.254.0.1/", "http://[::1]/"):
        with pytest.raises(RefusedAddressError):
            guard.check(bad)
        with pytest.raises(RefusedAddressError):
            Guard().check(bad)
    assert guard_of("http://intra/x").allows("intra", "10.0.0.1")
    assert not guard_of("http://intra/x").allows("other", "10.0.0.1")
    with pytest.raises(RefusedAddressError):
        host_of("http://x\n/")


def test_a_name_that_leads_to_a_private_address_is_refused(server: FaultyServer) -> None:
    url = server.base.replace("127.0.0.1", "localhost") + f"{ROOT}/checksums.txt"

    async def ask(guard: Guard) -> str:
        async with Client(guard, QUICK, connections=1) as client:
            return (await client.text(url, name="list", most=10_000))[0]

    with pytest.raises(RequestError, match=r"refused: localhost leads to .* a loopback address"):
        asyncio.run(ask(Guard()))
    assert not server.log
    assert asyncio.run(ask(guard_of(url))).encode() == checksums(PUBLISHED)


def test_no_redirect_from_https_to_http() -> None:
    from openilias.data.http import _redirected

    response = SimpleNamespace(headers={"Location": "http://x.org/y"}, status=302)
    with pytest.raises(RequestError, match="from https to http"):
        _redirected("https://x.org/", response)  # type: ignore[arg-type]
    assert (
        _redirected("http://x.org/a/b", SimpleNamespace(headers={"Location": "../c"}, status=302)) == "http://x.org/c"
    )  # type: ignore[arg-type]


def test_it_works_within_a_loop(get: Get, out: Path) -> None:
    async def notebook() -> Downloaded:
        return get("mini")

    assert not asyncio.run(notebook()).failures


def test_a_proxy_is_asked(get: Get, server: FaultyServer, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, data in list(server.files.items()):
        server.files[f"http://ilias.invalid{path}"] = data
    monkeypatch.setenv("http_proxy", server.base)
    server.faults[f"http://ilias.invalid{AT}"] = [faults.says(302, Location="http://10.0.0.1/")]
    done = get("shards", shards="0-1", source=f"http://ilias.invalid{ROOT}")
    assert [file.status for file in done.files] == ["failed", "fetched"]
    assert whole(out, "yfcc100m/yfcc100m_0001.tar")
    assert {path.partition(".invalid")[0] for _, path, *_ in server.log} == {"http://ilias"}


# Hostile tars


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def tar_with(*infos: tarfile.TarInfo, size: int | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        good = tarfile.TarInfo("ilias_core/bird_000/pos/P.jpg")
        good.size = 4
        tar.addfile(good, io.BytesIO(b"good"))
        for info in infos:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


def claiming(size: int) -> bytes:
    """A tar whose last member claims more than is there."""
    info = tarfile.TarInfo("ilias_core/bomb.jpg")
    info.size = size
    return tar_with()[:1024] + info.tobuf() + bytes(1024)


def pax_of(headers: dict[str, str]) -> bytes:
    """A tar whose last member has records of pax."""
    records = b"".join(_record(key, value) for key, value in headers.items())
    extension, member = special("p", tarfile.XHDTYPE), special("ilias_core/x", tarfile.REGTYPE)
    extension.size = len(records)
    return tar_with()[:1024] + extension.tobuf() + records.ljust(512, b"\0") + member.tobuf() + bytes(1024)


def _record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n"
    length = next(n for n in range(4, 99) if n == len(str(n)) + len(rest))
    return f"{length}{rest}".encode()


HOSTILE = {
    "traversal": (tar_with(special("ilias_core/../../evil", tarfile.REGTYPE)), "points outside"),
    "an absolute path": (tar_with(special("/tmp/evil", tarfile.REGTYPE)), "points outside"),
    "a backslash": (tar_with(special("..\\evil", tarfile.REGTYPE)), "points outside"),
    "a drive": (tar_with(special("C:/evil", tarfile.REGTYPE)), "points outside"),
    "a symbolic link": (tar_with(special("ilias_core/link", tarfile.SYMTYPE, "/etc")), "it is a link"),
    "a hard link": (tar_with(special("ilias_core/link", tarfile.LNKTYPE, "/etc/passwd")), "it is a link"),
    "a device": (tar_with(special("ilias_core/zero", tarfile.CHRTYPE)), "it is a device"),
    "a pipe": (tar_with(special("ilias_core/pipe", tarfile.FIFOTYPE)), "it is a device"),
    "a sparse file": (tar_with(special("ilias_core/s", tarfile.GNUTYPE_SPARSE)), "it is a sparse file"),
    "a member twice": (tar_with(special("ilias_core/bird_000/pos/P.jpg", tarfile.REGTYPE)), "it stands twice"),
    "a file and a folder": (tar_with(special("ilias_core/bird_000", tarfile.REGTYPE)), "a file and a folder"),
    "a control character": (tar_with(special("ilias_core/a\x1b[31m", tarfile.REGTYPE)), "not plain text"),
    "a deep folder": (tar_with(special("a/" * 40 + "b", tarfile.REGTYPE)), "too long"),
    "names that differ in case": (tar_with(special("ilias_core/bird_000/pos/p.JPG", tarfile.REGTYPE)), "only in case"),
    "a folder that differs in case": (tar_with(special("ilias_core/Bird_000/query/Q.jpg", tarfile.REGTYPE)), "in case"),
    "letters in two forms": (
        tar_with(*(special(f"ilias_core/{name}", tarfile.REGTYPE) for name in ("caf\u00e9", "cafe\u0301"))),
        "how letters are composed",
    ),
    "a dot in the path": (tar_with(special("ilias_core/./x", tarfile.REGTYPE)), "not plain text"),
    "an empty part": (tar_with(special("ilias_core//x", tarfile.REGTYPE)), "not plain text"),
    "a name that turns text around": (tar_with(special("ilias_core/\u202egpj.x", tarfile.REGTYPE)), "not plain text"),
    "a sparse file of pax": (pax_of({"GNU.sparse.major": "1", "GNU.sparse.realsize": "1" + 12 * "0"}), "sparse file"),
    "a path of pax": (pax_of({"path": "../evil"}), "points outside"),
    "a size of pax": (pax_of({"size": "1" + 12 * "0"}), "truncated within"),
    "a negative size": (claiming(-1), "negative size"),
    "a bomb that claims": (claiming(2**40), "truncated within"),
    "a bomb that is packed": (gzip.compress(bytes(10_000_000)), "compressed with gzip"),
    "a tar that is cut": (PUBLISHED["ilias_core.tar"][:9000], "truncated"),
    "a tar without files": (tar_of({}, folders=("a",)), "no files"),
    "no tar": (noise(1, 5000), "no tar file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tars_are_refused_as_a_whole(
    get: Get, out: Path, server: FaultyServer, tmp_path: Path, name: str
) -> None:
    data, message = HOSTILE[name]
    server.files[f"{ROOT}/ilias_core.tar"] = data
    server.files[f"{ROOT}/checksums.txt"] = checksums({"ilias_core.tar": data})
    done = get("core")
    assert message in str(done.files[0].note)
    assert done.failures
    assert sorted(path.name for path in out.iterdir()) == [".downloads", "checksums.txt", "ilias_core.tar"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ilias"]


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openilias.data.unpack._MOST_MEMBERS", 5)
    (tmp_path / "a.tar").write_bytes(tar_of(dict.fromkeys("abcdefg", b"")))
    with pytest.raises(OpenIliasError, match="more than 5 members"):
        read_members(tmp_path / "a.tar")


def test_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = tmp_path / "a.tar"
    tar.write_bytes(tar_of({"./x_0/pos/P.jpg": b"1", "x_0/query/Q.jpg": b"2"}, folders=("./", "x_0/")))
    assert unpack(tar, tmp_path / "a", told=lambda _: None, before=lambda _: None) == 2
    assert (tmp_path / "a/x_0/query/Q.jpg").read_bytes() == b"2"
    assert (tmp_path / "a/x_0/query/Q.jpg").stat().st_mode & 0o777 & 0o111 == 0
    monkeypatch.setattr("openilias.data.unpack.shutil.disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(OpenIliasError, match="1 more than are free"):
        unpack(tar, tmp_path / "b", told=lambda _: None, before=lambda _: None)
    monkeypatch.undo()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OpenIliasError, match="No space left"):
        unpack(tar, tmp_path / "b", told=full, before=lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.tar"]


def test_the_folder_that_holds_all_objects_is_left_out() -> None:
    assert leading_folder(["c/a_0/query/Q.jpg", "c/b_1/pos/P.jpg", "c/taxonomy.json"]) == "c/"
    assert leading_folder(["a_0/query/Q.jpg", "README"]) == ""
    assert leading_folder(["c/a_0/query/Q.jpg", "d/b_1/pos/P.jpg"]) == ""
    assert leading_folder(["c/x.txt"]) == ""


# The command


Ilias = Callable[..., Outcome]


def test_the_command(ilias: Ilias, out: Path, server: FaultyServer, tmp_path: Path) -> None:
    command = ["data", "download", "core", "features", "--out", out, "--source", server.base + ROOT]
    command += ["--shards", "0-1", "--only", "*text*", "--jobs", 1, "--keep-tar", "--json", tmp_path / "r.json"]
    done = ilias(*command, "--dry-run")
    assert done.code == 0, done.err
    assert "yfcc100m/yfcc100m_0001.tar" in done.out
    assert "to fetch" in done.out
    assert not out.exists()
    assert json.loads((tmp_path / "r.json").read_text())["bytes_left"] > 600_000
    done = ilias(*command)
    assert done.code == 0, done.err
    assert "4 fetched" in done.out
    assert (out / "ilias_core.tar").exists()
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["sound"] is True
    assert [file["path"] for file in result["files"]][1:3] == [SHARD, "yfcc100m/yfcc100m_0001.tar"]
    (out / SHARD).write_bytes(bytes(300_000))
    done = ilias("data", "download", "--out", out, "--verify", "--json", tmp_path / "r.json")
    assert done.code == 2
    assert f"{SHARD}: its SHA-256 is not the published one" in done.err
    assert "Traceback" not in done.err
    assert json.loads((tmp_path / "r.json").read_text())["sound"] is False
    assert ilias("data", "download", "shards", "--shards", "1", "--out", out, "--verify").code == 0


def test_the_command_lists_what_failed(ilias: Ilias, out: Path, server: FaultyServer) -> None:
    server.always[AT] = faults.says(404)
    done = ilias("data", "download", "shards", "--out", out, "--source", server.base + ROOT)
    assert done.code == 2
    assert f"{SHARD}: 404" in done.err
    assert "error: 1 file is not as it should be" in done.err
    assert "3 fetched" in done.out


def test_retries_and_stall_are_heard(ilias: Ilias, out: Path, server: FaultyServer) -> None:
    server.always[AT] = faults.stalls(10)
    begun = time.monotonic()
    where = ["--out", out, "--source", server.base + ROOT]
    done = ilias("data", "download", "shards", "--shards", "0", *where, "--retries", 0, "--stall", 1)
    assert done.code == 2
    assert "nothing came for 1 s" in done.err
    assert 1 <= time.monotonic() - begun < 8
    assert len(server.gets(AT)) == 1


WRONG = {
    "nonsense --out {out}": "There is no nonsense to download",
    "shards --shards x --out {out}": "no range of shards",
    "core --only x --out {out}": "--only is for features, similarities, layers",
    "core --out {out} --source nowhere": "no source",
    "core --out {file} --source {base}": "is a file",
    "core --out {out} --jobs 0": "--jobs",
    "core --out {out} --verify --dry-run": "--dry-run fetches nothing",
    "core --out {out} --verify --source mirror": "--source fetches nothing",
    "--out {out} --verify": "no such folder",
    "shards --shards 9 --out {out} --source {base}": "yfcc100m_0009.tar",
    "core": "--out",
}


@pytest.mark.parametrize(("line", "message"), WRONG.items())
def test_wrong_arguments(ilias: Ilias, server: FaultyServer, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    names = {"out": tmp_path / "new", "file": tmp_path / "file", "base": server.base + ROOT}
    done = ilias("data", "download", *line.format_map({k: str(v) for k, v in names.items()}).split())
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
