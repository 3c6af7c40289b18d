"""Short names for rows of a chart that are still told apart."""

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

GAP = "…"
LEAST_KEPT = 4  # characters that every name keeps behind what all of them begin with


def told_apart(names: Sequence[str], fuller: Sequence[str]) -> list[str]:
    """Names; those that several have in their fuller form, which is nobody else's."""
    times = Counter(names)
    return [name if times[name] == 1 else full for name, full in zip(names, fuller, strict=True)]


def labels(names: Sequence[str], most: int) -> list[str]:
    """The names in at most so many characters, one apart from the other.

    A long one is cut in its middle; where that makes two alike, what all of them begin with is left
    out first; what is alike even then is numbered.
    """
    found = [_cut(name, most) for name in names]
    if len(set(found)) == len(found):
        return found
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = min(len(list(alike)), *(len(name) - LEAST_KEPT for name in names))
    if shared > 1:
        found = [_cut(GAP + name[shared:], most) for name in names]
    told: list[str] = []
    for label in found:
        numbered, number = label, 1
        while numbered in told:
            number += 1
            mark = f" ({number})"
            numbered = _cut(label, most - len(mark)) + mark
        told.append(numbered)
    return told


def _cut(name: str, most: int) -> str:
    """A name without its middle, where it is too long; its end tells more than its beginning."""
    if len(name) <= most:
        return name
    head = (most - len(GAP)) // 2
    return name[:head] + GAP + name[len(name) - (most - len(GAP) - head) :]
