"""Every command, file and program of the README is run, in order, in one folder."""

from __future__ import annotations

import bz2
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raw_material import metadata_line

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOT_HERE = ("make demo", "pip install", "ilias demo")
"""Installation, which this test is itself an outcome of, and the demo, which has a test of its own."""


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_readme_runs(ilias: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Without worker processes, which take longer to start than this little work does; they have tests of their own.
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    lines = [metadata_line(number, str(10_000 + number), f"{number:08x}")[0] for number in range(20)]
    Path("yfcc100m_dataset.bz2").write_bytes(bz2.compress(b"\n".join(lines)))
    ran = 0
    for language, text in blocks():
        if language == "yaml":
            Path(text.split("\n", 1)[0].removeprefix("# ")).write_text(text)
        elif language == "python" and text.startswith("# own.py"):
            Path("own.py").write_text(text)
        elif language == "python":
            done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert "mAP@1000: " in done.stdout or text.startswith("# tiny_dino.py")
            ran += 1
        elif language == "bash":
            for line in text.strip().splitlines():
                if line.startswith(NOT_HERE):
                    continue
                command, *arguments = line.split()
                assert command == "ilias", line
                outcome = ilias(*arguments)
                assert outcome.code == 0, f"{line}\n{outcome.err}"
                ran += 1
    assert ran >= 32
    for page in ("runs/resnet/report", "runs/sift/report", "by-hand/report"):
        assert (tmp_path / page / "index.html").exists()


def test_links_and_pictures_exist() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert (ROOT / target).exists(), f"{page}: {target}"


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"^make (\w+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("demo", "test", "lint", "typecheck", "bench"):
        assert f"make {target}" in done.stdout
