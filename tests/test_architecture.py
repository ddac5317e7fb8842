"""The rooms of the house: who may import whom, and that nothing heavy loads before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import openilias

SOURCE = Path(openilias.__file__).parent
WAY = "core images data models descriptors adapt search rerank evaluate report experiments cli".split()
ALLOWED = {room: set(WAY[:place]) for place, room in enumerate(WAY)}
ALLOWED["build"] = set(WAY[: WAY.index("search") + 1])
ALLOWED["published"] = set()
ALLOWED["serve"] = set(WAY[: WAY.index("experiments")])
ALLOWED["report"] |= {"published"}
ALLOWED["experiments"] |= {"build", "published"}
ALLOWED["cli"] |= {"build", "published", "serve"}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("openilias.")}
    return rooms - {"__version__"}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_imports_go_one_way(room: str) -> None:
    files = sorted((SOURCE / room).rglob("*.py"))
    assert files, f"the room {room} is missing"
    for path in files:
        forbidden = imported_rooms(path) - ALLOWED[room] - {room}
        assert not forbidden, f"{path.relative_to(SOURCE)} imports {forbidden}"


def test_every_room_is_known() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert rooms == set(ALLOWED)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['ilias', '--help']\n"
        "from openilias.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as exit_:\n    assert not exit_.code\n"
        "heavy = {'torch', 'timm', 'cv2', 'numpy', 'pyarrow', 'sklearn', 'PIL', 'jinja2', 'h5py', 'matplotlib',\n"
        "         'open_clip', 'transformers', 'torchvision', 'loky'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_is_too_long() -> None:
    long = [path for path in SOURCE.rglob("*.py") if len(path.read_text(encoding="utf-8").splitlines()) > 400]
    assert not long
