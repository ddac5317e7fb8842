"""Networks of transformers that annotate pictures: loaded from the hub or from a folder, with a record of which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.models.hf_files import without_bar
from openilias.models.quiet import first_line, quiet
from openilias.models.weights import digest_state


def revision_in(argument: str) -> tuple[str, str | None]:
    """Return the model and the revision of ``MODEL[@REVISION]``; a folder has none."""
    if Path(argument).expanduser().is_dir():
        return str(Path(argument).expanduser()), None
    model, _, revision = argument.partition("@")
    return model, revision or None


def load_network(automatic: str, processor: str, argument: str, device: str) -> tuple[Any, Any, dict[str, Any]]:
    """Load a network and what prepares its pictures.

    Args:
        automatic: class of transformers that finds the network's.
        processor: likewise of what prepares its pictures.
        argument: ``MODEL[@REVISION]``.
        device: where it computes.

    Returns:
        The network, the processor, and a record: class, commit, digest of the weights.

    Raises:
        OpenIliasError: it cannot be loaded.
    """
    model, revision = revision_in(argument)
    if model.startswith(("/", ".")) and not Path(model).is_dir():
        raise OpenIliasError("There is no such folder.", where=model, fix="Give a folder, or OWNER/NAME of the hub.")
    import transformers

    try:
        with quiet():
            load = getattr(transformers, automatic).from_pretrained
            network = without_bar(load, model, revision=revision, use_safetensors=True)
            prepare = without_bar(getattr(transformers, processor).from_pretrained, model, revision=revision)
    except Exception as error:  # whatever a download or a damaged file may raise
        raise OpenIliasError(
            f"The model {argument} could not be loaded: {first_line(error)}.",
            fix="Check the name; a model of the hub has to be fetched once, then HF_HUB_OFFLINE=1 works too.",
        ) from None
    record = {
        "class": type(network).__name__,
        "model": Path(model).name if Path(model).is_dir() else model,
        "revision": getattr(network.config, "_commit_hash", None) or revision,
        "weights": digest_state(network.state_dict()),
    }
    return network.to(device).eval(), prepare, record
