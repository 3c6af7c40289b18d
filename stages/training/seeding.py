"""Random numbers from one root seed: every consumer names its own stream.

Nothing here is global or stateful. A stream depends on the root seed and its name alone, so a
resumed run, another worker or another lane draws the same numbers.
"""

import hashlib
import json
from collections.abc import Iterable

import numpy as np

from stages.errors import UsageError

RANGE = 2**27  # episode seeds of one purpose; all purposes together stay below 2**31
PURPOSES = ("rollout", "search", "selection", "evaluation", "play")
MOST_NAMED = 8  # runs of neighbours in a message
SHARED = "evaluation"  # the same list for every root seed: agents meet the same tracks


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """A generator of its own for this path, such as ("blocks", epoch)."""
    return np.random.Generator(np.random.Philox(key=_integer(seed, path, num_bytes=16)))


def torch_seed(seed: int, *path: str | int) -> int:
    """A non-negative 63-bit seed of its own for this path, for torch.Generator."""
    return _integer(seed, path, num_bytes=8) >> 1


def episode_seeds(purpose: str, root_seed: int, start: int, count: int) -> list[int]:
    """Seeds of the episodes start .. start + count - 1 of a purpose: distinct 31-bit integers.

    Every purpose has a range of its own, so that no track is ever seen for two of them. Inside
    its range the list begins where a hash of the root seed says, and wraps around.
    """
    assert purpose in PURPOSES, f"purpose {purpose!r} is not one of {PURPOSES}"
    assert start >= 0 <= count, f"start {start}, count {count}"
    if start + count > RANGE:
        raise UsageError(
            f"Episodes {start} to {start + count} for {purpose} are more than there are seeds.",
            why=f"Every purpose has {RANGE:,} seeds.",
        )
    base = PURPOSES.index(purpose) * RANGE
    offset = 0 if purpose == SHARED else _integer(root_seed, (purpose,), num_bytes=8) % RANGE
    return [base + (offset + number) % RANGE for number in range(start, start + count)]


def named_seeds(seeds: Iterable[int]) -> str:
    """`seed 7`, `seeds 12-27`, `seeds 3, 9-12`: each once, for messages; long lists are cut."""
    ordered = sorted({int(seed) for seed in seeds})
    runs: list[list[int]] = []
    for seed in ordered:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1][1:] = [seed]
        else:
            runs.append([seed])
    shown = ", ".join("-".join(map(str, ends)) for ends in runs[:MOST_NAMED])
    more = ", ..." if len(runs) > MOST_NAMED else ""
    return f"seed{'s' if len(ordered) > 1 else ''} {shown}{more}"


def _integer(seed: int, path: tuple[str | int, ...], *, num_bytes: int) -> int:
    """A hash of seed and path; JSON keeps 1 and "1", and ("a", "b") and ("ab",), apart."""
    name = json.dumps([int(seed), *path]).encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:num_bytes], "little")
