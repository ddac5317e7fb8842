"""Choosing where to compute."""

from __future__ import annotations

from openilias.core.errors import OpenIliasError


def choose_device(name: str) -> str:
    """Return ``name`` if the machine has such a device; for ``auto`` the best it has: cuda, mps, cpu.

    Raises:
        OpenIliasError: there is no such device here.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, there in present.items() if there)
    kind, _, number = name.partition(":")
    if not present.get(kind, False) or (number and (not number.isdigit() or kind != "cuda")):
        raise OpenIliasError(
            f"There is no device {name!r} here.",
            fix=f"Use one of: {', '.join(d for d, t in present.items() if t)}.",
        )
    if number and int(number) >= torch.cuda.device_count():
        raise OpenIliasError(f"There are only {torch.cuda.device_count()} CUDA devices.", fix="Lower the number.")
    return name
