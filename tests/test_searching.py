"""Searching stores: in parts, restricted, adapted, without self-matches or duplicates, killed and gone on with."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openilias.adapt.apply import adapt_store
from openilias.adapt.files import write_linear_map
from openilias.adapt.linear import LinearMap
from openilias.core.errors import OpenIliasError
from openilias.core.manifests import write_manifest
from openilias.core.shards import Share
from openilias.descriptors.convert import convert
from openilias.descriptors.store import KIND, DescriptorStore, open_store, write_shard
from openilias.search import checkpoint as checkpoints
from openilias.search import stores as searching
from openilias.search.choice import Choice, Means
from openilias.search.exact import pair_scores
from openilias.search.merge import merge_to
from openilias.search.ranking import ABSENT, Ranking, read_ranking
from openilias.search.restriction import Restriction, read_ids
from openilias.search.stores import search, search_to

Ilias = Callable[..., object]
DIMS = 16
QUERIES = [f"thing_{n}/query/Q000_{n:02d}.jpg" for n in range(6)]
POSITIVES = sorted(f"thing_{n % 6}/pos/P000_{n:02d}.jpg" for n in range(13))
TARS = {f"yfcc100m_{n:04d}.tar": [f"yfcc100m_{n:04d}.tar/k_{n}_{i:03d}" for i in range(90 + n)] for n in range(5)}


def vectors(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.round(rng.standard_normal((rows, DIMS)) * 2)  # coarse: many ties
    values[values.any(axis=1) == 0] = 1
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def make(folder: Path, partition: str, shards: dict[str, list[str]], values: list[np.ndarray]) -> DescriptorStore:
    folder.mkdir(parents=True)
    made_from = {"model": {"name": "m"}, "benchmark": "b", "partition": partition, "contents": "c"}
    write_manifest(folder / "manifest.json", kind=KIND, made_from=made_from, dims=DIMS, sources=list(shards))
    for number, (source, ids) in enumerate(shards.items()):
        write_shard(folder, number, source=source, ids=ids, descriptors=values[number], skipped=())
    return open_store(folder)


class Stores:
    """Queries, positives and distractors; the last tar repeats rows of the first, a query lies among the positives."""

    def __init__(self, folder: Path) -> None:
        asked, positives = vectors(6, 90), vectors(13, 91)
        positives[4] = asked[2]
        tars = [vectors(len(ids), 92 + n) for n, ids in enumerate(TARS.values())]
        tars[4][:30] = tars[0][:30]
        self.folder = folder
        self.queries = make(folder / "q", "image_queries", {"q": QUERIES}, [asked])
        self.positives = make(folder / "p", "positives", {"p": POSITIVES}, [positives])
        self.distractors = make(folder / "d", "distractors", TARS, tars)
        self.ids = POSITIVES + [item for ids in TARS.values() for item in ids]
        self.rows = np.concatenate([positives, *tars])
        self.asked = asked

    @property
    def database(self) -> list[DescriptorStore]:
        return [self.positives, self.distractors]

    def naive(self, k: int, kept: Callable[[int, str], bool] = lambda query, item: True) -> list[list[str]]:
        lists = []
        for query in range(len(self.asked)):
            scores = pair_scores(np.broadcast_to(self.asked[query], self.rows.shape), self.rows)
            order = np.lexsort((np.arange(len(scores)), -scores))
            lists.append([self.ids[row] for row in order if kept(query, self.ids[row])][:k])
        return lists


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path / "stores")


def lists(ranking: Ranking) -> list[list[str]]:
    return [ranking.ids_of(query) for query in range(len(ranking.query_ids))]


@pytest.mark.parametrize("k", [1, 7, 100, 10_000])
def test_search_equals_the_naive_twin_whatever_the_order_of_the_stores(stores: Stores, k: int) -> None:
    found = search([stores.queries], stores.database, k)
    assert lists(found) == stores.naive(k)
    turned = search([stores.queries], stores.database[::-1], k, means=Means(threads=1, first_pass="int8", trust=True))
    assert lists(turned) == lists(found)
    assert turned.scores.tobytes() == found.scores.tobytes()
    assert [stores.ids[row] for row in found.db_rows] == list(found.db_ids)


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_merge_to_the_bytes_of_one_search(stores: Stores, tmp_path: Path, parts: int) -> None:
    search_to([stores.queries], stores.database, 40, tmp_path / "whole")
    folders = [tmp_path / f"part-{number}" for number in range(parts)]
    for number in reversed(range(parts)):
        choice = Choice(share=Share(number, parts))
        search_to([stores.queries], stores.database, 40, folders[number], choice)
    merged = merge_to(folders[::-1], tmp_path / "merged")
    assert lists(merged) == stores.naive(40)
    table = "ranking.parquet"
    assert (tmp_path / "merged" / table).read_bytes() == (tmp_path / "whole" / table).read_bytes()
    one, other = (json.loads((tmp_path / name / "ranking.json").read_text()) for name in ("whole", "merged"))
    assert one == other
    # It counts as the search of everything: nothing is left to do.
    before = (tmp_path / "merged" / table).stat().st_mtime_ns
    search_to([stores.queries], stores.database, 40, tmp_path / "merged")
    merge_to(folders, tmp_path / "whole")
    assert (tmp_path / "merged" / table).stat().st_mtime_ns == before


def test_searches_of_different_stores_merge(stores: Stores, tmp_path: Path) -> None:
    search_to([stores.queries], stores.database, 25, tmp_path / "whole")
    search_to([stores.queries], [stores.positives], 25, tmp_path / "one")
    search_to([stores.queries], [stores.distractors], 25, tmp_path / "other")
    merge_to([tmp_path / "other", tmp_path / "one"], tmp_path / "merged")
    for name in ("ranking.parquet", "ranking.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_cannot_be_merged_is_refused(stores: Stores, tmp_path: Path) -> None:
    for number in range(3):
        choice = Choice(share=Share(number, 3))
        search_to([stores.queries], stores.database, 9, tmp_path / str(number), choice)
    with pytest.raises(OpenIliasError, match="2 shards of this database were searched by none of these: "):
        merge_to([tmp_path / "0", tmp_path / "1"], tmp_path / "m")
    with pytest.raises(OpenIliasError, match="was searched twice"):
        merge_to([tmp_path / "0", tmp_path / "1", tmp_path / "0"], tmp_path / "m")
    search_to([stores.queries], stores.database, 8, tmp_path / "8", Choice(share=Share(2, 3)))
    with pytest.raises(OpenIliasError, match=r"not made alike:\n *k: 9"):
        merge_to([tmp_path / "0", tmp_path / "1", tmp_path / "8"], tmp_path / "m")
    for number in range(2):
        choice = Choice(duplicates="remove", share=Share(number, 2))
        search_to([stores.queries], stores.database, 8, tmp_path / f"d{number}", choice)
    with pytest.raises(OpenIliasError, match="Duplicates were removed from each"):
        merge_to([tmp_path / "d0", tmp_path / "d1"], tmp_path / "m")
    with pytest.raises(OpenIliasError, match="nothing to merge"):
        merge_to([], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_parts_of_different_databases_are_not_merged(stores: Stores, tmp_path: Path) -> None:
    rows = [vectors(len(ids), 500 + n) for n, ids in enumerate(TARS.values())]
    again = make(tmp_path / "again", "distractors", TARS, rows)
    shorter = {name: ids[: -n - 1] for n, (name, ids) in enumerate(TARS.items())}
    fewer = make(tmp_path / "fewer", "distractors", shorter, [values[: -n - 1] for n, values in enumerate(rows)])
    halves = [Choice(share=Share(number, 2)) for number in range(2)]
    search_to([stores.queries], [stores.distractors], 9, tmp_path / "0", halves[0])
    for number, other in enumerate((again, fewer)):
        search_to([stores.queries], [other], 9, tmp_path / f"other-{number}", halves[1])
        with pytest.raises(OpenIliasError, match="shards of this database were searched by none"):
            merge_to([tmp_path / "0", tmp_path / f"other-{number}"], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_damaged_merged_ranking_is_made_again_with_overwrite(stores: Stores, tmp_path: Path) -> None:
    parts = [tmp_path / str(number) for number in range(2)]
    for number, folder in enumerate(parts):
        search_to([stores.queries], stores.database, 9, folder, Choice(share=Share(number, 2)))
    merge_to(parts, tmp_path / "m")
    whole = (tmp_path / "m" / "ranking.parquet").read_bytes()
    (tmp_path / "m" / "ranking.parquet").write_bytes(whole[:-9])
    with pytest.raises(OpenIliasError, match="not as it was written"):
        merge_to(parts, tmp_path / "m")
    merge_to(parts, tmp_path / "m", overwrite=True)
    assert (tmp_path / "m" / "ranking.parquet").read_bytes() == whole


def test_listed_ids_that_no_part_holds_are_missed_by_the_merge(stores: Stores, tmp_path: Path) -> None:
    ids = read_ids(listed(tmp_path / "ids", [*stores.ids[30:40], "yfcc100m_0001.tar/nowhere"]))
    for partial in (False, True):
        parts = [tmp_path / f"{partial}-{number}" for number in range(2)]
        for number, folder in enumerate(parts):
            choice = Choice(restriction=Restriction(only=ids, partial=partial), share=Share(number, 2))
            search_to([stores.queries], stores.database, 9, folder, choice)
        if partial:
            assert merge_to(parts, tmp_path / "m").rows.shape[1] == 9
        else:
            with pytest.raises(OpenIliasError, match="1 ids of the list given as --ids are in none of these parts"):
                merge_to(parts, tmp_path / "m")


def listed(path: Path, items: list[str]) -> Path:
    path.write_text("\n".join(items) + "\n")
    return path


def test_ids_restrict_with_and_without_the_name_of_the_tar(stores: Stores, tmp_path: Path) -> None:
    wanted = stores.ids[20:400:7]
    full = read_ids(listed(tmp_path / "full", wanted))
    bare = read_ids(listed(tmp_path / "bare", [item.split("/", 1)[1] + ",0.1,3" for item in wanted]))
    twin = stores.naive(50, lambda query, item: item in set(wanted) or item in set(POSITIVES))
    for ids in (full, bare):
        found = search([stores.queries], stores.database, 50, Choice(restriction=Restriction(only=ids)))
        assert lists(found) == twin
    # Files of a folder go by their name, or as in mini lists without its ending.
    loose = np.array([b"distractors/a.b.jpg", b"distractors/c.png", b"x.tar/d", b"x.tar/e.f"], np.bytes_)
    named = read_ids(listed(tmp_path / "named", ["a.b", "c.png", "e"]))
    assert named.members(loose, "distractors").tolist() == [True, True, False, False]
    assert named.missing() == ["e"]
    some = read_ids(listed(tmp_path / "some", [*wanted, *POSITIVES[:3]]))
    twin = stores.naive(50, lambda query, item: item in {*wanted, *POSITIVES[:3]})
    assert lists(search([stores.queries], stores.database, 50, Choice(restriction=Restriction(only=some)))) == twin
    without = Restriction(only=some, without=read_ids(listed(tmp_path / "out", wanted[::2])))
    twin = stores.naive(50, lambda query, item: item in {*wanted[1::2], *POSITIVES[:3]})
    assert lists(search([stores.queries], stores.database, 50, Choice(restriction=without))) == twin


def test_ids_in_parts_and_what_is_left_out(stores: Stores, tmp_path: Path) -> None:
    def choice(share: Share) -> Choice:
        return Choice(restriction=Restriction(read_ids(listed(tmp_path / "ids", stores.ids[30:300]))), share=share)

    search_to([stores.queries], stores.database, 30, tmp_path / "whole", choice(Share()))
    for number in range(2):
        search_to([stores.queries], stores.database, 30, tmp_path / f"{number}", choice(Share(number, 2)))
    merge_to([tmp_path / "0", tmp_path / "1"], tmp_path / "merged")
    assert json.loads((tmp_path / "whole" / "ranking.json").read_text()) == json.loads(
        (tmp_path / "merged" / "ranking.json").read_text()
    )
    manifest = read_ranking(tmp_path / "whole")[1]
    assert manifest["database_size"] == 270 + len(POSITIVES)
    assert manifest["left_out"] == {"images": len(stores.ids) - 270 - 13, "of": len(stores.ids)}


def test_ids_that_are_not_there_stop_it(stores: Stores, tmp_path: Path) -> None:
    ids = listed(tmp_path / "ids", [stores.ids[20], "yfcc100m_0000.tar/nowhere", "k_9_999"])
    with pytest.raises(OpenIliasError, match=r"2 listed ids are not in the database: yfcc100m_0000.tar/nowhere, k_9"):
        search([stores.queries], stores.database, 5, Choice(restriction=Restriction(read_ids(ids))))
    partial = Choice(restriction=Restriction(read_ids(ids), partial=True))
    assert stores.ids[20] in lists(search([stores.queries], stores.database, 100, partial))[0]
    for text, message in (("", "empty"), ("a/b\n", "line 1"), ("\xff", "nowhere")):
        (tmp_path / "bad").write_bytes(text.encode("latin-1"))
        with pytest.raises(OpenIliasError, match=r"list of ids|no id of|listed ids") as caught:
            search([stores.queries], stores.database, 5, Choice(restriction=Restriction(read_ids(tmp_path / "bad"))))
        assert message in str(caught.value) or message == "nowhere"
    everything = Restriction(without=read_ids(listed(tmp_path / "all", stores.ids)))
    with pytest.raises(OpenIliasError, match="nothing to search"):
        search([stores.queries], stores.database, 5, Choice(restriction=everything))


def test_self_matches_are_removed_by_descriptor_and_by_id(stores: Stores) -> None:
    same = POSITIVES[4]
    kept = lists(search([stores.queries], stores.database, 20))
    assert kept[2][0] == same
    removed = search([stores.queries], stores.database, 20, Choice(self_matches="remove"))
    assert lists(removed) == stores.naive(20, lambda query, item: (query, item) != (2, same))
    # A database searched in itself: each image finds its duplicates, but neither itself nor, by descriptor, these.
    found = search([stores.distractors], stores.database, 5, Choice(self_matches="remove"))
    for query, items in zip(found.query_ids, lists(found), strict=True):
        assert query not in items
        assert len(items) == 5
    with pytest.raises(OpenIliasError, match="holds distractors, not queries"):
        search([stores.distractors], stores.database, 5)
    kept_too = search([stores.distractors], stores.database, 1, Choice(self_matches="keep"))
    first = {*TARS["yfcc100m_0000.tar"][:30]}
    assert sum(query == items[0] for query, items in zip(kept_too.query_ids, lists(kept_too), strict=True)) > 350
    assert all(
        items[0] in first for query, items in zip(kept_too.query_ids, lists(kept_too), strict=True) if query in first
    )


@pytest.mark.parametrize("k", [3, 60, 2000])
def test_duplicates_are_removed_but_for_the_first(stores: Stores, k: int) -> None:
    firsts: dict[bytes, str] = {}
    for item, row in zip(stores.ids, stores.rows, strict=True):
        firsts.setdefault((row + np.float16(0)).tobytes(), item)
    assert len(firsts) <= len(stores.ids) - 30
    twin = stores.naive(k, lambda query, item: item in set(firsts.values()))
    for threads in (1, 2):
        choice, means = Choice(duplicates="remove"), Means(threads=threads)
        assert lists(search([stores.queries], stores.database, k, choice, means)) == twin
        assert lists(search([stores.queries], stores.database[::-1], k, choice, means)) == twin


def a_map(seed: int = 0, out: int = 9) -> LinearMap:
    rng = np.random.default_rng(seed)
    return LinearMap(rng.standard_normal((out, DIMS)).astype(np.float32), rng.standard_normal(out).astype(np.float32))


def test_adapted_while_reading_it_equals_the_search_of_adapted_stores(stores: Stores, tmp_path: Path) -> None:
    linear = a_map()
    made = [
        adapt_store(store, linear, tmp_path / name)
        for name, store in zip("qpd", (stores.queries, *stores.database), strict=True)
    ]
    one = search([stores.queries], stores.database, 70, Choice(linear=linear))
    other = search(made[:1], made[1:], 70)
    mixed = search([stores.queries], [stores.positives, made[2]], 70, Choice(linear=linear))
    for found in (other, mixed):
        assert lists(found) == lists(one)
        assert found.scores.tobytes() == one.scores.tobytes()
    assert lists(one) != lists(search([stores.queries], stores.database, 70))
    with pytest.raises(OpenIliasError, match="adapted already"):
        search(made[:1], made[1:], 70, Choice(linear=a_map(1, DIMS)))
    with pytest.raises(OpenIliasError, match="not made alike"):
        search([stores.queries], made[1:], 70)


def test_official_files_in_place_of_stores(stores: Stores, tmp_path: Path) -> None:
    opened = []
    for name, store in (("image_queries", stores.queries), ("positive", stores.positives)):
        convert(store.folder, tmp_path / f"features_{name}.hdf5")
        opened.append(open_store(tmp_path / f"features_{name}.hdf5"))
    convert(stores.distractors.folder, tmp_path / "distractors")
    opened.append(open_store(tmp_path / "distractors"))
    choice = Choice(linear=a_map())
    found = search(opened[:1], opened[1:], 30, choice)
    assert lists(found) == lists(search([stores.queries], stores.database, 30, choice))
    assert lists(search(opened[:1], opened[1:], 30)) == stores.naive(30)


def _killed(folder: Path, out: Path, after: int) -> None:
    """Search, and be killed while the shard after the first ``after`` of this try is read."""
    checkpoints._EVERY_SECONDS = checkpoints._SHARE = 0
    searching._AT_ONCE_HERE = 0
    begun = 0
    true = searching.windows

    def counted(*arguments: object) -> object:
        nonlocal begun
        begun += 1
        if begun > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return true(*arguments)

    searching.windows = counted
    stores = [open_store(folder / name) for name in "qpd"]
    search_to(stores[:1], stores[1:], 40, out)


@pytest.mark.parametrize("duplicates", ["keep", "remove"])
def test_killed_twice_it_goes_on_to_the_same_bytes(
    stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str], duplicates: str
) -> None:
    choice = Choice(duplicates=duplicates)
    search_to([stores.queries], stores.database, 40, tmp_path / "whole", choice)
    context = multiprocessing.get_context("spawn")
    for after in (2, 2):
        process = context.Process(target=_killed, args=(stores.folder, tmp_path / "out", after))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    capsys.readouterr()
    if duplicates == "remove":  # another search for the same output does not take up the state of this one
        search_to([stores.queries], stores.database, 40, tmp_path / "out", choice)
        assert "done before" not in capsys.readouterr().err
    else:
        search_to([stores.queries], stores.database, 40, tmp_path / "out")
        assert ", 4 shards of them done before" in capsys.readouterr().err
    for name in ("ranking.parquet", "ranking.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "stores", "whole"]


@pytest.fixture
def saved_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is saved after each shard."""
    monkeypatch.setattr(checkpoints, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "_SHARE", 0)
    monkeypatch.setattr(searching, "_AT_ONCE_HERE", 0)


@pytest.mark.usefixtures("saved_often")
def test_killed_it_goes_on_whatever_the_order_of_the_queries(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = make(tmp_path / "more", "image_queries", {"q": [f"n/query/Q{n}.jpg" for n in range(4)]}, [vectors(4, 7)])
    true, begun = searching.windows, itertools.count()

    def broken(*arguments: object) -> object:
        if next(begun) == 3:
            raise KeyboardInterrupt
        return true(*arguments)

    monkeypatch.setattr(searching, "windows", broken)
    with pytest.raises(KeyboardInterrupt):
        search_to([stores.queries, more], stores.database, 40, tmp_path / "out")
    monkeypatch.setattr(searching, "windows", true)
    capsys.readouterr()
    found = search_to([more, stores.queries], stores.database, 40, tmp_path / "out")
    assert "3 shards of them done before" in capsys.readouterr().err
    right = search([stores.queries, more], stores.database, 40)
    assert found.query_ids == right.query_ids
    assert lists(found) == lists(right)


def test_two_searches_of_one_output_do_not_meet(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one is under way, others begin: for the same output, and for one whose name begins like it."""
    true, others = searching._Plan.search, iter((tmp_path / "r50.a1", tmp_path / "r50"))

    def meanwhile(self: object, *arguments: object) -> Ranking:
        for out in others:
            if out.name == "r50":
                search_to([stores.queries], stores.database, 9, out)  # must not remove the state of the other
            else:
                with pytest.raises(OpenIliasError, match="Another process is making this output") as error:
                    search_to([stores.queries], stores.database, 9, out)
                assert error.value.where == str(out)
        return true(self, *arguments)

    monkeypatch.setattr(searching._Plan, "search", meanwhile)
    search_to([stores.queries], stores.database, 5, tmp_path / "r50.a1")
    assert read_ranking(tmp_path / "r50.a1")[0].rows.shape[1] == 5
    assert read_ranking(tmp_path / "r50")[0].rows.shape[1] == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r50", "r50.a1", "stores"]


def test_what_another_process_made_meanwhile_is_not_replaced(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = searching.resumed_search

    def after_another(*arguments: Any) -> Any:
        monkeypatch.setattr(searching, "resumed_search", true)
        search_to([stores.queries], stores.database, 9, tmp_path / "out")
        return true(*arguments)

    monkeypatch.setattr(searching, "resumed_search", after_another)
    with pytest.raises(OpenIliasError, match="k: "):
        search_to([stores.queries], stores.database, 5, tmp_path / "out")
    assert read_ranking(tmp_path / "out")[0].rows.shape[1] == 9


def test_a_row_that_cannot_be_searched_is_named(stores: Stores, tmp_path: Path) -> None:
    rows = vectors(90, 92)
    rows[17, 3] = np.nan
    tar = next(iter(TARS))
    bad = make(tmp_path / "bad", "distractors", {tar: TARS[tar]}, [rows])
    with pytest.raises(OpenIliasError, match=f"The descriptor of {tar}/k_0_017 is not finite") as error:
        search([stores.queries], [stores.positives, bad], 5)
    assert error.value.where == f"{tmp_path / 'bad'}, row 17 of {tar}"
    without = Restriction(without=read_ids(listed(tmp_path / "out", [f"{tar}/k_0_017"])))
    assert len(search([stores.queries], [stores.positives, bad], 500, Choice(restriction=without)).db_ids) == 102


@pytest.mark.usefixtures("saved_often")
def test_a_damaged_shard_stops_it_and_what_was_done_is_kept(
    stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stores.distractors.folder / "00003.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-7] + b"\x01" + good[-6:])
    with pytest.raises(OpenIliasError, match="not as it was written"):
        search_to([stores.queries], stores.database, 40, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    path.write_bytes(good)
    found = search_to([stores.queries], stores.database, 40, tmp_path / "out")
    assert "4 shards of them done before" in capsys.readouterr().err
    assert lists(found) == stores.naive(40)
    path.write_bytes(good[:-7] + b"\x01" + good[-6:])
    search_to([stores.queries], stores.database, 41, tmp_path / "trusted", means=Means(trust=True))


@pytest.mark.parametrize(
    "options",
    [
        ["--rescore", 3], ["--index-params", "nprobe=3"], ["--index-seed", 1], ["--partial-database"],
        ["--index", "SQ8", "--device", "cuda:9"], ["--index", "SQ8", "--first-pass", "int8"],
        ["--index", "SQ8", "--threads", 1], ["--index", "SQ8", "--trust"], ["--index", "SQ8", "--shard", "0/2"],
    ],
)  # fmt: skip
def test_options_that_would_do_nothing_are_refused(
    stores: Stores, tmp_path: Path, ilias: Ilias, options: list[object]
) -> None:
    asked = ["--queries", stores.folder / "q", "--database", stores.folder / "p", "--out", tmp_path / "out"]
    result = ilias("search", *asked, *options)
    assert result.code == 2
    assert "can only be used with" in result.err or "cannot be used with --index" in result.err
    assert not (tmp_path / "out").exists()


def test_the_command(stores: Stores, tmp_path: Path, ilias: Ilias) -> None:
    asked = ["--queries", stores.folder / "q", "--database", stores.folder / "p", "--database", stores.folder / "d"]
    assert ilias("search", *asked, "--out", tmp_path / "plain", "-k", 30).code == 0
    assert lists(read_ranking(tmp_path / "plain")[0]) == stores.naive(30)
    write_linear_map(a_map(), tmp_path / "map.pth")
    ids = listed(tmp_path / "ids", stores.ids[30:300])
    out = listed(tmp_path / "exclude", stores.ids[30:40])
    options = [
        "-k", 30, "--adapt", tmp_path / "map.pth", "--ids", ids, "--exclude", out, "--self-matches", "remove",
        "--threads", 1, "--first-pass", "int8", "--trust",
    ]  # fmt: skip
    whole = ilias("search", *asked, "--out", tmp_path / "whole", *options, "--json", tmp_path / "j.json")
    assert whole.code == 0
    assert json.loads((tmp_path / "j.json").read_text())["depth"] == 30
    for number in range(2):
        part = ilias("search", *asked, "--out", tmp_path / f"{number}", *options, "--shard", f"{number}/2")
        assert "ilias merge" in part.out
    assert ilias("merge", tmp_path / "0", tmp_path / "1", "--out", tmp_path / "merged").code == 0
    assert (tmp_path / "merged/ranking.parquet").read_bytes() == (tmp_path / "whole/ranking.parquet").read_bytes()
    for wrong, message in (
        (["--first-pass", "int4"], "There is no first pass 'int4'"),
        (["--device", "cuda:7"], "There is no device"),
        (["--shard", "2/2"], "i/n"),
        (["--ids", tmp_path / "nothing"], "cannot be read"),
        (["--adapt", ids], "This is no linear adaptation"),
        (["--index", "PQ4", "--ids", ids], "--ids cannot be used with --index"),
    ):
        refused = ilias("search", *asked, "--out", tmp_path / "wrong", *wrong)
        assert refused.code == 2
        assert message in " ".join((refused.out + refused.err).split())
        assert not (tmp_path / "wrong").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_short_lists_are_padded(stores: Stores) -> None:
    """Without its self-match one query has a candidate less than the others."""
    found = search([stores.queries], [stores.positives], 13, Choice(self_matches="remove"))
    assert found.lengths.tolist() == [13, 13, 12, 13, 13, 13]
    assert found.rows[2, -1] == ABSENT


def test_a_device_reads_ahead_across_shards_and_finds_the_same(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of GPUs, with the cores in the place of one."""
    from openilias.search import exact
    from openilias.search.gpu import DeviceScan

    def on_cores(queries: np.ndarray, device: str, threads: int | None, first_pass: str | None) -> DeviceScan:
        assert device == "cuda"
        return DeviceScan(queries, device="cpu")

    right = search([stores.queries], stores.database, 40)
    monkeypatch.setattr(exact, "_scanner", on_cores)
    monkeypatch.setattr(checkpoints, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "_SHARE", 0)
    for size in (1, 8000, 1 << 30):
        monkeypatch.setattr(searching, "_AT_ONCE", size)
        found = search([stores.queries], stores.database, 40, means=Means("cuda"))
        assert lists(found) == lists(right)
        assert found.scores.tobytes() == right.scores.tobytes()
    path = stores.distractors.folder / "00003.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-7] + b"\x01" + good[-6:])
    with pytest.raises(OpenIliasError, match="not as it was written"):
        search_to([stores.queries], stores.database, 40, tmp_path / "out", means=Means("cuda"))
    path.write_bytes(good)
    monkeypatch.setattr(exact, "_MOST_QUERIES", 4)  # two groups of queries go through each block
    assert lists(search([stores.queries], stores.database, 40, means=Means("cuda"))) == lists(right)
