"""The draw from M's mixture as one pass over the head's outputs, compiled for the processor.

Eagerly the draw is some thirty small passes (`dreaming`); compiled it is one loop. Compiling takes
half a minute in a process and needs a C++ compiler, so it is for dreams of many steps; torch keeps
what it compiled for the next process. The density is that of `mixture.sample`, the reference.
Axes: `b` lanes, `Z` latent size, `K` components.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

Draw = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float], Tensor]


def draw(
    head: Tensor, bias: Tensor, uniform: Tensor, noise: Tensor, temperature: Tensor, low: float
) -> Tensor:
    """The next z [b, Z] of lanes; what follows is compiled, and right without that.

    head [3, Z, K, b] holds logits, means and log sigmas without their bias [3, Z, K, 1]; `uniform`
    and `noise` are [b, Z], `temperature` has no axes, `low` is the least log sigma.
    """
    raw = head.float() + bias
    logits, means, log_sigmas = (part.unbind(1) for part in raw.unbind(0))
    largest = logits[0]
    for logit in logits[1:]:
        largest = torch.maximum(largest, logit)
    shares = [torch.exp((logit - largest) / temperature) for logit in logits]
    total = shares[0]
    for share in shares[1:]:
        total = total + share
    place = total * uniform.t()
    passed, mean, log_sigma = shares[0], means[0], log_sigmas[0]
    for share, other_mean, other_sigma in zip(shares[1:], means[1:], log_sigmas[1:], strict=True):
        further = place >= passed
        mean = torch.where(further, other_mean, mean)
        log_sigma = torch.where(further, other_sigma, log_sigma)
        passed = passed + share
    sigma = torch.exp(log_sigma.clamp(min=low)) * torch.sqrt(temperature)
    return (mean + sigma * noise.t()).t().contiguous()


@cache
def compiled_draw() -> Draw:
    """`draw` as one loop, kept by this process; the first call with other shapes compiles.

    What is compiled lies in the user's own cache and not, as torch has it, in the shared /tmp; it
    is compiled here and not by helper processes, which could outlive this one.
    """
    with suppress(RuntimeError):  # nobody's home is known: where torch has it
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home / "wm" / "torchinductor"))
    options: dict[str, str | int | bool | Callable[..., object]] = {"compile_threads": 1}
    compiled: Draw = torch.compile(draw, dynamic=False, fullgraph=True, options=options)
    return compiled


def can_compile() -> bool:
    """Whether there is a C++ compiler."""
    return shutil.which(os.environ.get("CXX", "c++")) is not None or shutil.which("g++") is not None
