"""Checking, counting, showing and editing a taxonomy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Outcome
from openilias.build.taxonomy_tools import (
    Nodes,
    Place,
    assign,
    count_levels,
    csv_of,
    find_place,
    merge,
    node_of,
    nodes_of_csv,
    outline,
    remove,
    rename,
    tree_of,
    validate,
    write_taxonomy,
)
from openilias.core.errors import OpenIliasError
from openilias.data import read_ilias
from openilias.data.taxonomy import read_taxonomy

NODES: Nodes = {
    "mug_000": ("household", "kitchen", "mug"),
    "cup_001": ("household", "kitchen", "other"),
    "lamp_002": ("household", "other", "other"),
    "head_003": ("art", "sculpture", "other"),
}


def kinds(tree: object, tmp_path: Path, objects: frozenset[str] | None = None, fewest: int = 1) -> list[str]:
    path = tmp_path / "taxonomy.json"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return sorted(one.kind for one in validate(Place(path, objects), fewest=fewest))


def test_a_sound_taxonomy_has_no_findings(tmp_path: Path) -> None:
    assert kinds(tree_of(NODES), tmp_path, frozenset(NODES)) == []


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        ("", ["taxonomy-unreadable"]),
        ("{}", ["category-empty"]),
        ("[]", ["category-empty", "taxonomy-malformed"]),
        ({"a": {"b": {"c": []}}}, ["category-empty"]),
        ({"a": {}}, ["category-empty"]),
        ({"a": {"b": ["x_000"]}}, ["taxonomy-malformed"]),
        ({"a": {"b": {"c": ["x_000", "x_000"]}}}, ["taxonomy-duplicate"]),
        ('{"a": {"b": {"c": ["x_000"]}}, "a": {"b": {"c": ["y_001"]}}}', ["taxonomy-duplicate"]),
        ({"a": {"b": {"c": ["x_000"]}, "B": {"c": ["y_001"]}}}, ["name-alike"]),
        ({"a": {"b": {"c": ["x_000", "X_000"]}}}, ["name-alike"]),
        ({"a ": {"b": {"c": ["x_000"]}}}, ["name-blank"]),
        ({"a": {"other": {"c": ["x_000"]}}}, ["level-skipped"]),
        ({"a": {"b": {"c": ["x\u0000"]}}}, ["taxonomy-malformed"]),
    ],
)
def test_what_is_wrong_is_found(tmp_path: Path, tree: object, found: list[str]) -> None:
    assert kinds(tree, tmp_path) == found


def test_objects_are_those_of_the_set(tmp_path: Path) -> None:
    tree = {"a": {"b": {"c": ["x_000", "gone_001"]}}}
    assert kinds(tree, tmp_path, frozenset(("x_000", "y_002"))) == ["object-missing", "object-unknown"]


def test_small_categories_are_warned_of(tmp_path: Path) -> None:
    tree = {"a": {"b": {"c": ["1", "2", "3"], "other": ["4"]}, "other": {"other": ["5"]}}}
    assert kinds(tree, tmp_path, fewest=4) == ["category-small"]  # c; b has four, other is no category
    assert kinds(tree, tmp_path, fewest=5) == ["category-small"] * 2


def test_levels_are_counted_without_and_with_other() -> None:
    counted = count_levels(NODES)
    assert counted.objects == 4
    assert counted.categories == (2, 2, 1)
    assert counted.nodes == (2, 3, 4)
    assert counted.assigned == (4, 3, 1)


LETTERS = st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=["L", "N", "P"])
TEXT = st.text(LETTERS, min_size=1, max_size=8)


@given(st.dictionaries(TEXT, st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_table_is_read_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, nodes: Nodes) -> None:
    path = tmp_path_factory.mktemp("csv") / "taxonomy.csv"
    path.write_bytes(csv_of(nodes))
    assert nodes_of_csv(path, nodes.keys()) == nodes
    write_taxonomy(path.with_suffix(".json"), nodes)
    assert read_taxonomy(path.with_suffix(".json")).nodes == nodes


def test_the_table_leaves_what_is_not_assigned_empty(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.csv"
    path.write_bytes(csv_of(NODES))
    assert path.read_text().splitlines()[3] == "lamp_002,household,,"
    assert nodes_of_csv(path, NODES) == NODES


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "missing: object, coarse"),
        ("object,coarse,colour\nx,a,red", "not known"),
        ("object,coarse\nmug_000,a\nmug_000,b", "stands twice"),
        ("object,coarse\nmug_000,a\nunknown_009,b", "no object 'unknown_009'"),
        ("object,coarse\nmug_000,a\n,b", "names no object"),
        ("object,coarse\nmug_000,a", "3 objects of the set are not in this table"),
        ("object,coarse,mid,fine\nmug_000,a,,c", "below no mid one"),
        ("object,coarse\nmug_000,a,b", "3 fields"),
        (f"object,coarse\nmug_000,{'x' * 101}", "cannot be the name"),
        ("object,coarse\nmug_000,", "no coarse category"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path: Path, table: str, said: str) -> None:
    path = tmp_path / "taxonomy.csv"
    path.write_text(table)
    with pytest.raises(OpenIliasError) as caught:
        nodes_of_csv(path, NODES)
    assert said in str(caught.value)


def test_a_part_of_a_table_is_read_when_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.csv"
    path.write_text("object,coarse\nmug_000,a\n")
    assert nodes_of_csv(path, NODES, partial=True) == {"mug_000": ("a", "other", "other")}


def test_edits() -> None:
    assert assign(NODES, "lamp_002", node_of("household", "light"))["lamp_002"] == ("household", "light", "other")
    assert rename(NODES, "household", "home")["mug_000"] == ("home", "kitchen", "mug")
    assert rename(NODES, "household/kitchen", "tableware")["cup_001"] == ("household", "tableware", "other")
    assert rename(NODES, "household/kitchen/mug", "cup")["head_003"] == NODES["head_003"]
    slashed = assign(NODES, "mug_000", node_of("art", "sculpture", "ceramics/clay"))
    assert rename(slashed, "art/sculpture/ceramics/clay", "clay")["mug_000"] == ("art", "sculpture", "clay")
    moved = merge(NODES, "art/sculpture", "household/kitchen")
    assert moved["head_003"] == ("household", "kitchen", "other")
    assert merge(NODES, "household/kitchen/mug", "household/kitchen/other")["mug_000"] == NODES["cup_001"]
    assert "mug_000" not in remove(NODES, "mug_000")
    assert remove(NODES, "household/kitchen/mug")["mug_000"] == ("household", "kitchen", "other")
    assert remove(NODES, "household/kitchen")["mug_000"] == ("household", "other", "other")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda: rename(NODES, "household/garden", "x"), "no category 'household/garden'"),
        (lambda: rename(NODES, "a/b/c/d", "x"), "no category"),
        (lambda: rename(NODES, "household", "art"), "is a category art already"),
        (lambda: rename(NODES, "household/other", "x"), "not assigned"),
        (lambda: rename(NODES, "household", "other"), "not assigned"),
        (lambda: rename(NODES, "household", "a\nb"), "cannot be the name"),
        (lambda: rename({"x": ("a", "b/c", "d"), "y": ("a", "b", "c/d")}, "a/b/c/d", "e"), "any of 2"),
        (lambda: merge(NODES, "household", "art/sculpture"), "one level"),
        (lambda: merge(NODES, "household", "household"), "one level"),
        (lambda: remove(NODES, "household"), "needs a coarse category"),
        (lambda: remove(NODES, "nothing_999"), "no category"),
    ],
)
def test_edits_of_what_is_not_there_are_refused(edit: Callable[[], object], said: str) -> None:
    with pytest.raises(OpenIliasError) as caught:
        edit()
    assert said in str(caught.value)


def test_a_tree_is_shown_with_counts_and_without_others_that_say_nothing() -> None:
    assert outline(NODES) == [
        "- household (3)", "  - kitchen (2)", "    - mug (1)", "    - other (1)", "  - other (1)", "- art (1)",
        "  - sculpture (1)",
    ]  # fmt: skip
    assert "      - `mug_000`" in outline(NODES, objects=True)
    assert sum("`" in line for line in outline(NODES, objects=True)) == 4


def test_the_place_is_that_of_the_set(tiny_root: Path, tmp_path: Path) -> None:
    place = find_place(tiny_root)
    assert place.file == tiny_root / "taxonomy.json"
    assert place.objects == read_ilias(tiny_root).relevance.keys()
    with pytest.raises(OpenIliasError, match="no such taxonomy"):
        find_place(tmp_path / "taxonomy.json")


def test_the_commands(ilias: Callable[..., Outcome], tiny_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(tiny_root, root)
    objects = sorted(read_ilias(root).relevance)

    def taxonomy(*words: object) -> Outcome:
        return ilias("build", "taxonomy", *words)

    assert taxonomy("validate", root).code == 0
    counted = taxonomy("counts", root, "--json", tmp_path / "counts.json")
    assert json.loads((tmp_path / "counts.json").read_text())["objects"] == 4
    assert "coarse" in counted.out
    assert taxonomy("edit", "assign", root, objects[0], "made", "up").code == 0
    assert taxonomy("edit", "rename", root, "made/up", "down").code == 0
    assert read_ilias(root).taxonomy.nodes[objects[0]] == ("made", "down", "other")
    assert "- made (1)" in taxonomy("show", root).out
    assert taxonomy("show", root, "--objects", "--out", tmp_path / "t.md").code == 0
    assert f"`{objects[0]}`" in (tmp_path / "t.md").read_text()
    assert taxonomy("edit", "merge", root, "made", read_ilias(root).taxonomy.nodes[objects[1]][0]).code == 0
    assert taxonomy("edit", "remove", root, objects[0]).code == 0
    refused = taxonomy("validate", root, "--json", tmp_path / "found.json")
    assert refused.code == 1
    assert not json.loads((tmp_path / "found.json").read_text())["sound"]
    assert taxonomy("edit", "export", root, tmp_path / "t.csv").code == 0
    before = (root / "taxonomy.json").read_bytes()
    assert taxonomy("edit", "import", root, tmp_path / "t.csv").code == 2  # one object has no coarse category
    assert (root / "taxonomy.json").read_bytes() == before
    table = (tmp_path / "t.csv").read_text().replace(f"{objects[0]},,,", f"{objects[0]},art,,")
    (tmp_path / "t.csv").write_text(table)
    assert taxonomy("edit", "import", root, tmp_path / "t.csv").code == 0
    assert taxonomy("validate", root).code == 0
    assert taxonomy("edit", "assign", root, "nobody_999", "art").code == 2


def test_an_edited_taxonomy_is_drawn_as_fig_k(tiny_root: Path, tmp_path: Path) -> None:
    from openilias.report.figures.taxonomy import taxonomy_tree

    root = tmp_path / "set"
    shutil.copytree(tiny_root, root)
    objects = sorted(read_ilias(root).relevance)
    write_taxonomy(root / "taxonomy.json", {name: ("all", f"mid {n % 2}", "other") for n, name in enumerate(objects)})
    drawn = taxonomy_tree(read_ilias(root).taxonomy)
    assert drawn is not None
    assert "mid 1" in str(drawn.table)


def test_the_official_taxonomy_has_the_published_counts(photos: Path, tmp_path: Path) -> None:
    path = photos.parent / "official" / "taxonomy.json"
    if not path.exists():
        pytest.skip("the official taxonomy is not beside the photographs")
    counted = count_levels(read_taxonomy(path).nodes)
    assert (counted.objects, counted.categories, counted.nodes) == (1000, (8, 42, 38), (8, 48, 81))
    (tmp_path / "official.csv").write_bytes(csv_of(read_taxonomy(path).nodes))
    again = nodes_of_csv(tmp_path / "official.csv", read_taxonomy(path).nodes)
    write_taxonomy(tmp_path / "taxonomy.json", again)
    assert (tmp_path / "taxonomy.json").read_bytes() == path.read_bytes().rstrip() + b"\n"
    # The paper has at least 4 objects in each mid and finer category; one of its own has 3.
    found = validate(Place(path, None))
    assert [(one.kind, one.where) for one in found] == [("category-small", "technology/peripheral/printer")]
