"""The files beside the weights of a model of transformers, of the hub or of a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.models.quiet import first_line, quiet
from openilias.models.spec import IMAGENET_MEAN, IMAGENET_STD, Triple

_HALF: Triple = (0.5, 0.5, 0.5)
# For models that come without a preprocessor: mean and std by the beginning of their type.
_USUAL: dict[str, tuple[Triple, Triple]] = {
    "siglip": (_HALF, _HALF),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "": (IMAGENET_MEAN, IMAGENET_STD),
}
_OF_THE_WRITER = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model")
_ONCE = "Check the name; a model of the hub has to be fetched once, then HF_HUB_OFFLINE=1 works too."


def of_images(config: Any, name: str) -> Any:
    """Return a field of the configuration of the image tower, None if it has none."""
    return getattr(getattr(config, "vision_config", config), name, None)


def sides_of(size: Any) -> tuple[int, ...]:
    """Return what the many ways of writing a size hold: one or two sides, or none."""
    if isinstance(size, dict):
        size = [size[key] for key in ("height", "width", "shortest_edge") if size.get(key)]
    return (size,) if isinstance(size, int) else tuple(size or ())


def config_of(name: str) -> Any:
    """Return the configuration.

    Raises:
        OpenIliasError: it cannot be read.
    """
    from transformers import AutoConfig

    if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        raise OpenIliasError("There is no such folder.", where=name, fix="hf:FOLDER, or hf:OWNER/NAME of the hub.")
    try:
        with quiet():
            return AutoConfig.from_pretrained(name)
    except Exception as error:  # whatever a download or a damaged file may raise
        raise OpenIliasError(
            f"The configuration of hf:{name} could not be read: {first_line(error)}.",
            fix=_ONCE,
        ) from None


def preprocessing_of(name: str) -> dict[str, Any]:
    """Return what the image processor would do; nothing if there is no file of it.

    Raises:
        OpenIliasError: it cannot be read, or nobody can know whether there is one.
    """
    unknown = False
    for file in ("preprocessor_config.json", "processor_config.json"):
        path, known = _file_of(name, file)
        unknown |= not known
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path else {}
            if not isinstance(found, dict):
                raise ValueError("it holds no settings")
            found = found.get("image_processor", found) if file.startswith("processor") else found
            if {"image_mean", "size", "do_normalize"} & set(found):
                return dict(found)
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise OpenIliasError(f"This file cannot be read: {first_line(error)}.", where=path) from None
    if unknown:
        raise OpenIliasError(
            f"The mean and the size of the pictures of hf:{name} are in a file that was not fetched yet.", fix=_ONCE
        )
    return {}


def _file_of(name: str, file: str) -> tuple[Path | None, bool]:
    """Return the file, if it is there, and whether that is known."""
    if Path(name).is_dir():
        path = Path(name) / file
        return (path if path.is_file() else None), True
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, file)), True
    except LocalEntryNotFoundError:
        return None, try_to_load_from_cache(name, file) is not None  # it remembers what does not exist
    except EntryNotFoundError:
        return None, True


def digest_of(name: str, config: Any) -> str:
    """Return the SHA-256 of what decides beside the weights: the configuration and, of a folder, its tokenizer."""
    fields = {key: value for key, value in config.to_dict().items() if key not in _OF_THE_WRITER}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode())
    if Path(name).is_dir():
        for path in sorted(Path(name).iterdir()):
            if path.name in _TOKENIZERS:
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def usual_of(model_type: str) -> tuple[Triple, Triple]:
    """Return mean and std for a model that comes without a file that says them."""
    return next(values for start, values in _USUAL.items() if model_type.startswith(start))


def without_bar(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a function of transformers without its progress bar."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return function(*arguments, **named)
    finally:
        if shown:
            logging.enable_progress_bar()
