"""A whole small ILIAS from raw material: fetched, collected, annotated, captioned, selected, published, evaluated."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_endpoint import FakeEndpoint

from conftest import Outcome
from faulty_server import FaultyServer
from raw_material import FLICKR, S3, Raw

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
            process = subprocess.Popen([sys.executable, "-m", "openilias.cli", *arguments])
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


def make_set(ilias: Ilias, raw: Raw, root: Path, *, workers: int, kills: int = 0) -> Path:
    """Do everything from the raw material to the published folder; return that folder."""

    def run(*arguments: Any, code: int = 0) -> Outcome:
        done = ilias(*arguments)
        assert done.code == code, f"{arguments}\n{done.out}\n{done.err}"
        return done

    made, published = root / "set", root / "published"
    ingest(ilias, raw, made, workers=workers, kills=kills)
    run("build", "collect", raw.collector, "--out", made, "--cut-off", "none", "--licence", "CC-BY-4.0",
        "--author", "A. Collector", "--workers", workers)  # fmt: skip
    run("build", "taxonomy", "edit", "import", made, raw.taxonomy)
    run("build", "taxonomy", "validate", made)
    run("build", "anonymise", "find", made, "--workers", workers)
    run("build", "anonymise", "review", made)
    run("build", "anonymise", "apply", made, "--all-proposed")
    run("build", "clutter", made, "--workers", workers)
    with FakeEndpoint() as endpoint:
        os.environ["FAKE_KEY"] = "sk-secret"
        run("build", "caption", "ask", made, "--endpoint", endpoint.base, "--model", "fake", "--key-env", "FAKE_KEY")
    answer_all(made / "build" / "caption" / "captions.csv")
    run("build", "caption", "apply", made)
    run("build", "publish", made, "--out", published, "--name", "small", "--version", "1.0", "--workers", workers)
    run("build", "verify-published", published)
    return published


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
