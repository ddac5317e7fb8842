"""Selecting hard distractors: phrases, streamed scores, ensembles, ties, random subsets, lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from conftest import kill_when
from openilias.build.mini import alignment, scores, select
from openilias.build.mini.alignment import key_of
from openilias.build.mini.choice import Best, random_places
from openilias.build.mini.phrases import categories_of, make_phrases, read_synonyms, read_templates
from openilias.build.mini.scores import largest_similarities
from openilias.build.mini.select import MiniSettings, Tower, select_mini
from openilias.core.errors import OpenIliasError
from openilias.core.files import owned, sha256_of
from openilias.core.manifests import write_manifest
from openilias.core.shards import Share
from openilias.data import read_ilias
from openilias.data.selection import Selection, make_plan
from openilias.data.taxonomy import Taxonomy, read_taxonomy
from openilias.descriptors.extract import Options
from openilias.descriptors.store import KIND, write_shard
from openilias.images.tars import write_tar

DIMS = 8
TREE = {"product": {"drink": {"tea": ["pot_000"], "other": ["can_001"]}}, "art": {"other": {"other": ["vase_002"]}}}
MINI = "image_ids/mini_ilias_yfcc100m_ids.txt"


def unit(rows: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, DIMS)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


# Phrases


def official() -> Taxonomy:
    """The categories of ILIAS, as they are published, each with an object."""
    tree = {
        "product": {"food": ["cake", "other", "bar"], "hygiene": ["other"], "drink": ["beer", "coffee", "tea"],
                    "writing tool": ["other"], "perfume": ["other"], "other": ["other"]},
        "landmark": {"architecture": ["building"], "public art": ["installation", "statue", "mural"],
                     "sign": ["other"]},
        "fashion": {"accessory": ["other", "bag", "pin", "headwear", "keychain"], "tattoo": ["other"],
                    "outwear": ["topwear"], "jewelry": ["other"], "footwear": ["shoe", "sock"]},
        "toy": {"stuffed": ["felting", "plushie"], "playset": ["other"], "vehicle": ["other"], "sport": ["other"],
                "trading": ["card", "coin"], "action figure": ["funko pop", "lego", "disney", "pokemon"],
                "boardgame": ["other"]},
        "media": {"book": ["other"], "stamp": ["other"], "sticker": ["other"], "recording": ["other"]},
        "household": {"accessory": ["coaster", "magnet"], "decor": ["other"], "light": ["other"],
                      "tableware": ["cup", "utensils", "plate"], "container": ["vase", "box"], "textile": ["other"]},
        "art": {"painting": ["other"], "sculpture": ["ceramics/clay", "3d print"], "digital": ["other"],
                "textile": ["other"], "craft": ["other"], "paper model": ["other"]},
        "technology": {"appliances": ["other"], "multimedia": ["camera", "audio"], "peripheral": ["printer"],
                       "gaming": ["other"], "gadget": ["other"], "automation": ["car", "robotics"]},
    }  # fmt: skip
    nodes = {
        f"{coarse}-{mid}-{fine}": (coarse, mid, fine)
        for coarse, mids in tree.items()
        for mid, fines in mids.items()
        for fine in fines
    }
    return Taxonomy(nodes)


def test_the_phrases_of_ilias() -> None:
    taxonomy = official()
    assert taxonomy.counts() == (8, 42, 38)
    phrases = make_phrases(taxonomy)
    assert (len(phrases.labels), len(phrases.terms), len(phrases.templates)) == (88, 132, 43)
    assert phrases.unused == 0
    assert phrases.combinations == 9460  # the paper says 9,976, which is 232 x 43
    texts = phrases.texts()
    assert len(texts) == len(set(texts)) == 218 * 43  # two names stand at two places
    assert "a photo of a ceramics clay." in texts
    assert "a bad photo of the postage stamp." in texts
    assert not any("*" in text or "_" in text for text in texts)


def test_templates_are_those_of_the_paper_and_ours() -> None:
    lines = (Path(select.__file__).with_name("templates.csv")).read_text().splitlines()[1:]
    assert [line.rpartition(",")[2] for line in lines] == ["paper"] * 15 + ["ours"] * 28
    assert read_templates()[0] == "a close-up photo of the *."
    assert len(set(read_templates())) == 43


def test_every_term_belongs_to_a_category_of_ilias_and_is_no_label() -> None:
    categories = categories_of(official())
    found = read_synonyms()
    assert len({term for term, _ in found}) == len(found) == 132
    assert {category for _, category in found} <= set(categories)
    labels = {name for category in categories for name in category}
    assert not labels & {term for term, _ in found}


def test_own_tables(tmp_path: Path) -> None:
    synonyms, templates = tmp_path / "s.csv", tmp_path / "t.csv"
    synonyms.write_text("\ufeffterm,coarse,mid,fine\nkettle,product,drink,tea\nshoe,fashion,,\n", encoding="utf-8")
    templates.write_text('template\n"an old, grey *"\n')
    taxonomy = Taxonomy({"pot_000": ("product", "drink", "tea"), "x_001": ("art_work", "other", "other")})
    phrases = make_phrases(taxonomy, synonyms=synonyms, templates=templates)
    assert phrases.labels == ("art work", "product", "drink", "tea")
    assert (phrases.terms, phrases.unused) == (("kettle",), 1)
    assert phrases.texts()[-1] == "an old, grey kettle"


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("", "no column"),
        ("template\n", "empty"),
        ("template\na photo\n", "0: 'a photo'"),
        ("template\n* and *\n", r"has 2: '\* and \*'"),
        ("template,x\n,y\n", "no template"),
        ("template\n" + "*" + "a" * 400 + "\n", "longer than 300"),
        (b"template\n\xff *\n", "cannot be read"),
        ('template\n"a *\n', "no CSV"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, table: str | bytes, match: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(OpenIliasError, match=match):
        read_templates(path)


# Scores


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("texts", [1, 2048, 5000])
def test_largest_similarities_equal_the_plain_product(dtype: str, texts: int) -> None:
    images, described = unit(300, 1).astype(dtype), unit(texts, 2)
    found = largest_similarities((images[start : start + 77] for start in range(0, 300, 77)), described)
    products = images[:, None].astype(np.float64) * described[None].astype(np.float64) if texts < 3000 else None
    expected = (images.astype(np.float64) @ described.T.astype(np.float64)).max(1)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=0)
    assert found.dtype == np.float32
    if products is not None:
        assert np.array_equal(found, products.sum(axis=2).max(1).astype(np.float32))
    # Nothing changes a bit: other blocks, other orders of the texts.
    for rows in (1, 300):
        again = largest_similarities((images[start : start + rows] for start in range(0, 300, rows)), described[::-1])
        assert np.array_equal(again, found)


def test_rows_of_zeros_and_of_no_numbers() -> None:
    images = np.zeros((4, DIMS), np.float32)
    images[1, 0], images[2], images[3] = np.nan, unit(1, 3), np.inf
    found = largest_similarities([images], unit(20, 2))
    assert found[0] == 0
    assert found[2] > 0
    assert not np.isfinite(found[[1, 3]]).any()


# The best of a stream


@given(
    st.lists(st.lists(st.integers(0, 4), max_size=30), max_size=12),
    st.integers(1, 60),
)
def test_the_best_of_a_stream_are_those_of_a_stable_sort(blocks: list[list[int]], most: int) -> None:
    best = Best(most)
    best._held = 10**9  # as if it were full all the time
    for block in blocks:
        best.add(np.array(block, np.float64))
        best._held = 10**9
    places, values = best.result()
    whole = np.array([value for block in blocks for value in block], np.float64)
    expected = np.sort(np.argsort(-whole, kind="stable")[:most])
    assert places.tolist() == expected.tolist()
    assert values.tolist() == whole[expected].tolist()


def test_random_subsets_are_uniform_and_of_the_size_asked_for() -> None:
    counts = np.zeros(12)
    for number in range(3000):
        parts = list(random_places([5, 1, 0, 6], 4, 7, number))
        assert sum(map(len, parts)) == 4
        assert [len(np.unique(part)) for part in parts] == [len(part) for part in parts]
        for start, part in zip((0, 5, 6, 6), parts, strict=True):
            counts[start + part] += 1
    assert abs(counts / 3000 - 4 / 12).max() < 0.035


# The whole


@dataclass
class World:
    root: Path
    stores: list[Path]
    vectors: list[dict[str, np.ndarray]]
    texts: list[np.ndarray]


def make_set(root: Path, shards: dict[str, list[str]]) -> None:
    core = root / "ilias_core"
    for number, name in enumerate(("pot_000", "can_001", "vase_002")):
        for folder, letter in (("query", "Q"), ("pos", "P")):
            (core / name / folder).mkdir(parents=True)
            (core / name / folder / f"{letter}{number:03d}_00.jpg").write_bytes(b"a picture")
    (root / "taxonomy.json").write_text(json.dumps(TREE))
    (root / "yfcc100m").mkdir()
    for name, keys in shards.items():
        write_tar(root / "yfcc100m" / name, [(f"{key}.jpg", b"a picture") for key in keys])


def make_store(folder: Path, shards: dict[str, list[str]], vectors: dict[str, np.ndarray], **made: Any) -> Path:
    folder.mkdir(parents=True)
    made_from = {"model": {"name": folder.name}, "benchmark": "b", "partition": "distractors", "contents": "c"} | made
    sources = list(shards)
    write_manifest(folder / "manifest.json", kind=KIND, made_from=made_from, dims=DIMS, sources=sources)
    for number, (source, keys) in enumerate(shards.items()):
        ids = [f"{source}/{key}" for key in keys]
        rows = np.array([vectors[item] for item in ids], np.float16).reshape(len(ids), DIMS)
        write_shard(folder, number, source=source, ids=ids, descriptors=rows, skipped=())
    return folder


SHARDS = {"b_0001.tar": [f"k{n:03d}" for n in range(40)], "a_0000.tar": [f"j{n:03d}" for n in range(30)]}


def fake_model(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Callable[[str, list[str]], np.ndarray]:
    """Models that describe a text by numbers that its letters give."""

    def described(model: str, texts: list[str]) -> np.ndarray:
        seeds = [sum(ord(letter) * place for place, letter in enumerate(model + text, 1)) for text in texts]
        return np.concatenate([unit(1, seed) for seed in seeds]) if texts else np.zeros((0, DIMS), np.float32)

    def load(spec: str, protocol: object, **_: object) -> Any:
        values: dict[str, Any] = {
            "spec": SimpleNamespace(name=spec),
            "dims": DIMS,
            "weights_digest": "w",
            "encode_texts": lambda texts: described(spec, texts),
            "text_digest": lambda texts: "t",
        }
        return SimpleNamespace(**values | changes)

    monkeypatch.setattr(select, "find_model", lambda name: name)
    monkeypatch.setattr(select, "load_model", load)
    return described


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    describe = fake_model(monkeypatch)
    root = tmp_path / "set"
    make_set(root, SHARDS)
    texts = make_phrases(read_taxonomy(root / "taxonomy.json")).texts()
    stores, vectors = [], []
    for number in range(3):
        rows = unit(70, 100 + number)
        rows[20:26] = rows[20]  # ties
        ids = [f"{source}/{key}" for source, keys in SHARDS.items() for key in keys]
        vectors.append(dict(zip(ids, rows.astype(np.float16), strict=True)))
        order = dict(reversed(SHARDS.items())) if number == 1 else SHARDS  # another order of shards, and of images
        keys = {source: list(reversed(keys)) if number == 2 else keys for source, keys in order.items()}
        stores.append(make_store(tmp_path / f"m{number}", keys, vectors[-1]))
    return World(root, stores, vectors, [describe(f"m{number}", texts) for number in range(3)])


def towers(world: World, *numbers: int) -> list[Tower]:
    return [Tower(f"m{number}", world.stores[number]) for number in numbers or (0, 1, 2)]


def twin(world: World, top: int, combine: str) -> list[str]:
    """All at once, by the book."""
    ids = sorted(world.vectors[0])
    columns = [
        np.array([vectors[item] for item in ids], np.float32) @ texts.T
        for vectors, texts in zip(world.vectors, world.texts, strict=True)
    ]
    table = np.array([column.max(1).astype(np.float64) for column in columns])
    if combine == "zscore":
        table = stats.zscore(table, axis=1)
    elif combine == "rank":
        table = stats.rankdata(table, axis=1)
    total = np.round(table.mean(0), 6)
    best = np.sort(np.argsort(-total, kind="stable")[:top])
    return [ids[place].partition("/")[2] for place in best]


@pytest.mark.parametrize("combine", ["mean", "zscore", "rank"])
def test_the_selection_equals_the_plain_twin(world: World, combine: Any) -> None:
    for top in (1, 23, 70):
        done = select_mini(world.root, MiniSettings(top=top, combine=combine), towers(world))
        assert (world.root / MINI).read_text().split() == twin(world, top, combine)
        assert (done.chosen, done.images, done.left_out) == (top, 70, 0)


def test_blocks_and_shares_change_nothing(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    select_mini(world.root, MiniSettings(top=20, random=2), towers(world))
    expected = {path.name: path.read_bytes() for path in (world.root / "image_ids").iterdir()}
    out = tmp_path / "out"
    for number in (1, 0):
        options = Options(share=Share(number, 2))
        done = select_mini(world.root, MiniSettings(top=20, random=2), towers(world), out=out, options=options)
        assert bool(done.unfinished) == (number == 1)
    assert {path.name: path.read_bytes() for path in (out / "image_ids").iterdir()} == expected
    monkeypatch.setattr(scores, "_ROWS", 3)
    monkeypatch.setattr(scores, "_AT_ONCE", 5)
    select_mini(world.root, MiniSettings(top=20, random=2), towers(world), out=tmp_path / "small")
    assert (tmp_path / "small" / MINI).read_bytes() == expected["mini_ilias_yfcc100m_ids.txt"]


def test_what_is_scored_is_not_scored_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    select_mini(world.root, MiniSettings(top=20), towers(world))

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(scores, "largest_similarities", never)
    select_mini(world.root, MiniSettings(top=30, combine="rank"), towers(world))
    assert (world.root / MINI).read_text().split() == twin(world, 30, "rank")
    assert not list((world.root / "build" / "mini").glob(".*"))


def test_other_texts_are_scored_anew(world: World, tmp_path: Path) -> None:
    select_mini(world.root, MiniSettings(top=20), towers(world))
    before = (world.root / MINI).read_text()
    table = tmp_path / "t.csv"
    table.write_text("template\nsomething else *\n")
    select_mini(world.root, MiniSettings(top=20, templates=table), towers(world))
    assert (world.root / MINI).read_text() != before


def test_images_that_a_model_has_not_described_are_left_out(world: World, tmp_path: Path) -> None:
    fewer = {source: keys[5:] for source, keys in SHARDS.items()}
    store = make_store(tmp_path / "fewer" / "m1", fewer, world.vectors[1])
    sources = [Tower("m0", world.stores[0]), Tower("m1", store)]
    done = select_mini(world.root, MiniSettings(top=60), sources)
    assert (done.images, done.left_out, done.chosen) == (60, 10, 60)
    chosen = (world.root / MINI).read_text().split()
    assert not {f"j{n:03d}" for n in range(5)} & set(chosen)
    with pytest.raises(OpenIliasError, match="60 distractors, fewer than the 61"):
        select_mini(world.root, MiniSettings(top=61), sources)


def test_the_list_is_read_by_what_reads_the_official_one(world: World) -> None:
    select_mini(world.root, MiniSettings(top=12, random=1, seed=3), towers(world))
    benchmark = read_ilias(world.root)
    plan = make_plan(benchmark, Selection(mini=True))
    assert all(shard.keep is not None and len(shard.keep) == 12 for shard in plan.shards)
    random = (world.root / "image_ids" / "mini_random_12_seed3_0_ids.txt").read_text().split()
    assert len(set(random)) == 12
    assert random != (world.root / MINI).read_text().split()


def test_a_list_from_elsewhere_is_not_replaced(world: World) -> None:
    (world.root / "image_ids").mkdir()
    (world.root / MINI).write_text("official\n")
    with pytest.raises(OpenIliasError, match="did not write it"):
        select_mini(world.root, MiniSettings(top=12), towers(world))
    assert (world.root / MINI).read_text() == "official\n"
    select_mini(world.root, MiniSettings(top=12), towers(world), overwrite=True)
    select_mini(world.root, MiniSettings(top=13), towers(world))
    assert len((world.root / MINI).read_text().split()) == 13


def test_keys_that_stand_in_two_shards_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_model(monkeypatch)
    shards = {"a_0000.tar": ["k", "l"], "b_0001.tar": ["k", "m"]}
    make_set(tmp_path / "set", shards)
    vectors = dict(zip([f"{s}/{k}" for s, keys in shards.items() for k in keys], unit(4, 1), strict=True))
    store = make_store(tmp_path / "m0", shards, vectors)
    with pytest.raises(OpenIliasError, match="more than one shard"):
        select_mini(tmp_path / "set", MiniSettings(top=4), [Tower("m0", store)])
    assert not (tmp_path / "set" / MINI).exists()


def test_keys() -> None:
    assert key_of(b"yfcc100m_0000.tar/abo_0000") == b"abo_0000"
    assert key_of(b"yfcc100m_0000.tar/sub/abo") == b"sub/abo"
    assert key_of(b"distractors/abo.b.jpg") == b"abo.b"


def refused(world: World, match: str, *sources: Tower) -> None:
    with pytest.raises(OpenIliasError, match=match):
        select_mini(world.root, MiniSettings(top=1), sources)
    assert not (world.root / MINI).exists()


def test_stores_that_do_not_belong_are_refused(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def store(name: str, shards: dict[str, list[str]] = SHARDS, **made: Any) -> Tower:
        return Tower("m0", make_store(tmp_path / name, shards, world.vectors[0], **made))

    refused(world, "not its distractors", store("p", partition="positives"))
    refused(world, "adapted", store("a", adaptation={"sha256": "x"}))
    refused(world, "other weights", store("w", weights="others"))
    less = {"a_0000.tar": SHARDS["a_0000.tar"]}
    refused(world, "other shards than .*: b_0001.tar", towers(world, 0)[0], store("l", less))
    other = {"z.tar": ["k"]}
    strange = make_store(tmp_path / "z", other, {"z.tar/k": unit(1, 1)[0]})
    refused(world, "not in the set: z.tar", Tower("m0", strange))
    refused(world, "There is no model")
    twice = {"a_0000.tar": ["j000", "j000"], "b_0001.tar": ["k000"]}
    refused(world, "stands twice", store("t", twice))
    fake_model(monkeypatch, dims=3)
    refused(world, "another dimension", towers(world, 0)[0])


def test_a_set_without_categories(world: World) -> None:
    (world.root / "taxonomy.json").unlink()
    refused(world, "no taxonomy", *towers(world, 0))


def test_similarities_that_are_no_numbers(world: World, tmp_path: Path) -> None:
    vectors = dict(world.vectors[0])
    vectors["a_0000.tar/j003"] = np.full(DIMS, np.nan, np.float16)
    refused(world, "not finite", Tower("m0", make_store(tmp_path / "nan", SHARDS, vectors)))


KILLED = """
import sys, time
from pathlib import Path
import pytest
sys.path.insert(0, sys.argv[3])
import test_mini
from openilias.build.mini import scores, select
patch = pytest.MonkeyPatch()
test_mini.fake_model(patch)
real = scores.largest_similarities
def slow(*arguments, **options):
    time.sleep(0.3)
    return real(*arguments, **options)
patch.setattr(scores, "largest_similarities", slow)
towers = [select.Tower(f"m{n}", Path(sys.argv[2]) / f"m{n}") for n in range(3)]
select.select_mini(Path(sys.argv[1]), select.MiniSettings(top=20), towers)
"""


def test_killed_it_goes_on(world: World) -> None:
    work = world.root / "build" / "mini"
    for count in (1, 4):
        kill_when(
            lambda count=count: len(list(work.glob("scores/*/?????.npy"))) >= count,
            KILLED, world.root, world.stores[0].parent, Path(__file__).parent,
        )  # fmt: skip
        assert not (world.root / MINI).exists()
    done = list(work.glob("scores/*/?????.npy"))
    assert 4 <= len(done) < 6
    before = {path: path.stat().st_mtime_ns for path in done}
    select_mini(world.root, MiniSettings(top=20), towers(world))
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert (world.root / MINI).read_text().split() == twin(world, 20, "mean")


def test_the_command(world: World, ilias: Callable[..., Any], tmp_path: Path) -> None:
    stores = [word for place in world.stores for word in ("--store", place)]
    done = ilias("build", "mini", world.root, "--top", 9, "--random", 3, *stores, "--json", tmp_path / "m.json")
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "m.json").read_text())
    assert (told["chosen"], told["images"], len(told["lists"])) == (9, 70, 4)
    assert told["combinations"] == (told["labels"] + told["terms"]) * told["templates"]
    assert told["models"] == ["m0", "m1", "m2"]
    assert (world.root / MINI).read_text().split() == twin(world, 9, "mean")
    for arguments, match in (
        (["--store", tmp_path / "nothing"], "nothing"),
        ([*stores, "--model", "m0"], "3 stores and 1 models"),
        ([*stores, "--weights", "-"], "given 1 times for 3 models"),
        ([*stores, "--top", "0"], "greater than or equal to 1"),
        ([*stores, "--combine", "sum"], "sum"),
    ):
        done = ilias("build", "mini", world.root, "--top", 9, *arguments)
        assert done.code == 2, arguments
        assert match in done.err, done.err


def test_one_source_is_in_memory_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = alignment._sorted_ids
    monkeypatch.setattr(alignment, "_sorted_ids", lambda shard: seen.append(shard.source) or real(shard))
    copies = [*towers(world, 0), Tower("m0", world.stores[0])]  # their ids are those of the first one: read once
    select_mini(world.root, MiniSettings(top=9), copies)
    assert seen == ["a_0000.tar", "b_0001.tar"] * 2


def test_lists_of_a_run_that_was_cut_off_are_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = MiniSettings(top=20, random=1)
    real, written = select._write_list, []

    def cut(path: Path, *rest: Any) -> str:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        return real(path, *rest)

    monkeypatch.setattr(select, "_write_list", cut)
    with pytest.raises(KeyboardInterrupt):
        select_mini(world.root, settings, towers(world))
    assert (world.root / MINI).exists()
    monkeypatch.setattr(select, "_write_list", real)
    select_mini(world.root, settings.model_copy(update={"top": 21}), towers(world))
    assert (world.root / MINI).read_text().split() == twin(world, 21, "mean")
    (world.root / MINI).write_text("k001\n")
    with pytest.raises(OpenIliasError, match="did not write it"):
        select_mini(world.root, settings, towers(world))


def shared(world: World, number: int, out: Path, sources: list[Tower]) -> select.Mini:
    options = Options(share=Share(number, 2))
    return select_mini(world.root, MiniSettings(top=20), sources, out=out, options=options)


def test_shares_that_overtake_each_other_still_write_the_lists(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One share is behind with the first model, the other with the last: the one that ends last sees all."""
    real, done = select.score_store, []

    def meanwhile(*arguments: Any, **options: Any) -> list[str]:
        left = real(*arguments, **options)
        if not done:  # the first model of this share is done, that of the other is not; now comes all of the other
            done.append(1)
            done.append(shared(world, 0, tmp_path / "out", towers(world, 0, 2)))
        return left

    monkeypatch.setattr(select, "score_store", meanwhile)
    last = shared(world, 1, tmp_path / "out", towers(world, 0, 2))
    assert done[1].unfinished
    assert not last.unfinished
    assert (last.chosen, len(last.lists)) == (20, 1)


def test_shares_describe_and_the_last_one_scores(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def describe(*arguments: Any) -> list[str]:
        place, share = arguments[3], arguments[4].share
        if not share.number:
            return ["of the other"]
        if not place.exists():
            make_store(place, SHARDS, world.vectors[0], model={"name": "m0"})
        return []

    monkeypatch.setattr(select, "extract_share", describe)
    assert shared(world, 0, tmp_path / "out", [Tower("m0")]).unfinished
    assert shared(world, 1, tmp_path / "out", [Tower("m0")]).chosen == 20


def test_of_two_shares_that_end_at_once_one_writes(world: World, ilias: Callable[..., Any], tmp_path: Path) -> None:
    select_mini(world.root, MiniSettings(top=20), towers(world, 0), out=tmp_path)
    with owned(tmp_path / "build" / "mini"):
        options = ("--top", 20, "--store", world.stores[0], "--out", tmp_path)
        done = ilias("build", "mini", world.root, *options, "--shard", "0/2")
        assert (done.code, "another one" in done.err + done.out) == (0, True), done.err
        done = ilias("build", "mini", world.root, *options)
        assert (done.code, "Another process" in done.err) == (2, True), done.err


def test_what_cannot_be_chosen_is_refused_before_the_work(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_score", None)
    fewer = make_store(world.root.parent / "fewer", {"a_0000.tar": SHARDS["a_0000.tar"]}, world.vectors[1])
    with pytest.raises(OpenIliasError, match="other shards than"):
        select_mini(world.root, MiniSettings(top=9), [*towers(world, 0), Tower("m1", fewer)])
    with pytest.raises(OpenIliasError, match="70 distractors, fewer than the 71"):
        select_mini(world.root, MiniSettings(top=71), towers(world))
    assert not (world.root / "build").exists()


def test_keys_that_a_list_cannot_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_model(monkeypatch)
    shards = {"a_0000.tar": ["x", "y "]}
    make_set(tmp_path / "set", shards)
    vectors = dict(zip(["a_0000.tar/x", "a_0000.tar/y "], unit(2, 1), strict=True))
    store = make_store(tmp_path / "m0", shards, vectors)
    with pytest.raises(OpenIliasError, match="cannot stand in a list: 'y '"):
        select_mini(tmp_path / "set", MiniSettings(top=2), [Tower("m0", store)])
    assert not (tmp_path / "set" / MINI).exists()


def test_names_of_own_tables_are_in_no_manifest(world: World, tmp_path: Path) -> None:
    table = tmp_path / "of-our-customer.csv"
    table.write_text("template\nsomething else *\n")
    select_mini(world.root, MiniSettings(top=20, templates=table), towers(world, 0))
    text = (world.root / "build" / "mini" / "manifest.json").read_text()
    assert "customer" not in text
    made = json.loads(text)["made_from"]["settings"]["tables"]
    assert made == {"synonyms": "ours", "templates": sha256_of(table)}
