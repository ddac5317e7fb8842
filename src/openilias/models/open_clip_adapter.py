"""Any model of open_clip: its image tower and its text tower."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.protocol import Protocol
from openilias.models.network import LastMap, Network
from openilias.models.open_clip_towers import AnyGrid, AnySizeResNet, last_tokens, trunks_of_any_size
from openilias.models.quiet import first_line, quiet
from openilias.models.spec import ModelSpec
from openilias.models.timm_adapter import LastMapOf, patch_of
from openilias.models.tokenizers import Tokenizer, text_config, tokenizer_of
from openilias.models.weights import WeightsSource, fit_state

_HUB, _FOLDER = "hf-hub:", "local-dir:"
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # beside the weights in OpenAI's files


def open_clip_spec(name: str) -> ModelSpec:
    """Make the record of ``NAME/TAG``, ``NAME`` (your own weights), ``hf-hub:REPO`` or ``local-dir:FOLDER``.

    Raises:
        OpenIliasError: open_clip has no such model or tag, or its configuration cannot be read.
    """
    import open_clip

    if name.startswith((_HUB, _FOLDER)):
        architecture, tag, source = name, "", f"open_clip {name}"
        whole = _configuration(name)
        config, preprocess = whole.get("model_cfg", whole), whole.get("preprocess_cfg", {})
    else:
        architecture, _, tag = name.partition("/")
        config = open_clip.get_model_config(architecture)
        if config is None:
            raise OpenIliasError(
                f"open_clip has no model {architecture!r}.",
                fix="See open_clip.list_models(); open_clip:NAME/TAG, open_clip:hf-hub:REPO.",
            )
        tags = first_few(open_clip.list_pretrained_tags_by_model(architecture), most=40) or "none"
        preprocess = open_clip.get_pretrained_cfg(architecture, tag)
        if tag and not preprocess:
            raise OpenIliasError(
                f"open_clip has no weights {tag!r} of {architecture}; there are: {tags}.", fix="Choose one of these."
            )
        source = f"open_clip {architecture}/{tag}" if tag else f"open_clip {architecture}/TAG; tags: {tags}"
    size = config["vision_cfg"].get("image_size", 224)
    return ModelSpec(
        name=f"open_clip:{architecture}/{tag}".rstrip("/"),
        library="open_clip",
        architecture=architecture,
        tag=tag or None,
        projection=True,
        quick_gelu=bool(preprocess.get("quick_gelu", False) or config.get("quick_gelu", False)),
        weights="hub" if tag or architecture.startswith((_HUB, _FOLDER)) else "file",
        train_resolution=size if isinstance(size, int) else max(size),
        mean=tuple(preprocess.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(preprocess.get("std") or open_clip.OPENAI_DATASET_STD),
        # What the name of a repository or a folder stands for may change.
        code_sha256=_digest(config) if architecture.startswith((_HUB, _FOLDER)) else None,
        source=source,
    )


def open_clip_network(spec: ModelSpec, protocol: Protocol, weights: WeightsSource) -> Network:
    """Build both towers.

    Weights that were trained with QuickGELU get it, whatever the name of the architecture says; the official code goes
    by the name.

    Raises:
        OpenIliasError: open_clip cannot build it, or the weights are missing or do not fit.
    """
    import open_clip

    quick = spec.quick_gelu and protocol.compat == "paper"
    with weights.building(spec), quiet(), trunks_of_any_size(), _source(spec, weights) as architecture:
        module: Any = open_clip.create_model(
            architecture,
            pretrained=spec.tag if weights.hub else None,
            load_weights=weights.hub,
            require_pretrained=weights.hub,
            force_quick_gelu=quick,
            device=weights.device,
            pretrained_text=False,
            **spec.arguments,
        )
    if weights.file is not None:
        fit_state(module, converted(module, weights.state(weights.file)), where=weights.file)
    visual, texts = module.visual, OpenClipTexts(module, spec.architecture, weights.tokenizer, model=spec.name)
    if isinstance(visual, open_clip.model.ModifiedResNet):
        resnet = AnySizeResNet(visual)
        return Network(
            module,
            head=resnet,
            last_map=resnet.last_map,
            encode_texts=texts,
            encode_tokens=texts.of_tokens,
            text_digest=texts.digest,
        )
    multiple: tuple[int, int]
    last_map: Callable[[Tensor], LastMap]
    if isinstance(visual, open_clip.model.TimmModel):
        multiple = patch_of(visual.trunk)
        last_map = LastMapOf(visual.trunk, multiple)
    else:
        multiple = visual.patch_size
        visual._embeds = AnyGrid(visual)
        last_map = partial(last_tokens, visual)
    return Network(
        module,
        head=partial(module.encode_image, normalize=False),
        last_map=last_map,
        multiple=multiple,
        encode_texts=texts,
        encode_tokens=texts.of_tokens,
        text_digest=texts.digest,
    )


class OpenClipTexts:
    """The text tower of a model; its tokenizer is made when the first text comes, because some are fetched."""

    def __init__(self, module: Any, architecture: str, folder: Path | None, *, model: str) -> None:
        """``folder`` holds the files of the tokenizer, instead of the hub; ``model`` is for messages."""
        self._module = module
        self._architecture = architecture
        self._folder = folder
        self._model = model
        self._tokenizer: Tokenizer | None = None

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer.

        Raises:
            OpenIliasError: it cannot be fetched or read.
        """
        if self._tokenizer is None:
            self._tokenizer = tokenizer_of(self._architecture, self._folder, model=self._model)
        return self._tokenizer

    def __call__(self, texts: list[str]) -> Tensor:
        """Return (B, D) of B texts, on the device."""
        return self.of_tokens(self.tokenizer()(texts))

    def digest(self, texts: list[str]) -> str:
        """Return the SHA-256 of their tokens, and of the architecture that takes them."""
        return _digest({"config": text_config(self._architecture), "tokens": self.tokenizer()(texts).tolist()})

    def of_tokens(self, tokens: Tensor) -> Tensor:
        """Return (B, D) of (B, context) token numbers."""
        device = next(self._module.parameters()).device
        vectors: Tensor = self._module.encode_text(tokens.to(device), normalize=False)
        return vectors


def converted(module: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring a state dict to the names of this model, as open_clip does when it loads a file."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = {name.removeprefix("module."): value for name, value in state.items() if name not in _NOT_WEIGHTS}
    state = convert_state_dict(module, state)
    if "positional_embedding" in state and not hasattr(module, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(module, name, None)
        if name in state and own is not None and state[name].numel() == 1:
            state[name] = state[name].reshape(own.shape)
    return state


def _digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _configuration(name: str) -> dict[str, Any]:
    """Read the ``open_clip_config.json`` of a repository or a folder."""
    file = "open_clip_config.json"
    try:
        if name.startswith(_FOLDER):
            path = Path(name.removeprefix(_FOLDER)) / file
        else:
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(name.removeprefix(_HUB), file))
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        config.get("model_cfg", config)["vision_cfg"], config.get("model_cfg", config)["text_cfg"]
    except Exception as error:  # whatever a download may raise; no file; no JSON
        raise OpenIliasError(
            f"The {file} of open_clip:{name} could not be read: {first_line(error)}.",
            fix="Check the name; a model of the hub has to be fetched once, then HF_HUB_OFFLINE=1 works too.",
        ) from None
    return config


@contextmanager
def _source(spec: ModelSpec, weights: WeightsSource) -> Iterator[str]:
    """Yield the architecture; of a repository or folder without its weights, a folder with the configuration alone."""
    if weights.hub or not spec.architecture.startswith((_HUB, _FOLDER)):
        yield spec.architecture
        return
    with TemporaryDirectory() as folder:
        text = json.dumps(_configuration(spec.architecture))
        (Path(folder) / "open_clip_config.json").write_text(text, encoding="utf-8")
        yield f"{_FOLDER}{folder}"
