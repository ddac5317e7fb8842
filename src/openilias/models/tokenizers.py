"""From texts to tokens, for the text towers of open_clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from openilias.core.errors import OpenIliasError
from openilias.models.quiet import first_line, quiet

Tokenizer = Callable[[list[str]], Tensor]
"""From B texts to (B, context length) token numbers."""
BUILT_IN = "built in"
_PROBES = ["A photo of a small ceramic lighthouse with red and white stripes, 12 cm.\n", "naïve CAFÉ №5", ""]
_FILES = "tokenizer.json, tokenizer_config.json, or spiece.model"


def tokenizer_name(architecture: str) -> str:
    """Return the repository of the hub that a tokenizer comes from, or ``built in``."""
    found = text_config(architecture).get("hf_tokenizer_name")
    return str(found) if found else BUILT_IN


def tokenizer_of(architecture: str, folder: Path | None, *, model: str) -> Tokenizer:
    """Return the tokenizer of an architecture of open_clip.

    Args:
        architecture: its name, ``hf-hub:REPO`` or ``local-dir:FOLDER``.
        folder: where its files are, instead of the hub.
        model: for messages.

    Raises:
        OpenIliasError: it cannot be fetched or read, or a folder was given and it needs none.
    """
    import open_clip

    if folder is not None:
        return _of_folder(architecture, folder, model=model)
    try:
        with quiet():
            tokenizer: Tokenizer = open_clip.get_tokenizer(architecture)
    except Exception as error:  # whatever its download may raise
        raise OpenIliasError(
            f"The tokenizer of {model} could not be loaded: {first_line(error)}.",
            fix="Texts need it. Connect to the hub once, or give a folder with its files with --tokenizer FOLDER.",
        ) from None
    return tokenizer


def check_has_files(architecture: str, *, model: str) -> None:
    """Refuse a folder for a tokenizer that is built in.

    Raises:
        OpenIliasError: it is.
    """
    if tokenizer_name(architecture) == BUILT_IN:
        raise OpenIliasError(
            f"The tokenizer of {model} comes with the library: it has no files.", fix="Leave --tokenizer out."
        )


def _of_folder(architecture: str, folder: Path, *, model: str) -> Tokenizer:
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer

    config = text_config(architecture)
    check_has_files(architecture, model=model)
    if not folder.is_dir():
        raise OpenIliasError("There is no such folder.", where=folder, fix=f"--tokenizer FOLDER with {_FILES}.")
    try:
        with quiet():
            tokenizer: Tokenizer = HFTokenizer(
                str(folder),
                context_length=config.get("context_length", DEFAULT_CONTEXT_LENGTH),
                tokenizer_mode=config.get("tokenizer_mode"),
                **config.get("tokenizer_kwargs", {}),
            )
            most = int(tokenizer(_PROBES).max())
    except Exception as error:  # whatever damaged or missing files may raise
        raise OpenIliasError(
            f"This folder holds no tokenizer: {first_line(error)}.", where=folder, fix=f"It needs {_FILES}."
        ) from None
    if most >= config["vocab_size"]:
        raise OpenIliasError(
            f"This tokenizer has more tokens than {model} knows, {config['vocab_size']}.",
            where=folder,
            fix=f"Give the folder of {config['hf_tokenizer_name']}.",
        )
    return tokenizer


def text_config(architecture: str) -> dict[str, Any]:
    """Return what open_clip knows of a text tower; nothing of one of the hub or of a folder."""
    import open_clip

    if ":" in architecture:  # of the hub or a folder: open_clip looks there itself
        return {}
    config: dict[str, Any] = (open_clip.get_model_config(architecture) or {}).get("text_cfg", {})
    return config
