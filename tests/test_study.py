"""Ready experiment files, changes from the command line, and the table of the resolution study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openilias.core.errors import OpenIliasError
from openilias.experiments.experiment import read_experiment, ready_experiments
from openilias.experiments.study import study_of
from openilias.models.record import find_record, records
from openilias.models.zoo import find_model

Ilias = Callable[..., Any]


def resolution_study(tmp_path: Path, **changes: Any) -> list[Any]:
    places = {"benchmark": str(tmp_path), "out": str(tmp_path / "runs")}
    return read_experiment(Path("ready:resolution"), places | changes)


def test_the_resolution_study_is_that_of_the_paper(tmp_path: Path) -> None:
    runs = resolution_study(tmp_path)
    assert len(runs) == 12 * 4
    models = list(dict.fromkeys(run.model for run in runs))
    assert all(find_record(model) is not None for model in models)
    families = [records()[model].family for model in models]
    table_c = ["EVA-CLIP", "MetaCLIP", "OpenCLIP", "DINOv2", "SigLIP", "SigLIP"]
    assert families == table_c * 2
    assert [find_model(model).train_resolution for model in models] == [
        224, 224, 256, 518, 224, 512, 336, 224, 320, 518, 256, 384,
    ]  # fmt: skip
    # Underlined in the paper: the resolution that the rule chooses.
    assert [find_model(model).test_resolution for model in models] == [
        384, 384, 384, 724, 384, 724, 512, 384, 512, 724, 384, 512,
    ]  # fmt: skip


def test_the_rule_gives_every_test_resolution_of_the_paper() -> None:
    from openilias.published import image_rows, text_rows

    for row in (*image_rows(), *text_rows()):
        record = find_record(row.checkpoint)
        assert record is not None, row.checkpoint
        assert record.model.test_resolution == row.test_resolution, row.checkpoint
        assert record.model.test is None or record.name in ("unic_l", "sift_vlad")


def test_every_ready_file_is_valid(tmp_path: Path) -> None:
    assert "resolution" in ready_experiments()
    for name in ready_experiments():
        changes = {"benchmark": str(tmp_path), "out": str(tmp_path / "runs"), "adapt.train": "uned.txt"}
        if name == "resolution":
            del changes["adapt.train"]
        if name.startswith("reranking"):
            changes["rerank.network"] = "ames.pt"
        runs = read_experiment(Path(f"ready:{name}"), changes)
        assert all(find_record(run.model) is not None for run in runs)
        assert study_of(runs, [0.5] * len(runs))


def test_a_ready_file_leaves_the_benchmark_to_the_user() -> None:
    with pytest.raises(OpenIliasError, match="leaves open: benchmark, out"):
        read_experiment(Path("ready:resolution"))
    with pytest.raises(OpenIliasError, match="no ready experiment 'ready:nothing'"):
        read_experiment(Path("ready:nothing"), {"benchmark": "/x", "out": "/y"})


def test_the_table_marks_the_resolution_of_the_rule(tmp_path: Path) -> None:
    runs = resolution_study(tmp_path)
    study = study_of(runs, [number / 100 for number in range(48)])
    assert study is not None
    assert study.header[:6] == ["model", "train px", "224 px", "paper", "384 px", "paper"]
    name = "eva02_base_patch16_clip_224.merged2b"
    assert study.rows[0] == [name, "224", "0.0", "5.0", "1.0*", "7.7", "2.0", "5.8", "3.0", "3.1"]
    assert study.rows[3] == ["dinov2_vitb14", "518", "12.0", "6.4", "13.0", "12.2", "14.0", "14.0", "15.0*", "14.3"]
    assert study_of(runs[:1], [0.1]) is None
    assert study_of([*runs[:4], *runs[:4]], [0.1] * 8) is None  # something else differs too


def test_a_study_from_the_command_line(tiny_root: Path, tmp_path: Path, ilias: Ilias) -> None:
    changes = [
        "--set",
        "matrix={model: [resnet18, resnet10t], protocol.resolution: [64, 96]}",
        "--set",
        "random_weights=0",
    ]
    out = ["--benchmark", tiny_root, "--out", tmp_path / "runs"]
    done = ilias("run", "ready:resolution", *out, *changes)
    assert done.code == 0, done.err
    assert "resnet10t" in done.out
    assert "64 px" in done.out
    assert len(list((tmp_path / "runs").glob("model=*"))) == 4
    assert "resnet10t" in (tmp_path / "runs" / "study.md").read_text()
    for wrong in ("protocol.k", "=3", "a={"):
        done = ilias("run", "ready:resolution", *out, "--set", wrong)
        assert done.code == 2
        assert "FIELD=VALUE" in done.err
    done = ilias("run", "ready:resolution", *out, "--set", "protocol.q=3")
    assert done.code == 2
    assert "protocol.q" in done.err
