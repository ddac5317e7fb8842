"""The command line: what it prints and writes, and that wrong input ends with a message, code 2, nothing left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import openilias
from openilias.evaluate.results import read_evaluation

Ilias = Callable[..., object]
COMMANDS = [
    "demo", "run", "extract", "search", "merge", "adapt apply", "adapt train", "evaluate", "report",
    "models list", "models show", "models check", "models fit", "build synth", "build sheet",
    "data verify", "data write", "data stats", "data inspect",
    "data convert", "data compare", "data download",
    "build ingest", "build collect", "build clutter", "build mini", "build publish", "build verify-published",
    "build taxonomy validate", "build taxonomy counts", "build taxonomy show", "build taxonomy edit export",
    "build taxonomy edit import", "build taxonomy edit assign", "build taxonomy edit rename",
    "build taxonomy edit merge", "build taxonomy edit remove",
    "build anonymise find", "build anonymise review", "build anonymise apply", "build anonymise undo",
    "build caption estimate", "build caption ask", "build caption review", "build caption take", "build caption apply",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(ilias: Ilias, command: str) -> None:
    outcome = ilias(*command.split(), "--help")
    assert outcome.code == 0
    assert f"Example: ilias {command.split()[0]}" in " ".join(outcome.out.split())


def test_version(ilias: Ilias) -> None:
    assert ilias("--version").out.strip() == f"openilias {openilias.__version__}"


def test_the_way_by_hand(ilias: Ilias, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit = ["--words", 8, "--dims", 9, "--resolution", 160, "--seed", 1, "--json", "fit.json"]
    assert ilias("models", "fit", "sift_vlad", "--benchmark", tiny_root, "--out", "m.safetensors", *fit).code == 0
    assert json.loads(Path("fit.json").read_text())["dims"] == 9
    for partition in ("image_queries", "positives", "distractors"):
        options = ["--model", "sift_vlad", "--weights", "m.safetensors", "--partition", partition]
        outcome = ilias("extract", tiny_root, *options, "--out", f"s/{partition}", "--json", "x.json")
        assert outcome.code == 0, outcome.err
        assert json.loads(Path("x.json").read_text())["dims"] == 9
    stores = ["--queries", "s/image_queries", "--database", "s/positives", "--database", "s/distractors"]
    assert ilias("search", *stores, "-k", 15, "--out", "s/ranking", "--json", "x.json").code == 0
    assert json.loads(Path("x.json").read_text())["depth"] == 15
    outcome = ilias(
        "evaluate", "s/ranking", "--benchmark", tiny_root, "--out", "s/evaluation", "--json", "e.json",
        "--export-json", "sims.json", "--export-pickle", "sims.pkl",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "mAP@15" in outcome.out
    whole = json.loads(Path("e.json").read_text())
    assert whole["map"] == read_evaluation(Path("s/evaluation"))[0].map
    for file in ("sims.json", "sims.pkl"):
        assert ilias("evaluate", file, "--benchmark", tiny_root, "-k", 15, "--json", "o.json").code == 0
        other = json.loads(Path("o.json").read_text())
        assert other["map"] == whole["map"]
        assert other["coverage"] == whole["coverage"]
    outcome = ilias("evaluate", "sims.json", "--benchmark", tiny_root, "--compat", "official", "--json", "o.json")
    assert json.loads(Path("o.json").read_text())["oracle"] > whole["oracle"]
    outcome = ilias("report", "s", "--benchmark", tiny_root, "--out", "page", "--json", "x.json")
    assert outcome.code == 0, outcome.err
    assert Path("page/index.html").exists()


def test_part_of_the_queries(ilias: Ilias, tiny_root: Path, tmp_path: Path) -> None:
    ids = sorted(path.name for path in (tiny_root / "ilias_core").iterdir())
    query = next((tiny_root / "ilias_core" / ids[0] / "query").glob("Q*.jpg")).name
    path = tmp_path / "s.json"
    path.write_text(json.dumps({f"{ids[0]}/query/{query}": {}}))
    outcome = ilias("evaluate", path, "--benchmark", tiny_root)
    assert outcome.code == 2
    assert "--allow-missing" in outcome.err
    outcome = ilias("evaluate", path, "--benchmark", tiny_root, "--allow-missing")
    assert outcome.code == 0
    assert "counted as zero" in outcome.out


def test_models(ilias: Ilias, tmp_path: Path) -> None:
    outcome = ilias("models", "list", "--json", tmp_path / "m.json")
    names = [record["name"] for record in json.loads((tmp_path / "m.json").read_text())["models"]]
    assert "sift_vlad" in names
    assert all(name in outcome.out for name in names)
    outcome = ilias("models", "show", "resnet18.a1_in1k", "--json", tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text())["architecture"] == "resnet18.a1_in1k"
    assert "test_resolution" in outcome.out
    check = ["models", "check", "resnet18", "--random-weights", 0, "--resolution", 64]
    outcome = ilias(*check, "--json", tmp_path / "m.json")
    assert outcome.code == 0
    assert json.loads((tmp_path / "m.json").read_text())["passed"] is True
    outcome = ilias("models", "check", "mixer_s32_224", "--random-weights", 0, "--resolution", 224)
    assert outcome.code == 2
    assert "FAILED" in outcome.out


def test_synth(ilias: Ilias, tmp_path: Path) -> None:
    options = ["--objects", 2, "--distractors", 3, "--size", 96, "--workers", 1, "--json", tmp_path / "s.json"]
    assert ilias("build", "synth", "--out", tmp_path / "b", *options).code == 0
    assert json.loads((tmp_path / "s.json").read_text())["distractors"] == 3


@pytest.fixture
def world(tiny_root: Path, tmp_path: Path) -> dict[str, str]:
    """Names of good and bad things, for the table of wrong input."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_bytes(b"precious")
    (tmp_path / "junk").write_bytes(b"junk")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    (tmp_path / "bad.yaml").write_text("benchmark: x\ncolour: red\n")
    (tmp_path / "gone.yaml").write_text("benchmark: nowhere\nmodel: resnet18\nrandom_weights: 0\nout: new\n")
    (tmp_path / "unknown.yaml").write_text(f"benchmark: {tiny_root}\nmodel: nonsense\nout: new\n")
    (tmp_path / "offline.yaml").write_text(f"benchmark: {tiny_root}\nmodel: resnet18\nout: new\n")
    (tmp_path / "text.yaml").write_text(
        f"benchmark: {tiny_root}\nmodel: resnet18\nrandom_weights: 0\nqueries: text\nout: new\n"
    )
    (tmp_path / "bad.json").write_text('{"nobody/query/Q.jpg": {"x.tar/y": 1}}')
    names = ("empty", "full", "junk", "new", "none", "junk.safetensors", "bad.yaml", "gone.yaml", "unknown.yaml")
    names += ("offline.yaml", "text.yaml", "bad.json")
    return {name.replace(".", "_"): str(tmp_path / name) for name in names} | {"tiny": str(tiny_root)}


R18 = "--model resnet18 --random-weights 0"
WRONG = {
    "extract {none} " + R18 + " --partition positives --out {new}": "no such benchmark",
    "extract {empty} " + R18 + " --partition positives --out {new}": "not a benchmark",
    "extract {tiny} " + R18 + " --partition nothing --out {new}": "--partition",
    "extract {tiny} " + R18 + " --partition text_queries --out {new}": "no text tower",
    "extract {tiny} " + R18 + " --partition positives --out {full}": "holds no descriptor store",
    "extract {tiny} " + R18 + " --partition positives --out {junk}": "is a file",
    "extract {tiny} " + R18 + " --partition positives --out {new} --dtype float8": "float8",
    "extract {tiny} " + R18 + " --partition positives --out {new} --resolution 0": "--resolution",
    "extract {tiny} " + R18 + " --partition positives --out {new} --pooling cls": "no class token",
    "extract {tiny} " + R18 + " --partition positives --out {new} --device tpu": "no device",
    "extract {tiny} " + R18 + " --partition positives --out {new} --batch-size 0": "--batch-size",
    "extract {tiny} " + R18 + " --weights {junk} --partition positives --out {new}": "Both",
    "extract {tiny} --model resnet18 --weights {none} --partition positives --out {new}": "no such weights",
    "extract {tiny} --model resnet18 --weights {junk_safetensors} --partition positives --out {new}": "cannot be read",
    "extract {tiny} --model resnet18 --partition positives --out {new}": "could not be loaded",
    "extract {tiny} --model nonsense --partition positives --out {new}": "no model",
    "extract {tiny} --model sift_vlad --partition positives --out {new}": "fitted first",
    "extract {tiny} --model sift_vlad --weights {junk} --partition positives --out {new}": "cannot be read",
    "extract {tiny} --model mixer_s32_224 --random-weights 0 --partition positives --out {new}": "square",
    "search --queries {none} --database {none} --out {new}": "no descriptor store here",
    "search --queries {full} --database {full} --out {new}": "not a descriptor store",
    "search --queries {full} --out {new}": "--database",
    "search --queries {full} --database {full} --out {new} -k 0": "-k",
    "evaluate {none} --benchmark {tiny} --out {new}": "does not exist",
    "evaluate {empty} --benchmark {tiny} --out {new}": "not a ranking",
    "evaluate {bad_json} --benchmark {tiny} --out {new}": "not of this benchmark",
    "evaluate {bad_json} --benchmark {none} --out {new}": "no such benchmark",
    "evaluate {junk} --benchmark {tiny} --out {new}": "not readable JSON",
    "report {none} --out {new}": "no run with an evaluation",
    "report {empty} --out {new}": "no run with an evaluation",
    "run {none}": "cannot be read",
    "run {bad_yaml}": "Extra inputs",
    "run {gone_yaml}": "no such benchmark",
    "run {unknown_yaml}": "no model",
    "run {offline_yaml}": "could not be loaded",
    "run {text_yaml}": "no text tower",
    "demo --out {full}/photo.jpg": "photo.jpg",
    "demo --out {new} --objects 0": "--objects",
    "models show nonsense": "no model",
    "models check nonsense --random-weights 0": "no model",
    "models check sift_vlad": "fitted first",
    "models check resnet18 --weights {junk}": "cannot be read",
    "models fit resnet18 --benchmark {tiny} --out {new}": "not a model that is fitted",
    "models fit sift_vlad --benchmark {none} --out {new}": "no such benchmark",
    "models fit sift_vlad --benchmark {tiny} --out {junk}": "cannot be read",
    "models fit sift_vlad --benchmark {tiny} --out {new} --words 1": "--words",
    "models fit sift_vlad --benchmark {tiny} --out {new} --resolution 32 --words 4096": "too few",
    "models fit sift_vlad --benchmark {tiny} --partition text_queries --out {new}": "not on texts",
    "build synth --out {full}": "holds no synthetic",
    "build synth --out {new} --objects 0": "--objects",
    "build synth --out {new} --size 1": "--size",
    "models fit sift_vlad --benchmark {tiny} --out {full}": "is a folder",
    "models fit sift_vlad --benchmark {tiny} --out {new} --words 5000": "words: Input should be less",
    "models fit sift_vlad --benchmark {tiny} --out {new} --seed 5000000000": "seed: Input should be less",
    "build synth --out {new} --size 5000": "size: Input should be less",
    "build synth --out {new} --distractors 20000000": "distractors: Input should be less",
    "extract {tiny} "
    + R18
    + " --partition positives --out {new} --resolution 30000": "resolution: Input should be less",
    "extract {tiny} " + R18 + " --partition positives --out {new} --json {full}": "--json",
    "evaluate {bad_json} --benchmark {tiny} -k 99999999999999999999": "-k",
    "nonsense": "nonsense",
}


@pytest.mark.parametrize(("line", "message"), WRONG.items())
def test_wrong_input(ilias: Ilias, world: dict[str, str], tmp_path: Path, line: str, message: str) -> None:
    import re

    before = {path: path.read_bytes() if path.is_file() else b"" for path in tmp_path.rglob("*")}
    outcome = ilias(*line.format_map(world).split())
    assert outcome.code == 2, outcome.out + outcome.err
    said = " ".join(re.sub("[│╭╮╰╯─]", " ", outcome.err).split())
    assert re.search(message, said), said
    assert "Traceback" not in outcome.err
    after = {path: path.read_bytes() if path.is_file() else b"" for path in tmp_path.rglob("*")}
    assert after == before


def test_overwrite_is_needed_and_works(ilias: Ilias, tiny_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    command = ["extract", tiny_root, *R18.split(), "--partition", "positives", "--out", out, "--resolution"]
    assert ilias(*command, 64).code == 0
    outcome = ilias(*command, 80)
    assert outcome.code == 2
    assert "64 -> 80" in outcome.err
    assert ilias(*command, 80, "--overwrite").code == 0
    assert ilias(*command, 80).code == 0


def test_skip_unreadable_is_said(ilias: Ilias, tiny_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_root, tmp_path / "copy"))
    bad = next(root.glob("ilias_core/*/pos/*.jpg"))
    bad.write_bytes(b"broken")
    command = ["extract", root, *R18.split(), "--resolution", 64, "--partition", "positives", "--out", tmp_path / "s"]
    outcome = ilias(*command)
    assert outcome.code == 2
    assert "--skip-unreadable" in outcome.err
    outcome = ilias(*command, "--skip-unreadable")
    assert outcome.code == 0
    assert f"skipped {bad.relative_to(root / 'ilias_core').as_posix()}" in outcome.out


def test_a_full_disk_is_a_message(ilias: Ilias, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("openilias.build.generated.synth.build_synth", full)
    outcome = ilias("build", "synth", "--out", tmp_path / "b")
    assert outcome.code == 2
    assert "No space left on device" in outcome.err
    assert "somewhere" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give the name of one model, or --all"),
        (("resnet18", "--all"), "Give the name of one model, or --all"),
        (("--all", "--family", "hier", "--resolution", "7"), "by its own protocol"),
        (("--all", "--family", "hier", "--scales", "x,y"), "by its own protocol"),
        (("--all", "--family", "nothing"), "No family has 'nothing'"),
        (("resnet18", "--family", "x"), "--family belongs to --all"),
        (("resnet18", "--random-weights", "0", "--tokenizer", "."), "no text tower"),
        (("sift_vlad", "--tokenizer", "."), "takes no tokenizer"),
    ],
)
def test_checks_refuse_what_they_would_not_do(ilias: Ilias, arguments: tuple[str, ...], message: str) -> None:
    done = ilias("models", "check", *arguments)
    assert done.code == 2
    assert message in done.err


def test_the_zoo_is_listed_by_what_one_can_afford(ilias: Ilias, tmp_path: Path) -> None:
    chosen = ("models", "list", "--t2i", "--max-params", "100", "--sort", "gflops", "--json", tmp_path / "zoo.json")
    assert ilias(*chosen).code == 0
    models = json.loads((tmp_path / "zoo.json").read_text())["models"]
    assert len(models) > 10
    assert all(model["text_parameters"] and model["parameters"] <= 100e6 for model in models)
    assert [model["gflops"] for model in models] == sorted(model["gflops"] for model in models)
    done = ilias("models", "show", "convnext_base_clip_laion2b.augreg")  # the paper's name
    assert "convnext_base.clip_laion2b_augreg" in done.out
    assert ilias("models", "check", "--all", "--family", "mobilenetv2").code == 0
