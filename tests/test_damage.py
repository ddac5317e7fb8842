"""Every damage is named by the verifier, and stops the extraction or is listed by it; docs/damage.md says how."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

import openilias
from damages import DAMAGES, Copy, Damage
from fuzz import fuzz
from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.data import read_ilias
from openilias.data.selection import Selection
from openilias.data.verify import verify
from openilias.data.write import write_benchmark
from openilias.descriptors.extract import Options, extract
from openilias.models.backbone import Backbone
from openilias.models.zoo import find_model, load_model

PAGE = Path(__file__).parents[1] / "docs" / "damage.md"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_model(find_model("resnet18"), Protocol(resolution=32), random_weights=0)


@pytest.fixture(scope="module")
def photo_root(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three objects and nine distractors of the real photographs, the distractors in tars."""
    root = tmp_path_factory.mktemp("photos") / "small"
    benchmark = read_ilias(photos)
    names = sorted(benchmark.relevance)[:3]
    core = [*benchmark.image_queries, *benchmark.text_queries, *benchmark.positives]
    ids = [item for item in core if item.split("/")[0] in names]
    ids += [item.id for item in benchmark.distractor_shards[0].items()[:9]]
    write_benchmark(benchmark, root, Selection(ids=tuple(ids), pack=5), workers=1)
    return root


def try_extract(root: Path, damage: Damage, backbone: Backbone, out: Path, *, skip: bool) -> str:
    try:
        store = extract(read_ilias(root), backbone, damage.partition, out, Options(workers=1, skip_unreadable=skip))
    except OpenIliasError as error:
        return "stops" if error.where else "stops without saying where"
    return "skips" if store.skipped else "describes"


def judge(root: Path, tmp_path: Path, damage: Damage, backbone: Backbone) -> tuple[str, str]:
    copy = Copy(Path(shutil.copytree(root, tmp_path / "copy", symlinks=True)))
    damage.do(copy)
    outcome = verify(copy.root, workers=1)
    assert outcome is not None
    said = {f"{severity} {kind}" for severity, kind in outcome.kinds}
    assert damage.says in said
    assert outcome.sound == (not any(one.startswith("error") for one in said))
    finding = next(one for one in outcome.findings if f"{one.severity} {one.kind}" == damage.says)
    assert finding.where
    assert finding.what.endswith((".", "?"))
    plain = try_extract(copy.root, damage, backbone, tmp_path / "plain", skip=False)
    skipping = try_extract(copy.root, damage, backbone, tmp_path / "skipping", skip=True)
    # A first shard may be finished before a later one stops the command; without one, nothing stays.
    if plain == "stops" and not list((tmp_path / "plain").glob("*.json")):
        assert not (tmp_path / "plain").exists()
    return plain, skipping


def names() -> list[str]:
    return [damage.name for damage in DAMAGES]


@pytest.mark.parametrize("damage", DAMAGES, ids=names())
def test_damage_of_a_generated_benchmark(damage: Damage, tiny_root: Path, tmp_path: Path, backbone: Backbone) -> None:
    assert judge(tiny_root, tmp_path, damage, backbone) == (damage.extract, damage.skipping)


@pytest.mark.parametrize("damage", DAMAGES, ids=names())
def test_damage_of_photographs(damage: Damage, photo_root: Path, tmp_path: Path, backbone: Backbone) -> None:
    assert judge(photo_root, tmp_path, damage, backbone) == (damage.extract, damage.skipping)


@pytest.mark.parametrize("base", ["tiny_root", "photo_root"])
def test_undamaged_copies_are_sound(base: str, request: pytest.FixtureRequest) -> None:
    outcome = verify(request.getfixturevalue(base), workers=1)
    assert outcome is not None
    assert outcome.findings == ()


def table() -> str:
    lines = [
        "| damage | `ilias data verify` says | `ilias extract` | with `--skip-unreadable` |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {d.name} | {d.says.replace(' ', ' `')}` | {d.extract} | {d.skipping} |" for d in DAMAGES]
    return "\n".join(lines) + "\n"


def test_the_page_is_the_table_that_is_tested() -> None:
    head, _, _ = PAGE.read_text(encoding="utf-8").partition("| damage |")
    if os.environ.get("OPENILIAS_WRITE_DOCS"):
        PAGE.write_text(head + table(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == head + table()
    assert len(DAMAGES) >= 30


def test_every_kind_of_finding_has_a_damage() -> None:
    source = Path(openilias.__file__).parent
    files = [*source.glob("data/*.py"), *source.glob("images/*.py")]
    said = r'(?:"(?:error|warning|note)"|wrong\(|where), "([a-z-]+)"|wrong\("([a-z-]+)"'
    kinds = {max(found) for path in files for found in re.findall(said, path.read_text())}
    damaged = {damage.says.split()[1] for damage in DAMAGES}
    assert len(kinds) > 40
    # A process that dies is another test.
    assert kinds - damaged == {"image-crash"}


def test_a_few_seconds_of_random_damage(tiny_root: Path, tmp_path: Path) -> None:
    assert fuzz(0.1, 1, tiny_root, tmp_path / "failures") == []
