"""Any model by name: its record, and the loaded thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.models.backbone import Backbone
from openilias.models.record import find_record
from openilias.models.spec import Library, ModelSpec

if TYPE_CHECKING:
    from openilias.models.network import Network
    from openilias.models.weights import WeightsSource


@dataclass(frozen=True)
class TextFiles:
    """Local files of a text tower: its ``weights``, and the folder of its ``tokenizer``."""

    weights: Path | None = None
    tokenizer: Path | None = None


_FROM_THE_HUB = TextFiles()


def find_model(name: str) -> ModelSpec:
    """Return the record of a model.

    Args:
        name: of the zoo, ours or the paper's; ``timm:NAME`` or a plain timm name; ``torchvision:NAME``;
            ``open_clip:NAME/TAG``; ``hf:NAME`` or ``hf:FOLDER``; ``path.py:function``, your own code.

    Raises:
        OpenIliasError: nobody knows it.
    """
    record = find_record(name)
    if record is not None:
        return record.model
    library, colon, rest = name.partition(":")
    if library.endswith(".py") and colon:
        from openilias.models.python_adapter import python_spec

        return python_spec(name)
    if library == "torchvision":
        from openilias.models.torchvision_adapter import torchvision_spec

        return torchvision_spec(rest)
    if library == "open_clip":
        from openilias.models.open_clip_adapter import open_clip_spec

        return open_clip_spec(rest)
    if library == "hf":
        from openilias.models.hf_adapter import hf_spec

        return hf_spec(rest)
    from openilias.models.timm_adapter import timm_spec

    return timm_spec(name.removeprefix("timm:"))


def load_model(
    spec: ModelSpec,
    protocol: Protocol,
    *,
    weights: Path | None = None,
    random_weights: int | None = None,
    text: TextFiles = _FROM_THE_HUB,
    device: str = "cpu",
) -> Backbone:
    """Load a model and bind it to a protocol.

    Args:
        spec: its record.
        protocol: what it leaves open is filled in from the record.
        weights: a local file instead of the published weights.
        random_weights: a seed: no weights at all, for trying things out.
        text: local files of the text tower.
        device: ``cpu``, ``cuda``, ``mps``.

    Raises:
        OpenIliasError: weights are missing, do not fit or cannot be fetched.
    """
    if weights is not None and random_weights is not None:
        raise OpenIliasError("Both --weights and --random-weights were given.", fix="Give one of them.")
    _check_text_files(spec, text)
    if spec.library == "sift_vlad":
        from openilias.models.sift_vlad import SiftVladBackbone

        if weights is None:
            raise OpenIliasError(
                "sift_vlad has to be fitted first.",
                fix="ilias models fit sift_vlad --benchmark DIR --out FILE, then --weights FILE",
            )
        return SiftVladBackbone(spec, protocol, weights=weights)
    if spec.weights == "file" and weights is None and random_weights is None:
        raise OpenIliasError(
            f"The weights of {spec.name} are a local file.",
            where=spec.source,
            fix="Give it with --weights FILE.",
        )
    from openilias.models.network import TorchBackbone
    from openilias.models.weights import WeightsSource

    source = _source(spec, weights, random_weights, text)
    network = _builder(spec.library)(spec, spec.resolve(protocol), source)
    if spec.text is not None:
        from openilias.models.text_towers import PairedTexts

        of_texts = WeightsSource(text.weights, random_weights, tokenizer=text.tokenizer)
        paired = PairedTexts(spec, spec.text.taken(protocol), of_texts, device)
        network = replace(network, encode_texts=paired, encode_tokens=paired.of_tokens, text_digest=paired.digest)
    elif text.tokenizer is not None and network.encode_texts is None:
        raise OpenIliasError(f"{spec.name} has no text tower: it takes no tokenizer.", fix="Leave --tokenizer out.")
    return TorchBackbone(spec, protocol, network, weights_from=source.describe(spec), device=device)


def _check_text_files(spec: ModelSpec, text: TextFiles) -> None:
    """Refuse files of texts that are not there or have no use, before anything is loaded.

    Raises:
        OpenIliasError: as said.
    """
    if text.weights is not None:
        if spec.text is None:
            raise OpenIliasError(
                f"{spec.name} has no text tower apart from its own weights.", fix="Leave --text-weights out."
            )
        if not text.weights.is_file():
            raise OpenIliasError("There is no such weights file.", where=text.weights, fix="Check --text-weights.")
    if text.tokenizer is not None:
        if spec.library in ("sift_vlad", "python"):
            raise OpenIliasError(f"{spec.name} takes no tokenizer.", fix="Leave --tokenizer out.")
        if not text.tokenizer.is_dir():
            raise OpenIliasError("There is no such folder.", where=text.tokenizer, fix="Check --tokenizer.")
        if spec.text is not None:
            from openilias.models.tokenizers import check_has_files

            check_has_files(spec.text.architecture, model=spec.name)


def outline(spec: ModelSpec, protocol: Protocol) -> Network:
    """Return the network of a record without any numbers in it: its tensors have shapes only.

    Raises:
        OpenIliasError: its library cannot build it, or it is none of PyTorch.
    """
    from openilias.models.weights import WeightsSource

    if spec.library in ("sift_vlad", "python", "hf"):
        raise OpenIliasError(f"{spec.name} cannot be outlined.", fix="Load it.")
    return _builder(spec.library)(spec, spec.resolve(protocol), WeightsSource(shapes_only=True))


def _source(spec: ModelSpec, weights: Path | None, random_weights: int | None, text: TextFiles) -> WeightsSource:
    from openilias.models.checkpoints import LAYOUTS
    from openilias.models.weights import WeightsSource, fetch

    renamed = LAYOUTS[spec.layout] if spec.layout else None
    if spec.weights == "url" and weights is None and random_weights is None:
        return WeightsSource(fetch(spec), renamed=renamed, fetched=True, tokenizer=text.tokenizer)
    return WeightsSource(weights, random_weights, renamed=renamed, tokenizer=text.tokenizer)


def _builder(library: Library) -> Callable[[ModelSpec, Protocol, WeightsSource], Network]:
    if library == "torchvision":
        from openilias.models.torchvision_adapter import torchvision_network as build
    elif library == "open_clip":
        from openilias.models.open_clip_adapter import open_clip_network as build
    elif library == "hf":
        from openilias.models.hf_adapter import hf_network as build
    elif library == "own":
        from openilias.models.own_networks import own_network as build
    elif library == "python":
        from openilias.models.python_adapter import python_network as build
    else:
        from openilias.models.timm_adapter import timm_network as build
    return build
