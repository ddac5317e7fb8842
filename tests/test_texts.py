"""Text towers of the records: against open_clip itself, tokenizers, digests, and text queries searched among images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.data import Benchmark
from openilias.descriptors.extract import extract
from openilias.models.record import records
from openilias.models.text_towers import PairedTexts, text_tower
from openilias.models.tokenizers import BUILT_IN, tokenizer_name
from openilias.models.weights import WeightsSource
from openilias.models.zoo import TextFiles, find_model, load_model
from openilias.search.stores import search

CLIP, SIGLIP = "vit_base_patch16_clip_224.openai", "vit_base_patch16_siglip_224.webli"
TEXTS = ["a photo of a red cup", "Tower of Hanoi, wooden.\n", ""]
SMALL = Protocol(resolution=32)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of some words, as those of the hub have it."""
    return tokenizer_folder(tmp_path_factory.mktemp("tokenizers") / "words", 40)


def tokenizer_folder(folder: Path, first: int) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<eos>", "<unk>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    for number, word in enumerate("a photo of red cup tower hanoi wooden".split()):
        vocabulary[word] = first + number
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    tokenizer.save_pretrained(folder)
    return folder


def open_clip_vectors(architecture: str, quick: bool, state: dict[str, torch.Tensor], tokens: torch.Tensor) -> Any:
    images = {"image_size": 32, "patch_size": 32, "layers": 1, "width": 64}  # not looked at
    model: Any = open_clip.create_model(architecture, force_quick_gelu=quick, vision_cfg=images).eval()
    model.load_state_dict(state, strict=False)
    with torch.no_grad():
        return F.normalize(model.encode_text(tokens)).numpy()


@pytest.mark.parametrize("name", [CLIP, "fastvit_mci0.apple_mclip2_dfndr2b"])
def test_texts_equal_those_of_open_clip(name: str) -> None:
    spec = find_model(name)
    assert spec.text is not None
    backbone = load_model(spec, SMALL, random_weights=3)
    tower = text_tower(spec.text, WeightsSource(seed=3), model=spec)
    tokens = open_clip.get_tokenizer(spec.text.architecture)(TEXTS)
    assert tokens.shape[1] == records()[name].context
    expected = open_clip_vectors(spec.text.architecture, spec.quick_gelu, tower.state_dict(), tokens)
    found = backbone.encode_texts(TEXTS)
    assert np.abs(found - expected).max() < 1e-5
    if spec.quick_gelu:
        plain = open_clip_vectors(spec.text.architecture.removesuffix("-quickgelu"), False, tower.state_dict(), tokens)
        assert np.abs(found - plain).max() > 1e-4


def test_a_tokenizer_of_a_folder(words: Path) -> None:
    spec = find_model(SIGLIP)
    assert spec.text is not None
    backbone = load_model(spec, SMALL, random_weights=3, text=TextFiles(tokenizer=words))
    tower = text_tower(spec.text, WeightsSource(seed=3), model=spec)
    tokens = torch.zeros(3, 64, dtype=torch.long)  # padded to the context; punctuation and capitals are cleaned away
    tokens[0, :6] = torch.tensor([40, 41, 42, 40, 43, 44])
    tokens[1, :4] = torch.tensor([45, 42, 46, 47])
    expected = open_clip_vectors(spec.text.architecture, False, tower.state_dict(), tokens)
    assert np.abs(backbone.encode_texts(TEXTS) - expected).max() < 1e-5


def test_every_record_of_a_text_tower_knows_its_tokenizer() -> None:
    for name, record in records().items():
        tower = record.model.text
        if tower is not None:
            assert record.tokenizer == tokenizer_name(tower.architecture), name
            assert tower.quick_gelu == bool(
                open_clip.get_pretrained_cfg(tower.architecture, tower.tag).get("quick_gelu", False)
            ), name
            if record.model.library == "timm" and record.model.quick_gelu:
                assert tower.quick_gelu, name
    assert records()[CLIP].tokenizer == BUILT_IN


@pytest.mark.parametrize(
    ("model", "files", "message"),
    [
        (SIGLIP, {}, "tokenizer of .* could not be loaded.*--tokenizer FOLDER"),
        (SIGLIP, {"tokenizer": "none"}, "no such folder"),
        (SIGLIP, {"tokenizer": "empty"}, "holds no tokenizer"),
        (SIGLIP, {"tokenizer": "large"}, "more tokens than .* knows, 32000"),
        (CLIP, {"tokenizer": "words"}, "comes with the library"),
        (CLIP, {"weights": "none.pt"}, "no such weights file"),
        (CLIP, {"weights": "other.pt"}, "do not fit the architecture"),
    ],
)
def test_what_is_wrong_with_texts_is_said(
    model: str, files: dict[str, str], message: str, words: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    tokenizer_folder(tmp_path / "large", 40_000)
    torch.save({"token_embedding.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    paths = {name: words if value == "words" else tmp_path / value for name, value in files.items()}
    spec = find_model(model)
    assert spec.text is not None
    seed = None if "weights" in paths else 0
    source = WeightsSource(paths.get("weights"), seed, tokenizer=paths.get("tokenizer"))
    encode = PairedTexts(spec, spec.text, source, "cpu")
    with pytest.raises(OpenIliasError) as caught:
        encode(["a cup"])
    assert re.search(message, f"{caught.value.what} {caught.value.fix}", re.DOTALL), caught.value


def saved_images(folder: Path) -> Path:
    """Weights of the image tower, random."""
    torch.save(load_model(find_model(CLIP), SMALL, random_weights=0).network.module.state_dict(), folder / "images.pt")
    return folder / "images.pt"


@pytest.mark.parametrize("model", ["resnet18", "open_clip:ViT-B-32/openai"])
def test_files_of_texts_belong_to_records_with_a_tower(model: str, tmp_path: Path) -> None:
    with pytest.raises(OpenIliasError, match="no text tower of its own file"):
        load_model(find_model(model), SMALL, random_weights=0, text=TextFiles(weights=tmp_path / "x.pt"))
    with pytest.raises(OpenIliasError, match="no text tower"):
        load_model(find_model("resnet18"), SMALL, random_weights=0, text=TextFiles(tokenizer=tmp_path))


def test_the_official_tower_of_eva() -> None:
    spec = find_model("eva02_large_patch14_clip_336.merged2b")
    assert spec.text is not None
    assert spec.text.taken(Protocol()).architecture == "EVA02-L-14-336"
    official = spec.text.taken(Protocol(compat="official"))
    assert (official.architecture, official.tag) == ("EVA02-L-14", "merged2b_s4b_b131k")


def test_a_whole_checkpoint_of_open_clip_gives_the_text_tower(tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole: Any = open_clip.create_model("ViT-B-16", force_quick_gelu=True).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    images, text = saved_images(tmp_path), TextFiles(weights=tmp_path / "whole.pt")
    first = load_model(find_model(CLIP), SMALL, weights=images, text=text)
    tokens = open_clip.get_tokenizer("ViT-B-16")(TEXTS)
    with torch.no_grad():
        expected = F.normalize(whole.encode_text(tokens)).numpy()
    assert np.abs(first.encode_texts(TEXTS) - expected).max() < 1e-5
    other = load_model(find_model(CLIP), SMALL, random_weights=0)
    assert first.text_digest() == first.text_digest() != other.text_digest()
    assert first.weights_digest == other.weights_digest


def test_the_digest_of_texts_knows_the_tokenizer(words: Path, tmp_path: Path) -> None:
    spec = find_model(SIGLIP)
    assert spec.text is not None
    tower = spec.text

    def digest(folder: Path) -> str:
        return PairedTexts(spec, tower, WeightsSource(seed=0, tokenizer=folder), "cpu").digest()

    other = tokenizer_folder(tmp_path / "other", 50)
    assert digest(words) != digest(other)


def test_text_queries_are_searched_among_images(tiny: Benchmark, tmp_path: Path, ilias: Callable[..., Any]) -> None:
    backbone = load_model(find_model(CLIP), SMALL, random_weights=0)
    texts = extract(tiny, backbone, "text_queries", tmp_path / "texts")
    images = extract(tiny, backbone, "positives", tmp_path / "images")
    assert texts.dims == images.dims == 512
    assert texts.manifest["made_from"]["texts"] == backbone.text_digest()
    assert "texts" not in images.manifest["made_from"]
    ranking = search([texts], [images], 5)
    assert len(ranking.query_ids) == texts.rows
    official = load_model(find_model(CLIP), Protocol(resolution=32, compat="official"), random_weights=0)
    assert official.text_digest() == backbone.text_digest()  # the same numbers, another activation
    with pytest.raises(OpenIliasError, match="compat"):
        search([extract(tiny, official, "text_queries", tmp_path / "official")], [images], 5)
    model = ("--model", CLIP, "--resolution", "32", "--partition", "text_queries", "--out", tmp_path / "texts")
    done = ilias("extract", tiny.root, *model, "--random-weights", "1")
    assert done.code == 2
    assert "made from something else" in done.err
    assert "texts" in done.err
