"""Linear adaptation: against a plain twin, byte by byte over all cuts, files both ways, stores that are killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from threadpoolctl import threadpool_limits

from conftest import kill_when
from openilias.adapt.apply import adapt_share, adapt_store, adapted_blocks, adapted_origin
from openilias.adapt.files import read_linear_map, write_linear_map
from openilias.adapt.linear import TILE_ROWS, LinearMap, adapt
from openilias.core.errors import OpenIliasError
from openilias.core.files import owned
from openilias.core.manifests import write_manifest
from openilias.core.shards import Share
from openilias.descriptors import store as stores
from openilias.descriptors.convert import convert
from openilias.descriptors.store import KIND, DescriptorStore, Skipped, open_store, write_shard

Ilias = Callable[..., object]
DIMS, OUT = 24, 17
SIZES = [0, 1, 5000, 2 * TILE_ROWS, 300]


def linear_map(seed: int = 0, inputs: int = DIMS, outputs: int = OUT) -> LinearMap:
    rng = np.random.default_rng(seed)
    return LinearMap(
        rng.standard_normal((outputs, inputs)).astype(np.float32), rng.standard_normal(outputs).astype(np.float32)
    )


def unit(rows: int, seed: int = 0, dtype: str = "float16", dims: int = DIMS) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, dims))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(dtype)


def twin(linear: LinearMap, x: np.ndarray) -> np.ndarray:
    """One row after the other, in float64."""
    rows = [linear.weight.astype(np.float64) @ row.astype(np.float64) + linear.bias for row in x]
    return np.array([row / np.sqrt((row**2).sum()) for row in rows]).reshape(len(x), linear.outputs)


def make_store(folder: Path, sizes: list[int] = SIZES, dtype: str = "float16", seed: int = 0) -> DescriptorStore:
    folder.mkdir(parents=True)
    made_from = {"model": {"name": "m"}, "benchmark": "b", "partition": "distractors", "contents": "c"}
    sources = [f"t{number:04d}.tar" for number in range(len(sizes))]
    write_manifest(
        folder / "manifest.json", kind=KIND, made_from=made_from, dims=DIMS, weights_from="hub", sources=sources
    )
    for number, (source, rows) in enumerate(zip(sources, sizes, strict=True)):
        ids = [f"{source}/k_{row:05d}" for row in range(rows)]
        skipped = [Skipped(f"{source}/bad", "no image")] if number % 2 else []
        vectors = unit(rows, seed + number, dtype)
        write_shard(folder, number, source=source, ids=ids, descriptors=vectors, skipped=skipped)
    return open_store(folder)


def rows_of(store: DescriptorStore) -> np.ndarray:
    return np.concatenate([np.asarray(block) for shard in store.shards for block in shard.blocks()])


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("inputs", "outputs"), [(768, 512), (24, 17), (1, 1), (3, 40)])
def test_twin(dtype: str, inputs: int, outputs: int) -> None:
    linear, x = linear_map(1, inputs, outputs), unit(300, dtype=dtype, dims=inputs)
    made = adapt(linear, x)
    assert made.dtype == np.float32
    assert np.abs(made - twin(linear, x)).max() < 1e-6


@pytest.mark.parametrize(("inputs", "outputs"), [(24, 17), (300, 129), (7, 1), (1, 5)])
def test_bytes_depend_neither_on_blocks_nor_on_threads(inputs: int, outputs: int) -> None:
    linear, x = linear_map(2, inputs, outputs), unit(2 * TILE_ROWS + 905, dims=inputs)
    whole = adapt(linear, x, workers=1)
    for workers in (2, 5, None):
        assert adapt(linear, x, workers=workers).tobytes() == whole.tobytes()
    with threadpool_limits(4, user_api="blas"):
        assert adapt(linear, x, workers=1).tobytes() == whole.tobytes()
    for step in (TILE_ROWS, 2 * TILE_ROWS, 1000, 4095, 8191):
        parts = [adapt(linear, x[start : start + step], start) for start in range(0, len(x), step)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    for row in (0, 1, 4095, 4096, 5000, len(x) - 1):
        assert adapt(linear, x[row : row + 1], row).tobytes() == whole[row].tobytes()
    strided = np.asfortranarray(x)
    assert adapt(linear, strided).tobytes() == whole.tobytes()
    assert adapt(linear, x[:0], 77).shape == (0, outputs)
    assert adapt(linear, x[:0], TILE_ROWS).shape == (0, outputs)


def test_a_linear_map_is_checked_and_fixed() -> None:
    weight, bias = np.ones((2, 3), np.float32), np.zeros(2, np.float32)
    linear = LinearMap(weight, bias)
    digest = LinearMap(weight, bias).digest
    weight[0, 0] = 9
    assert linear.weight[0, 0] == 1
    assert linear.digest == digest != LinearMap(weight, bias).digest
    assert LinearMap(np.ones((3, 2)), np.zeros(3)).digest != LinearMap(np.ones((2, 3)), np.zeros(2)).digest
    with pytest.raises(ValueError, match="read-only"):
        linear.weight[0, 0] = 2
    for shapes in ((6, 2), ((2, 3), 3), ((2, 3), (2, 1)), ((0, 3), 0), ((2, 0), 2)):
        with pytest.raises(OpenIliasError, match=r"has a weight \(out, in\)"):
            LinearMap(np.ones(shapes[0]), np.ones(shapes[1]))
    for value in (np.nan, np.inf, 1e300):
        with pytest.raises(OpenIliasError, match="not finite"):
            LinearMap(np.array([[1.0, value]]), np.zeros(1))


def test_descriptors_without_a_direction_are_named(tmp_path: Path) -> None:
    linear = LinearMap(np.eye(OUT, DIMS), np.zeros(OUT))
    x = unit(6000, dtype="float32")
    x[5123, :OUT] = 0
    x[5500] = np.nan
    with pytest.raises(OpenIliasError, match="becomes zero") as caught:
        adapt(linear, x[5000:], 5000)
    assert caught.value.where == "row 5123"
    x[5123] = 1
    with pytest.raises(OpenIliasError, match="becomes not finite") as caught:
        adapt(linear, x)
    assert caught.value.where == "row 5500"
    x[5500] = 3e38
    with pytest.raises(OpenIliasError, match="not finite"):
        adapt(linear_map(3), x)
    for bad in (unit(4, dims=5), unit(4)[0]):
        with pytest.raises(OpenIliasError, match=f"takes {DIMS} dimensions, these descriptors have {bad.shape[-1]}"):
            adapt(linear, bad)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_files_both_ways(tmp_path: Path, ending: str) -> None:
    linear, path = linear_map(4), tmp_path / f"new/linear{ending}"
    write_linear_map(linear, path)
    assert read_linear_map(path).digest == linear.digest
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    first = path.read_bytes()
    write_linear_map(linear, path)
    assert path.read_bytes() == first


class Official(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(DIMS, OUT)


def test_official_files(tmp_path: Path) -> None:
    model, path = Official(), tmp_path / "siglip.pth"
    torch.save(model.state_dict(), path)
    linear = read_linear_map(path)
    x = unit(50, dtype="float32")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.layer(torch.from_numpy(x))).numpy()
    assert np.abs(adapt(linear, x) - expected).max() < 1e-6
    write_linear_map(linear, path)
    model.load_state_dict(torch.load(path, weights_only=True))  # the official code reads ours
    safetensors.numpy.save_file({"layer.weight": linear.weight, "layer.bias": linear.bias}, tmp_path / "o.safetensors")
    assert read_linear_map(tmp_path / "o.safetensors").digest == linear.digest
    half = {name: value.half() for name, value in model.state_dict().items()}
    torch.save(half, path)
    assert (read_linear_map(path).weight == half["layer.weight"].float().numpy()).all()


class Arbitrary:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


W, B = torch.ones(OUT, DIMS), torch.zeros(OUT)
WRONG: dict[str, tuple[object, str]] = {
    "pickle": (Arbitrary(), "This is no linear adaptation: This weights file cannot be read"),
    "module": (torch.nn.Linear(2, 2), "This is no linear adaptation: This weights file cannot be read"),
    "list": ([W, B], "no state dict"),
    "empty": ({}, "no state dict"),
    "no bias": ({"layer.weight": W}, r"it holds layer\.weight\."),
    "more": ({"layer.weight": W, "layer.bias": B, "classifier": W}, r"it holds classifier, layer\.bias"),
    "other names": ({"fc.weight": W, "fc.bias": B}, r"it holds fc\.bias, fc\.weight"),
    "shapes": ({"layer.weight": W, "layer.bias": W[0]}, r"not \(17, 24\) and \(24,\)"),
    "nan": ({"layer.weight": W * float("nan"), "layer.bias": B}, "not finite"),
    "integers": ({"layer.weight": W.int(), "layer.bias": B}, r"layer\.weight is \(17, 24\) torch\.int32"),
    "sparse": ({"layer.weight": W.to_sparse(), "layer.bias": B}, "no plain tensors|not stored as plain numbers"),
    "endless": (
        {"layer.weight": torch.ones(1).expand(10**6, 10**6), "layer.bias": B},
        "no plain tensors|not stored as plain numbers",
    ),
}


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize("kind", WRONG)
def test_wrong_files(tmp_path: Path, kind: str) -> None:
    value, message = WRONG[kind]
    path = tmp_path / "linear.pth"
    torch.save(value, path)
    with pytest.raises(OpenIliasError, match=message) as caught:
        read_linear_map(path)
    assert caught.value.where == str(path)
    assert "layer.weight (out, in)" in str(caught.value.fix)
    assert "\n" not in caught.value.what


def test_files_that_are_none(tmp_path: Path) -> None:
    for name in ("x.pth", "x.safetensors"):
        (tmp_path / name).write_bytes(b"junk" * 50)
        with pytest.raises(OpenIliasError, match="no linear adaptation"):
            read_linear_map(tmp_path / name)
    for path in (tmp_path, tmp_path / "gone.pth"):
        with pytest.raises(OpenIliasError, match="no such adaptation file"):
            read_linear_map(path)
    (tmp_path / "folder.pth").mkdir()
    for name in ("folder.pth", "x.npy", "x"):
        with pytest.raises(OpenIliasError, match="one file"):
            write_linear_map(linear_map(), tmp_path / name)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store(tmp_path: Path, dtype: str) -> None:
    linear, source = linear_map(5), make_store(tmp_path / "a", dtype=dtype)
    made = adapt_store(source, linear, tmp_path / "b")
    assert (made.dims, made.rows, made.partition) == (OUT, source.rows, "distractors")
    for one, other in zip(source.shards, made.shards, strict=True):
        assert (one.source, one.ids(), one.skipped) == (other.source, other.ids(), other.skipped)
        assert other.dtype == dtype
        expected = twin(linear, np.concatenate([np.zeros((0, DIMS), dtype), *one.blocks()]))
        tolerance = 1e-6 if dtype == "float32" else 1e-3
        assert (
            np.abs(np.concatenate([np.zeros((0, OUT), dtype), *other.blocks()]) - expected).max(initial=0) < tolerance
        )
    assert made.origin() == adapted_origin(source.origin(), linear)
    assert made.origin() == source.origin() | {"adaptation": {"sha256": linear.digest, "dims": OUT}}
    assert made.manifest["weights_from"] == "hub"
    before = files_of(made.folder)
    times = {path: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    adapt_store(source, linear, tmp_path / "b")
    assert {path: path.stat().st_mtime_ns for path in made.folder.iterdir()} == times
    assert files_of(made.folder) == before


@pytest.mark.parametrize("rows", [1, 700, TILE_ROWS, 10 * TILE_ROWS])
def test_blocks_are_those_of_the_store(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    linear, source = linear_map(6), make_store(tmp_path / "a")
    made = adapt_store(source, linear, tmp_path / "b")
    monkeypatch.setattr(stores, "BLOCK_BYTES", rows * DIMS * 2)
    for one, other in zip(source.shards, made.shards, strict=True):
        blocks = list(adapted_blocks(one, linear))
        assert b"".join(block.tobytes() for block in blocks) == b"".join(block.tobytes() for block in other.blocks())
        full = [adapt(linear, np.concatenate([*one.blocks(), np.zeros((0, DIMS), np.float16)]))]
        assert b"".join(b.tobytes() for b in adapted_blocks(one, linear, np.float32)) == full[0].tobytes()
    assert adapt_store(source, linear, tmp_path / "c").rows == source.rows
    assert files_of(tmp_path / "b") == files_of(tmp_path / "c")


def test_official_features(tmp_path: Path) -> None:
    linear, source = linear_map(7), make_store(tmp_path / "a", [300, 4500, 20])
    plain = rows_of(adapt_store(source, linear, tmp_path / "b"))
    for level in (0, 3):
        convert(source.folder, tmp_path / f"h{level}", gzip=level, tars_per_file=1)
        official = open_store(tmp_path / f"h{level}")
        made = adapt_store(official, linear, tmp_path / f"o{level}")
        assert rows_of(made).tobytes() == plain.tobytes()
        assert made.origin() == adapted_origin(official.origin(), linear)
        assert made.origin()["dims"] == OUT
        assert [item for shard in made.shards for item in shard.ids()] == [i for s in source.shards for i in s.ids()]
    # Official files do not say what they are: others are noticed by their digests.
    other = make_store(tmp_path / "z", [300, 4500, 20], seed=5)
    convert(other.folder, tmp_path / "y", tars_per_file=1)
    with pytest.raises(OpenIliasError, match=r"contents\.shards"):
        adapt_store(open_store(tmp_path / "y"), linear, tmp_path / "o0")
    made = adapt_store(open_store(tmp_path / "y"), linear, tmp_path / "o0", overwrite=True)
    assert rows_of(made).tobytes() == rows_of(adapt_store(other, linear, tmp_path / "x")).tobytes()


def test_what_is_refused(tmp_path: Path) -> None:
    linear, source = linear_map(8), make_store(tmp_path / "a", [10, 20])
    made = adapt_store(source, linear, tmp_path / "b")
    before = files_of(made.folder), files_of(source.folder)
    with pytest.raises(OpenIliasError, match="adapted already") as caught:
        adapt_store(made, linear_map(8, OUT, 5), tmp_path / "c")
    assert caught.value.where == str(made.folder)
    with pytest.raises(OpenIliasError, match="adapted already"):
        adapted_origin(made.origin(), linear)
    with pytest.raises(OpenIliasError, match="takes 5 dimensions, these descriptors have 24"):
        adapt_store(source, linear_map(8, 5, 5), tmp_path / "c")
    for overwrite in (False, True):
        with pytest.raises(OpenIliasError, match="the store itself"):
            adapt_store(source, linear, tmp_path / "b" / ".." / "a", overwrite=overwrite)
    with pytest.raises(OpenIliasError, match=r"adaptation\.sha256"):
        adapt_store(source, linear_map(9), made.folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(OpenIliasError, match="holds no descriptor store"):
        adapt_store(source, linear, tmp_path / "full", overwrite=True)
    with owned(made.folder), pytest.raises(OpenIliasError, match="Another process"):
        adapt_store(source, linear, made.folder)
    assert (files_of(made.folder), files_of(source.folder)) == before
    assert not (tmp_path / "c").exists()
    other = adapt_store(source, linear_map(9), made.folder, overwrite=True)
    assert rows_of(other).tobytes() == rows_of(adapt_store(source, linear_map(9), tmp_path / "d")).tobytes()


def test_damage_is_noticed(tmp_path: Path) -> None:
    linear, source = linear_map(8), make_store(tmp_path / "a", [10, 20])
    good = (source.folder / "00001.npy").read_bytes()
    (source.folder / "00001.npy").write_bytes(good[:-40] + bytes(40))
    with pytest.raises(OpenIliasError, match="not as it was written"):
        adapt_store(source, linear, tmp_path / "b")
    kept = files_of(tmp_path / "b")
    assert {"00000.json", "manifest.json"} <= set(kept)  # what is finished is kept
    assert "00001.json" not in kept
    (source.folder / "00001.npy").write_bytes(good)
    made = adapt_store(source, linear, tmp_path / "b")
    data = files_of(made.folder)
    (made.folder / "00000.npy").write_bytes(data["00000.npy"][:-20] + bytes(20))
    adapt_store(source, linear, tmp_path / "b", overwrite=True)
    assert files_of(made.folder) == data


def test_a_bad_row_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    source = make_store(tmp_path / "a", [5000])
    vectors = unit(5000)
    vectors[4200] = np.nan
    ids = [f"t0000.tar/k_{row:05d}" for row in range(5000)]
    write_shard(source.folder, 0, source="t0000.tar", ids=ids, descriptors=vectors, skipped=())
    with pytest.raises(OpenIliasError, match="not finite") as caught:
        adapt_store(open_store(source.folder), linear_map(), tmp_path / "b")
    assert caught.value.where == f"{source.folder}, row 4200 of t0000.tar, t0000.tar/k_04200"
    assert not (tmp_path / "b").exists()


def test_a_retried_source_makes_another_store(tmp_path: Path) -> None:
    """Descriptors that a retry added do not show in what the source was made from."""
    linear, source = linear_map(), make_store(tmp_path / "a", [10, 20])
    adapt_store(source, linear, tmp_path / "b")
    ids = [f"t0000.tar/k_{row:05d}" for row in range(11)]
    write_shard(source.folder, 0, source="t0000.tar", ids=ids, descriptors=unit(11), skipped=())
    with pytest.raises(OpenIliasError, match=r"contents\.shards"):
        adapt_store(open_store(source.folder), linear, tmp_path / "b")


def test_shares_make_the_same_store(tmp_path: Path) -> None:
    linear, source = linear_map(), make_store(tmp_path / "a")
    adapt_store(source, linear, tmp_path / "whole")
    out = tmp_path / "shared"
    left = [adapt_share(source, linear, out, share=Share(number, 2)) for number in (1, 0)]
    assert left == [["t0000.tar", "t0002.tar", "t0004.tar"], []]
    assert files_of(out) == files_of(tmp_path / "whole")
    with pytest.raises(OpenIliasError, match="cannot replace the whole"):
        adapt_share(source, linear_map(9), out, overwrite=True, share=Share(0, 2))
    (out / "manifest.json").unlink()
    with pytest.raises(OpenIliasError, match="lost its manifest"):
        adapt_share(source, linear, out, share=Share(0, 2))
    with pytest.raises(OpenIliasError, match="2 of 5 shards of this store are not finished"):
        adapt_store(source, linear, tmp_path / "part", share=Share(0, 2))


ADAPTING = (
    "import sys, time\nfrom pathlib import Path\n"
    "import openilias.core.files as files\nfrom openilias.adapt.apply import adapt_store\n"
    "from openilias.adapt.files import read_linear_map\nfrom openilias.descriptors.store import open_store\n"
    "sync = files.os.fsync\n"
    "def slow(handle):\n    time.sleep(0.05)\n    sync(handle)\n"
    "files.os.fsync = slow\n"
    "adapt_store(open_store(Path(sys.argv[1])), read_linear_map(Path(sys.argv[2])), Path(sys.argv[3]))\n"
)


@pytest.mark.parametrize("seen", ["00001.json", ".00002.npy.*", "00002.npy", ".manifest.json.*"])
def test_killed_in_the_middle(tmp_path: Path, seen: str) -> None:
    linear, source = linear_map(), make_store(tmp_path / "a", [300, 0, 5000, 20])
    write_linear_map(linear, tmp_path / "l.pth")
    adapt_store(source, linear, tmp_path / "whole")
    expected, out = files_of(tmp_path / "whole"), tmp_path / "killed"
    kill_when(lambda: list(out.glob(seen)), ADAPTING, source.folder, tmp_path / "l.pth", out)
    finished = {path.name for path in out.glob("0*.json")}
    assert len(finished) < 4
    times = {name: (out / name).stat().st_mtime_ns for name in finished}
    adapt_store(source, linear, out)
    assert files_of(out) == expected
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == times
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "killed", "l.pth", "whole"]


def test_the_command(ilias: Ilias, tmp_path: Path) -> None:
    linear, source = linear_map(), make_store(tmp_path / "a", [10, 0, 20])
    write_linear_map(linear, tmp_path / "l.safetensors")
    command = ["adapt", "apply", source.folder, "--adapt", tmp_path / "l.safetensors", "--json", tmp_path / "x.json"]
    outcome = ilias(*command, "--out", tmp_path / "b")
    assert outcome.code == 0, outcome.err
    assert f"30 descriptors of {OUT} dimensions in 3 shards" in outcome.out
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["fingerprint"] == open_store(tmp_path / "b").fingerprint
    assert (found["rows"], found["dims"], found["shards"]) == (30, OUT, 3)
    outcome = ilias(*command, "--out", tmp_path / "c", "--shard", "1/2")
    assert "2 shards are left to the others" in outcome.out
    assert json.loads((tmp_path / "x.json").read_text())["unfinished"] == ["t0000.tar", "t0002.tar"]
    assert ilias(*command, "--out", tmp_path / "c", "--shard", "0/2").code == 0
    assert files_of(tmp_path / "b") == files_of(tmp_path / "c")
    write_linear_map(linear_map(9), tmp_path / "l.safetensors")
    outcome = ilias(*command, "--out", tmp_path / "b")
    assert outcome.code == 2
    assert "--overwrite" in outcome.err
    assert ilias(*command, "--out", tmp_path / "b", "--overwrite").code == 0
    assert open_store(tmp_path / "b").origin()["adaptation"]["sha256"] == linear_map(9).digest
    outcome = ilias("data", "inspect", tmp_path / "b")
    assert outcome.code == 0, outcome.err
    shutil.rmtree(tmp_path / "c")
    for words, message in (
        (["--out", tmp_path / "c", "--shard", "2/2"], "0 to n - 1"),
        (["--out", tmp_path / "x.json"], "is a file"),
        (["--out", tmp_path / "c", "--adapt", tmp_path / "gone.pth"], "no such adaptation file"),
        (["--out", tmp_path / "c", "--adapt", tmp_path / "x.json"], "no linear adaptation"),
    ):
        outcome = ilias(*command, *words)
        assert outcome.code == 2
        assert message in outcome.err
        assert not (tmp_path / "c").exists()
    assert ilias("adapt", "apply", tmp_path / "b", *command[3:], "--out", tmp_path / "c").code == 2
    outcome = ilias("adapt", "apply", "--help")
    assert "Example: ilias adapt apply" in " ".join(outcome.out.split())
