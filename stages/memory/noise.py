"""Random numbers that depend on a seed and a step alone: a lane's dream does not know its place.

A number is a hash of (seed, step, column), so that lanes, batches, workers and devices change
nothing. The hash is the finaliser of SplitMix64 (Steele, Lea & Flood 2014), applied once for each
of the three. Its integers are the same on every device; normal numbers may differ in last bits.
"""

import math

import torch
from torch import Tensor

_STEP, _COLUMN = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03  # odd, far apart
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # of the finaliser
_BITS = 24  # of a uniform number: what float32 holds


def uniforms(seeds: Tensor, step: int, size: int, *, stream: int = 0) -> Tensor:
    """Uniform numbers strictly between 0 and 1, float32 [B, size], for seeds int64 [B].

    Another `stream` has other numbers for the same seed and step.
    """
    key = _mixed(_mixed(seeds.to(torch.int64) + _signed(_STEP * (step + 1))) + stream)
    columns = torch.arange(1, size + 1, device=seeds.device) * _signed(_COLUMN)
    bits = _shifted(_mixed(key[:, None] + columns), 64 - _BITS)
    # The largest, plus a half, would be rounded to 1, whose normal number is infinite.
    return ((bits.to(torch.float32) + 0.5) * 2.0**-_BITS).clamp_(max=1 - 2.0**-_BITS)


def normals(seeds: Tensor, step: int, size: int, *, stream: int = 0) -> Tensor:
    """Standard normal numbers, float32 [B, size], by the inverse of their distribution."""
    uniform = uniforms(seeds, step, size, stream=stream)
    return torch.erfinv(2 * uniform - 1) * math.sqrt(2)


def _mixed(values: Tensor) -> Tensor:
    """SplitMix64's finaliser; products wrap around."""
    values = (values ^ _shifted(values, 30)) * _signed(_FIRST)
    values = (values ^ _shifted(values, 27)) * _signed(_SECOND)
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, places: int) -> Tensor:
    """To the right, zeros coming in: torch's own shift keeps the sign."""
    return (values >> places) & ((1 << (64 - places)) - 1)


def _signed(value: int) -> int:
    """The last 64 bits as a signed integer, which torch's are."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
