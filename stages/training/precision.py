"""The number format of the matrix products of training. Importing this loads no torch.

Weights, optimiser moments, losses and everything that is measured or recorded stay float32.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16")
DOC = "of matrix products in training; auto is resolved once per workspace"

_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is Arm's
_CPU_FILE = Path("/proc/cpuinfo")
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def native_precision(device: str) -> str:
    """What `auto` means on this machine: bfloat16 where the device multiplies it natively.

    `device` is the one asked for: auto, cpu, cuda or mps.
    """
    if device in {"auto", "cuda"} and _NVIDIA_DRIVER.exists():
        import torch

        if torch.cuda.is_available():
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return "bfloat16" if native else "float32"
    if device == "mps":
        return "float32"
    return "bfloat16" if _CPU_FLAGS & cpu_flags(_CPU_FILE) else "float32"


def cpu_flags(file: Path) -> set[str]:
    """Names of what the first processor in a Linux cpuinfo file can do; elsewhere none."""
    if not file.exists():
        return set()
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return set(value.split())
    return set()


def training_dtype(precision: str) -> "torch.dtype":
    """The torch type of a precision that is resolved."""
    import torch

    assert precision in PRECISIONS[1:], f"precision {precision!r} is not resolved"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
