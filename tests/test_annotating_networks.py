"""Networks that find faces, plates and segments: true architectures, tiny and with random weights, none downloaded."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Outcome
from openilias.build.anonymise import FindSettings, find_marks
from openilias.build.anonymise.detectors import DetectorSpec, load_detector
from openilias.build.anonymise.yunet import YuNet
from openilias.build.clutter import SegmenterSpec
from openilias.build.clutter.segmenters import load_segmenter
from openilias.core.errors import OpenIliasError
from openilias.images.boxes import Box
from people_world import IMAGES, make_set

PICTURE = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
MODELS = ("yolos", "owl", "sam", "sam2")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as the hub has them: configuration, weights, what prepares pictures."""
    import torch
    import transformers as hf

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    names = {0: "person", 1: "Face", 2: "licence plate"}
    yolos = hf.YolosConfig(**small, image_size=[64, 64], patch_size=16, num_detection_tokens=5, id2label=names)
    _save(folder / "yolos", hf.YolosForObjectDetection(yolos), hf.YolosImageProcessor(size={"height": 64, "width": 64}))
    owl = hf.Owlv2Config(
        text_config={**small, "vocab_size": 10, "max_position_embeddings": 8, "bos_token_id": 2, "eos_token_id": 3},
        vision_config={**small, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    prepare = hf.Owlv2Processor(hf.Owlv2ImageProcessor(size={"height": 64, "width": 64}), _words(hf))
    _save(folder / "owl", hf.Owlv2ForObjectDetection(owl), prepare)
    decoder = {"mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 8}
    sam = hf.SamConfig(
        vision_config={
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8,
            "output_channels": 8, "mlp_dim": 32, "global_attn_indexes": [1], "window_size": 4, "num_pos_feats": 4,
        },
        prompt_encoder_config={"hidden_size": 8, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 8, **decoder},
    )  # fmt: skip
    size = {"height": 64, "width": 64}
    _save(folder / "sam", hf.SamModel(sam), hf.SamImageProcessor(size={"longest_edge": 64}, pad_size=size))
    sam2 = hf.Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1,
                "image_size": [64, 64], "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 2, 2, 2], "window_size_per_stage": [4, 2, 2, 2],
                "global_attention_blocks": [3], "window_positional_embedding_background_size": [2, 2],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 16, **decoder},
    )  # fmt: skip
    _save(folder / "sam2", hf.Sam2Model(sam2), hf.Sam2ImageProcessor(size=size, mask_size={"height": 16, "width": 16}))
    return folder


def _words(hf: Any) -> Any:
    import tokenizers

    words = "<pad> <unk> <bos> <eos> a human face license plate".split()
    fast = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>")
    )
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 3)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>",
        model_max_length=8,
    )  # fmt: skip


def _save(folder: Path, network: Any, prepare: Any) -> None:
    network.save_pretrained(folder)
    prepare.save_pretrained(folder)


# ---- transformers


def test_only_the_labels_sought_are_found(models: Path) -> None:
    name = f"hf:{models}/yolos"
    found = {
        (sought, choice): load_detector(DetectorSpec(sought, name + choice, 1, threshold=0.0)).find(PICTURE)  # type: ignore[arg-type]
        for sought, choice in (("face", ""), ("plate", ""), ("face", "#person"), ("face", "#Face,PERSON"))
    }
    label = {key: len(sightings) for key, sightings in found.items()}
    assert label[("face", "#Face,PERSON")] == label[("face", "")] + label[("face", "#person")]
    assert sum(label[key] for key in (("face", ""), ("plate", ""), ("face", "#person"))) in (4, 5)  # of 5 tokens
    record = load_detector(DetectorSpec("plate", name)).record
    assert record["labels"] == ["licence plate"]
    assert record["class"] == "YolosForObjectDetection"
    assert len(record["weights"]) == 64
    with pytest.raises(OpenIliasError, match="no label for faces; it has person, Face"):
        load_detector(DetectorSpec("face", name + "#head"))


def test_an_open_vocabulary_is_asked_in_words(models: Path) -> None:
    usual = load_detector(DetectorSpec("face", f"owl:{models}/owl", 1, threshold=0.0))
    other = load_detector(DetectorSpec("face", f"owl:{models}/owl#a plate", 1, threshold=0.0))
    plate = load_detector(DetectorSpec("plate", f"owl:{models}/owl", 1, threshold=0.0))
    assert usual.record["texts"] == ["a human face"]
    assert plate.record["texts"] == ["a license plate"]
    assert other.record["texts"] == ["a plate"]
    assert [one.box for one in usual.find(PICTURE)] == [one.box for one in other.find(PICTURE)]
    assert [one.score for one in usual.find(PICTURE)] != [one.score for one in other.find(PICTURE)]
    strict = load_detector(DetectorSpec("face", f"owl:{models}/owl", 1, threshold=0.9))
    assert len(strict.find(PICTURE)) < len(usual.find(PICTURE))


def test_a_network_finds_in_a_set(models: Path, tmp_path: Path) -> None:
    root = make_set(tmp_path / "set")
    found = find_marks(
        root, FindSettings(faces=(f"hf:{models}/yolos#person,Face,licence plate",), plates=(), threshold=0.0)
    )
    assert {mark.image for mark in found.marks} == set(IMAGES)
    assert {mark.source for mark in found.marks} == {"hf:yolos"}
    assert all(mark.box.x + mark.box.width <= 200 and mark.box.y + mark.box.height <= 200 for mark in found.marks)
    both = find_marks(
        root, FindSettings(faces=("haar", f"hf:{models}/yolos#person,Face,licence plate"), plates=(), threshold=0.0)
    )
    assert {mark.source for mark in both.marks} == {"haar", "hf:yolos"}


def test_what_is_no_model_is_refused(models: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in (f"hf:{tmp_path}", "hf:nobody/nothing@main", f"hf:{models}/owl", f"owl:{models}/sam"):
        with pytest.raises(OpenIliasError, match="could not be loaded"):
            load_detector(DetectorSpec("face", name))


# ---- YuNet


def field(number: int, value: Any) -> bytes:
    """Write one field of a protocol buffer."""
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def tensor(name: str, values: Any) -> bytes:
    kind = 7 if values.dtype == np.int64 else 1
    dims = b"".join(field(1, int(side)) for side in values.shape)
    return dims + field(2, kind) + field(8, name) + field(9, values.tobytes())


def node(kind: str, inputs: list[str], output: str, **ints: list[int]) -> bytes:
    attributes = b"".join(
        field(5, field(1, name) + b"".join(field(8, value) for value in values) + field(20, 7))
        for name, values in ints.items()
    )
    return b"".join(field(1, one) for one in inputs) + field(2, output) + field(3, output) + field(4, kind) + attributes


def value_info(name: str, shape: list[int]) -> bytes:
    dims = b"".join(field(1, field(1, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def small_yunet() -> bytes:
    """ONNX with the outputs of YuNet: a box of 32 pixels around every white cell of 8 pixels."""
    graph = b""
    outputs = b""
    for stride in (8, 16, 32):
        graph += field(
            1, node("AveragePool", ["input"], f"mean{stride}", kernel_shape=[stride] * 2, strides=[stride] * 2)
        )
        for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            weights, bias = np.zeros((channels, 3, 1, 1), np.float32), np.zeros(channels, np.float32)
            if stride == 8 and name == "cls":
                weights[:] = 1 / 3 / 255
            if name == "obj":
                bias[:] = 1
            if name == "bbox":
                bias[2:] = math.log(4)
            key = f"{name}_{stride}"
            graph += field(5, tensor(f"w{key}", weights)) + field(5, tensor(f"b{key}", bias))
            graph += field(5, tensor(f"s{key}", np.array([1, -1, channels], np.int64)))
            graph += field(1, node("Conv", [f"mean{stride}", f"w{key}", f"b{key}"], f"c{key}", kernel_shape=[1, 1]))
            graph += field(1, node("Transpose", [f"c{key}"], f"t{key}", perm=[0, 2, 3, 1]))
            graph += field(1, node("Reshape", [f"t{key}", f"s{key}"], key))
    for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            outputs += field(12, value_info(f"{name}_{stride}", [1, (320 // stride) ** 2, channels]))
    graph += field(2, "small") + field(11, value_info("input", [1, 3, 320, 320])) + outputs
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 11))


def test_yunet_runs_from_a_file_that_is_checked(tmp_path: Path) -> None:
    data = small_yunet()
    path = tmp_path / "yunet.onnx"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    detector = YuNet(DetectorSpec("face", f"yunet:{path}#{digest}"))
    assert detector.record["sha256"] == digest
    for height, width in ((200, 300), (97, 131), (500, 333)):
        picture = np.zeros((height, width, 3), np.uint8)
        assert detector.find(picture) == []
        picture[64:72, 48:56] = 255
        (found,) = detector.find(picture)
        assert found.box == Box(32, 48, 32, 32)
        assert found.score == pytest.approx(1, abs=0.01)
    assert YuNet(DetectorSpec("face", f"yunet:{path}", 40)).find(picture) == []
    picture[64:72, 48:56] = 128
    assert YuNet(DetectorSpec("face", f"yunet:{path}", threshold=0.9)).find(picture) == []
    with pytest.raises(OpenIliasError, match="SHA-256"):
        YuNet(DetectorSpec("face", f"yunet:{path}#{'0' * 64}"))


# ---- SAM


@pytest.mark.parametrize("method", ["sam", "sam2"])
def test_masks_have_the_size_of_the_picture_and_do_not_depend_on_the_batch(models: Path, method: Any) -> None:
    spec = SegmenterSpec(method=method, model=f"{models}/{method}", points=2, least_iou=0, least_stability=0, nms=1)
    segments = load_segmenter(spec).segments(PICTURE)
    assert segments.shape == (12, *PICTURE.shape[:2])  # three masks of each of 4 points
    assert segments.dtype == bool
    again = load_segmenter(spec.model_copy(update={"batch": 3})).segments(PICTURE)
    assert (np.sort(segments.sum((1, 2))) == np.sort(again.sum((1, 2)))).mean() > 0.9
    fewer = load_segmenter(spec.model_copy(update={"nms": 0.7})).segments(PICTURE)
    assert 0 < len(fewer) < len(segments)
    none = load_segmenter(spec.model_copy(update={"least_iou": 1.0})).segments(PICTURE)
    assert none.shape == (0, *PICTURE.shape[:2])
    record = load_segmenter(spec).record
    assert record["name"] == method
    assert record["points"] == 2
    assert len(record["weights"]) == 64
    tall = load_segmenter(spec).segments(np.ascontiguousarray(PICTURE.transpose(1, 0, 2)))
    assert tall.shape[1:] == (120, 90)


def test_the_command_counts_with_sam(models: Path, tmp_path: Path, ilias: Callable[..., Outcome]) -> None:
    root = make_set(tmp_path / "set")
    given = ("--segments", "sam2", "--points", 2, "--least-iou", 0, "--least-stability", 0, "--nms", 1)
    told = ilias("build", "clutter", root, *given, "--model", models / "sam2")
    assert told.code == 0, told.err
    assert "3 positives, 3 counted now" in told.out
    wrong = ilias("build", "clutter", root, "--segments", "sam", "--model", models / "sam2")
    assert wrong.code == 2
    assert "not sam" in wrong.err
    wrong = ilias("build", "clutter", root, "--model", models / "sam2")
    assert "has no model" in wrong.err
