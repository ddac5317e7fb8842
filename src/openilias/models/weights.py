"""State dicts: reading files, fitting them into a network, their digest."""

from __future__ import annotations

import argparse
import hashlib
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor, nn

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import atomic_path, sha256_of
from openilias.models.flax_files import is_flax, read_flax
from openilias.models.quiet import first_line
from openilias.models.spec import ModelSpec

State = dict[str, Tensor]
_CONTAINERS = ("state_dict", "model_state", "model", "state", "net_state_dict", "student", "stduent")
"""Under which key published checkpoints hold the weights; the last is how HIER's code spells it."""
# Options of the training that checkpoints keep beside the weights: a namespace, and arrays in it.
_PLAIN: list[Any] = [argparse.Namespace, np.ndarray, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]
_PLAIN += [
    (np.zeros(0).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct")  # its place in either version of NumPy
    for core in ("core", "_core")
]


@dataclass(frozen=True)
class WeightsSource:
    """Where weights come from: a local ``file``, a ``seed`` for random ones, or, without either, the library's hub.

    Attributes:
        file: its weights are loaded.
        seed: for random weights.
        renamed: brings the names of the file's tensors to those of the architecture.
        shapes_only: no numbers at all (PyTorch's meta device): to count parameters and operations.
        fetched: the file came from the URL of the record.
        tokenizer: folder of the tokenizer, instead of the hub.
    """

    file: Path | None = None
    seed: int | None = None
    renamed: Callable[[State], State] | None = None
    shapes_only: bool = False
    fetched: bool = False
    tokenizer: Path | None = None

    @property
    def hub(self) -> bool:
        """They are the published ones, which the library fetches."""
        return self.file is None and self.seed is None and not self.shapes_only

    @property
    def device(self) -> str:
        """Where networks are built."""
        return "meta" if self.shapes_only else "cpu"

    def describe(self, spec: ModelSpec) -> str:
        """Return it in words, for manifests and reports."""
        if self.seed is not None:
            return f"random, seed {self.seed}"
        if self.fetched:
            return "url"
        if self.file is None and spec.library == "python":
            return "own code"
        if self.file is None:
            return "folder" if spec.library == "hf" and Path(spec.architecture).is_dir() else "hub"
        return "published file" if sha256_of(self.file) == spec.weights_sha256 else "file"

    @contextmanager
    def building(self, spec: ModelSpec) -> Iterator[None]:
        """Seed PyTorch while a network is built, and put its state back; say clearly why building failed.

        Raises:
            OpenIliasError: the library could not build the network or fetch its weights.
        """
        state = torch.random.get_rng_state()
        torch.manual_seed(self.seed or 0)
        try:
            with torch.device(self.device):
                yield
        except OpenIliasError:
            raise
        except Exception as error:  # the libraries and their downloads fail in many ways
            why = first_few(str(error).splitlines() or [type(error).__name__], most=1)
            if self.hub:
                raise OpenIliasError(
                    f"The weights of {spec.name} could not be loaded: {why}.",
                    where=spec.source,
                    fix="Give a local file with --weights FILE, or use --random-weights SEED to try without.",
                ) from None
            raise OpenIliasError(f"{spec.library} cannot build {spec.architecture}: {why}.") from None
        finally:
            torch.random.set_rng_state(state)

    def load(self, network: nn.Module, *, spare: tuple[str, ...] = ()) -> None:
        """Load the file into a network, if there is one, leaving nothing out (:func:`fit_state`)."""
        if self.file is not None:
            fit_state(network, self.state(self.file), where=self.file, spare=spare)

    def state(self, file: Path) -> State:
        """Return the state dict of a file, by the names of the architecture.

        Raises:
            OpenIliasError: it cannot be read.
        """
        state = read_state(file)
        try:
            return self.renamed(state) if self.renamed is not None else state
        except Exception as error:  # a layout meets whatever a file holds
            raise OpenIliasError(
                f"These weights are not laid out as published: {type(error).__name__} {first_line(error)}.",
                where=file,
                fix=_ANOTHER,
            ) from None


def fetch(spec: ModelSpec) -> Path:
    """Download the weights of a record from its URL into PyTorch's hub cache, once; return the file.

    Raises:
        OpenIliasError: it cannot be reached, or another file came than the record says.
    """
    url = str(spec.url)
    name = f"{spec.name}-{PurePosixPath(urlsplit(url).path).name}".replace("/", "_")
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not target.is_file():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as temporary:
                torch.hub.download_url_to_file(url, str(temporary), hash_prefix=spec.weights_sha256, progress=False)
                read_state(temporary)  # a download that was cut off, or a page that says so, is none
        except Exception as error:  # whatever a download may raise, a wrong digest among it
            reason = error.what if isinstance(error, OpenIliasError) else first_line(error)
            raise OpenIliasError(
                f"The weights of {spec.name} could not be fetched: {reason.rstrip('.')}.",
                where=url,
                fix=f"Try again, or download it elsewhere and give it with --weights FILE; it is kept as {target}.",
            ) from None
    elif spec.weights_sha256 is not None and sha256_of(target) != spec.weights_sha256:
        raise OpenIliasError(
            f"This is not the published file of {spec.name}.", where=target, fix="Remove it: it will be fetched again."
        )
    return target


def read_state(path: Path) -> State:
    """Read a state dict from a ``.safetensors``, flax or PyTorch file; nothing in the file is executed.

    Checkpoints that wrap it in a dictionary (``state_dict``, ``model``, ``model_state``, ...) are unwrapped; the tree
    of a flax file becomes names with slashes.

    Raises:
        OpenIliasError: the file is missing or holds no state dict.
    """
    if not path.is_file():
        raise OpenIliasError("There is no such weights file.", where=path, fix="Check the name.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: State = load_file(path)
            return loaded
        if is_flax(path):
            return read_flax(path)
        with torch.serialization.safe_globals(_PLAIN):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OpenIliasError:
        raise
    except Exception as error:  # whatever a damaged file may raise; torch advises to load what it refuses all the same
        refused = isinstance(error, pickle.UnpicklingError)
        reason = "it is no file of plain tensors" if refused else first_line(error)
        raise OpenIliasError(f"This weights file cannot be read: {reason}.", where=path, fix=_ANOTHER) from None
    for key in _CONTAINERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise OpenIliasError("This file holds no state dict.", where=path, fix="Save model.state_dict() to it.")
    odd = [str(name) for name, value in state.items() if not isinstance(name, str) or not _is_plain(value)]
    if odd:
        raise OpenIliasError(
            f"This file holds what are no plain tensors with names: {first_few(odd)}.", where=path, fix=_ANOTHER
        )
    return state


_ANOTHER = "Fetch it again, or give another file."


def _is_plain(value: Tensor) -> bool:
    """Dense numbers on the CPU, no more of them than are stored."""
    dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    return dense and not value.is_complex() and value.numel() <= value.untyped_storage().nbytes()


def fit_state(network: nn.Module, state: dict[str, Tensor], *, where: Path, spare: tuple[str, ...] = ()) -> None:
    """Load a state dict, leaving nothing out.

    Args:
        network: the network.
        state: its weights; a leading ``module.`` is dropped.
        where: the file, for messages.
        spare: prefixes that the file may have and the network not (a classifier that was taken off).

    Raises:
        OpenIliasError: keys are missing or left over, or shapes differ; the first few are named.
    """
    state = {name.removeprefix("module."): value for name, value in state.items()}
    own = network.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    over = [n for n in state if n not in own and not n.startswith(tuple(f"{prefix}." for prefix in spare))]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    kinds = [
        f"{name} {state[name].dtype}"
        for name in own
        if name in state and own[name].is_floating_point() and not state[name].is_floating_point()
    ]
    complaints = [
        f"{len(found)} {what}: {first_few(found)}"
        for what, found in (
            ("missing", missing),
            ("left over", over),
            ("of another shape", shapes),
            ("of another type", kinds),
        )
        if found
    ]
    if complaints:
        raise OpenIliasError(
            "These weights do not fit the architecture: " + "; ".join(complaints) + ".",
            where=where,
            fix="Give the file that belongs to this model.",
        )
    network.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)  # converts


def digest_state(state: dict[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        if not isinstance(state[name], Tensor):  # what a module keeps beside its tensors
            digest.update(f"{name} {state[name]!r}\n".encode())
            continue
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
