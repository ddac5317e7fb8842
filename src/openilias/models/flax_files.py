"""Reading checkpoints of flax, which are MessagePack files: numbers and names, nothing that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from openilias.core.errors import OpenIliasError

Array = npt.NDArray[Any]
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_MOST = 2**31 - 1  # bytes of one string: larger arrays are cut into chunks
_BUFFER = 2**40


def is_flax(path: Path) -> bool:
    """Tell whether a file begins as a MessagePack map; pickles and zip archives begin otherwise."""
    with path.open("rb") as file:
        first = file.read(1)
    return bool(first) and (0x81 <= first[0] <= 0x8F or first[0] in (0xDE, 0xDF))


def read_flax(path: Path) -> dict[str, Tensor]:
    """Return all arrays of a checkpoint by their place in its tree, with slashes between: ``params/cls``.

    Raises:
        OpenIliasError: msgpack is not installed.
        ValueError: the file is damaged.
    """
    try:
        import msgpack
    except ImportError:
        raise OpenIliasError(
            "Checkpoints of flax need the package msgpack.", where=path, fix="pip install 'openilias[flax]'"
        ) from None
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(
            file,
            raw=False,
            strict_map_key=False,
            ext_hook=_unpacked,
            max_buffer_size=_BUFFER,
            max_str_len=_MOST,
            max_bin_len=_MOST,
            max_ext_len=_MOST,
            max_array_len=_MOST,
            max_map_len=_MOST,
        )
        try:
            tree = unpacker.unpack()
        except msgpack.OutOfData:
            raise ValueError("it is cut off") from None
        except msgpack.UnpackException as error:
            raise ValueError(f"it is damaged ({type(error).__name__})") from None
    found: dict[str, Tensor] = {}
    _gather(tree, "", found)
    return found


def _gather(node: Any, place: str, found: dict[str, Tensor]) -> None:
    if isinstance(node, dict) and node.get(_CHUNKED):
        shape = [node["shape"][str(axis)] for axis in range(len(node["shape"]))]
        chunks = [node["chunks"][str(number)] for number in range(len(node["chunks"]))]
        node = np.concatenate(chunks).reshape(shape)
    if isinstance(node, dict):
        for name, child in node.items():
            _gather(child, f"{place}/{name}" if place else str(name), found)
    elif isinstance(node, np.ndarray):
        found[place] = torch.from_numpy(node.copy())


def _unpacked(code: int, data: bytes) -> Any:
    """Return what one of flax's own types stands for: (shape, type, bytes), packed once more."""
    import msgpack

    if code not in (_ARRAY, _SCALAR):
        return None if code == _COMPLEX else msgpack.ExtType(code, data)
    shape, name, buffer = msgpack.unpackb(data, raw=True)
    if name == b"bfloat16":  # which NumPy has not
        array: Array = (np.frombuffer(buffer, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        array = np.frombuffer(buffer, np.dtype(name.decode()))
    return array.reshape(shape)
