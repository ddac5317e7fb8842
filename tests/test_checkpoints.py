"""Published checkpoints: the names and shapes of their authors fit the architectures of the records."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.models.checkpoints import LAYOUTS
from openilias.models.record import records
from openilias.models.weights import fit_state, read_state
from openilias.models.zoo import find_model, load_model, outline

pytestmark = pytest.mark.usefixtures("quick_networks")

FILES = sorted((Path(__file__).parent / "checkpoints").glob("*.json"))
# What their authors' code does not tell: sizes that stand in the file alone.
UNKNOWN = {"unic_l": {"pos_embed"}}


def published(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def tensors(path: Path, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Random numbers under the names and in the shapes of the published file."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in published(path)["keys"].items():
        if device == "meta":
            found[name] = torch.empty(shape, device="meta")
        elif name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(1)
        else:
            value = torch.randn(shape, generator=generator) * 0.02
            found[name] = value.abs() + 0.5 if name.endswith(("running_var", "pool.p", "gem.p")) else value
    return found


def test_every_mapped_record_has_its_list_of_names() -> None:
    mapped = {record.name for record in records().values() if record.model.layout or record.model.weights == "url"}
    assert mapped - {path.stem for path in FILES} == {
        "superglobal_resnet50",  # the weights of CVNet
        "superglobal_resnet101",
        "unicom_vit_base_patch16_gldv2",  # fine-tuned: the names are those of the published ones
        "unicom_vit_base_patch16_sop",
    }
    assert {path.stem for path in FILES} <= mapped
    for path in FILES:
        assert published(path)["source"].startswith("https://github.com/")
        record = records()[path.stem]
        if record.model.weights == "url":
            assert record.model.url == published(path)["url"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_name_of_the_authors_has_its_place(path: Path) -> None:
    spec = records()[path.stem].model
    network = outline(spec, Protocol())
    own = {name: tuple(value.shape) for name, value in network.module.state_dict().items()}
    state = tensors(path, "meta")
    found = LAYOUTS[spec.layout](state) if spec.layout else state
    given = {name: tuple(value.shape) for name, value in found.items()}
    for name in UNKNOWN.get(path.stem, ()):
        assert name not in given
        own.pop(name)
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    assert {n: s for n, s in given.items() if n not in optional} == {n: s for n, s in own.items() if n not in optional}
    assert set(given) <= set(own)


def saved(path: Path, target: Path, **beside: Any) -> Path:
    state: Any = tensors(path)
    for key in reversed(published(path)["container"]):
        state = {key: state, **beside}
    torch.save(state, target)
    return target


def by_name(name: str) -> Path:
    return next(path for path in FILES if path.stem == name)


@pytest.mark.parametrize("name", ["cvnet_resnet50", "hier_dino_vits16_sop", "recall_512_resnet50", "dinov2_vits14_reg"])
def test_a_published_file_is_loaded_from_its_container(name: str, tmp_path: Path) -> None:
    options = argparse.Namespace(arch="vit", lr=np.linspace(0, 1, 5), epochs=[1, 2])
    file = saved(by_name(name), tmp_path / "file.pth", args=options, epoch=3, optimizer={})
    backbone = load_model(find_model(name), Protocol(resolution=112), weights=file)
    assert backbone.weights_from == "file"
    state = LAYOUTS[str(backbone.spec.layout)](tensors(by_name(name)))
    loaded = backbone.network.module.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = tensors(by_name("cvnet_resnet50"))
    state["encoder_q.s5.b1.f.a.weight"] = state.pop("encoder_q.s4.b1.f.a.weight")
    torch.save({"model_state": state}, tmp_path / "odd.pyth")
    with pytest.raises(OpenIliasError, match=r"1 missing: trunk\.layer4\.0\.conv1\.weight; 1 left over: trunk\.layer5"):
        load_model(find_model("cvnet_resnet50"), Protocol(), weights=tmp_path / "odd.pyth")


def test_the_size_of_unic_is_that_of_its_file(tmp_path: Path) -> None:
    spec = find_model("unic_l").model_copy(update={"arguments": {"depth": 1}})
    first = {n: v for n, v in tensors(by_name("unic_l"), "meta").items() if ".blocks." not in n or ".blocks.0.0." in n}
    state = {name: torch.ones(value.shape) * 0.01 for name, value in first.items()}
    state["module.encoder.pos_embed"] = torch.randn(1, 24 * 24 + 1, 1024)  # the architecture has 16 x 16
    torch.save({"model": state, "args": argparse.Namespace()}, tmp_path / "unic.pth")
    backbone = load_model(spec, Protocol(resolution=70), weights=tmp_path / "unic.pth")
    assert backbone.network.module.pos_embed.shape[1] == 24 * 24 + 1  # type: ignore[attr-defined]
    assert backbone.encode_images(np.zeros((1, 70, 56, 3), np.uint8)).shape == (1, 1024)


def test_only_plain_options_beside_the_weights_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}, "args": Path("x")}, tmp_path / "odd.pth")
    with pytest.raises(OpenIliasError, match="no file of plain tensors"):
        read_state(tmp_path / "odd.pth")


def flax_file(state: dict[str, torch.Tensor], target: Path, *, chunked: str | None = None) -> Path:
    """A checkpoint as flax writes it, by the definition of its format."""
    msgpack = pytest.importorskip("msgpack")

    def packed(array: np.ndarray) -> Any:
        return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True))

    tree: dict[str, Any] = {"global_step": 7, "params": {}}
    for name, value in state.items():
        node = tree
        *places, last = name.split("/")
        for place in places:
            node = node.setdefault(place, {})
        array = value.numpy()
        node[last] = packed(array)
        if name == chunked:
            flat = array.reshape(-1)
            parts = {str(i): packed(part) for i, part in enumerate(np.array_split(flat, 3))}
            shape = {str(axis): side for axis, side in enumerate(array.shape)}
            node[last] = {"__msgpack_chunked_array__": True, "shape": shape, "chunks": parts}
    target.write_bytes(msgpack.packb(tree, strict_types=True))
    return target


def test_a_checkpoint_of_flax_is_read(tmp_path: Path) -> None:
    name = "usrr_64_vit_base_patch16_clip_224.openai"
    state = tensors(by_name(name))
    file = flax_file(state, tmp_path / "checkpoint", chunked="params/positional_embedding")
    read = read_state(file)
    assert {key: tuple(value.shape) for key, value in read.items()} == {k: tuple(v.shape) for k, v in state.items()}
    assert all(torch.equal(read[key], value) for key, value in state.items())
    backbone = load_model(find_model(name), Protocol(resolution=64), weights=file)
    assert backbone.dims == 768
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(OpenIliasError, match="cut off"):
        read_state(file)


def test_the_weights_of_a_url_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    source = saved(by_name("dinov2_vits14"), tmp_path / "published.pth")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    spec = find_model("dinov2_vits14").model_copy(update={"url": source.as_uri(), "weights_sha256": digest})
    backbone = load_model(spec, Protocol(resolution=56))
    assert backbone.weights_from == "url"
    source.unlink()
    assert load_model(spec, Protocol(resolution=56)).weights_digest == backbone.weights_digest
    other = spec.model_copy(update={"name": "other"})
    with pytest.raises(OpenIliasError, match="could not be fetched") as caught:
        load_model(other, Protocol())
    assert caught.value.where == source.as_uri()
    assert not list((tmp_path / "hub").rglob("other*"))


def test_another_file_than_the_record_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(by_name("dinov2_vits14"), tmp_path / "published.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    spec = find_model("dinov2_vits14").model_copy(update={"url": source.as_uri(), "weights_sha256": "0" * 64})
    with pytest.raises(OpenIliasError, match="hash"):
        load_model(spec, Protocol())
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]


def test_fitting_says_what_is_of_another_shape() -> None:
    layer = torch.nn.Linear(3, 2)
    with pytest.raises(OpenIliasError, match=r"1 of another shape: weight \(2, 4\) instead of \(2, 3\)"):
        fit_state(layer, {"weight": torch.ones(2, 4), "bias": torch.ones(2)}, where=Path("x"))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({0: torch.ones(2)}, "no plain tensors with names: 0"),
        ({"pos_embed": torch.ones(2).to_sparse()}, "no plain tensors with names: pos_embed"),
        ({"pos_embed": torch.ones(2, dtype=torch.complex64)}, "no plain tensors"),
        ({"pos_embed": torch.ones(1).half().expand(10**15)}, "no plain tensors"),
        ({"register_tokens": torch.ones(1, 4, 384)}, "not laid out as published: KeyError"),
        ({"register_tokens": torch.ones(1, 4, 384), "pos_embed": torch.ones(3)}, "not laid out as published"),
    ],
)
def test_odd_files_are_refused_with_their_name(state: dict[Any, Any], message: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(OpenIliasError, match=message) as caught:
        load_model(find_model("dinov2_vits14_reg"), Protocol(resolution=56), weights=tmp_path / "odd.pth")
    assert caught.value.where == str(tmp_path / "odd.pth")
    assert caught.value.fix


def test_numbers_of_another_type_are_refused(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    state = {"weight": torch.ones(2, 3, dtype=torch.int8), "bias": torch.ones(2, dtype=torch.float16)}
    with pytest.raises(OpenIliasError, match=r"1 of another type: weight torch\.int8"):
        fit_state(layer, state, where=tmp_path)
    fit_state(layer, state | {"weight": torch.ones(2, 3, dtype=torch.bfloat16)}, where=tmp_path)
    assert layer.weight.dtype == torch.float32


def test_a_download_that_was_cut_off_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(by_name("dinov2_vits14"), tmp_path / "published.pth")
    whole = source.read_bytes()
    source.write_bytes(whole[:1000])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    spec = find_model("dinov2_vits14").model_copy(update={"url": source.as_uri()})
    with pytest.raises(OpenIliasError, match="could not be fetched: This weights file cannot be read"):
        load_model(spec, Protocol(resolution=56))
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]
    source.write_bytes(whole)
    load_model(spec, Protocol(resolution=56))
    kept = next(path for path in (tmp_path / "hub").rglob("*") if path.is_file())
    known = spec.model_copy(update={"weights_sha256": "0" * 64})
    with pytest.raises(OpenIliasError, match="not the published file") as caught:
        load_model(known, Protocol(resolution=56))
    assert caught.value.where == str(kept)


@pytest.mark.parametrize("shape", [(1, 55, 8), (2, 50, 8), (1, 1, 8), (7,), (1, 50, 9)])
def test_a_table_of_positions_that_is_none(shape: tuple[int, ...], tmp_path: Path) -> None:
    spec = find_model("unic_l").model_copy(update={"arguments": {"depth": 1, "embed_dim": 8, "num_heads": 2}})
    torch.save({"model": {"module.encoder.pos_embed": torch.ones(shape)}}, tmp_path / "unic.pth")
    with pytest.raises(OpenIliasError, match="no square grid of 8") as caught:
        load_model(spec, Protocol(), weights=tmp_path / "unic.pth")
    assert caught.value.where == str(tmp_path / "unic.pth")
