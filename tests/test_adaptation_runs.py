"""From a training set to an adapted run: lists, extraction, experiments, and the tables of the paper."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openilias import published
from openilias.adapt.files import write_linear_map
from openilias.adapt.learned import read_adaptation, read_layer
from openilias.adapt.linear import LinearMap
from openilias.build.generated.synth import SynthSettings, build_synth
from openilias.core.errors import OpenIliasError
from openilias.data import read_training_set
from openilias.descriptors.store import open_store
from openilias.experiments.experiment import Experiment, read_experiment
from openilias.experiments.study import study_of
from openilias.models.record import find_record

Ilias = Callable[..., Any]
SMALL = SynthSettings(objects=3, distractors=8, size=128, positives=(2, 2), shard=8, train=9, train_images=(3, 4))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated benchmark with a training split."""
    folder = tmp_path_factory.mktemp("adapted") / "made"
    build_synth(folder, SMALL, workers=1)
    return folder


MODEL = ("--model", "resnet10t", "--random-weights", 0, "--resolution", 64, "--workers", 1)


def linear(inputs: int = 512, outputs: int = 12, seed: int = 0) -> LinearMap:
    rng = np.random.default_rng(seed)
    return LinearMap(rng.normal(size=(outputs, inputs)).astype("f4"), rng.normal(size=outputs).astype("f4") / 9)


# --- training sets ---


def test_a_training_set_is_described_like_a_benchmark(root: Path, tmp_path: Path, ilias: Ilias) -> None:
    training = read_training_set(root / "train")
    done = ilias("extract", root / "train", "--partition", "train", *MODEL, "--out", tmp_path / "a")
    assert done.code == 0, done.err
    store = open_store(tmp_path / "a")
    assert [item for shard in store.shards for item in shard.ids()] == list(training.ids)
    assert store.partition == "train"
    # A list elsewhere, of a part of the images, in its order.
    chosen = [4, 1, 7]
    lines = [f"train/{training.ids[place]},{training.labels[place]},{training.domains[place]}" for place in chosen]
    (tmp_path / "some.txt").write_text("\n".join(lines))
    some = tmp_path / "some.txt"
    done = ilias("extract", some, "--images", root, "--partition", "train", *MODEL, "--out", tmp_path / "b")
    assert done.code == 0, done.err
    part = open_store(tmp_path / "b")
    assert [item for shard in part.shards for item in shard.ids()] == [f"train/{training.ids[p]}" for p in chosen]
    rows = np.concatenate(list(store.shards[0].blocks()))[chosen].astype("f4")
    assert np.abs(np.concatenate(list(part.shards[0].blocks())).astype("f4") - rows).max() < 2e-3  # float16
    # The benchmark that the split belongs to names the same images.
    assert read_training_set(root).fingerprint == training.fingerprint
    done = ilias("extract", root, "--images", root, "--partition", "positives", *MODEL, "--out", tmp_path / "c")
    assert done.code == 2
    assert "--images belongs to --partition train" in done.err


def test_csv_with_a_header(tmp_path: Path) -> None:
    (tmp_path / "photos.csv").write_text('domain,class,path\ncars,7,"a,b.jpg"\ntoys,7,c.jpg\n')
    made = read_training_set(tmp_path / "photos.csv", images=False)
    assert made.ids == ("a,b.jpg", "c.jpg")
    assert made.classes == (("7", "cars"), ("7", "toys"))
    (tmp_path / "photos.csv").write_text("label,id\nx,a.jpg\nx,b.jpg\n")
    assert read_training_set(tmp_path / "photos.csv", images=False).domains == ("all", "all")
    (tmp_path / "photos.csv").write_text("x/1.jpg,class,file\nb,c,d\n")  # no header: a path is no name of a column
    assert read_training_set(tmp_path / "photos.csv", images=False).ids == ("x/1.jpg", "b")
    for text in ("path,label\na.jpg\n", "path,label\na.jpg,\n", "path,label\na.jpg,x,y\n"):
        (tmp_path / "photos.csv").write_text(text)
        with pytest.raises(OpenIliasError, match="Expected path,label") as caught:
            read_training_set(tmp_path / "photos.csv", images=False)
        assert "line 2" in str(caught.value.where)


def test_folders_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat/1.jpg", "cat/2.JPG", "dog/1.png", "dog/notes.txt", ".hidden/1.jpg"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(b"x")
    made = read_training_set(tmp_path / "pets")
    assert made.ids == ("cat/1.jpg", "cat/2.JPG", "dog/1.png")
    assert made.classes == (("cat", "all"), ("dog", "all"))
    assert "1 files are no images, and passed over: dog/notes.txt" in capsys.readouterr().err
    deeper = read_training_set(tmp_path)
    assert deeper.ids == ("pets/cat/1.jpg", "pets/cat/2.JPG", "pets/dog/1.png")
    assert deeper.classes == (("cat", "pets"), ("dog", "pets"))
    (tmp_path / "pets" / "stray.jpg").write_bytes(b"x")
    with pytest.raises(OpenIliasError, match=r"neither all in CLASS/ nor all in DOMAIN/CLASS/: .*stray"):
        read_training_set(tmp_path / "pets")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(OpenIliasError, match=r"neither labels\.parquet nor a folder of images per class"):
        read_training_set(tmp_path / "nothing")


def test_folders_of_classes_that_are_links_or_hold_other_images(tmp_path: Path) -> None:
    for name in ("far/1.gif", "far/2.bmp", "far/3.webp", "pets/cat/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "pets" / "dog").symlink_to(tmp_path / "far")
    assert read_training_set(tmp_path / "pets").ids == ("cat/1.jpg", "dog/1.gif", "dog/2.bmp", "dog/3.webp")
    (tmp_path / "pets" / "round").symlink_to(tmp_path / "pets")  # a circle ends
    with pytest.raises(OpenIliasError, match="neither all in CLASS/ nor all in DOMAIN/CLASS/"):
        read_training_set(tmp_path / "pets")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff\xfe")
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"x")
    with pytest.raises(OpenIliasError, match="These names are not UTF-8"):
        read_training_set(tmp_path)


# --- adapting while extracting ---


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_adapted_while_extracted_is_adapted_afterwards(root: Path, tmp_path: Path, ilias: Ilias, dtype: str) -> None:
    write_linear_map(linear(), tmp_path / "layer.pth")
    for partition in ("positives", "distractors"):
        plain, apart, at_once = (tmp_path / partition / name for name in ("plain", "apart", "at-once"))
        common = ["extract", root, *MODEL, "--partition", partition, "--dtype", dtype]
        assert ilias(*common, "--out", plain).code == 0
        assert ilias("adapt", "apply", plain, "--adapt", tmp_path / "layer.pth", "--out", apart).code == 0
        done = ilias(*common, "--adapt", tmp_path / "layer.pth", "--out", at_once)
        assert done.code == 0, done.err
        assert "of 12 dimensions" in done.out
        first, second = open_store(apart), open_store(at_once)
        assert first.dims == second.dims == 12
        assert first.origin() == second.origin()
        for one, other in zip(first.shards, second.shards, strict=True):
            assert one.sha256 == other.sha256
    # It is another store: the same command without the layer does not take it for its own.
    done = ilias(*common, "--out", at_once)
    assert done.code == 2
    assert "adaptation" in done.err


def test_a_layer_of_other_dimensions_stops_before_anything_is_described(
    root: Path, tmp_path: Path, ilias: Ilias
) -> None:
    write_linear_map(linear(inputs=100), tmp_path / "layer.pth")
    done = ilias(
        "extract", root, *MODEL, "--partition", "positives", "--adapt", tmp_path / "layer.pth", "--out", tmp_path / "s"
    )
    assert done.code == 2
    assert "takes 100 dimensions, these descriptors have 512" in done.err
    assert not (tmp_path / "s").exists()


def test_a_layer_of_another_model_is_refused(root: Path, tmp_path: Path, ilias: Ilias) -> None:
    learn = ("adapt", "train", "--labels", root / "train", "--batch-size", 8, "--dim", 16)
    assert ilias("extract", root, "--partition", "train", *MODEL, "--out", tmp_path / "train").code == 0
    assert ilias(*learn[:2], tmp_path / "train", *learn[2:], "--out", tmp_path / "layer").code == 0
    other = [*MODEL[:3], 1, *MODEL[4:]]  # other random weights
    for layer in (tmp_path / "layer", tmp_path / "layer" / "layer.pth"):
        done = ilias("extract", root, *other, "--partition", "positives", "--adapt", layer, "--out", tmp_path / "s")
        assert done.code == 2
        assert "learned from descriptors of another model" in done.err
        assert "weights" in done.err
    larger = [*MODEL[:4], "--resolution", 96, "--workers", 1]
    done = ilias("extract", root, *larger, "--partition", "positives", "--adapt", layer, "--out", tmp_path / "s")
    assert done.code == 0
    assert "learned with another protocol: resolution: 64 -> 96" in done.err
    assert read_layer(layer, [{}]).digest == read_adaptation(tmp_path / "layer").layer.digest


# --- experiments ---


def experiment_file(root: Path, folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(
        f"benchmark: {root}\nmodel: resnet10t\nrandom_weights: 0\nprotocol: {{resolution: 64}}\nout: runs\n"
        "adapt: {train: " + str(root) + ", dim: 16, batch_size: 8, held_out: 0}\n" + text
    )
    return path


def test_an_adapted_run_and_its_tables(root: Path, tmp_path: Path, ilias: Ilias) -> None:
    path = experiment_file(root, tmp_path, "table: D\nmatrix: {adapt.method: [none, pcaw, ujcds]}\n")
    done = ilias("run", path, "--workers", 1, "--json", tmp_path / "out.json")
    assert done.code == 0, done.err
    runs = tmp_path / "runs"
    # All runs of one model share its descriptors, each has its own layer.
    assert sorted(folder.name for folder in (runs / "stores").iterdir() if folder.name != "tar_index") == [
        "distractors", "image_queries", "positives", "train",
    ]  # fmt: skip
    assert not (runs / "adapt.method=ujcds" / "positives").exists()
    result = json.loads((tmp_path / "out.json").read_text())
    assert [row[0] for row in result["table"]["rows"]] == ["no adaptation", "PCAw", "UJCDS"]
    values = {row[0]: float(row[1]) for row in result["table"]["rows"]}
    assert values["UJCDS"] != values["no adaptation"]
    assert "Table D" in (runs / "study.md").read_text()
    manifest = json.loads((runs / "adapt.method=ujcds" / "run.json").read_text())
    learned = read_adaptation(runs / "adapt.method=ujcds" / "adaptation")
    assert manifest["made_from"]["adaptation"] == learned.layer.digest
    # The same by hand.
    stores = runs / "stores"
    layer = runs / "adapt.method=ujcds" / "adaptation"
    by_hand = ["search", "--queries", stores / "image_queries", "--database", stores / "positives"]
    by_hand += ["--database", stores / "distractors", "--adapt", layer, "--out", tmp_path / "ranking"]
    assert ilias(*by_hand).code == 0
    file = "ranking.parquet"
    assert (tmp_path / "ranking" / file).read_bytes() == (runs / "adapt.method=ujcds" / "ranking" / file).read_bytes()
    page = (runs / "adapt.method=ujcds" / "report" / "index.html").read_text()
    assert "linear adaptation" in page
    # Of `adapt` only the fields named are changed.
    single = experiment_file(root, tmp_path, "")
    done = ilias("run", single, "--workers", 1, "--set", "adapt={batch_size: 128}")
    assert done.code == 2
    assert "images are fewer than a batch of 128" in done.err


def test_a_file_as_adaptation(root: Path, tmp_path: Path, ilias: Ilias) -> None:
    write_linear_map(linear(), tmp_path / "layer.pth")
    path = tmp_path / "experiment.yaml"
    path.write_text(
        f"benchmark: {root}\nmodel: resnet10t\nrandom_weights: 0\nprotocol: {{resolution: 64}}\nout: run\n"
        "adapt: {file: layer.pth}\n"
    )
    done = ilias("run", path, "--workers", 1)
    assert done.code == 0, done.err
    made = json.loads((tmp_path / "run" / "ranking" / "ranking.json").read_text())
    assert made["made_from"]["origin"]["adaptation"]["sha256"] == linear().digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adapt: {}", "give a file, or train"),
        ("adapt: {file: a, dim: 3}", "nothing else can be said of it"),
        ("adapt: {method: none, images: a}", "images is the folder"),
        ("adapt: {train: a, scale: .inf}", "adapt.scale"),
        ("adapt: {train: a, margin: arcface, margin_size: 2}", "margin_size"),
        ("adapt: {train: a, margin_size: 0.3}", "give margin too"),
        ("adapt: {train: a, margin: cosface, margin_size: 0}", "margin_size"),
        ("adapt: {train: a, domains: []}", "names no domain"),
        ("adapt: {train: a, dims: 3}", "adapt.dims"),
        ("adapt: {train: a, dim: 0}", "adapt.dim"),
    ],
)
def test_wrong_steps_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(f"benchmark: b\nmodel: m\nout: o\n{text}\n")
    with pytest.raises(OpenIliasError, match=message):
        read_experiment(path)


# --- the studies of the paper ---


def ready(name: str, tmp_path: Path) -> list[Experiment]:
    places = {"benchmark": str(tmp_path), "out": str(tmp_path / "runs"), "adapt.train": "uned.txt"}
    return read_experiment(Path(f"ready:{name}"), places)


def test_the_models_of_the_tables_are_those_of_table_g() -> None:
    rows = {}
    for row in published.image_rows():
        record = find_record(row.checkpoint)
        assert record is not None
        rows[record.name] = row
    for table in (published.methods(), published.domains()):
        for cell in table:
            if cell.setting == "none":
                assert cell.value == rows[cell.model].map_100m
            if cell.setting in ("ujcds", "all"):
                assert cell.value == rows[cell.model].map_100m_adapted
    assert len(published.methods()) == 12
    assert len(published.domains()) == 18
    assert len(published.resolutions()) == 48


def test_table_d(tmp_path: Path) -> None:
    runs = ready("adaptation-methods", tmp_path)
    assert len(runs) == 12
    assert {run.stores for run in runs} == {tmp_path / "runs" / "stores" / f"model={run.model}" for run in runs}
    assert all(run.adapt and run.adapt.train == Path("uned.txt").resolve() for run in runs)
    study = study_of(runs, [number / 100 for number in range(12)])
    assert study is not None
    assert study.header[:3] == ["adaptation", "dinov2_vitl14", "paper"]
    assert study.rows[0] == ["no adaptation", "0.0", "15.3", "4.0", "9.6", "8.0", "19.6"]
    assert study.rows[3] == ["UJCDS", "3.0", "15.3", "7.0", "18.3", "11.0", "28.9"]


def test_table_e(tmp_path: Path) -> None:
    runs = ready("adaptation-domains", tmp_path)
    assert len({run.out for run in runs}) == len(runs) == 18
    study = study_of(runs, [number / 100 for number in range(18)])
    assert study is not None
    assert [row[0] for row in study.rows] == ["no adaptation", "gldv2", "food2k", "met", "inat", "all"]
    assert study.rows[3] == ["met", "3.0", "14.7", "9.0", "5.1", "15.0", "7.6"]


def test_dimensions_and_seeds(tmp_path: Path) -> None:
    runs = ready("adaptation-dimensions", tmp_path)
    study = study_of(runs, [0.25] * len(runs))
    assert study is not None
    assert study.header == ["model", "32", "64", "128", "256", "512", "768"]
    assert len(study.rows) == 5
    runs = ready("adaptation-seeds", tmp_path)
    study = study_of(runs, [0.1, 0.2, 0.3] * 5)
    assert study is not None
    assert study.rows[0] == ["dinov2_vitl14", "10.0", "20.0", "30.0", "20.0", "10.00"]
    assert "at most 0.2" in study.title
    with pytest.raises(OpenIliasError, match="Two runs belong into one place"):
        study_of(runs[:1] * 2, [0.1, 0.2])


def test_a_changed_matrix_replaces_that_of_the_file(tmp_path: Path) -> None:
    places = {"benchmark": str(tmp_path), "out": str(tmp_path / "runs"), "adapt": {"train": "uned.txt", "dim": 64}}
    changes = {**places, "matrix": {"adapt.seed": [3, 4]}, "model": "resnet18"}
    runs = read_experiment(Path("ready:adaptation-seeds"), changes)
    assert [run.adapt.seed for run in runs if run.adapt] == [3, 4]
    assert {run.adapt.train for run in runs if run.adapt} == {Path("uned.txt").resolve()}
    assert {run.stores for run in runs} == {tmp_path / "runs" / "stores"}
    with pytest.raises(OpenIliasError, match="Two runs of the matrix have the same values"):
        read_experiment(Path("ready:adaptation-seeds"), changes | {"matrix": {"adapt.seed": [3, 3]}})


def test_ready_files_ask_for_the_training_set(tmp_path: Path) -> None:
    with pytest.raises(OpenIliasError, match=r"leaves open: adapt\.train"):
        read_experiment(Path("ready:adaptation-seeds"), {"benchmark": str(tmp_path), "out": str(tmp_path)})
