"""Fixtures: a tiny generated benchmark, the command line in process, real photographs where there are some."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

# Read when the hub library is imported: no test waits for a network.
os.environ["HF_HUB_OFFLINE"] = "1"

from openilias.build.generated.synth import SynthSettings, build_synth
from openilias.cli import main
from openilias.data import Benchmark, read_ilias

TINY = SynthSettings(objects=4, distractors=14, size=160, shard=8, positives=(2, 3))


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Processes are killed in tests, but no machine loses its power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated benchmark of 4 objects and 14 distractors in two tars; do not change it."""
    root = tmp_path_factory.mktemp("benchmarks") / "tiny"
    build_synth(root, TINY, workers=1)
    return root


@pytest.fixture
def tiny(tiny_root: Path) -> Benchmark:
    return read_ilias(tiny_root)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def ilias(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``ilias ARGUMENTS`` in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["ilias", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def kill_when(seen: Callable[[], object], code: str, *arguments: object) -> None:
    """Run Python code in a process of its own and kill it, as nothing can catch, as soon as ``seen`` says so."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)])
    deadline = time.monotonic() + 120
    while not seen() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"set {variable} to run this")
    return Path(value)


@pytest.fixture(scope="session")
def photos() -> Path:
    """Real photographs in the ILIAS layout."""
    return _folder("OPENILIAS_TEST_PHOTOS")


@pytest.fixture(scope="session")
def weights() -> Path:
    """Real pretrained backbones."""
    return _folder("OPENILIAS_TEST_WEIGHTS")


@cache
def deck() -> Any:
    """Numbers of a normal distribution; so many that no row of a matrix is another one."""
    import torch

    return torch.randn(1_000_003, generator=torch.Generator().manual_seed(2))


def dealt(value: Any, deviation: float) -> Any:
    """Fill a tensor with numbers of the deck, over and over."""
    import torch

    with torch.no_grad():
        for part in () if value.is_meta else value.view(-1).split(len(deck())):
            torch.mul(deck()[: len(part)], deviation, out=part)
    return value


@pytest.fixture
def quick_networks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Networks with numbers that are dealt: drawing them, and their digest, takes longer than what most tests do.

    Tests that are marked ``drawn`` have networks as users have them.
    """
    from torch.nn import init

    if request.node.get_closest_marker("drawn"):
        return

    monkeypatch.setattr("openilias.models.network.digest_state", lambda state: "none")
    monkeypatch.setattr("timm.layers.weight_init._trunc_normal_", lambda x, mean, std, a, b: dealt(x, std))
    monkeypatch.setattr(init, "trunc_normal_", lambda x, mean=0.0, std=1.0, **_: dealt(x, std))
    monkeypatch.setattr(init, "kaiming_uniform_", lambda x, *_, **__: dealt(x, (3 * x[0].numel()) ** -0.5))


LONG = ("families", "photos", "exact", "pipeline", "twins", "readme", "damage", "texts", "synth", "gpu", "rerank_runs")
"""Files of tests that take longest: they begin first, so that no process is left alone with one of them at the end."""


def pytest_collection_finish() -> None:
    """What is imported by now stays: collecting garbage need not look at it again (0.4 s each time)."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries look for what leaks at the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))
