"""Reading pickles of arrays without running anything that is in them.

A pickle is a program. Forbidding most of its functions is not enough: NumPy's own reconstruction trusts its
arguments and can be made to follow any address. So none of NumPy's functions is handed out. What stands in for
them only remembers what it was given; the arrays are built afterwards, from plain types, with every size checked.
"""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError

_PLAIN_TYPE = re.compile(r"[biufUS][0-9]{1,6}")


class _Remembered:
    """What a pickle asked for: the name of a constructor, its arguments, and the state set afterwards."""

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        self.kind, self.arguments = kind, arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Constructor:
    """Stands in for a function of NumPy; calling it remembers the call."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, *arguments: Any) -> _Remembered:
        return _Remembered(self.kind, arguments)


_KINDS = {
    ("numpy", "ndarray"): "class",
    ("numpy", "dtype"): "dtype",
    ("multiarray", "_reconstruct"): "array",
    ("multiarray", "scalar"): "scalar",
    ("numeric", "_frombuffer"): "buffer",
    ("_codecs", "encode"): "bytes",
    ("__builtin__", "bytes"): "bytes",  # how the oldest pickles spell no bytes
    ("builtins", "bytes"): "bytes",
}


class _Reader(pickle._Unpickler):  # the one in Python: its memo grows only with what is there
    def find_class(self, module: str, name: str) -> Any:
        place = re.sub(r"^numpy\.(_?core)\.", "", module)
        if (place, name) not in _KINDS or (place in ("multiarray", "numeric") and place == module):
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which is not an array")
        return _Constructor(_KINDS[place, name])


def read_arrays(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of lists and NumPy arrays.

    Returns:
        Its values as arrays; nothing of the pickle itself survives.

    Raises:
        OpenIliasError: missing, broken, or holding anything else.
    """
    try:
        with path.open("rb") as handle:
            found = _Reader(handle).load()
        if not isinstance(found, dict):
            raise ValueError("it is not a dictionary")
        builder = _Builder(path.stat().st_size)
        return {str(name): builder.build(value) for name, value in found.items()}
    except FileNotFoundError:
        raise OpenIliasError("This file does not exist.", where=path, fix="Check the path.") from None
    except Exception as error:  # a hostile pickle may fail in any way while it is taken apart
        raise OpenIliasError(
            f"This pickle is refused or broken: {error}.", where=path, fix="Only arrays and plain containers are read."
        ) from None


class _Builder:
    """Builds arrays and lists of what was remembered: each thing once, and no more than a file of its size can hold."""

    def __init__(self, size: int) -> None:
        self.left = 8 * size + 1000
        self.built: dict[int, Any] = {}

    def build(self, value: Any) -> Any:
        if value is None or isinstance(value, (str, int, float)):
            return value
        if id(value) not in self.built:
            self.built[id(value)] = self._build(value)
        return self.built[id(value)]

    def _build(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            self.left -= len(value)
            if self.left < 0:
                raise ValueError("it unfolds to more than its size")
            return [self.build(item) for item in value]
        if not isinstance(value, _Remembered):
            raise ValueError(f"it holds a {type(value).__name__}")
        if value.kind == "scalar":
            kind, data = value.arguments
            return self._array(kind, (), data, fortran=False).item()
        if value.kind == "buffer":
            data, kind, shape, order = value.arguments
            return self._array(kind, shape, data, fortran=order == "F")
        if value.kind == "array":
            _, shape, kind, fortran, data = value.state
            return self._array(kind, shape, data, fortran=bool(fortran))
        raise ValueError(f"it holds a bare {value.kind}")

    def _array(self, kind: Any, shape: Any, data: Any, *, fortran: bool) -> npt.NDArray[Any]:
        return _array(kind, shape, self.build(data) if isinstance(data, list) else data, fortran=fortran)


def _array(kind: Any, shape: Any, data: Any, *, fortran: bool) -> npt.NDArray[Any]:
    if not isinstance(kind, _Remembered) or kind.kind != "dtype" or not isinstance(kind.arguments[0], str):
        raise ValueError("an array has no plain type")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("an array has no plain shape")
    order: Literal["F", "C"] = "F" if fortran else "C"
    if kind.arguments[0].lstrip("|").startswith("O"):
        if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
            raise ValueError("an array of objects holds more than text")
        return np.array(data, object).reshape(shape)
    if _PLAIN_TYPE.fullmatch(kind.arguments[0]) is None:
        raise ValueError(f"an array has the type {kind.arguments[0]!r}")
    big_endian = isinstance(kind.state, tuple) and len(kind.state) > 1 and kind.state[1] == ">"
    dtype = np.dtype(kind.arguments[0]).newbyteorder(">" if big_endian else "<")
    raw = _bytes(data)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError("an array has another size than its shape says")
    if (
        dtype.kind == "U"
        and raw
        and int(np.frombuffer(raw, np.dtype("u4").newbyteorder(dtype.byteorder)).max()) > 0x10FFFF
    ):
        raise ValueError("an array of text holds what is not text")
    array: npt.NDArray[Any] = np.frombuffer(raw, dtype).reshape(shape, order=order).copy()
    return array


def _bytes(data: Any) -> bytes:
    if isinstance(data, _Remembered) and data.kind == "bytes":
        text = data.arguments[0] if data.arguments else ""
        return _bytes(text if isinstance(text, str) else None)  # how older pickles spell bytes
    if isinstance(data, str):
        return data.encode("latin-1")
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    raise ValueError("an array has no plain data")
