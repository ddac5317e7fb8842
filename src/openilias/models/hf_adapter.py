"""Image models and image-text models of transformers, from the hub or from a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.protocol import Protocol
from openilias.models.hf_files import config_of, digest_of, of_images, preprocessing_of, sides_of, usual_of, without_bar
from openilias.models.hf_images import ImageTower, features_of
from openilias.models.network import Network
from openilias.models.quiet import first_line, quiet
from openilias.models.spec import ModelSpec
from openilias.models.weights import WeightsSource, read_state


def hf_spec(name: str) -> ModelSpec:
    """Make the record of a repository of the hub or a ``save_pretrained`` folder from its configuration.

    Raises:
        OpenIliasError: it cannot be read, or asks for what is not done here.
    """
    config = config_of(name)
    if config.model_type == "timm_wrapper":
        raise OpenIliasError(f"hf:{name} is a model of timm.", fix="Give its timm name: timm:NAME.")
    preprocess = preprocessing_of(name)
    for field, what in (("do_flip_channel_order", "BGR images"), ("rescale_offset", "shifted images")):
        if preprocess.get(field):
            raise OpenIliasError(f"hf:{name} takes {what}, which are not supported.", fix="Use another model.")
    mean, std = usual_of(config.model_type)
    plain = preprocess.get("do_normalize") is False
    # Some models state a mere default for one of the two: the position embeddings, and the pictures in training.
    seen = preprocess.get("crop_size") or preprocess.get("size")
    try:
        sides = (*sides_of(seen), *sides_of(of_images(config, "image_size")))
        # Theirs takes 0..255 times the factor, ours takes 0..1.
        factor = 255 * (float(preprocess.get("rescale_factor", 1 / 255)) if preprocess.get("do_rescale", True) else 1)
        mean = (0.0,) * 3 if plain else tuple(preprocess.get("image_mean") or mean)
        std = (1.0,) * 3 if plain else tuple(preprocess.get("image_std") or std)
        return ModelSpec.model_validate(
            {
                "name": f"hf:{name}",
                "library": "hf",
                "architecture": name,
                "projection": hasattr(config, "vision_config"),
                "train_resolution": max(sides, default=224),
                "mean": mean if abs(factor - 1) < 1e-6 else tuple(value / factor for value in mean),
                "std": std if abs(factor - 1) < 1e-6 else tuple(value / factor for value in std),
                "code_sha256": digest_of(name, config),
                "source": f"{config.model_type}, a folder" if Path(name).is_dir() else f"https://huggingface.co/{name}",
            }
        )
    except (TypeError, ValueError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else first_line(error)
        raise OpenIliasError(
            f"What hf:{name} says of its pictures makes no sense: {why}.",
            fix="See its preprocessor_config.json and config.json.",
        ) from None


def hf_network(spec: ModelSpec, protocol: Protocol, weights: WeightsSource) -> Network:
    """Load a model of transformers; no code of its repository is executed.

    ``head`` is the image features of an image-text model, else the pooled output, else, where the weights have no
    pooler, the class token. ``last_map`` is the last hidden state as the library returns it.

    Raises:
        OpenIliasError: it is no image model, or weights are missing or do not fit.
    """
    from transformers import AutoModel

    with weights.building(spec), quiet():
        if weights.hub:
            module = _loaded(AutoModel.from_pretrained, spec.architecture, where=spec.source)
        else:
            config = config_of(spec.architecture)
            module = AutoModel.from_config(config)
            if weights.file is not None:
                state = {name.removeprefix("module."): value for name, value in read_state(weights.file).items()}
                load = partial(type(module).from_pretrained, config=config, state_dict=state)
                module = _loaded(load, None, where=weights.file)
    module = module.float()
    images = ImageTower(module, spec)
    texts = _Texts(module, spec, weights.tokenizer) if hasattr(module, "get_text_features") else None
    return Network(
        module,
        head=images.head,
        last_map=images.last_map,
        multiple=images.multiple,
        encode_texts=texts,
        text_digest=None if texts is None else texts.digest,
    )


class _Texts:
    """The text tower; its tokenizer is loaded when the first text comes."""

    def __init__(self, module: Any, spec: ModelSpec, folder: Path | None) -> None:
        self._module = module
        self._spec = spec
        self._folder = folder
        self._tokenizer: Any = None

    def __call__(self, texts: list[str]) -> Tensor:
        return features_of(self._module.get_text_features(**self._tokens(texts).to(self._module.device)))

    def digest(self, texts: list[str]) -> str:
        tokens = {name: values.tolist() for name, values in self._tokens(texts).items()} if texts else {}
        return hashlib.sha256(json.dumps(tokens, sort_keys=True).encode()).hexdigest()

    def _tokens(self, texts: list[str]) -> Any:
        if self._tokenizer is None:
            self._tokenizer = self._load()
        text = self._module.config.text_config
        # SigLIP was trained with this padding and without a mask: it sees the padding. The others do not.
        unmasked = str(text.model_type).startswith("siglip")
        most = min(getattr(text, "max_position_embeddings", 10**6), self._tokenizer.model_max_length)
        padding = "max_length" if unmasked else True
        tokens = self._tokenizer(texts, padding=padding, truncation=True, max_length=most, return_tensors="pt")
        if unmasked:
            tokens.pop("attention_mask", None)
        return tokens

    def _load(self) -> Any:
        from transformers import AutoTokenizer

        try:
            with quiet():
                return AutoTokenizer.from_pretrained(self._folder or self._spec.architecture)
        except Exception as error:  # whatever a download or a damaged file may raise
            raise OpenIliasError(
                f"The tokenizer of {self._spec.name} could not be loaded: {first_line(error)}.",
                where=self._folder or self._spec.source,
                fix="Texts need it: connect to the hub once, or give a folder with its files with --tokenizer FOLDER.",
            ) from None


def _loaded(function: Callable[..., Any], source: str | None, *, where: Path | str | None) -> Any:
    """Let transformers load weights, which knows their older names, and refuse what it would fill with random numbers.

    Heads beside the model are left out, and so is a pooler that has no weights.
    """
    module, found = without_bar(function, source, output_loading_info=True, ignore_mismatched_sizes=True)
    missing = sorted(found["missing_keys"])
    if any(name.startswith("pooler.") for name in missing):
        module.pooler = None
    inside = {name.partition(".")[0] for name in module.state_dict()}
    over = [name for name in sorted(found["unexpected_keys"]) if name.partition(".")[0] in inside]
    kinds = {
        "missing": [name for name in missing if not name.startswith("pooler.")],
        "left over": [name for name in over if not name.endswith("position_ids")],
        "of another shape": sorted(str(one[0]) for one in found["mismatched_keys"]),
    }
    complaints = [f"{len(names)} {what}: {first_few(names)}" for what, names in kinds.items() if names]
    if complaints:
        raise OpenIliasError(
            "These weights do not fit the architecture: " + "; ".join(complaints) + ".",
            where=where,
            fix="Give the file that belongs to this model with --weights FILE.",
        )
    return module
