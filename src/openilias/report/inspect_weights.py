"""Explaining files of tensors: adaptation layers, binarisations, AMES, fitted models, any state dict.

Nothing in them is executed.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.report.inspect_values import Explanation, Look, some
from openilias.report.tables import count

if TYPE_CHECKING:
    from torch import Tensor

ZIP = b"PK\x03\x04"
LEGACY_TORCH = bytes.fromhex("80028a0a6cfc9c46f920")
ADAPTATION = frozenset(("layer.weight", "layer.bias"))
_MATCH = "mtc_token"
_WRAPPERS = ("state", "state_dict", "model")
_MOST_FOR_SINGULAR = 8192
_ORTHOGONAL = 1e-3


def is_safetensors(look: Look) -> bool:
    """Tell by the header, or by the name."""
    if look.ending == ".safetensors":
        return True
    return (
        len(look.head) > 8 and look.head[8:10] in (b'{"', b"{}") and struct.unpack("<Q", look.head[:8])[0] < look.size
    )


def is_torch(look: Look) -> bool:
    """Tell by the signature (zip or the one before it), or by the name."""
    named = look.ending in (".pth", ".pt", ".bin", ".ckpt")
    return look.head.startswith(LEGACY_TORCH) or named or (look.head.startswith(ZIP) and b"data.pkl" in look.head)


def explain_safetensors(look: Look) -> Explanation:
    """Explain a ``.safetensors`` file: a fitted model or binarisation of ours, or any tensors.

    Raises:
        OpenIliasError: damaged; a fitted model or binarisation whose numbers are not those of its digest.
    """
    from safetensors import SafetensorError, safe_open

    from openilias.models.sift_vlad import FORMAT
    from openilias.rerank.itq import FORMAT as BINARISATION

    try:
        with safe_open(look.path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == FORMAT:
                return _fitted(look)
            if metadata.get("format") == BINARISATION:
                return _binarisation(look)
            names = list(file.keys())
            if set(names) == ADAPTATION:
                return _adaptation({name: file.get_tensor(name) for name in names}, look)
            if _MATCH in names:
                extra = {"metadata": metadata} if metadata else {}
                return _ames({name: file.get_tensor(name) for name in names}, extra, look)
            tensors = ((name, file.get_tensor(name)) for name in names)
            return _state("weights (safetensors)", tensors, {"metadata": metadata} if metadata else {})
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise look.refuse(f"This safetensors file is damaged: {error}.") from None


def _fitted(look: Look) -> Explanation:
    from openilias.models.sift_vlad import load_sift_vlad

    model, fitted_on = load_sift_vlad(look.path)
    words, (inputs, dims) = len(model.words), model.whitening.projection.shape
    return Explanation(
        "fitted model sift_vlad",
        f"{words} visual words, {inputs} numbers whitened to {dims} dimensions",
        {
            "words": words,
            "dims": dims,
            "settings": model.settings.model_dump(mode="json"),
            "fitted_on": {key: value for key, value in fitted_on.items() if key != "settings"},
            "digest": model.digest,
        },
    )


def explain_torch(look: Look) -> Explanation:
    """Explain a PyTorch file; only tensors and plain containers are read.

    Raises:
        OpenIliasError: damaged, or it holds anything else.
    """
    import torch

    try:
        value = torch.load(look.path, map_location="cpu", weights_only=True, mmap=look.head.startswith(ZIP))
    except MemoryError:
        raise
    except Exception as error:  # torch's reader fails in many ways on damaged files
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise look.refuse(
            f"This PyTorch file is damaged, or holds more than tensors: {reason.strip().rstrip('.')}.",
            fix="Save the state dict alone, or download the file again.",
        ) from None
    wrapper, extra = "", {}
    for key in _WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            wrapper = key
            extra = {"wrapped_in": key, "besides": sorted(str(name) for name in value if name != key)}
            value = value[key]
            break
    tensors = {str(k): v for k, v in value.items() if isinstance(v, torch.Tensor)} if isinstance(value, dict) else {}
    if not tensors:
        raise look.refuse("This PyTorch file holds no state dict.", fix="Save model.state_dict() to it.")
    if others := sorted(str(name) for name in value if str(name) not in tensors):
        extra["not_tensors"] = some(others)
    if set(tensors) == ADAPTATION:
        return _adaptation(tensors, look)
    if _MATCH in tensors:
        found = _ames(tensors, extra, look)
        unwrapped = "The official checkpoints wrap the state dict in 'state'; this one does not."
        return found if wrapper == "state" else replace(found, warnings=(*found.warnings, unwrapped))
    return _state("weights (PyTorch)", tensors.items(), extra)


def _array(tensor: Tensor) -> npt.NDArray[np.float64]:
    return np.asarray(tensor.detach().double().numpy(), np.float64)


def _adaptation(tensors: Mapping[str, Tensor], look: Look) -> Explanation:
    """Linear adaptation (paper, section 4): normalize(Wx + b)."""
    weight, bias = _array(tensors["layer.weight"]), _array(tensors["layer.bias"])
    if weight.ndim != 2 or not weight.size or bias.shape != weight.shape[:1]:
        raise look.refuse(f"layer.weight {weight.shape} and layer.bias {bias.shape} do not belong together.")
    outputs, inputs = weight.shape
    facts: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "dtype": str(tensors["layer.weight"].dtype)}
    warnings = []
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        warnings.append("The layer has a NaN or an infinity.")
    elif max(weight.shape) <= _MOST_FOR_SINGULAR:
        values = np.linalg.svd(weight, compute_uv=False)
        short = weight if outputs <= inputs else weight.T
        facts["singular_values"] = {"least": float(values[-1]), "most": float(values[0])}
        facts["off_orthogonal"] = float(np.abs(short @ short.T - np.eye(min(weight.shape))).max())
        facts["orthogonal"] = facts["off_orthogonal"] < _ORTHOGONAL
        if values[-1] < 1e-6 * values[0]:
            warnings.append("The layer is singular: it loses dimensions.")
    facts["bias_norm"] = float(np.linalg.norm(bias)) if np.isfinite(bias).all() else None
    return Explanation(
        "linear adaptation layer",
        f"{inputs} -> {outputs} dimensions: descriptor = normalize(Wx + b)",
        facts,
        tuple(warnings),
    )


def _binarisation(look: Look) -> Explanation:
    from openilias.rerank.itq import read_binarisation

    made, made_from = read_binarisation(look.path)
    weight = made.weight.astype(np.float64)
    each = min(made.dims, made.bits)  # more bits than dimensions are several turns of all axes
    turns = [weight[:, start : start + each] for start in range(0, made.bits, each)]
    facts = {
        "dims": made.dims,
        "bits": made.bits,
        **{name: made_from.get(name) for name in ("centred", "sample", "iterations", "seed")},
        "learned_from": made_from.get("stores"),
        "mean_norm": float(np.linalg.norm(made.mean.astype(np.float64))),
        "off_orthogonal": max(float(np.abs(part.T @ part - np.eye(part.shape[1])).max()) for part in turns),
        "digest": made.digest,
    }
    warnings = []
    if nothing := int((~weight.any(axis=0)).sum()):
        warnings.append(f"{nothing} bits have a weight of zero: they are the same for all descriptors.")
    summary = f"{made.dims} dimensions to {made.bits} bits: bit i is 1 where (x - mean) . weight[:, i] >= 0"
    return Explanation("binarisation", summary, facts, tuple(warnings))


def _ames(tensors: Mapping[str, Tensor], extra: dict[str, Any], look: Look) -> Explanation:
    from openilias.rerank.ames import HEADS
    from openilias.rerank.ames_files import binarisation_of, digest_of, read_ames

    remap = {name: list(tensor.shape) for name, tensor in tensors.items() if name.startswith("remap_local.")}
    layers = {name.split(".")[2] for name in tensors if name.startswith("decoder.layers.")}
    base = _state("AMES checkpoint", tensors.items(), extra)
    dims = int(tensors[_MATCH].shape[-1]) if tensors[_MATCH].ndim else 0
    # The binary one first projects to bits, and then maps these bits.
    binary, full = "remap_local.0.W" in remap, "remap_local.0.weight" in remap
    variant = "binary" if binary else "full precision" if full else "not known"
    summary = f"{count(len(layers), 'layer')} of {dims} dimensions, {variant}"
    facts: dict[str, Any] = {"dims": dims, "layers": len(layers), "variant": variant}
    warnings = list(base.warnings)
    try:
        network = read_ames(look.path)
    except OpenIliasError as error:
        warnings.append(f"ilias rerank cannot take it: {error.what}")
    else:
        summary += f", for local descriptors of {network.local_dims} dimensions"
        facts |= {
            "local_dims": network.local_dims,
            "bits": network.dims if binary else None,
            "inner_layer": int(tensors["decoder.layers.0.linear1.weight"].shape[0]),
            "parameters": sum(value.numel() for value in network.parameters()),
            "heads": f"{HEADS}, as published; no tensor tells",
            "digest": digest_of(network),
            "binarisation": binarisation_of(network).digest if binary else None,
        }
    facts |= {"remap": remap, **base.facts}
    return Explanation("AMES checkpoint", summary, facts, tuple(warnings))


def _state(kind: str, tensors: Iterable[tuple[str, Tensor]], extra: Mapping[str, Any]) -> Explanation:
    names: list[str] = []
    types, values, size, bad = Counter[str](), 0, 0, []
    for name, tensor in tensors:
        names.append(name)
        types[str(tensor.dtype).removeprefix("torch.")] += 1
        values += tensor.numel()
        size += tensor.numel() * tensor.element_size()
        if tensor.is_floating_point() and not _finite(tensor):
            bad.append(name)
    facts = {
        "tensors": len(names),
        "values": values,
        "bytes": size,
        "dtypes": dict(types),
        "first": some(names),
        "tops": some(dict.fromkeys(name.split(".")[0] for name in names), most=12),
        **extra,
    }
    warnings = (f"These tensors have a NaN or an infinity: {some(bad)}.",) if bad else ()
    return Explanation(kind, f"{count(len(names), 'tensor')}, {count(values, 'value')}", facts, warnings)


def _finite(tensor: Tensor) -> bool:
    return all(bool(part.isfinite().all()) for part in _parts(tensor))


def _parts(tensor: Tensor, most: int = 2**24) -> Iterator[Tensor]:
    flat = tensor.detach().reshape(-1)
    for start in range(0, len(flat), most):
        yield flat[start : start + most]
