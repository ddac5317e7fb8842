"""The training splits of UnED, in the layouts in which its data sets are published."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from openilias.core.errors import OpenIliasError
from openilias.data import TrainingSet, read_training_set
from openilias.data.training import write_training_set
from openilias.data.uned import DOMAINS, read_uned, sample

Ilias = Callable[..., Any]


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"picture")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


EXPECTED = {
    "cars/car_ims/000001.jpg": ("1", "cars"),
    "cars/car_ims/000002.jpg": ("98", "cars"),
    "sop/bicycle_final/111085122871_0.JPG": ("1", "sop"),
    "sop/chair_final/1_0.JPG": ("7", "sop"),
    "deepfashion/inshop/img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg": ("id_00000001", "inshop"),
    "inat/iNaturalist/train_val2018/Aves/3148/a1.jpg": ("Aves/3148", "inat"),
    "inat/iNaturalist/train_val2018/Plantae/3148/b2.jpg": ("Plantae/3148", "inat"),
    "met/MET/1/0.jpg": ("1", "met"),
    "gldv2/images/train/6/e/1/6e158a47eb2ca3f6.jpg": ("1", "gldv2"),
    "gldv2/images/train/2/0/2/202cd79556f30760.jpg": ("1", "gldv2"),
    "gldv2/images/train/7/3/d/73d18ea0be5f4bf9.jpg": ("7", "gldv2"),
    "food2k/Food2k_complete/0/12.jpg": ("0", "food2k"),
    "food2k/Food2k_complete/1999/3.jpg": ("1999", "food2k"),
    "rp2k/all/train/海之蓝/1.jpg": ("海之蓝", "rp2k"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """All eight, with their lists as they are published."""
    folder = tmp_path / "images"
    for item in EXPECTED:
        touch(folder / item)
    touch(folder / "rp2k/all/test/x/1.jpg")
    kinds = [("relative_im_path", "O"), ("bbox_x1", "i4"), ("class", "i4"), ("test", "i4")]
    cars = [(f"car_ims/00000{number}.jpg", 1, label, 0) for number, label in ((1, 1), (2, 98), (3, 99))]
    savemat(folder / "cars" / "cars_annos.mat", {"annotations": np.array([cars], kinds)})
    write(
        folder / "sop" / "Ebay_train.txt",
        "image_id class_id super_class_id path\n1 1 1 bicycle_final/111085122871_0.JPG\n2 7 3 chair_final/1_0.JPG\n",
    )
    write(
        folder / "deepfashion" / "inshop" / "Eval" / "list_eval_partition.txt",
        "52712\nimage_name item_id evaluation_status\n"
        "img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg                     id_00000001 train\n"
        "img/WOMEN/Dresses/id_00000002/02_1_front.jpg                            id_00000002 query\n",
    )
    write(
        folder / "inat" / "Inat_dataset_splits" / "Inaturalist_train_set1.txt",
        "train_val2018/Aves/3148/a1.jpg\ntrain_val2018/Plantae/3148/b2.jpg\n",
    )
    write(folder / "met" / "ground_truth" / "MET_database.json", json.dumps([{"id": 1, "path": "MET/1/0.jpg"}]))
    write(
        folder / "gldv2" / "train_clean.csv",
        "landmark_id,images\n1,6e158a47eb2ca3f6 202cd79556f30760\n7,73d18ea0be5f4bf9\n",
    )
    write(folder / "food2k" / "Food2k_label" / "train_finetune.txt", "/0/12.jpg 0\n/1999/3.jpg 1999\n")
    return folder


def splits_of(tmp_path: Path, pairs: dict[str, tuple[Any, str]] = EXPECTED) -> Path:
    """UnED's own files, for the same images."""
    for name in {domain for _, domain in pairs.values()}:
        entries = [{"path": item, "class_id": label} for item, (label, domain) in pairs.items() if domain == name]
        write(tmp_path / "info_files" / name / "train.json", json.dumps(entries))
    return tmp_path / "info_files"


def test_every_published_layout_is_read(root: Path, tmp_path: Path) -> None:
    made = read_uned(root)
    assert dict(zip(made.ids, zip(made.labels, made.domains, strict=True), strict=True)) == EXPECTED
    assert list(dict.fromkeys(made.domains)) == [domain.name for domain in DOMAINS]
    assert read_uned(root, splits=splits_of(tmp_path)) == made
    assert set(read_uned(root, only=["met", "sop"]).domains) == {"met", "sop"}


def test_a_landmark_of_very_many_images(root: Path) -> None:
    names = [f"{number:016x}" for number in range(10_000)]  # more letters than the csv module takes
    (root / "gldv2" / "train_clean.csv").write_text(f"landmark_id,images\n3,{' '.join(names)}\n")
    made = read_uned(root, only=["gldv2"])
    assert len(made) == 10_000
    assert made.ids[17] == "gldv2/images/train/0/0/0/0000000000000011.jpg"


def test_other_files_of_rp2k_are_no_images(root: Path) -> None:
    before = read_uned(root, only=["rp2k"]).ids
    folder = (root / before[0]).parent
    (folder / "Thumbs.db").write_text("x")
    assert read_uned(root, only=["rp2k"]).ids == before


def test_numbers_and_single_lists_are_classes_too(tmp_path: Path) -> None:
    splits = splits_of(tmp_path, {"cars/a.jpg": (3, "cars"), "cars/b.jpg": ([4], "cars")})
    assert read_uned(tmp_path, splits=splits, only=["cars"]).labels == ("3", "4")


def test_the_list_is_written_and_read(root: Path, tmp_path: Path, ilias: Ilias) -> None:
    out = tmp_path / "uned.txt"
    done = ilias("data", "uned", root, "--splits", splits_of(tmp_path), "--out", out, "--json", tmp_path / "j.json")
    assert done.code == 0, done.err
    assert "14 images of 13 classes" in done.out
    assert "not those of UnED" in done.out
    made = read_training_set(out, root=root)
    assert dict(zip(made.ids, made.labels, strict=True)) == {item: label for item, (label, _) in EXPECTED.items()}
    assert json.loads((tmp_path / "j.json").read_text())["domains"]["gldv2"] == {"images": 3, "drawn": 3, "classes": 2}
    again = ilias("data", "uned", root, "--out", out)
    assert again.code == 2
    assert "--overwrite" in again.err
    half = ["data", "uned", root, "--sample", 6, "--overwrite", "--out", out]
    assert ilias(*half).code == 0
    first = out.read_bytes()
    assert len(first.splitlines()) == 6
    assert ilias(*half).code == 0
    assert out.read_bytes() == first
    assert ilias(*half, "--seed", 1).code == 0
    assert out.read_bytes() != first


def test_the_sample_is_uniform_over_images() -> None:
    ids = tuple(f"{number}.jpg" for number in range(10_000))
    domains = tuple("large" if number < 8000 else "small" for number in range(10_000))
    training = TrainingSet(Path(), ids, ids, domains)
    drawn = sample(training, 2000, seed=0)
    assert len(set(drawn.ids)) == 2000
    assert abs(Counter(drawn.domains)["large"] - 1600) < 60  # 3.4 standard deviations
    assert list(drawn.ids) == sorted(drawn.ids, key=ids.index)
    assert sample(training, 10_000, seed=0) is training


def test_escaped_names_and_missing_images(root: Path, tmp_path: Path, ilias: Ilias) -> None:
    (root / "rp2k/all/train/海之蓝").rename(root / "rp2k/all/train/#U6d77#U4e4b#U84dd")
    only = ["data", "uned", root, "--splits", splits_of(tmp_path), "--domains", "rp2k,met", "--out"]
    assert ilias(*only, tmp_path / "a.txt").code == 0
    assert "rp2k/all/train/#U6d77#U4e4b#U84dd/1.jpg,海之蓝,rp2k" in (tmp_path / "a.txt").read_text()
    (root / "met/MET/1/0.jpg").unlink()
    done = ilias(*only, tmp_path / "b.txt")
    assert done.code == 2
    assert "1 of 2 images are not there: met/MET/1/0.jpg" in done.err
    assert not (tmp_path / "b.txt").exists()
    assert ilias(*only, tmp_path / "b.txt", "--missing").code == 0


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("sop/Ebay_train.txt", "image_id class_id super_class_id path\n1 1\n", "Expected 4 words"),
        ("sop/Ebay_train.txt", "", "names no images"),
        ("met/ground_truth/MET_database.json", "{", "JSONDecodeError"),
        ("met/ground_truth/MET_database.json", '[{"id": 1}]', "KeyError: 'path'"),
        ("gldv2/train_clean.csv", "id,images\n1,abc\n", "its first line is 'id,images'"),
        ("gldv2/train_clean.csv", "landmark_id,images\n1,a\n", "IndexError"),
        ("cars/cars_annos.mat", "nothing", "cars: this list is not as it is published"),
        ("inat/Inat_dataset_splits/Inaturalist_train_set1.txt", "a.jpg\n", "inat: this list is not"),
    ],
)
def test_lists_that_are_not_as_published(root: Path, file: str, text: str, message: str) -> None:
    (root / file).write_text(text)
    with pytest.raises(OpenIliasError, match=message):
        read_uned(root)


def test_what_is_not_there(root: Path, tmp_path: Path, ilias: Ilias) -> None:
    (root / "sop" / "Ebay_train.txt").unlink()
    with pytest.raises(OpenIliasError, match=r"sop: its training list is not here; looked for sop/Ebay_train\.txt"):
        read_uned(root)
    with pytest.raises(OpenIliasError, match="There is no such folder"):
        read_uned(root / "nowhere")
    with pytest.raises(OpenIliasError, match="UnED has no birds; it has cars"):
        read_uned(root, only=["birds"])
    with pytest.raises(OpenIliasError, match="There is no such folder"):
        read_uned(root, splits=tmp_path / "nothing")
    with pytest.raises(OpenIliasError, match="FileNotFoundError"):
        read_uned(root, splits=tmp_path)
    splits = splits_of(tmp_path, {"cars/a.jpg": (1.5, "cars")})
    with pytest.raises(OpenIliasError, match="a class_id is a number or text"):
        read_uned(root, splits=splits, only=["cars"])
    done = ilias("data", "uned", root, "--domains", "cars", "--out", tmp_path / "list.csv")
    assert done.code == 2
    assert "a .txt or .parquet file" in done.err


def test_lines_cannot_hold_commas_in_labels(tmp_path: Path) -> None:
    training = TrainingSet(tmp_path, ("a.jpg",), ("tea, green",), ("rp2k",))
    with pytest.raises(OpenIliasError, match="cannot hold the label 'tea, green'"):
        write_training_set(training, tmp_path / "list.txt")
    write_training_set(training, tmp_path / "list.parquet")
    assert read_training_set(tmp_path / "list.parquet", images=False).labels == ("tea, green",)
