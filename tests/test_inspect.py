"""Explaining files: one of each kind, whole and damaged."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.files import sha256_of
from openilias.core.manifests import write_manifest
from openilias.descriptors.local_store import open_local_store
from openilias.descriptors.local_writing import write_local_shard
from openilias.descriptors.store import Skipped, write_shard
from openilias.images.tars import write_tar
from openilias.models.local_features import LocalFeatures
from openilias.report import inspect_hdf5, inspect_local, inspect_values
from openilias.report.inspect import inspect, lines
from openilias.report.inspect_values import Explanation
from openilias.rerank.ames import Ames
from openilias.rerank.ames_files import binarisation_of, digest_of, write_ames
from openilias.rerank.ensemble import Mix
from openilias.rerank.itq import Binarisation, learn_itq, write_binarisation
from openilias.rerank.rerank import rerank_to
from openilias.rerank.similarities import LocalStep
from openilias.rerank.tuning import write_mix
from openilias.search.ranking import Ranking, write_ranking

h5py = pytest.importorskip("h5py")
Ilias = Callable[..., Any]
RNG = np.random.default_rng(0)
POSITIVES = [f"cup_{n // 3:03d}/pos/P{n // 3:03d}_{n % 3:02d}.jpg" for n in range(30)]
QUERIES = [f"cup_{n:03d}/query/Q{n:03d}_00.jpg" for n in range(10)]
DISTRACTORS = [f"yfcc100m_{n % 2:04d}.tar/abo_{n:04d}" for n in range(30)]


def unit(*shape: int) -> np.ndarray:
    vectors = RNG.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def refused(path: Path, words: str) -> None:
    with pytest.raises(OpenIliasError, match=words) as caught:
        inspect(path)
    assert caught.value.where is not None
    assert caught.value.fix is not None


def truncate(path: Path, keep: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    return path


def features(path: Path, vectors: np.ndarray, ids: list[str] | None, **storage: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=vectors, **storage)
        if ids is not None:
            file.create_dataset("index", data=ids, dtype=h5py.string_dtype("ascii"))
    return path


def test_official_features(tmp_path: Path) -> None:
    found = inspect(features(tmp_path / "f.hdf5", unit(30, 16).astype(np.float16), POSITIVES))
    assert found.kind == "official features (HDF5)"
    assert found.warnings == ()
    facts = found.facts
    assert (facts["shape"], facts["dtype"], facts["partition"]) == ([30, 16], "float16", "positives")
    assert (facts["sorted"], facts["duplicates"], facts["normalised"]) == (True, 0, True)
    assert (facts["first"], facts["last"]) == (POSITIVES[0], POSITIVES[-1])
    assert facts["raw_or_adapted"].startswith("raw")
    adapted = inspect(features(tmp_path / "a.hdf5", unit(2, 512).astype(np.float32), QUERIES[:2]))
    assert adapted.facts["raw_or_adapted"].startswith("not known")
    assert adapted.facts["partition"] == "image_queries"


def test_features_with_faults(tmp_path: Path) -> None:
    vectors = 3 * unit(30, 16)
    vectors[4, 2], vectors[5, 3], vectors[6] = np.nan, np.inf, 0
    ids = [*reversed(POSITIVES[1:]), POSITIVES[1]]
    found = inspect(features(tmp_path / "f.hdf5", vectors, ids))
    assert (found.facts["normalised"], found.facts["vectors_with_nan_or_infinity"]) == (False, 2)
    assert (found.facts["sorted"], found.facts["duplicates"]) == (False, 1)
    assert (found.facts["norms"]["least"], found.facts["norms"]["most"]) == (0, pytest.approx(3))
    said = " ".join(found.warnings)
    for word in ("NaN", "zero", "unit norm", "more than once", "not sorted"):
        assert word in said
    assert "nothing says whose" in " ".join(inspect(features(tmp_path / "g.hdf5", vectors, None)).warnings)


@pytest.mark.parametrize("chunks", [None, (7, 5), (30, 1), (1, 16)])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_features_are_read_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: Any, compression: str | None
) -> None:
    if chunks is None and compression:
        pytest.skip("contiguous data are not compressed")
    vectors = RNG.normal(size=(30, 16)).astype(np.float32)
    path = features(tmp_path / "f.hdf5", vectors, DISTRACTORS, chunks=chunks, compression=compression)
    largest: list[int] = []
    plain = inspect_hdf5.squares_of
    monkeypatch.setattr(inspect_hdf5, "squares_of", lambda block: largest.append(block.size) or plain(block))
    monkeypatch.setattr(inspect_hdf5, "_BLOCK", 256)
    norms, facts = np.linalg.norm(vectors, axis=1), inspect(path).facts
    assert sum(largest) == vectors.size
    assert max(largest) <= 128
    assert facts["norms"]["least"] == pytest.approx(norms.min(), rel=1e-6)
    assert facts["norms"]["mean"] == pytest.approx(norms.mean(), rel=1e-6)
    assert facts["norms"]["most"] == pytest.approx(norms.max(), rel=1e-6)
    assert (facts["shards"], facts["ids_of_a_shard"], facts["sorted"]) == (2, "15 to 15", False)


@pytest.mark.parametrize("chunks", [None, (3, 4, 10), (12, 2, 21), (1, 7, 1)])
def test_local_descriptors_of_ames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: Any) -> None:
    images, most, dims = 12, 7, 16
    values = np.concatenate([RNG.random((images, most, 5)), unit(images, most, dims)], axis=2).astype(np.float32)
    values[..., 3] = 0
    values[..., 4] = -np.sort(-values[..., 4], axis=1)
    values[2, 5:, 3:] = 0
    values[2, 5:, 3] = 1
    with h5py.File(tmp_path / "l.hdf5", "w") as file:
        file.create_dataset("features", data=values, chunks=chunks)
    monkeypatch.setattr(inspect_hdf5, "_BLOCK", 1000)
    found = inspect(tmp_path / "l.hdf5")
    assert found.kind == "local descriptors of AMES (HDF5)"
    assert found.warnings == ()
    facts, here = found.facts, values[values[..., 3] == 0]
    assert (facts["images"], facts["dims"], facts["descriptors"]) == (12, 16, 82)
    assert facts["descriptors_of_an_image"] == {"least": 5, "median": 7, "most": 7}
    assert (facts["normalised"], facts["falling_weights"]) == (True, True)
    for place, name in ((0, "y"), (1, "x"), (2, "scale"), (4, "weight")):
        assert facts[name] == {
            "least": pytest.approx(here[:, place].min()),
            "most": pytest.approx(here[:, place].max()),
        }


def test_local_descriptors_with_faults(tmp_path: Path) -> None:
    values = np.concatenate([RNG.random((4, 3, 5)), 2 * unit(4, 3, 8)], axis=2)
    values[..., 3] = 0
    values[0, :, 4] = (0.1, 0.5, 0.2)
    values[1, :, 3] = 1
    values[2, 0, 3] = 0.5
    values[3, 0, 0] = np.nan
    with h5py.File(tmp_path / "l.h5", "w") as file:
        file.create_dataset("features", data=values)
    found = inspect(tmp_path / "l.h5")
    assert found.facts["falling_weights"] is False
    said = " ".join(found.warnings)
    for word in ("unit norm", "other values than 0 and 1", "NaN or infinite", "1 images have no descriptor"):
        assert word in said


def test_other_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "o.h5", "w") as file:
        file["x"] = np.zeros(3)
        file.create_group("g")
        file["far"] = h5py.ExternalLink("secret.h5", "/x")
    found = inspect(tmp_path / "o.h5")
    assert found.kind == "HDF5 file"
    assert found.facts["contents"] == {"g": "group", "x": "(3,) float64"}


def test_damaged_hdf5(tmp_path: Path) -> None:
    vectors = unit(30, 64).astype(np.float32)
    refused(truncate(features(tmp_path / "t.hdf5", vectors, POSITIVES)), "damaged or truncated")
    (tmp_path / "j.hdf5").write_bytes(b"junk" * 100)
    refused(tmp_path / "j.hdf5", "damaged or truncated")
    refused(features(tmp_path / "i.hdf5", vectors, POSITIVES[:9]), "do not match")
    refused(features(tmp_path / "n.hdf5", np.zeros((30, 2), int), POSITIVES), "expected vectors of floats")
    refused(features(tmp_path / "d.hdf5", np.zeros((30, 0)), POSITIVES), "no dimensions")
    path = features(tmp_path / "z.hdf5", vectors, POSITIVES, compression="gzip", chunks=(30, 64))
    with h5py.File(path) as file:
        start = file["features"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[start + 50 : start + 400] = b"\0" * 350
    path.write_bytes(data)
    refused(path, "damaged or truncated")


def test_hdf5_reaches_for_no_other_file(tmp_path: Path) -> None:
    other = features(tmp_path / "other.hdf5", unit(3, 4), None)
    with h5py.File(tmp_path / "link.hdf5", "w") as file:
        file["features"] = h5py.ExternalLink(str(other), "/features")
    refused(tmp_path / "link.hdf5", "is a link")
    (tmp_path / "raw").write_bytes(bytes(48))
    with h5py.File(tmp_path / "external.hdf5", "w") as file:
        file.create_dataset("features", (3, 4), "f4", external=[(str(tmp_path / "raw"), 0, 48)])
    refused(tmp_path / "external.hdf5", "not in this file")
    with h5py.File(tmp_path / "virtual.hdf5", "w") as file:
        layout = h5py.VirtualLayout((3, 4), "f8")
        layout[:] = h5py.VirtualSource(str(other), "features", (3, 4))
        file.create_virtual_dataset("features", layout)
    refused(tmp_path / "virtual.hdf5", "not in this file")
    with h5py.File(tmp_path / "huge.hdf5", "w") as file:
        file.create_dataset("features", (10**9, 10**6), "f4", chunks=(1, 1000))
    refused(tmp_path / "huge.hdf5", "cannot hold")


def test_adaptation_layer(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    basis, _ = np.linalg.qr(RNG.normal(size=(24, 8)))
    state = {"layer.weight": torch.tensor(2 * basis.T).float().contiguous(), "layer.bias": torch.full((8,), 0.5)}
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        found = inspect(tmp_path / name)
        assert found.kind == "linear adaptation layer"
        assert (found.facts["inputs"], found.facts["outputs"]) == (24, 8)
        assert found.facts["singular_values"]["least"] == pytest.approx(2, abs=1e-5)
        assert found.facts["singular_values"]["most"] == pytest.approx(2, abs=1e-5)
        assert found.facts["off_orthogonal"] == pytest.approx(3, abs=1e-5)
        assert found.facts["orthogonal"] is False
        assert found.facts["bias_norm"] == pytest.approx(np.sqrt(2))
    torch.save({"layer.weight": torch.tensor(basis.T), "layer.bias": torch.zeros(8)}, tmp_path / "o.pth")
    assert inspect(tmp_path / "o.pth").facts["orthogonal"] is True
    torch.save({"layer.weight": torch.ones(8, 24), "layer.bias": torch.zeros(8)}, tmp_path / "s.pth")
    assert "singular" in inspect(tmp_path / "s.pth").warnings[0]
    torch.save({"layer.weight": torch.full((8, 24), torch.nan), "layer.bias": torch.zeros(8)}, tmp_path / "n.pth")
    assert "NaN" in inspect(tmp_path / "n.pth").warnings[0]
    torch.save({"layer.weight": torch.ones(8, 24), "layer.bias": torch.zeros(9)}, tmp_path / "b.pth")
    refused(tmp_path / "b.pth", "do not belong together")


@pytest.mark.parametrize("binary", [False, True])
def test_ames_checkpoint(tmp_path: Path, binary: bool) -> None:
    import torch
    from safetensors.torch import save_file

    network = Ames(24, binary=binary, dims=64, layers=3, wide=40)
    write_ames(network, tmp_path / "a.pt", made_from={})
    found = inspect(tmp_path / "a.pt")
    variant = "binary" if binary else "full precision"
    assert (found.kind, found.facts["variant"], found.warnings) == ("AMES checkpoint", variant, ())
    assert found.summary == f"3 layers of 64 dimensions, {variant}, for local descriptors of 24 dimensions"
    facts = found.facts
    assert (facts["dims"], facts["layers"], facts["inner_layer"], facts["wrapped_in"]) == (64, 3, 40, "state")
    assert facts["parameters"] == facts["values"] == sum(value.numel() for value in network.parameters())
    assert (facts["bits"], facts["digest"]) == (64 if binary else None, digest_of(network))
    assert facts["binarisation"] == (binarisation_of(network).digest if binary else None)
    state = network.state_dict()
    torch.save(state, tmp_path / "bare.pt")
    assert "wrap" in inspect(tmp_path / "bare.pt").warnings[0]
    save_file(state, tmp_path / "a.safetensors")
    assert inspect(tmp_path / "a.safetensors").summary == found.summary
    del state["classifier.bias"]
    torch.save({"state": state}, tmp_path / "less.pt")
    assert "cannot take it: This network does not fit" in inspect(tmp_path / "less.pt").warnings[0]
    state = {name: value for name, value in network.state_dict().items() if "remap" not in name}
    torch.save({"state": state | {"mtc_token": torch.full((64,), torch.nan)}}, tmp_path / "no.pt")
    found = inspect(tmp_path / "no.pt")
    assert found.facts["variant"] == "not known"
    assert "NaN" in found.warnings[0]
    assert "no network of AMES" in found.warnings[1]
    refused(truncate(tmp_path / "a.pt"), "damaged")


@pytest.mark.parametrize("legacy", [False, True])
def test_any_weights(tmp_path: Path, legacy: bool) -> None:
    import torch

    state = {"a.weight": torch.zeros(3, 4), "a.bias": torch.tensor([1, torch.inf]), "n": torch.tensor(7)}
    path = tmp_path / "w.bin"
    torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=not legacy)
    nameless = path.rename(tmp_path / "weights")
    found = inspect(nameless)
    assert found.kind == "weights (PyTorch)"
    assert (found.facts["tensors"], found.facts["values"]) == (3, 15)
    assert found.facts["besides"] == ["epoch"]
    assert "a.bias" in found.warnings[0]


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_damaged_and_hostile_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    torch.save({"w": torch.zeros(1000)}, tmp_path / "t.pth")
    refused(truncate(tmp_path / "t.pth"), "damaged, or holds more")
    torch.save({"w": Evil()}, tmp_path / "e.pth")
    refused(tmp_path / "e.pth", "damaged, or holds more")
    torch.save([1, 2], tmp_path / "l.pth")
    refused(tmp_path / "l.pth", "no state dict")
    (tmp_path / "j.pth").write_bytes(b"junk")
    refused(tmp_path / "j.pth", "damaged, or holds more")
    assert "executed" not in capsys.readouterr().out


def test_safetensors(tmp_path: Path, tiny_root: Path, ilias: Ilias) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.zeros((2, 3), np.float16)}, tmp_path / "x.safetensors", metadata={"by": "me"})
    found = inspect((tmp_path / "x.safetensors").rename(tmp_path / "x"))
    assert (found.kind, found.facts["values"], found.facts["metadata"]) == ("weights (safetensors)", 6, {"by": "me"})
    path = tmp_path / "m.safetensors"
    fit = ["--words", 4, "--dims", 5, "--resolution", 120, "--out", path]
    assert ilias("models", "fit", "sift_vlad", "--benchmark", tiny_root, *fit).code == 0
    found = inspect(path)
    assert (found.kind, found.facts["words"], found.facts["dims"]) == ("fitted model sift_vlad", 4, 5)
    assert found.facts["fitted_on"]["partition"] == "distractors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes(data)
    refused(path, "digest differs")
    refused(truncate(path), "damaged")


LISTS = {
    QUERIES[0]: {POSITIVES[0]: 0.9, DISTRACTORS[0]: 0.5, DISTRACTORS[1]: 0.5},
    QUERIES[1]: {POSITIVES[1]: 0.8, DISTRACTORS[0]: 0.7, DISTRACTORS[1]: -0.25},
}


def official_pickle(**changes: Any) -> bytes:
    value = {
        "query_ids": QUERIES[:2],
        "db_ids": [POSITIVES[0], POSITIVES[1], *DISTRACTORS[:2]],
        "sims": np.array([list(found.values()) for found in LISTS.values()], np.float32),
        "ranks": np.array([[0, 2, 3], [1, 2, 3]]),
    }
    return pickle.dumps(value | changes)


@pytest.mark.parametrize("kind", ["json", "pkl"])
def test_similarities(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"s.{kind}"
    path.write_bytes(json.dumps(LISTS).encode() if kind == "json" else official_pickle())
    found = inspect(path)
    assert found.kind.startswith("similarities")
    assert found.warnings == ()
    facts = found.facts
    assert (facts["queries"], facts["entries"]) == ({"image_queries": 2}, {"positives": 2, "distractors": 4})
    assert (facts["ties"], facts["best_first"], facts["different_images"]) == (1, True, 4)
    assert facts["scores"]["least"] == -0.25
    assert facts["images_of_a_list"] == {"least": 3, "median": 3, "most": 3}


def test_similarities_with_faults(tmp_path: Path) -> None:
    lists = LISTS | {"nobody": {DISTRACTORS[0]: 0.1, DISTRACTORS[2]: 4.0}}
    (tmp_path / "s.json").write_text(json.dumps(lists))
    found = inspect(tmp_path / "s.json")
    assert found.facts["best_first"] is False
    said = " ".join(found.warnings)
    for word in ("not in order", "differ in length", "keys without a shard", "Similarities beyond 1"):
        assert word in said
    (tmp_path / "d.json").write_text('{"a/query/Q.jpg": {"x.tar/y": 1, "x.tar/y": 2}}')
    refused(tmp_path / "d.json", "stands twice")
    (tmp_path / "n.json").write_text('{"a/query/Q.jpg": {"x.tar/y": "high"}}')
    refused(tmp_path / "n.json", "not a number")
    refused(truncate(tmp_path / "s.json"), "not readable JSON")
    (tmp_path / "k.json").write_text('{"colour": "red"}')
    refused(tmp_path / "k.json", "none that ilias knows")


def test_pickles_with_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.pkl"
    path.write_bytes(official_pickle(ranks=np.array([[0, 2, -1], [1, 2, 3]])))
    refused(path, "1 ranks are -1")
    path.write_bytes(official_pickle(ranks=np.array([[0, 2, 2], [1, 2, 3]])))
    refused(path, "twice")
    path.write_bytes(official_pickle(sims=np.zeros((1, 3))))
    refused(path, "do not belong together")
    path.write_bytes(pickle.dumps({"a": np.zeros((2, 3)), "b": ["x"]}))
    assert inspect(path).facts["contents"] == {"a": "array (2, 3) float64", "b": "list of 1"}
    path.write_bytes(pickle.dumps({"a": Evil()}))
    refused(path, "refused or broken")
    path.write_bytes(official_pickle()[:-40])
    refused(path, "refused or broken")
    assert "executed" not in capsys.readouterr().out


def test_tar_shard(tmp_path: Path) -> None:
    path = tmp_path / "yfcc100m_0000.tar"
    members = [(f"k{n}.jpg", b"x" * (n + 1)) for n in range(3)]
    write_tar(path, [*members, ("k0.json", b"{}"), ("k1.json", b"{}"), ("odd.png", b"p")])
    found = inspect(path)
    assert (found.kind, found.facts["images"]) == ("tar shard", 3)
    assert (found.facts["first"], found.facts["last"]) == ("k0", "k2")
    assert found.facts["image_bytes"] == {"least": 1, "median": 2, "most": 3}
    assert found.facts["other_members"][".json"] == 2
    assert "odd.png" in found.warnings[0]
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("k.jpg"))
    refused(path, "cannot be used")
    write_tar(path, [(f"k{n}.jpg", bytes(2000)) for n in range(9)])
    refused(truncate(path), "cannot be used")


def stored(folder: Path, *, finished: int = 2) -> Path:
    folder.mkdir()
    made_from = {"partition": "positives", "model": {"name": "resnet18"}, "protocol": {"resolution": 224}}
    write_manifest(folder / "manifest.json", kind="descriptor store", made_from=made_from, dims=8, sources=["a", "b"])
    for number in range(finished):
        ids = POSITIVES[15 * number : 15 * number + 15]
        vectors = unit(15, 8).astype(np.float16)
        write_shard(folder, number, source="ab"[number], ids=ids, descriptors=vectors, skipped=[])
    return folder


def test_descriptor_store(tmp_path: Path) -> None:
    found = inspect(stored(tmp_path / "s"))
    assert (found.kind, found.warnings) == ("descriptor store", ())
    facts = found.facts
    assert (facts["rows"], facts["dims"], facts["dtype"], facts["model"]) == (30, 8, "float16", "resnet18")
    assert (facts["shards"], facts["normalised"]) == ("2 of 2 finished", True)
    half = inspect(stored(tmp_path / "half", finished=1))
    assert half.facts["shards"] == "1 of 2 finished"
    assert "not finished" in half.warnings[0]


@pytest.mark.parametrize("name", ["00001.npy", "00001.ids.parquet", "00001.json"])
def test_a_file_of_a_store(tmp_path: Path, name: str) -> None:
    folder = stored(tmp_path / "s")
    found = inspect(folder / name)
    assert found.kind.endswith("of a descriptor store")
    assert (found.facts["shard"], found.facts["rows"], found.facts["first"]) == (1, 15, POSITIVES[15])
    assert inspect(folder / "manifest.json") == inspect(folder)
    truncate(folder / name)
    refused(folder / name, "not as it was written|not readable JSON")
    if name != "00001.json":
        (folder / "00001.json").unlink()
        refused(folder / name, "no done marker")


def test_damaged_store(tmp_path: Path) -> None:
    folder = stored(tmp_path / "s")
    truncate(folder / "00000.npy")
    refused(folder, "cannot be read")
    (folder / "manifest.json").write_text("{}")
    refused(folder, "Expected a descriptor store")


def test_lone_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", 2 * unit(5, 4))
    found = inspect(tmp_path / "a.npy")
    assert (found.facts["shape"], found.facts["normalised"]) == ([5, 4], False)
    assert "belongs to no descriptor store" in found.warnings[0]
    refused(truncate(tmp_path / "a.npy"), "cannot be read")
    np.save(tmp_path / "o.npy", np.array([Evil()], object), allow_pickle=True)
    refused(tmp_path / "o.npy", "cannot be read")


def test_ranking(tmp_path: Path) -> None:
    rows, scores = np.array([[0, 2], [1, 2]]), np.array([[0.5, 0.5], [0.25, -0.5]], np.float32)
    ranking = Ranking(tuple(QUERIES[:2]), (*POSITIVES[:2], DISTRACTORS[0]), rows, scores)
    folder = tmp_path / "ranking"
    write_ranking(ranking, folder, made_from={"k": 2, "origin": {"model": {"name": "m"}}}, database_size=3)
    found = inspect(folder)
    assert (found.kind, found.facts["queries"], found.facts["ties"], found.facts["k"]) == ("ranking", 2, 1, 2)
    assert found.facts["different_images"] == {"positives": 2, "distractors": 1}
    assert inspect(folder / "ranking.parquet") == inspect(folder / "ranking.json") == found
    truncate(folder / "ranking.parquet")
    refused(folder / "ranking.parquet", "not as it was written")
    (folder / "ranking.json").unlink()
    refused(folder / "ranking.parquet", "Parquet file is damaged")


def reranked(root: Path, *, shortlist: int = 2, method: Any = "chamfer") -> Path:
    """Re-rank a ranking of two queries and three images, by local stores of them."""
    ids = [*QUERIES[:2], *POSITIVES[:2], DISTRACTORS[0]]
    rows, scores = np.array([[2, 0, 1], [1, 2, -1]]), np.array([[0.9, 0.5, 0.5], [0.25, -0.5, -np.inf]], np.float32)
    ranking = Ranking(tuple(ids[:2]), tuple(ids[2:]), rows, scores)
    write_ranking(ranking, root / "first", made_from={"k": 3, "origin": {"model": {"name": "m"}}}, database_size=3)
    queries = local_store(root / "queries", [ids[:2]], partition="image_queries")
    database = local_store(root / "database", [ids[2:4], ids[4:]])
    step = LocalStep(method=method, shortlist=shortlist)
    mix = Mix(shortlist=shortlist, global_weight=0.25, gamma=0.5)
    rerank_to(root / "first", [open_local_store(queries)], [open_local_store(database)], step, mix, root / "out")
    return root / "out"


def test_reranked_ranking(tmp_path: Path) -> None:
    folder = reranked(tmp_path)
    found = inspect(folder)
    assert found.kind == "re-ranked ranking"
    assert found.summary == "2 queries, up to 3 images each, the first 2 by chamfer"
    assert found.warnings == ()
    facts = found.facts
    assert (facts["reranked_by"], facts["compared_pairs"], facts["model"]) == ("chamfer", 4, "m")
    assert facts["mix"] == {"shortlist": 2, "global_weight": 0.25, "gamma": 0.5}
    assert facts["compared"] == {"shortlist": 2, "descriptors": 100, "query_descriptors": 600}
    assert facts["first_ranking"] == str(tmp_path / "first")
    local = np.load(folder / "similarities.npy")
    assert facts["local_similarities"]["most"] == pytest.approx(local.max())
    for name in ("similarities.npy", "ranking.parquet", "ranking.json"):
        assert inspect(folder / name) == found
    shown = "\n".join(lines(found))
    assert "mix                 shortlist 2, global_weight 0.25, gamma 0.5" in shown
    spatial = inspect(reranked(tmp_path / "spatial", method="spatial"))
    assert (spatial.facts["reranked_by"], spatial.facts["spatial"]["tolerance"]) == ("spatial", 24.0)


def test_damaged_reranked_ranking(tmp_path: Path) -> None:
    folder = reranked(tmp_path, shortlist=3)
    good = (folder / "similarities.npy").read_bytes()
    for damage in (good[:-1], good[:-4] + b"\0\0\0\1", None):
        (folder / "similarities.npy").unlink(missing_ok=True)
        if damage is not None:
            (folder / "similarities.npy").write_bytes(damage)
        refused(folder, "missing, or not as it was written")
    (folder / "similarities.npy").write_bytes(good)
    assert inspect(folder).warnings == ()
    manifest = json.loads((folder / "ranking.json").read_text())
    local = np.load(folder / "similarities.npy")
    local[1, 2] = 5.0  # where the list is over
    np.save(folder / "similarities.npy", local)
    digest = sha256_of(folder / "similarities.npy")
    (folder / "ranking.json").write_text(json.dumps(manifest | {"similarities_sha256": digest}))
    assert "do not fit the lists" in inspect(folder).warnings[0]
    (folder / "similarities.npy").write_bytes(good)
    del manifest["made_from"]["rerank"]["local"]
    (folder / "ranking.json").write_text(json.dumps(manifest))
    refused(folder, "manifest of this ranking is damaged")
    shutil.rmtree(folder)
    reranked(tmp_path / "again")
    write_manifest(tmp_path / "again" / "first" / "ranking.json", kind="ranking", made_from={"k": 9})
    assert "was replaced by another" in inspect(tmp_path / "again" / "out").warnings[0]
    shutil.rmtree(tmp_path / "again" / "first")
    assert "is not where it was" in inspect(tmp_path / "again" / "out").warnings[0]
    np.save(tmp_path / "first" / "similarities.npy", local)  # of a ranking that is not re-ranked
    assert inspect(tmp_path / "first" / "similarities.npy").kind == "ranking"


def test_ranking_of_an_ensemble_and_of_expanded_queries(tmp_path: Path) -> None:
    rows, scores = np.array([[0, 2], [1, 2]]), np.array([[0.5, 0.5], [0.25, -0.5]], np.float32)
    ranking = Ranking(tuple(QUERIES[:2]), (*POSITIVES[:2], DISTRACTORS[0]), rows, scores)
    ensemble = {"fusion": "mean", "weights": [2.0, 1.0], "members": ["a", "b"]}
    write_ranking(ranking, tmp_path / "e", made_from={"k": 2, "ensemble": ensemble}, members=["x", "y"],
                  certain={"least": 1, "median": 2})  # fmt: skip
    found = inspect(tmp_path / "e")
    assert found.kind == "ranking of an ensemble"
    assert found.facts["ensemble"] == {"fusion": "mean", "weights": [2.0, 1.0]}
    assert (found.facts["members"], found.facts["certain"]) == (["x", "y"], {"least": 1, "median": 2})
    write_ranking(ranking, tmp_path / "x", made_from={"k": 2, "expand": {"n": 3, "alpha": 1.5}})
    found = inspect(tmp_path / "x")
    assert (found.kind, found.facts["expanded_by"]) == ("ranking of expanded queries", {"n": 3, "alpha": 1.5})


def test_mix_of_similarities(tmp_path: Path) -> None:
    local = {"first": "f" * 16, "local": {"method": "ames", "shortlist": 400, "descriptors": 100}, "network": "n"}
    made_from = {"local": local, "k": 100, "weights": [0.0, 0.25, 0.5], "gammas": [0.1, 1.0], "shortlists": [400]}
    path = tmp_path / "mix.json"
    write_mix(Mix(shortlist=400, global_weight=0.25, gamma=1.0), path, made_from=made_from, reached=0.25)
    found = inspect(path)
    assert found.kind == "mix of similarities"
    assert found.summary == "0.25 * global + 0.75 * sigmoid(1 * local), of the first 400; mAP@100 25.00"
    assert (found.facts["global_weight"], found.facts["tuned_for"], found.facts["network"]) == (0.25, "ames", "n")
    assert found.facts["tried"]["weights"] == "3 from 0 to 0.5"
    assert found.warnings == ("The best of the gammas is the largest one that was tried: try others too.",)
    write_mix(Mix(global_weight=1.0, gamma=0.5), path, made_from={}, reached=0.25)
    assert inspect(path).warnings == ("The local similarity does not count.",)
    value = json.loads(path.read_text())
    for damage in ({"gamma": -1}, {"colour": 3}, None):
        path.write_text(json.dumps(value | {"mix": damage if damage is None else value["mix"] | damage}))
        refused(path, "mix is damaged")
    path.write_text(json.dumps(value | {"made_from": 3}))
    refused(path, "does not say what it was made from")
    refused(truncate(path), "not readable JSON")


@pytest.mark.parametrize("bits", [64, 192])
def test_binarisation(tmp_path: Path, bits: int) -> None:
    made = learn_itq(RNG.normal(size=(500, 70)), bits, iterations=3)
    path = tmp_path / "itq.safetensors"
    write_binarisation(made, path, made_from={"sample": 500, "stores": ["s"]})
    found = inspect(path)
    assert (found.kind, found.warnings) == ("binarisation", ())
    assert (found.facts["dims"], found.facts["bits"], found.facts["digest"]) == (70, bits, made.digest)
    assert (found.facts["sample"], found.facts["learned_from"]) == (500, ["s"])
    assert found.facts["off_orthogonal"] < 1e-5
    weight = made.weight.copy()
    weight[:, 3] = 0
    write_binarisation(Binarisation(weight, made.mean), tmp_path / "zero.safetensors", made_from={})
    assert "1 bits have a weight of zero" in inspect(tmp_path / "zero.safetensors").warnings[0]
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes(data)
    refused(path, "digest differs")
    refused(truncate(path), "damaged")


# --- local descriptors ---


def local_store(
    folder: Path, ids: list[list[str]], *, partition: str = "distractors", bits: int | None = None, finished: int = 99,
    change: Callable[[int, np.ndarray, np.ndarray], None] = lambda *_: None,
) -> Path:  # fmt: skip
    """Write a store whose image n has n % 5 descriptors; ``change`` gets the number of each image, and its arrays."""
    folder.mkdir(parents=True)
    sources = [f"yfcc100m_{number:04d}.tar" for number in range(len(ids))]
    made_from = {"partition": partition, "local": {"name": "sift", "resolution": 770, "most": 700}, "weights": "w",
                 **({"most": 100, "binarisation": {"sha256": "b", "bits": bits}} if bits else {})}  # fmt: skip
    dims, dtype = (bits // 8, np.uint8) if bits else (16, np.float16)
    write_manifest(
        folder / "manifest.json", kind="local descriptor store", made_from=made_from, sources=sources,
        dims=bits or dims, dtype=np.dtype(dtype).name, weight_from="response", weights_from="none",
        **({"bits": bits} if bits else {}),
    )  # fmt: skip
    number = 0
    for shard, items in enumerate(ids[:finished]):
        images = []
        for item in items:
            count = number % 5
            values = RNG.integers(0, 256, (count, dims)).astype(np.uint8) if bits else unit(count, dims).astype(dtype)
            geometry = RNG.random((count, 4)).astype(np.float32)
            geometry[:, 3] = -np.sort(-geometry[:, 3])
            features = LocalFeatures(values, geometry, 30, 40)
            change(number, values, geometry)
            images.append((item, features))
            number += 1
        skipped = [Skipped("lost", "broken")] if shard == 1 else []
        write_local_shard(folder, shard, source=sources[shard], images=images, dims=dims, dtype=dtype, skipped=skipped)
    return folder


THREE = [DISTRACTORS[:13], [], DISTRACTORS[13:]]


@pytest.mark.parametrize("block", [3, 65_536])
@pytest.mark.parametrize("bits", [None, 64])
def test_local_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, bits: int | None) -> None:
    monkeypatch.setattr(inspect_local, "_ROWS", block)
    places: list[np.ndarray] = []
    folder = local_store(tmp_path / "s", THREE, bits=bits, change=lambda _, values, geometry: places.append(geometry))
    found = inspect(folder)
    length = "64 bits" if bits else "16 dimensions"
    assert found.kind == "local descriptor store"
    assert found.summary == f"60 local descriptors of {length}, of 30 images of distractors"
    facts = found.facts
    assert (facts["images"], facts["descriptors"], facts.get("bits"), facts.get("dims")) == (
        30, 60, bits, None if bits else 16,
    )  # fmt: skip
    assert facts["descriptors_of_an_image"] == {"least": 0, "median": 2, "most": 4}
    assert facts["images_without_descriptors"] == 6
    sizes = facts["bytes_of_an_image"]
    assert sizes["descriptors"] == pytest.approx((60 * (8 if bits else 32) + 3 * 128) / 30)
    assert sizes["together"] == pytest.approx(sum(v for name, v in sizes.items() if name != "together"))
    assert (facts["shards"], facts["missing"], facts["skipped"]) == ("3 of 3 finished", None, 1)
    assert (facts["model"], facts["weight_of_a_descriptor"], facts["weights_digest"]) == ("sift", "response", "w")
    assert facts["settings"] == {"resolution": 770, "most": 700}
    assert (facts.get("kept_of_an_image"), facts["packed_by"]) == ((100, "binarisation b") if bits else (None, None))
    geometry = np.concatenate(places)
    for column, name in enumerate(("y", "x", "scale", "weight")):
        assert facts[name] == {"least": geometry[:, column].min(), "most": geometry[:, column].max()}
    assert (facts["falling_weights"], facts.get("normalised")) == (True, None if bits else True)
    assert (facts["first"], facts["duplicates"]) == (DISTRACTORS[0], 0)
    assert found.warnings == ("Skipped: lost (broken).",)
    assert inspect(folder / "manifest.json") == found


def test_local_store_that_is_not_finished(tmp_path: Path) -> None:
    found = inspect(local_store(tmp_path / "s", THREE, finished=1))
    assert (found.facts["shards"], found.facts["images"]) == ("1 of 3 finished", 13)
    assert found.facts["missing"] == "yfcc100m_0001.tar, yfcc100m_0002.tar"
    assert "not finished" in found.warnings[0]
    found = inspect(local_store(tmp_path / "none", THREE, finished=0))
    assert (found.facts["images"], found.facts["descriptors_of_an_image"]) == (0, None)


@pytest.mark.parametrize("block", [1, 3, 65_536])
def test_local_store_with_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(inspect_local, "_ROWS", block)

    def change(number: int, values: np.ndarray, geometry: np.ndarray) -> None:
        if number == 4:
            geometry[2, 3] = 5
            values[1] = 2
        if number == 8:
            geometry[0, 0], geometry[1, 2], values[2, 5] = 1.25, np.nan, np.inf

    said = " ".join(inspect(local_store(tmp_path / "s", THREE, change=change)).warnings)
    for words in ("1 vectors have a NaN", "not of unit norm", "1 descriptors have a place", "1 descriptors lie outside",
                  "not in the order of their weight"):  # fmt: skip
        assert words in said

    def same(number: int, values: np.ndarray, geometry: np.ndarray) -> None:
        values[:, 2] |= 0b11000
        values[:, 5] &= 0b11111110

    found = inspect(local_store(tmp_path / "bits", [*THREE[:2], THREE[0]], bits=128, change=same))
    said = " ".join(found.warnings)
    assert "3 of 128 bits are the same in all descriptors" in said
    assert "13 ids stand there more than once" in said
    manifest = json.loads((tmp_path / "bits" / "manifest.json").read_text())
    (tmp_path / "bits" / "manifest.json").write_text(json.dumps(manifest | {"bits": 64, "dims": 64}))
    assert "states other descriptors than there are: uint8, 16 to a row" in inspect(tmp_path / "bits").warnings[-1]


PARTS = {"desc.npy": "descriptors", "geometry.npy": "geometry", "offsets.npy": "offsets", "ids.parquet": "ids",
         "json": "done marker"}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_a_file_of_a_local_store(tmp_path: Path, part: str) -> None:
    folder = local_store(tmp_path / "s", THREE)
    path = folder / f"00002.{part}"
    found = inspect(path)
    assert found.kind == f"{PARTS[part]} of a local descriptor store"
    assert found.summary == "shard 2, 37 descriptors of 17 images"
    assert (found.facts["source"], found.facts["as_written"]) == ("yfcc100m_0002.tar", True)
    assert (found.facts["first"], found.facts["last"]) == (DISTRACTORS[13], DISTRACTORS[29])
    assert (found.facts["descriptors_of_an_image"]["most"], found.facts["falling_weights"]) == (4, True)
    inspect(folder / f"00001.{part}")  # of no images
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    refused(path, "not as it was written|not readable JSON")
    truncate(path)
    refused(path, "not as it was written|not readable JSON")
    refused(folder, "cannot be read|truncated|damaged|not readable JSON")
    if part != "json":
        path.unlink()
        refused(folder, "cannot be read")
        refused(folder / "00002.json", "not as it was written")
        (folder / "00002.json").unlink()
        path.write_bytes(good)
        refused(path, "no done marker")


def test_damaged_local_store(tmp_path: Path) -> None:
    folder = local_store(tmp_path / "s", THREE)
    good = np.load(folder / "00000.offsets.npy")
    for place, value in ((0, 1), (5, 60), (-1, 25)):
        bad = good.copy()
        bad[place] = value
        np.save(folder / "00000.offsets.npy", bad)
        refused(folder, "offsets are damaged")
    np.save(folder / "00000.offsets.npy", good)
    np.save(folder / "00000.geometry.npy", np.zeros((3, 4), np.float32))
    refused(folder, "found \\(3, 4\\) float32")
    marker = folder / "00002.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"images": -1}))
    refused(folder, "done marker is broken")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sources": None}))
    refused(folder, "lists no sources")
    (folder / "manifest.json").write_text(json.dumps(manifest)[:40])
    refused(folder, "not readable JSON")


def test_run_and_evaluation(ilias: Ilias, tiny_root: Path, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(
        f"benchmark: {tiny_root}\nmodel: resnet18\nrandom_weights: 0\nprotocol: {{resolution: 64}}\nout: run\n"
    )
    assert ilias("run", tmp_path / "e.yaml").code == 0
    run = tmp_path / "run"
    found = inspect(run)
    assert (found.kind, found.facts["architecture"]) == ("run", "resnet18")
    assert "mAP@1000" in found.summary
    evaluation = inspect(run / "evaluation")
    assert evaluation.kind == "evaluation"
    assert f"mAP@1000 {100 * evaluation.facts['mAP@1000']:.2f}" in found.summary
    assert inspect(run / "evaluation" / "queries.parquet") == evaluation
    assert inspect(run / "evaluation" / "evaluation.json") == evaluation
    assert inspect(run / "run.json") == found
    truncate(run / "evaluation" / "queries.parquet")
    refused(run, "not as it was written")
    shutil.rmtree(run / "evaluation")
    assert "no evaluation" in inspect(run).warnings[0]
    truncate(run / "run.json")
    refused(run, "not readable JSON")


def test_benchmark(tiny_root: Path, tmp_path: Path) -> None:
    found = inspect(tiny_root)
    assert (found.kind, found.facts["objects"], found.facts["list_of_distractors"]) == (
        "benchmark in the ILIAS layout",
        4,
        True,
    )
    root = Path(shutil.copytree(tiny_root, tmp_path / "copy"))
    (root / "image_ids" / "positive_ids.txt").write_text("junk\n")
    refused(root, "positive|Expected|id")


def test_checksums(tmp_path: Path) -> None:
    path = tmp_path / "checksums.txt"
    good = [f"{n:064x}  https://host/yfcc100m/yfcc100m_{n:04d}.tar" for n in range(3)]
    path.write_text("\n".join([*good, f"{7:064x}  ilias_core.tar", good[0]]) + "\n")
    found = inspect(path)
    assert (found.kind, found.facts["files"], found.facts["tars"], found.facts["urls"]) == ("checksums", 5, 5, 4)
    assert "yfcc100m_0000.tar" in found.warnings[0]
    assert inspect(path.rename(tmp_path / "sums")).kind == "checksums"
    path.write_text(f"{good[0]}\nabc  x.tar\n")
    refused(path, "Expected '<sha256>")


def test_id_lists(tiny_root: Path, tmp_path: Path) -> None:
    partitions = {
        "image_query_ids.txt": "image_queries",
        "text_query_ids.txt": "text_queries",
        "positive_ids.txt": "positives",
        "distractor_ids.txt.gz": "distractors",
    }
    for name, partition in partitions.items():
        found = inspect(tiny_root / "image_ids" / name)
        assert (found.kind, found.facts["partition"], found.facts["duplicates"]) == ("id list", partition, 0)
    assert inspect(tiny_root / "image_ids" / "positive_ids.txt").facts["with_coverage_and_clutter"] > 0
    (tmp_path / "mini.txt").write_text("abo_0001\nabo_0000\n")
    found = inspect(tmp_path / "mini.txt")
    assert (found.facts["partition"], found.facts["sorted"]) == ("keys without a shard", False)
    path = tmp_path / "distractor_ids.txt.gz"
    path.write_bytes(gzip.compress("\n".join(DISTRACTORS * 50).encode())[:-20])
    refused(path, "damaged or truncated")
    path.write_bytes(gzip.compress(b"a.tar/\xff\xfe\n"))
    refused(path, "damaged or truncated")
    path.write_bytes(gzip.compress(b"x" * 10**6))
    refused(path, "longer than any id")
    (tmp_path / "prose.txt").write_text("This is a letter.\nDear reader!\n")
    refused(tmp_path / "prose.txt", "no list of ids")


def test_duplicates_of_a_long_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_values, "MOST_UNIQUE", 5)
    path = tmp_path / "l.txt"
    path.write_text("\n".join(sorted([*DISTRACTORS, DISTRACTORS[3]])))
    assert inspect(path).facts["duplicates"] == 1
    path.write_text("\n".join(DISTRACTORS))
    assert "not known" in inspect(path).facts["duplicates"]


def test_taxonomy_boxes_and_texts(tiny_root: Path, tmp_path: Path) -> None:
    assert inspect(tiny_root / "taxonomy.json").facts["objects"] == 4
    (tmp_path / "t.json").write_text(json.dumps({"a": {"b": {"c": ["x"], "other": ["y"]}}}))
    found = inspect(tmp_path / "t.json")
    assert (found.facts["categories"], found.facts["nodes_with_other"]) == ([1, 1, 1], [1, 1, 2])
    (tmp_path / "t.json").write_text(json.dumps({"a": {"b": {"c": ["x"], "d": ["x"]}}}))
    refused_taxonomy = pytest.raises(OpenIliasError, match="two categories")
    with refused_taxonomy:
        inspect(tmp_path / "t.json")
    Image.new("RGB", (40, 20)).save(tmp_path / "P1.jpg")
    (tmp_path / "P1_bbox.txt").write_text("0 0 20 20\n30 0 20 10\n")
    found = inspect(tmp_path / "P1_bbox.txt")
    assert (found.facts["coverage"], found.facts["image_size"]) == (pytest.approx(0.625), "40 x 20")
    assert "reach outside" in found.warnings[0]
    assert inspect((tmp_path / "P1_bbox.txt").rename(tmp_path / "boxes")).facts["boxes"] == ["0 0 20 20", "30 0 20 10"]
    (tmp_path / "P1_bbox.txt").write_text("0 0 20\n")
    with pytest.raises(OpenIliasError, match="four integers"):
        inspect(tmp_path / "P1_bbox.txt")
    text = next(tiny_root.glob("ilias_core/*/query/T*.txt"))
    assert inspect(text).facts["words"] == len(text.read_text().split())


def test_labels_and_other_tables(tmp_path: Path) -> None:
    labels = {"id": ["a", "b", "c"], "label": ["1", "1", "1"], "domain": ["art", "art", "food"]}
    pq.write_table(pa.table(labels), tmp_path / "labels.parquet")
    found = inspect(tmp_path / "labels.parquet")
    assert (found.kind, found.facts["classes"]) == ("training labels", 2)
    assert found.facts["images_of_domains"] == {"art": 2, "food": 1}
    assert "single image" in found.warnings[0]
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "t.parquet")
    assert inspect(tmp_path / "t.parquet").facts == {"rows": 2, "columns": {"n": "int64"}}
    refused(truncate(tmp_path / "labels.parquet"), "Parquet file is damaged")


def test_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0110] = "A Camera"
    exif.get_ifd(0x8825)[1] = "N"
    path = tmp_path / "i.jpg"
    Image.new("L", (40, 20)).save(path, exif=exif, progressive=True, icc_profile=b"profile")
    found = inspect(path)
    facts = found.facts
    assert (facts["format"], facts["mode"], facts["stored"], facts["upright"]) == ("JPEG", "L", "40 x 20", "20 x 40")
    assert (facts["orientation"], facts["progressive"], facts["colour_profile"]) == (6, True, True)
    assert (facts["camera"], facts["bytes"]) == ("A Camera", path.stat().st_size)
    said = " ".join(found.warnings)
    for word in ("stored turned", "converted to RGB", "GPS"):
        assert word in said
    refused(truncate(path, 0.9), "cannot be decoded")
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    (tmp_path / "nameless").write_bytes(buffer.getvalue())
    assert inspect(tmp_path / "nameless").facts["format"] == "PNG"


def test_experiment(ilias: Ilias, tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        "benchmark: b\nmodel: resnet18\nrandom_weights: 0\nout: o\nmatrix: {protocol.resolution: [64, 96]}\n"
    )
    outcome = ilias("data", "inspect", path, "--json", tmp_path / "x.json")
    assert outcome.code == 0, outcome.err
    value = json.loads((tmp_path / "x.json").read_text())
    assert (value["kind"], value["facts"]["runs"], value["facts"]["model"]) == ("experiment", 2, ["resnet18"])
    assert "not here" in value["warnings"][0]
    path.write_text("benchmark: b\ncolour: red\n")
    outcome = ilias("data", "inspect", path)
    assert outcome.code == 2
    assert "colour" in outcome.err


UNKNOWN = {
    "empty": b"",
    "empty.hdf5": b"",
    "program": b"\x7fELF" + bytes(20),
    "document.pdf": b"%PDF-1.7\n",
    "archive.zip": b"PK\x03\x04" + bytes(40),
    "noise.bin2": b"\xfe\xed\xfa\xce\0\1",
    "script.py": b"import os\n",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_files(ilias: Ilias, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(UNKNOWN[name])
    outcome = ilias("data", "inspect", tmp_path / name)
    assert outcome.code == 2
    assert outcome.err.startswith("error: This is no file that ilias knows")
    assert "Traceback" not in outcome.err


def test_unknown_paths(ilias: Ilias, tmp_path: Path) -> None:
    for path, words in ((tmp_path, "it is empty"), (tmp_path / "none", "no such file"), (Path("/dev/null"), "neither")):
        outcome = ilias("data", "inspect", path)
        assert outcome.code == 2
        assert words in outcome.err


@pytest.mark.parametrize("ending", [
    ".hdf5", ".npy", ".parquet", ".safetensors", ".pth", ".pkl", ".tar", ".jpg", ".json", ".yaml", ".txt.gz",
    "_bbox.txt", ".txt",
])  # fmt: skip
def test_junk_of_any_name(ilias: Ilias, tmp_path: Path, ending: str) -> None:
    for seed in range(4):
        path = tmp_path / f"{seed}{ending}"
        path.write_bytes(np.random.default_rng(seed).bytes(700 * seed + 64))
        outcome = ilias("data", "inspect", path)
        assert outcome.code == 2, outcome.out
        assert outcome.err.startswith("error:")
        assert "Traceback" not in outcome.err


def test_what_is_printed(ilias: Ilias, tmp_path: Path) -> None:
    path = features(tmp_path / "f.hdf5", 2 * unit(3, 4), POSITIVES[:3])
    outcome = ilias("data", "inspect", path, "--json", tmp_path / "f.json")
    assert outcome.code == 0, outcome.err
    assert (
        outcome.out.splitlines()[0] == "official features (HDF5): 3 descriptors of 4 dimensions, float64, of positives"
    )
    assert "warning: The vectors are not of unit norm" in outcome.out
    value = json.loads((tmp_path / "f.json").read_text())
    assert value["file"] == str(path)
    assert value["facts"]["shape"] == [3, 4]
    assert "Example: ilias data inspect" in " ".join(ilias("data", "inspect", "--help").out.split())
    shown = lines(Explanation("k", "s", {"a_b": True, "n": 1234, "x": 0.123456789, "m": {"p": [1, 2]}, "no": None}))
    assert shown == ["k: s", "  a b  yes", "  n    1,234", "  x    0.123457", "  m    p 1, 2"]
