"""Where tensors live and how many threads compute."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stages.errors import EnvironmentLacks, UsageError
from stages.execution.cores import available_cores
from stages.execution.memory import in_use
from stages.training.seeding import torch_seed

DEVICES = ("auto", "cpu", "cuda", "mps")
# Parameters of glibc's mallopt, and their values where freed memory is kept.
_MMAP_THRESHOLD, _LARGEST = -3, (2**30, 2**25)  # older versions refuse the first
_KEEPING = {
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: give nothing back
    -2: 2**26,  # M_TOP_PAD: ask for so much more than is needed
    -8: 1,  # M_ARENA_MAX: one heap for all threads; others are limited to 64 MB
}
_TOO_MUCH = 1.5  # times what is usual
_USUAL = {_MMAP_THRESHOLD: 2**17, -1: 2**17, -2: 2**17}  # where glibc begins


def resolve_device(name: str) -> torch.device:
    """The device of this name; `auto` takes cuda, else mps, else cpu."""
    if name not in DEVICES:
        raise UsageError(f"Device '{name}' is unknown.", fix=f"Choose one of {', '.join(DEVICES)}.")
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if is_present(kind)))
    if not is_present(name):
        raise EnvironmentLacks(
            f"The device '{name}' is not there.",
            why="PyTorch sees none on this machine, or was built without support for it.",
            fix="Use --device auto or --device cpu.",
        )
    return torch.device(name)


def is_present(kind: str) -> bool:
    """Whether PyTorch sees a device of this kind here."""
    if kind == "cuda":
        return torch.cuda.is_available()
    if kind == "mps":
        return torch.backends.mps.is_available()
    return True


def use_threads(num_threads: int) -> int:
    """Set the number of math threads (0: one per available core) and return it.

    Weights trained on different numbers of threads differ: record it, and restore it on resume.
    """
    if num_threads < 0:
        raise UsageError(f"The number of threads cannot be {num_threads}.")
    resolved = num_threads or available_cores()
    torch.set_num_threads(resolved)
    return resolved


def keep_freed_memory() -> None:
    """From now on keep what is freed for the next use; glibc only, elsewhere nothing happens.

    Large tensors are otherwise returned to the system and fetched again in every step, page by
    page, and threads wait for each other while they do (docs/experiments.md).
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and any(
        library.mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST
    ):
        for parameter, value in _KEEPING.items():
            library.mallopt(parameter, value)


def return_freed_memory() -> None:
    """Give the system back what is kept and free, and from now on what is freed; glibc only.

    Otherwise what is computed once, after training, would fill a heap whose holes it does not fit.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for parameter, value in _USUAL.items():
            library.mallopt(parameter, value)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


@contextmanager
def memory_kept() -> Iterator["Holes"]:
    """Keep what is freed inside, and give it back behind; look at the holes between steps."""
    keep_freed_memory()
    try:
        yield Holes()
    finally:
        return_freed_memory()


class Holes:
    """Gives the system back what lies unused between tensors, once there is much of it.

    Where the sizes of tensors differ from step to step, what is kept of one step does not fit the
    next, and the heap would grow for ever. With equal sizes it does not grow, and nothing is done.
    """

    def __init__(self) -> None:
        self._usual = 0  # bytes in memory when it was looked at first

    def look(self) -> None:
        """Call it now and then, between steps; glibc only."""
        now = in_use().num_bytes or 0
        self._usual = self._usual or now
        library = ctypes.CDLL(None)
        if now > _TOO_MUCH * self._usual and hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


def torch_generator(seed: int, *path: str | int, device: torch.device) -> torch.Generator:
    """A generator of its own on `device` for this path, such as ("vision-noise", step)."""
    source = torch.Generator(device=device)
    source.manual_seed(torch_seed(seed, *path))
    return source
