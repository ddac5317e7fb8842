"""Text towers of the zoo: against open_clip itself, their tokenizers, their local files, and texts in a search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.data import Benchmark
from openilias.descriptors.extract import extract
from openilias.models.backbone import Backbone
from openilias.models.record import records
from openilias.models.spec import ModelSpec
from openilias.models.tokenizers import tokenizer_of
from openilias.models.zoo import TextFiles, load_model
from openilias.search.origin import common_origin
from openilias.search.stores import search

pytestmark = pytest.mark.usefixtures("quick_networks")

TEXTS = ["a red cup\n", "A CUP, with a handle; it's 10 cm high", "x " * 100, ""]
CLIP = "vit_base_patch16_clip_224.openai"
SIGLIP = "vit_base_patch16_siglip_224.webli"
SMALL = {"image_size": 32, "patch_size": 32, "layers": 1, "width": 64, "head_width": 64}
"""An image tower that nobody asks."""


def spec_of(name: str, **arguments: Any) -> ModelSpec:
    """The record with a short image tower: its texts are wanted here."""
    model = records()[name].model
    short = {"depths": [1, 1, 1, 1]} if name.startswith("convnext") else {"depth": 1}
    return model.model_copy(update={"arguments": model.arguments | short | arguments})


def load(name: str, *, seed: int = 0, compat: str = "paper", **text: Path) -> Backbone:
    protocol = Protocol.model_validate({"resolution": 32, "compat": compat, "dtype": "float32"})
    return load_model(spec_of(name), protocol, random_weights=seed, text=TextFiles(**text))


@torch.no_grad()
def tower(architecture: str, *, quick: bool = False, seed: int = 1, **images: Any) -> Any:
    """open_clip's own model, with numbers that all matter."""
    torch.manual_seed(seed)
    module: Any = open_clip.create_model(architecture, force_quick_gelu=quick, **images).eval()
    for name, value in module.named_parameters():
        if value.ndim < 2 and value.numel() > 1:
            noise = torch.randn(value.shape)
            value.copy_(0.1 * noise if name.endswith("bias") else 1 + 0.2 * noise)
        value.copy_(value.half())  # so that half a file is the whole of it
    return module


def saved(module: Any, path: Path, *, whole: bool = False) -> Path:
    state = module.state_dict()
    torch.save({name: v.half() for name, v in state.items() if whole or not name.startswith("visual.")}, path)
    return path


@torch.no_grad()
def described(module: Any, tokens: Tensor) -> np.ndarray:
    return F.normalize(module.encode_text(tokens), dim=-1).numpy()


@pytest.fixture(scope="module")
def clip() -> Any:
    return tower("ViT-B-16", quick=True)


@pytest.fixture(scope="module")
def clip_file(clip: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint of open_clip, the image tower too."""
    return saved(clip, tmp_path_factory.mktemp("clip") / "open_clip.pt", whole=True)


def made_tokenizer(folder: Path, *, first: int = 0) -> Path:
    """A real tokenizer of few words; those that a text begins with have the numbers from ``first`` on."""
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    vocabulary = {"<pad>": 1, "</s>": 2, "<unk>": 3, "cup": 4, "red": 5, "handle": 6, "high": 7, "x": 8, "10": 9}
    vocabulary |= {"a": first + 10, "with": first + 11, "photo": first + 12}
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    fast.normalizer = tokenizers.normalizers.Lowercase()
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=fast, **special).save_pretrained(folder)
    return folder


@pytest.fixture
def unfilled(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What is read from a file needs no numbers before; making them takes most of the time."""

    def forget() -> None:
        for fill in ("kaiming_uniform_", "uniform_", "normal_", "trunc_normal_"):
            monkeypatch.setattr(torch.nn.init, fill, lambda tensor, *of, **more: tensor.detach().fill_(0.01))

    return forget


# --- the numbers ---


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("vit_base_patch16_clip_224.metaclip_2pt5b", "ViT-B-16-quickgelu"),
        ("vit_pe_core_tiny_patch16_384.fb", "PE-Core-T-16-384"),
        ("convnext_base.clip_laion2b_augreg", "convnext_base_w"),
    ],
)
def test_texts_are_described_as_open_clip_does(name: str, architecture: str, tmp_path: Path, unfilled: Any) -> None:
    module = tower(architecture, vision_cfg=SMALL)
    file = saved(module, tmp_path / "text.pt")
    unfilled()
    backbone = load(name, weights=file)
    expected = described(module, open_clip.get_tokenizer(architecture)(TEXTS))
    assert expected.shape == (len(TEXTS), records()[name].dims)
    assert np.abs(backbone.encode_texts(TEXTS) - expected).max() < 1e-5
    assert np.abs(backbone.encode_texts(TEXTS[1:2]) - expected[1]).max() < 1e-5


def test_clip_has_its_activation_and_reads_whole_checkpoints(clip: Any, clip_file: Path) -> None:
    backbone = load(CLIP, weights=clip_file)
    tokens = open_clip.get_tokenizer("ViT-B-16")(TEXTS)
    found = backbone.encode_texts(TEXTS)
    assert np.abs(found - described(clip, tokens)).max() < 1e-5
    plain = tower("ViT-B-16", vision_cfg=SMALL)
    fitting = {name: v for name, v in clip.state_dict().items() if not name.startswith("visual.")}
    assert not plain.load_state_dict(fitting, strict=False).unexpected_keys
    assert np.abs(found - described(plain, tokens)).max() > 1e-3


def test_the_official_code_has_the_activation_of_the_name(clip: Any, clip_file: Path) -> None:
    plain = tower("ViT-B-16", vision_cfg=SMALL)
    plain.load_state_dict({n: v for n, v in clip.state_dict().items() if not n.startswith("visual.")}, strict=False)
    expected = described(plain, open_clip.get_tokenizer("ViT-B-16")(TEXTS))
    assert np.abs(load(CLIP, compat="official", weights=clip_file).encode_texts(TEXTS) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "architecture"),
    [(SIGLIP, "ViT-B-16-SigLIP"), ("vit_base_patch16_siglip_224.v2_webli", "ViT-B-16-SigLIP2")],
)
def test_siglip_with_a_tokenizer_in_a_folder(name: str, architecture: str, tmp_path: Path, unfilled: Any) -> None:
    pytest.importorskip("transformers")
    folder = made_tokenizer(tmp_path / "tokenizer")
    module = tower(architecture, vision_cfg=SMALL)
    file = saved(module, tmp_path / "text.pt")
    unfilled()
    backbone = load(name, weights=file, tokenizer=folder)
    rows = [[10, 5, 4, 2], [10, 4, 11, 10, 6, 3, 9, 3, 7, 2], [8] * 63 + [2], [2]]  # "its" and "cm" are not known
    tokens = torch.tensor([row + [1] * (64 - len(row)) for row in rows])
    assert (HFTokenizer(str(folder), context_length=64, clean="canonicalize")(TEXTS) == tokens).all()
    assert np.abs(backbone.encode_texts(TEXTS) - described(module, tokens)).max() < 1e-5
    if name == SIGLIP:
        lengthened = made_tokenizer(tmp_path / "other", first=100)
        other = load(name, weights=file, tokenizer=lengthened)
        assert other.text_digest(TEXTS) != backbone.text_digest(TEXTS)  # another tokenizer describes differently


# --- what cannot be ---


def test_without_the_hub_the_error_names_the_folder() -> None:
    with pytest.raises(OpenIliasError, match=f"tokenizer of {SIGLIP} could not be loaded") as caught:
        load(SIGLIP).encode_texts(["a cup"])
    assert "--tokenizer FOLDER" in str(caught.value.fix)
    with pytest.raises(OpenIliasError, match="tokenizer of m could not be loaded"):
        tokenizer_of("ViT-B-16-SigLIP2", None, model="m")


def test_folders_without_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    damaged = made_tokenizer(tmp_path / "damaged")
    (damaged / "tokenizer.json").write_text('{"version":')
    cases = {
        "none": "no such folder",
        "empty": "holds no tokenizer",
        "damaged": "holds no tokenizer",
        made_tokenizer(tmp_path / "large", first=31_990).name: "more tokens than m knows, 32000",
    }
    for folder, message in cases.items():
        with pytest.raises(OpenIliasError, match=message) as caught:
            tokenizer_of("ViT-B-16-SigLIP", tmp_path / folder, model="m")
        assert caught.value.where == str(tmp_path / folder)
        assert caught.value.fix
    assert tokenizer_of("ViT-B-16-SigLIP2", tmp_path / "large", model="m")(["a"]).shape == (1, 64)
    with pytest.raises(OpenIliasError, match="comes with the library") as caught:
        tokenizer_of("ViT-B-16", tmp_path / "large", model="m")
    assert "--tokenizer" in str(caught.value.fix)


def test_files_that_are_not_of_this_model(clip: Any, clip_file: Path, tmp_path: Path) -> None:
    with pytest.raises(OpenIliasError, match="comes with the library"):
        load(CLIP, weights=clip_file, tokenizer=tmp_path).encode_texts(["a"])
    resnet = records()["resnet50.tv_in1k"].model
    for files in (TextFiles(weights=clip_file), TextFiles(tokenizer=tmp_path)):
        with pytest.raises(OpenIliasError, match="no text tower") as caught:
            load_model(resnet, Protocol(resolution=32), random_weights=0, text=files)
        assert str(caught.value.fix).startswith("Leave --t")
    with pytest.raises(OpenIliasError, match="no text tower"):
        load_model(resnet, Protocol(resolution=32), random_weights=0).encode_texts(["a"])
    of_clip = {name: v for name, v in clip.state_dict().items() if not name.startswith("visual.")}
    other = tmp_path / "other.pt"
    torch.save(of_clip | {"positional_embedding": torch.zeros(64, 512)}, other)
    with pytest.raises(OpenIliasError, match=r"another shape: positional_embedding \(64, 512\) instead of \(77,"):
        load(CLIP, weights=other).encode_texts(["a"])
    half = {name: v for name, v in of_clip.items() if "resblocks.3" not in name}
    torch.save(half | {"extra": torch.zeros(1)}, tmp_path / "half.pt")
    with pytest.raises(OpenIliasError, match=r"12 missing: transformer\.resblocks\.3.*1 left over: extra") as caught:
        load(CLIP, weights=tmp_path / "half.pt").encode_texts(["a"])
    assert caught.value.where == str(tmp_path / "half.pt")
    with pytest.raises(OpenIliasError, match="no such weights file"):
        load(CLIP, weights=tmp_path / "none.pt").encode_texts(["a"])


# --- digests and runs ---


@pytest.mark.drawn
def test_digests_are_of_the_numbers(clip: Any, clip_file: Path, tmp_path: Path) -> None:
    first, seeded = load(CLIP, weights=clip_file), load(CLIP, seed=0)
    texts = {name: v for name, v in clip.state_dict().items() if not name.startswith("visual.")}
    torch.save({"state_dict": {f"module.{name}": v for name, v in texts.items()}}, tmp_path / "same.pt")
    same = load(CLIP, weights=tmp_path / "same.pt")
    texts["ln_final.bias"] = texts["ln_final.bias"] + 1e-3
    torch.save(texts, tmp_path / "changed.pt")
    changed = load(CLIP, weights=tmp_path / "changed.pt")
    assert first.text_digest(TEXTS) == same.text_digest(TEXTS)
    assert len({first.text_digest(TEXTS), seeded.text_digest(TEXTS), changed.text_digest(TEXTS)}) == 3
    assert len({one.weights_digest for one in (first, seeded, same, changed)}) == 1
    assert load(CLIP, seed=1).weights_digest != first.weights_digest


def queries_of(benchmark: Benchmark, store: Any) -> list[str]:
    return [(benchmark.root / "ilias_core" / item).read_text(encoding="utf-8") for item in store.shards[0].ids()]


@pytest.mark.drawn
def test_texts_search_the_images_of_the_same_record(tiny: Benchmark, clip_file: Path, tmp_path: Path) -> None:
    backbone = load(CLIP, weights=clip_file)
    texts = extract(tiny, backbone, "text_queries", tmp_path / "t")
    images = [extract(tiny, load(CLIP), part, tmp_path / part) for part in ("positives", "distractors")]
    made_from = texts.manifest["made_from"]
    assert made_from["texts"] == backbone.text_digest(queries_of(tiny, texts))
    assert all("texts" not in store.manifest["made_from"] for store in images)
    assert common_origin([texts], images)["weights"] == backbone.weights_digest
    ranking = search([texts], images, 7)
    queries = queries_of(tiny, texts)
    vectors = np.concatenate([shard.descriptors() for store in images for shard in store.shards])
    expected = np.sort(backbone.encode_texts(queries) @ vectors.T.astype(np.float32), 1)[:, ::-1][:, :7]
    assert np.abs(ranking.scores - expected).max() < 1e-5
    with pytest.raises(OpenIliasError, match=r"texts: \"[0-9a-f]+\" -> "):
        extract(tiny, load(CLIP), "text_queries", tmp_path / "t")
    with pytest.raises(OpenIliasError, match="weights"):
        common_origin([texts], [extract(tiny, load(CLIP, seed=1), "positives", tmp_path / "p1")])


def test_the_command_stops_at_other_text_weights(
    ilias: Callable[..., Any], tiny_root: Path, clip_file: Path, tmp_path: Path
) -> None:
    run = ("extract", tiny_root, "--model", CLIP, "--partition", "text_queries", "--random-weights", 0)
    run += ("--out", tmp_path / "t")
    first = ilias(*run, "--text-weights", clip_file)
    assert first.code == 0, first.err
    assert "of 512 dimensions" in first.out + first.err
    assert ilias(*run, "--text-weights", clip_file).code == 0
    other = ilias(*run)
    assert other.code == 2
    assert "texts:" in other.err


def test_the_official_code_takes_another_tower_for_one_record() -> None:
    paper, official = Protocol(), Protocol(compat="official")
    changed = {}
    for name, record in records().items():
        text = record.model.text
        if text is not None:
            assert text.taken(paper) == text
            assert open_clip.get_pretrained_cfg(text.taken(official).architecture, text.taken(official).tag)
            if text.taken(official).architecture != text.architecture:
                changed[name] = (text.taken(official).architecture, text.taken(official).tag)
    assert changed == {"eva02_large_patch14_clip_336.merged2b": ("EVA02-L-14", "merged2b_s4b_b131k")}
