"""Your own model: a function in a Python file.

The function takes nothing and returns an ``nn.Module``, or any callable, from (B, 3, H, W) float32 normalised images
to (B, D) vectors or to a (B, C, h, w) map, which ``POOLING`` pools. If what it returns has an
``encode_texts``, from a list of B texts to (B, D), texts can be described too.

The file may say: ``MEAN`` and ``STD`` (three numbers each; ImageNet's), ``RESOLUTION`` of the training (224),
``MULTIPLE`` to which images are padded with zeros (1), ``POOLING`` (``head``: it returns vectors).
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Protocol
from openilias.models.network import LastMap, Network
from openilias.models.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from openilias.models.weights import WeightsSource, fit_state, read_state

_MODULE = "openilias_own_model"


def python_spec(name: str) -> ModelSpec:
    """Make the record of ``path.py:function``: the file is run, the function is not called.

    Raises:
        OpenIliasError: there is no such file or function, the file fails, or says what cannot be.
    """
    path, function = _parts(name)
    source = _read(path)
    with _loaded(path, source) as (module, beside):
        if not callable(getattr(module, function, None)):
            raise OpenIliasError(f"There is no function {function!r} in this file.", where=path, fix="Check its name.")
        fields = {
            "mean": getattr(module, "MEAN", IMAGENET_MEAN),
            "std": getattr(module, "STD", IMAGENET_STD),
            "train_resolution": getattr(module, "RESOLUTION", 224),
            "pooling": getattr(module, "POOLING", "head"),
        }
        multiple = getattr(module, "MULTIPLE", 1)
        code = _digest(source, beside())
    if type(multiple) is not int or multiple < 1:
        raise OpenIliasError(f"MULTIPLE is {multiple!r}, not a positive number.", where=path)
    try:
        return ModelSpec(
            name=name,
            library="python",
            architecture=name,
            arguments={"multiple": multiple},
            code_sha256=code,
            source=str(path),
            **fields,
        )
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # of several fields
            raise OpenIliasError(f"{first['msg']}.", where=path, fix="Correct MEAN and STD.") from None
        field = {"train_resolution": "RESOLUTION"}.get(str(first["loc"][0]), str(first["loc"][0]).upper())
        raise OpenIliasError(f"{field} is {first['input']!r}: {first['msg']}.", where=path) from None


def python_network(spec: ModelSpec, protocol: Protocol, weights: WeightsSource) -> Network:
    """Call the function.

    Raises:
        OpenIliasError: the file was edited since the record was made, the function fails or returns no model, or the
            weights do not fit.
    """
    path, function = _parts(spec.architecture)
    source = _read(path)
    with _loaded(path, source) as (own, beside):
        if _digest(source, beside()) != spec.code_sha256:
            raise OpenIliasError("This code was edited since the model was named.", where=path, fix="Start again.")
        with weights.building(spec), _blaming(path, f"{function}()"):
            model = getattr(own, function)()
    if not callable(model):
        raise OpenIliasError(
            f"{function}() returned {type(model).__name__}, not a model.",
            where=path,
            fix="Return an nn.Module, or a function from (B, 3, H, W) images to (B, D) vectors.",
        )
    if weights.file is not None:
        if not isinstance(model, nn.Module):
            raise OpenIliasError(
                f"{function}() returned no nn.Module, so there is nothing to load weights into.",
                where=path,
                fix="Leave --weights out, or return an nn.Module.",
            )
        fit_state(model, read_state(weights.file), where=weights.file)
    texts, steps = getattr(model, "encode_texts", None), int(spec.arguments.get("multiple", 1))
    outputs = _Outputs(path, function, model)
    return Network(
        model if isinstance(model, nn.Module) else nn.Module(),
        head=outputs.head,
        last_map=outputs.last_map,
        multiple=(steps, steps),
        encode_texts=None if texts is None else outputs.of_texts(texts),
    )


class _Outputs:
    """Calls the model and looks at what comes out; what goes wrong inside is said with its file."""

    def __init__(self, path: Path, function: str, model: Callable[[Tensor], Any]) -> None:
        self._path = path
        self._name = f"the model of {function}()"
        self._model = model

    def head(self, images: Tensor) -> Tensor:
        out = self._call(self._model, images, len(images))
        if out.ndim == 4:
            raise self._error(
                f"returned a map {tuple(out.shape)}", "Say how it is pooled: POOLING = 'gem' in the file."
            )
        if out.ndim != 2:
            raise self._error(f"returned shape {tuple(out.shape)}", "Return (B, D) vectors or a (B, C, h, w) map.")
        return out

    def last_map(self, images: Tensor) -> LastMap:
        out = self._call(self._model, images, len(images))
        if out.ndim != 4:
            raise self._error(f"returned shape {tuple(out.shape)}, not a map", "Use --pooling head.")
        return LastMap(out)

    def of_texts(self, encode: Callable[[list[str]], Any]) -> Callable[[list[str]], Tensor]:
        return lambda texts: self._call(encode, texts, len(texts))

    def _call(self, function: Callable[[Any], Any], inputs: Any, count: int) -> Tensor:
        with _blaming(self._path, self._name):
            out = function(inputs)
        if not isinstance(out, Tensor) or not out.is_floating_point():
            kind = f"a tensor of {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
            raise self._error(f"returned {kind}", "Return one tensor of floats.")
        if out.ndim == 0 or len(out) != count:
            raise self._error(f"returned shape {tuple(out.shape)} for {count} inputs", "Return one row per input.")
        return out

    def _error(self, what: str, fix: str) -> OpenIliasError:
        return OpenIliasError(f"{self._name[0].upper()}{self._name[1:]} {what}.", where=self._path, fix=fix)


def _parts(name: str) -> tuple[Path, str]:
    file, _, function = name.rpartition(":")
    return Path(file), function


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OpenIliasError(
            f"This file cannot be read: {error.strerror}.", where=path, fix="A model of your own is FILE.py:FUNCTION."
        ) from None


@contextmanager
def _loaded(path: Path, source: bytes) -> Iterator[tuple[ModuleType, Callable[[], dict[str, Path]]]]:
    """Run the file; what lies beside it can be imported meanwhile, and is forgotten after.

    Yields the module, and what tells which modules beside it were imported so far: name -> file.
    """
    home = path.resolve().parent
    folder = str(home)
    module = ModuleType(_MODULE)
    module.__file__ = str(path)
    before = set(sys.modules)
    sys.path.insert(0, folder)
    sys.modules[_MODULE] = module
    try:
        with _blaming(path, "this file"):
            code = compile(source, str(path), "exec", dont_inherit=True)
            exec(code, module.__dict__)  # noqa: S102 - the user names this file to have it run
        yield module, lambda: _beside(home, before)
    finally:
        sys.path.remove(folder)
        for name in {*_beside(home, before), _MODULE}:
            sys.modules.pop(name, None)


def _beside(home: Path, before: set[str]) -> dict[str, Path]:
    """Return the modules that were imported from a folder, but not those of libraries installed below it."""
    files = {name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before - {_MODULE}}
    paths = {name: Path(file).resolve() for name, file in files.items() if file}
    return {
        name: file for name, file in paths.items() if file.is_relative_to(home) and "site-packages" not in file.parts
    }


def _digest(source: bytes, beside: dict[str, Path]) -> str:
    """Return the SHA-256 of a file and of the modules that it imports from beside it."""
    digest = hashlib.sha256(source)
    for name, file in sorted(beside.items()):
        digest.update(name.encode() + file.read_bytes())
    return digest.hexdigest()


@contextmanager
def _blaming(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OpenIliasError:
        raise
    except (Exception, SystemExit) as error:
        last = traceback.format_exception_only(error)[-1].strip()
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else lines[-1] if lines else None
        raise OpenIliasError(
            f"{what[0].upper()}{what[1:]} failed: {last}.", where=f"{path}, line {line}" if line else path
        ) from None
