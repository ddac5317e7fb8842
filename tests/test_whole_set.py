"""A whole small ILIAS from raw material: fetched, collected, annotated, captioned, selected, published, evaluated."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Outcome
from fake_endpoint import FakeEndpoint, breaks_off, says
from faulty_server import FaultyServer
from openilias.build.conformity import conforms
from openilias.build.stored import STORED, read_rows
from openilias.data import read_ilias
from openilias.images.tars import TarReader
from raw_material import FLICKR, S3, Raw, make_raw

Ilias = Callable[..., Outcome]


def folder_of(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value and Path(value).is_dir() else None


def ingest_arguments(raw: Raw, server: FaultyServer, out: Path, workers: int) -> list[str]:
    places = {FLICKR: "flickr", "http://farm8.staticflickr.com": "farm", S3: "s3"}
    rewrites = [word for place, name in places.items() for word in ("--rewrite", f"{place}={server.base}/{name}")]
    return [
        "build", "ingest", str(raw.metadata), "--out", str(out), *rewrites, "--allow-host", "127.0.0.1",
        "--per-shard", "25", "--workers", str(workers), "--rate", "0", "--stall", "0.5", "--retries", "3",
        "--most-mb", "4",
    ]  # fmt: skip


def ingest(ilias: Ilias, raw: Raw, out: Path, *, workers: int, kills: int = 0) -> None:
    """Fetch the distractors; killed as often, each time a little later."""
    with FaultyServer() as server:
        server.files.update(raw.pages)
        server.faults.update({path: list(faults) for path, faults in raw.faults.items()})
        server.always.update(raw.always)
        arguments = ingest_arguments(raw, server, out, workers)
        for number in range(kills):
            enough = (number + 1) * len(raw.pages) // (4 * (kills + 1))
            process = subprocess.Popen([sys.executable, "-c", "from openilias.cli import main; main()", *arguments])
            while process.poll() is None and len(server.log) < enough:
                pass
            assert process.poll() is None
            process.kill()
            process.wait()
        done = ilias(*arguments)
        assert done.code == 0, done.err
        fine = [path for path in raw.pages if path not in raw.faults and path not in raw.always]
        assert max(len(server.gets(path)) for path in fine) <= 1 + kills


def answer_all(captions: Path) -> None:
    """Accept every draft, a word of it edited, as a person does."""
    with captions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"draft"}
    for row in rows:
        row |= {"status": "accepted", "text": row["text"].strip() + " Looked at."}
    with captions.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_set(ilias: Ilias, raw: Raw, root: Path, *, workers: int, rest: int = 1, kills: int = 0) -> Path:
    """Do everything from the raw material to the published folder; return that folder.

    ``rest`` workers do what is not ingest.
    """

    def run(*arguments: Any, code: int = 0) -> Outcome:
        done = ilias(*arguments)
        assert done.code == code, f"{arguments}\n{done.out}\n{done.err}"
        return done

    made, published = root / "set", root / "published"
    ingest(ilias, raw, made, workers=workers, kills=kills)
    run("build", "collect", raw.collector, "--out", made, "--cut-off", "none", "--licence", "CC-BY-4.0",
        "--author", "A. Collector", "--workers", rest)  # fmt: skip
    run("build", "taxonomy", "edit", "import", made, raw.taxonomy)
    run("build", "taxonomy", "validate", made)
    run("build", "anonymise", "find", made, "--workers", rest)
    run("build", "anonymise", "review", made)
    run("build", "anonymise", "apply", made, "--all-proposed")
    run("build", "clutter", made, "--workers", rest)
    with FakeEndpoint() as endpoint:
        endpoint.script = [says(429, Retry_After="0"), breaks_off, says(500)]
        run("build", "caption", "ask", made, "--endpoint", endpoint.base, "--model", "fake", "--key-env", "FAKE_KEY")
    answer_all(made / "build" / "caption" / "captions.csv")
    run("build", "caption", "apply", made)
    store = root / "described"
    model = ["--model", "vit_pe_core_tiny_patch16_384.fb", "--random-weights", 0]
    run("extract", made, *model, "--partition", "distractors", "--resolution", 64, "--out", store)
    (root / "templates.csv").write_text("template\na photo of a *.\n")
    run("build", "mini", made, "--store", store, "--random-weights", 0, "--templates", root / "templates.csv",
        "--top", 10, "--random", 1)  # fmt: skip
    run("build", "publish", made, "--out", published, "--name", "small", "--version", "1.0", "--workers", rest)
    run("build", "verify-published", published)
    return published


def fetch(ilias: Ilias, published: Path, out: Path) -> None:
    """Get the published set as anyone would."""
    with FaultyServer() as server:
        server.files.update({f"/data/{name}": data for name, data in contents(published).items()})
        arguments = ["core", "ids", "mini", "shards", "about", "--source", f"{server.base}/data", "--out", out]
        done = ilias("data", "download", *arguments)
        assert done.code == 0, done.err


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("quick_networks")
def test_a_whole_set(ilias: Ilias, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", "sk-secret")
    photographs, weights = folder_of("OPENILIAS_TEST_PHOTOS"), folder_of("OPENILIAS_TEST_WEIGHTS")
    raw = make_raw(tmp_path / "raw", photographs, objects=2, distractors=40)
    published = make_set(ilias, raw, tmp_path / "one", workers=1)
    others = make_set(ilias, raw, tmp_path / "eight", workers=8, rest=2, kills=3)
    left, right = contents(published), contents(others)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []
    assert b"sk-secret" not in b"".join(contents(tmp_path / "one").values())

    got = tmp_path / "got"
    fetch(ilias, published, got)
    assert ilias("data", "verify", got, "--out", tmp_path / "verified").code == 0
    rows = [row for path in sorted((got / "rows").glob("yfcc*")) for row in read_rows(path)]
    assert {row.id for row in rows if row.status == STORED} == raw.good
    assert all(row.licence == "Attribution License" for row in rows)
    images = list(every_image(got))
    assert len(images) == len(raw.good) + len(read_ilias(got).image_queries) + len(read_ilias(got).positives)
    assert [name for name, data in images if conforms(data)] == []

    known = (
        {"model": "mobilenetv2_100.tf_in1k", "weights": str(weights / "mobilenetv2_100_tf_in1k.safetensors")}
        if weights
        else {"model": "mobilenetv2_050.lamb_in1k", "random_weights": 0}
    )
    experiment = {"benchmark": str(got), "protocol": {"resolution": 160}, "out": str(tmp_path / "run")} | known
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(experiment))
    done = ilias("run", tmp_path / "run.yaml")
    assert done.code == 0, done.err
    assert "mAP@1000" in done.out


def every_image(root: Path) -> Iterator[tuple[str, bytes]]:
    """All stored images of a set, wherever they are."""
    for path in sorted((root / "ilias_core").rglob("*.jpg")):
        yield path.name, path.read_bytes()
    for tar in sorted((root / "yfcc100m").glob("*.tar")):
        with TarReader(tar) as reader:
            yield from reader
