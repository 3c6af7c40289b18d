"""Where tensors live and how many threads compute."""

import torch

from stages.errors import EnvironmentLacks, UsageError
from stages.execution.cores import available_cores
from stages.training.seeding import torch_seed

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """The device of this name; `auto` takes cuda, else mps, else cpu."""
    if name not in DEVICES:
        raise UsageError(f"Device '{name}' is unknown.", fix=f"Choose one of {', '.join(DEVICES)}.")
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if _present(kind)))
    if not _present(name):
        raise EnvironmentLacks(
            f"The device '{name}' is not there.",
            why="PyTorch sees none on this machine, or was built without support for it.",
            fix="Use --device auto or --device cpu.",
        )
    return torch.device(name)


def _present(kind: str) -> bool:
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


def torch_generator(seed: int, *path: str | int, device: torch.device) -> torch.Generator:
    """A generator of its own on `device` for this path, such as ("vision-noise", step)."""
    source = torch.Generator(device=device)
    source.manual_seed(torch_seed(seed, *path))
    return source
