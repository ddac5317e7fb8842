"""Training sets: classes, and lists that are read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openilias.core.errors import OpenIliasError
from openilias.data import TrainingSet, read_training_set
from openilias.data.training import write_training_set

IDS = ("a/0.jpg", "a/1.jpg", "b/0.jpg", "c/0.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for item in IDS:
        (tmp_path / item).parent.mkdir(exist_ok=True)
        (tmp_path / item).write_bytes(b"picture")
    return tmp_path


def training(root: Path) -> TrainingSet:
    return TrainingSet(root, IDS, ("x", "x", "x", "y"), ("toys", "toys", "cars", "cars"))


def test_a_class_is_a_label_in_a_domain_numbered_by_first_appearance(folder: Path) -> None:
    made = training(folder)
    assert made.classes == (("x", "toys"), ("x", "cars"), ("y", "cars"))
    assert made.class_numbers == (0, 0, 1, 2)
    assert len(made) == 4
    assert made.path_of("a/1.jpg") == folder / "a" / "1.jpg"


def test_what_is_written_is_read(folder: Path) -> None:
    write_training_set(training(folder), folder / "labels.parquet")
    first = (folder / "labels.parquet").read_bytes()
    for source in (folder, folder / "labels.parquet"):
        assert read_training_set(source) == training(folder)
    write_training_set(training(folder), folder / "labels.parquet")
    assert (folder / "labels.parquet").read_bytes() == first


def test_text_lists_are_read_as_of_uned(folder: Path) -> None:
    (folder / "odd,name.jpg").write_bytes(b"picture")
    (folder / "list.txt").write_text("a/0.jpg,7,toys\nodd,name.jpg, 7 ,cars\n\nb/0.jpg,7,toys\n")
    made = read_training_set(folder / "list.txt")
    assert made.ids == ("a/0.jpg", "odd,name.jpg", "b/0.jpg")
    assert made.class_numbers == (0, 1, 0)
    (folder / "lists").mkdir()
    (folder / "lists" / "list.txt").write_text("a/0.jpg,7,toys\n")
    assert read_training_set(folder / "lists" / "list.txt", root=folder).ids == ("a/0.jpg",)
    with pytest.raises(OpenIliasError, match="not there"):
        read_training_set(folder / "lists" / "list.txt")


def test_whole_numbers_are_labels_too(folder: Path) -> None:
    pq.write_table(pa.table({"id": list(IDS), "label": [3, 3, 1, 2], "domain": ["d"] * 4}), folder / "labels.parquet")
    assert read_training_set(folder).labels == ("3", "3", "1", "2")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a/0.jpg"], "label": ["x"]}, "missing: domain"),
        ({"id": ["a/0.jpg", None], "label": ["x", "x"], "domain": ["d", "d"]}, "id is empty"),
        ({"id": ["a/0.jpg"], "label": [None], "domain": ["d"]}, "label is empty"),
        ({"id": ["a/0.jpg"], "label": ["x"], "domain": [""]}, "domain is empty"),
        ({"id": ["a/0.jpg"], "label": [float("nan")], "domain": ["d"]}, "label is empty"),
        ({"id": ["a/0.jpg"], "label": [1.5], "domain": ["d"]}, "label must be text"),
        ({"id": [1], "label": ["x"], "domain": ["d"]}, "id must be text"),
        ({"id": ["a/0.jpg", "a/0.jpg"], "label": ["x", "y"], "domain": ["d", "d"]}, "Ids stand twice: a/0.jpg"),
        ({"id": ["a/9.jpg"], "label": ["x"], "domain": ["d"]}, "1 of 1 images are not there: a/9.jpg"),
        ({"id": ["../a/0.jpg"], "label": ["x"], "domain": ["d"]}, "inside the folder"),
        ({"id": ["n" * 300], "label": ["x"], "domain": ["d"]}, "are not there"),
        ({"id": ["a/0.jpg"], "label": [True], "domain": ["d"]}, "label must be text"),
        ({"id": ["a/0.jpg"], "label": ["x"], "domain": [1]}, "domain must be text"),
        ({"id": ["a/0.jpg"], "label": ["  "], "domain": ["d"]}, "label is empty"),
        ({"id": ["a/0.jpg"], "label": ["a\nb"], "domain": ["d"]}, "label must be text"),
        ({"id": ["/etc/hosts"], "label": ["x"], "domain": ["d"]}, "inside the folder"),
        ({"id": ["a\\0.jpg"], "label": ["x"], "domain": ["d"]}, "inside the folder"),
        ({"id": pa.array([], pa.string()), "label": [], "domain": []}, "names no images"),
    ],
)
def test_wrong_tables_are_refused(folder: Path, columns: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table(columns), folder / "labels.parquet")
    with pytest.raises(OpenIliasError, match=message) as caught:
        read_training_set(folder)
    assert caught.value.where
    assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/0.jpg,x\n", "Expected 'path,label,domain'"),
        ("a/0.jpg,,d\n", "Expected 'path,label,domain'"),
        ("a/0.jpg,x,d\na/0.jpg,x,d\n", "stand twice"),
        ("../a/0.jpg,x,d\n", "inside the folder"),
        ("", "names no images"),
    ],
)
def test_wrong_lists_are_refused(folder: Path, text: str, message: str) -> None:
    (folder / "list.txt").write_text(text)
    with pytest.raises(OpenIliasError, match=message):
        read_training_set(folder / "list.txt")


def test_damaged_and_missing_files_are_refused(folder: Path) -> None:
    with pytest.raises(OpenIliasError, match="no such training list"):
        read_training_set(folder / "absent")
    (folder / "labels.parquet").write_bytes(b"junk")
    with pytest.raises(OpenIliasError, match="not readable Parquet"):
        read_training_set(folder)
    (folder / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OpenIliasError, match="cannot be read"):
        read_training_set(folder / "list.txt")


def test_text_that_is_not_utf8_is_refused(folder: Path) -> None:
    label = pa.array([b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": ["a/0.jpg"], "label": label, "domain": ["d"]}), folder / "labels.parquet")
    with pytest.raises(OpenIliasError, match=r"not UTF-8|not readable"):
        read_training_set(folder)


def test_columns_of_different_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OpenIliasError, match="2 ids, 1 labels and 2 domains"):
        TrainingSet(tmp_path, ("a", "b"), ("x",), ("d", "d"))
