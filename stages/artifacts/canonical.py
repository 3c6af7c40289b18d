"""One spelling for every value, so that equal settings have equal digests."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from stages.artifacts.disk import digest_bytes
from stages.errors import UsageError


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces, shortest exact floats, and ASCII only.

    Dataclasses become objects and tuples lists. What has no obvious spelling is refused.

    Raises:
        UsageError: a number is NaN or infinite.
        TypeError: a value is not a plain one; its place is named.
    """
    plain = plain_value(value)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def readable_json(value: Any) -> bytes:
    """The same value for people: sorted keys, indented, one trailing newline."""
    plain = plain_value(value)
    return (json.dumps(plain, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def plain_value(value: Any, *, place: str = "") -> Any:
    """The value as dicts, lists, strings, numbers, booleans and None."""
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):  # also numpy's float64, which is one
        return _finite(float(value), place)
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return _plain_mapping(named, place)
    if isinstance(value, Mapping):
        return _plain_mapping(value, place)
    if type(value) in (list, tuple):
        return [plain_value(item, place=f"{place}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{place or 'value'} is a {type(value).__name__}, which has no spelling")


def _finite(value: float, place: str) -> float:
    if not math.isfinite(value):
        raise UsageError(f"{place or 'A value'} is {value}.", why="It must be a finite number.")
    return value


def _plain_mapping(mapping: Mapping[Any, Any], place: str) -> dict[str, Any]:
    plain = {}
    for key, item in mapping.items():
        if type(key) is not str:
            raise TypeError(f"a key of {place or 'value'} is a {type(key).__name__}, not a string")
        plain[key] = plain_value(item, place=f"{place}.{key}" if place else key)
    return plain


def fingerprint(
    stage: str,
    *,
    algorithm: int,
    config: Mapping[str, Any],
    parents: Sequence[str],
    family: str,
) -> str:
    """What a stage's result depends on, as one digest: equal fingerprints mean equal payloads.

    Args:
        stage: name of the stage, as in `stages.STAGES`.
        algorithm: the stage's own integer, raised when its code starts to give other results.
        config: the resolved settings that matter, with the world and the seed.
        parents: payload digests of the inputs, in the order in which they are used.
        family: the family whose models are built.
    """
    identity = {
        "stage": stage,
        "algorithm": algorithm,
        "config": config,
        "parents": list(parents),
        "family": family,
    }
    return digest_bytes(canonical_json(identity))
