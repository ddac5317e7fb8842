"""AMES: against the layer-by-layer definition with dense masks, masked and unmasked, full precision and binary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openilias.core.errors import OpenIliasError
from openilias.models.local_features import LocalFeatures
from openilias.rerank.ames import Ames, Padding
from openilias.rerank.ames_files import binarisation_of, digest_of, read_ames, write_ames
from openilias.rerank.ames_scores import AmesScores
from openilias.rerank.similarities import Candidates

SMALL = {"dims": 16, "heads": 2, "layers": 3, "wide": 40}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def shaken(network: Ames) -> Ames:
    """Numbers that all matter: as they are drawn, biases and norms do not."""
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.2 * torch.randn_like(value))
    return network.eval()


def dense(network: Ames, query: Tensor, images: Tensor, padded_query: Tensor, padded_images: Tensor) -> Tensor:
    """The definition: one sequence, PyTorch's own attention with a mask over everything, every token of every layer."""
    state = network.state_dict()
    batch, asked, known = len(images), query.shape[1], images.shape[1]

    def remapped(x: Tensor) -> Tensor:
        x = F.normalize(x, dim=-1)
        if network.binary:
            x = torch.sign(F.normalize(x, dim=-1) @ state["remap_local.0.W"])
        linear, norm = (1, 2) if network.binary else (0, 1)
        x = F.linear(x, state[f"remap_local.{linear}.weight"], state[f"remap_local.{linear}.bias"])
        return F.layer_norm(x, x.shape[-1:], state[f"remap_local.{norm}.weight"], state[f"remap_local.{norm}.bias"])

    query, images = remapped(query).expand(batch, -1, -1), remapped(images)
    if not network.binary:
        images = images.half().float()
    x = torch.cat([state["mtc_token"].expand(batch, 1, -1), query, images], 1)
    padded = torch.cat([torch.zeros(batch, 1, dtype=torch.bool), padded_query.expand(batch, -1), padded_images], 1)
    side = torch.tensor([0] + [1] * asked + [2] * known)
    both = (side[:, None] > 0) & (side[None, :] > 0)
    apart = both & (side[:, None] != side[None, :])
    own = both & (side[:, None] == side[None, :])
    for number, layer in enumerate(network.decoder.layers):
        for name, mask, norm in (("self_attn", apart, "norm1"), ("cross_attn", own, "norm2")):
            attention = nn.MultiheadAttention(network.dims, getattr(layer, name).num_heads, batch_first=True)
            prefix = f"decoder.layers.{number}.{name}."
            attention.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
            x = getattr(layer, norm)(x + attention(x, x, x, attn_mask=mask, key_padding_mask=padded)[0])
        x = layer.norm3(x + layer.linear2(F.relu(layer.linear1(x))))
    return network.classifier(x[:, 0]).view(-1)


@torch.no_grad()
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_blocks_equal_the_dense_definition(binary: bool, padded: bool, shared: bool) -> None:
    network = shaken(Ames(24, binary=binary, **SMALL))
    query, images = torch.randn(1 if shared else 5, 11, 24), torch.randn(5, 7, 24)
    padded_query = torch.zeros(len(query), 11, dtype=torch.bool)
    padded_images = torch.zeros(5, 7, dtype=torch.bool)
    if padded:
        padded_query[:, 9:] = True
        for row, count in enumerate((7, 3, 0, 1, 6)):  # one image has none at all
            padded_images[row, count:] = True
    expected = dense(network, query, images, padded_query, padded_images)
    tokens = network.tokens_of(query, image=False), network.tokens_of(images, image=True)
    found = network(*tokens, Padding(padded_query, padded_images) if padded else Padding())
    assert (found - expected).abs().max() < 2e-6 * max(1, expected.abs().max())
    assert expected.std() > 1e-2
    if padded:  # what is padded can as well be left out
        one = network(tokens[0][:1, :9], tokens[1][1:2, :3])
        assert (one - dense(network, query[:1], images[1:2], padded_query[:1], padded_images[1:2])).abs() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("binary", [False, True])
def test_the_published_size_and_names(binary: bool) -> None:
    network = shaken(Ames(768, binary=binary))
    names = {f"decoder.layers.{n}.{part}" for n in range(5) for part in (
        *(f"{a}.{w}" for a in ("self_attn", "cross_attn") for w in ("in_proj_weight", "in_proj_bias")),
        *(f"{a}.out_proj.{w}" for a in ("self_attn", "cross_attn") for w in ("weight", "bias")),
        *(f"{a}.{w}" for a in ("linear1", "linear2", "norm1", "norm2", "norm3") for w in ("weight", "bias")),
    )}  # fmt: skip
    first = {"remap_local.0.W"} if binary else {"remap_local.0.weight", "remap_local.0.bias"}
    for number in (1, 2) if binary else (1,):
        first |= {f"remap_local.{number}.weight", f"remap_local.{number}.bias"}
    assert set(network.state_dict()) == names | first | {"mtc_token", "classifier.weight", "classifier.bias"}
    assert network.state_dict()["mtc_token"].shape == (128,)
    assert network.decoder.layers[0].linear1.weight.shape == (1024, 128)
    query, images = torch.randn(1, 40, 768), torch.randn(3, 20, 768)
    none = torch.zeros(1, 40, dtype=torch.bool), torch.zeros(3, 20, dtype=torch.bool)
    found = network(network.tokens_of(query, image=False), network.tokens_of(images, image=True))
    assert (found - dense(network, query, images, *none)).abs().max() < 1e-4


@torch.no_grad()
def test_packed_bits_are_the_descriptors_of_a_binary_network() -> None:
    network = shaken(Ames(24, binary=True, **SMALL))
    descriptors = torch.randn(3, 9, 24)
    bits = F.normalize(descriptors, dim=-1) @ network.remap_local[0].W >= 0
    packed = np.packbits(bits.numpy(), axis=-1)
    signs = torch.from_numpy(np.unpackbits(packed, axis=-1)).float() * 2 - 1
    assert (network.tokens_of(signs, image=True) - network.tokens_of(descriptors, image=True)).abs().max() < 1e-6


def test_slopes_are_those_of_differences() -> None:
    network = shaken(Ames(24, **SMALL)).train().double()
    query, images = torch.randn(4, 6, 24).double(), torch.randn(4, 5, 24).double()
    labels = torch.tensor([1.0, 0, 1, 0]).double()

    def loss() -> Tensor:
        tokens = network.tokens_of(query, image=False), network.tokens_of(images, image=True)
        return F.binary_cross_entropy_with_logits(network(*tokens), labels)

    loss().backward()
    for name, value in network.named_parameters():
        direction, step = torch.randn_like(value), 1e-6
        sides = []
        with torch.no_grad():
            for change in (step, -2 * step, step):
                value.add_(change * direction)
                sides.append(float(loss()))
        slope = (sides[0] - sides[1]) / (2 * step)
        assert value.grad is not None
        assert slope == pytest.approx(float((value.grad * direction).sum()), rel=1e-4, abs=1e-7), name


def test_signs_have_a_slope_while_they_learn() -> None:
    network = Ames(24, binary=True, **SMALL).train()
    tokens = network.tokens_of(torch.randn(2, 3, 24), image=True)
    tokens.sum().backward()
    slope = network.remap_local[0].W.grad
    assert slope is not None
    assert torch.isfinite(slope).all()


# --- files, and shortlists ---


@pytest.mark.parametrize("binary", [False, True])
def test_checkpoints_are_read_key_by_key(binary: bool, tmp_path: Path) -> None:
    network = shaken(Ames(24, binary=binary, **SMALL))
    write_ames(network, tmp_path / "a.pt", made_from={"seed": 0})
    read = read_ames(tmp_path / "a.pt")
    assert digest_of(read) == digest_of(network)
    assert (read.binary, read.local_dims, read.dims, len(read.decoder.layers)) == (binary, 24, 16, 3)
    assert set(torch.load(tmp_path / "a.pt", weights_only=True)) == {"state", "made_from"}
    state = network.state_dict()
    for change, message in (
        ({"mtc_token": None}, "no network of AMES"),
        ({"decoder.layers.1.norm2.bias": None}, "does not fit"),
        ({"more": torch.zeros(3)}, "does not fit"),
        ({"classifier.bias": torch.full((1,), torch.nan)}, "not finite: classifier.bias"),
    ):
        wrong = {name: value for name, value in (state | change).items() if value is not None}
        torch.save({"state": wrong}, tmp_path / "b.pt")
        with pytest.raises(OpenIliasError, match=message):
            read_ames(tmp_path / "b.pt")
    if not binary:
        with pytest.raises(OpenIliasError, match="takes descriptors of numbers"):
            binarisation_of(network)


def candidates(counts: list[int], dims: int = 24) -> Candidates:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(sum(counts), dims)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Candidates(
        rows, np.zeros((len(rows), 4), np.float32), np.ones((len(counts), 2), int), np.cumsum([0, *counts])
    )


def query_of(rows: np.ndarray) -> LocalFeatures:
    return LocalFeatures(rows, np.zeros((len(rows), 4), np.float32), 5, 5)


@torch.no_grad()
@pytest.mark.parametrize("binary", [False, True])
def test_shortlists_equal_the_dense_definition_one_by_one(binary: bool) -> None:
    network = shaken(Ames(24, binary=binary, **SMALL))
    some = candidates([5, 0, 9, 1, 9, 3, 0])
    query = query_of(candidates([6]).descriptors)
    found = AmesScores(network, batch=3)(query, some)
    for image in range(7):
        rows = torch.from_numpy(some.descriptors[some.offsets[image] : some.offsets[image + 1]])[None]
        none = torch.zeros(1, 6, dtype=torch.bool), torch.zeros(1, rows.shape[1], dtype=torch.bool)
        expected = dense(network, torch.from_numpy(query.descriptors)[None], rows, *none)
        assert found[image] == pytest.approx(float(expected), abs=2e-5)
    assert AmesScores(network)(query, candidates([])).shape == (0,)
    assert np.isfinite(AmesScores(network)(query, candidates([0, 0]))).all()


def test_packed_stores_give_what_their_descriptors_give() -> None:
    network = shaken(Ames(24, binary=True, dims=64, heads=2, layers=2, wide=30))
    bits = binarisation_of(network)
    some, query = candidates([5, 0, 9]), candidates([6]).descriptors
    packed = some._replace(descriptors=bits.pack(some.descriptors))
    full = AmesScores(network)(query_of(query), some)
    for asked in (query, bits.pack(query)):  # asymmetric: one side may be of numbers
        assert np.abs(AmesScores(network)(query_of(asked), packed) - full).max() < 1e-5
    with pytest.raises(OpenIliasError, match="takes no descriptors of 64 bits"):
        AmesScores(shaken(Ames(24, **SMALL)))(query_of(query), packed)
    with pytest.raises(OpenIliasError, match="takes descriptors of 24 dimensions, not 23"):
        AmesScores(network)(query_of(query[:, :23]), some)
