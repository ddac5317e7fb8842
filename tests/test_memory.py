"""Memory that is kept is not fetched again from the system."""

from __future__ import annotations

import ctypes
import platform
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from openilias.core.executors import ordered_map
from openilias.core.memory import _malloc, memory_kept

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc's malloc")
_PIECE, _PIECES = 40 << 20, 32  # so large that malloc itself never keeps one
_PAGES = _PIECES * _PIECE // resource.getpagesize()  # of all together


def faults(_: object = None) -> int:
    """Ask for and give back large pieces, and write to them; return the pages that the system had to give."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    library = ctypes.CDLL(None)  # NumPy asks for huge pages
    library.malloc.restype = ctypes.c_void_p
    for _ in range(_PIECES):
        piece = ctypes.c_void_p(library.malloc(_PIECE))
        ctypes.memset(piece, 1, _PIECE)
        library.free(piece)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


CODE = (
    "from test_memory import faults\nfrom openilias.core.memory import memory_kept\n"
    "first = faults()\nwith memory_kept():\n    faults()\n    kept = faults()\nprint(first, kept)\n"
)


@pytest.fixture(autouse=True)
def as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests themselves run with memory that is kept: processes that begin here do not."""
    for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)


@glibc
def test_pages_are_kept(request: pytest.FixtureRequest) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, cwd=request.path.parent
    )
    first, kept = map(int, done.stdout.split())
    assert kept < _PAGES // 20
    assert first > _PAGES // 2


@glibc
def test_workers_keep_their_pages() -> None:
    with ordered_map(2) as mapped:
        assert min(list(mapped(faults, range(6)))) < _PAGES // 20


def test_what_was_kept_is_given_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    if platform.system() != "Linux":
        pytest.skip("no /proc here")
    before = resident()
    with memory_kept():
        pieces = [np.ones(1 << 20, np.uint8) for _ in range(200)]
        del pieces
    assert resident() - before < 100 << 20


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, or with musl: nothing is called that is not there."""
    _malloc.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    try:
        assert _malloc() is None
        with memory_kept():
            pass
    finally:
        _malloc.cache_clear()
