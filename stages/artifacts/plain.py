"""Plain values from files that may be hostile: JSON of bounded depth and size, and rules for it.

A rule says what one value must be, as a test and in words for messages.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.errors import ArtifactDamaged
from stages.settings.values import MAX_INT

MAX_DEPTH = 32  # nesting of brackets in JSON that we read
MAX_SIZE = 2**20  # of a latent, an action, a layer
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # one pass, closed or not
_BRACKETS = re.compile(rb"[\[\]{}]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SHOWN = 60  # characters of an offending value


def parse_json(content: bytes, *, source: str) -> Any:
    """JSON of UTF-8 whose every value can be written again.

    Raises:
        ArtifactDamaged: it is no JSON, nested too deeply, names a key twice in one object, or
            holds half a character or a number that is not finite or needs more than 64 bits.
    """
    try:
        if _depth(content) > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        found = json.loads(
            content.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_exact,
        )
        if _SURROGATE.search(content):  # half of a pair, unless its other half follows
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ArtifactDamaged(f"{source} is not valid JSON.", why=f"{error}.") from error
    return found


def _depth(content: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKETS.finditer(_STRING.sub(b"", content)):
        depth += 1 if bracket[0] in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:_SHOWN]} is beyond every float")
    return value


def _exact(text: str) -> int:
    if len(text) > len(str(MAX_INT)) + 1 or abs(int(text)) > MAX_INT:
        raise ValueError(f"{text[:_SHOWN]} does not fit into 64 bits")
    return int(text)


@dataclass(frozen=True)
class Rule:
    """What a value must be."""

    words: str  # "a size"
    holds: Callable[[Any], bool]  # None stands for a value that is missing


SIZE = Rule("a size", lambda value: type(value) is int and 0 < value <= MAX_SIZE)
COUNT = Rule("a count", lambda value: type(value) is int and value >= 0)
THREADS = Rule("a number of threads", lambda value: type(value) is int and 0 < value <= 4096)
NUMBER = Rule("a number", lambda value: type(value) in (int, float))
TEXT = Rule("a text", lambda value: type(value) is str)
OBJECT = Rule("an object", lambda value: type(value) is dict)
FLAG = Rule("true or false", lambda value: type(value) is bool)


def one_of(*words: str) -> Rule:
    """One of these texts."""
    return Rule(f"one of {', '.join(words)}", lambda value: type(value) is str and value in words)


def listed(rule: Rule, *, least: int = 0) -> Rule:
    """A list of such values, `least` of them at least."""

    def holds(value: Any) -> bool:
        return type(value) is list and len(value) >= least and all(map(rule.holds, value))

    return Rule(f"a list of {rule.words} each", holds)


def row(*rules: Rule) -> Rule:
    """A list of as many values as rules, each obeying its own."""

    def holds(value: Any) -> bool:
        return (
            type(value) is list
            and len(value) == len(rules)
            and all(rule.holds(item) for rule, item in zip(rules, value, strict=True))
        )

    return Rule(f"a list of {' and '.join(rule.words for rule in rules)}", holds)


def keyed(rule: Rule) -> Rule:
    """An object whose every value is such a one."""

    def holds(value: Any) -> bool:
        return type(value) is dict and all(map(rule.holds, value.values()))

    return Rule(f"an object with {rule.words} each", holds)


def optional(rule: Rule) -> Rule:
    """Such a value, or none."""
    return Rule(f"{rule.words} or none", lambda value: value is None or rule.holds(value))


def exactly(fields: Mapping[str, Rule]) -> Rule:
    """An object with these keys, none else, and such values."""

    def holds(value: Any) -> bool:
        return (
            type(value) is dict
            and value.keys() == fields.keys()
            and all(rule.holds(value[name]) for name, rule in fields.items())
        )

    return Rule(f"an object of {', '.join(fields)}", holds)


def parse_record(content: bytes, *, source: str, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """A JSON object in which these dotted places obey their rules; else ArtifactDamaged."""
    found = parse_json(content, source=source)
    wrong = fault(found, rules) if isinstance(found, dict) else "it is no object"
    if wrong:
        raise ArtifactDamaged(f"{source} is not what belongs there.", why=f"{wrong}.")
    return dict(found)


def fault(values: Any, rules: Mapping[str, Rule]) -> str:
    """The first that is wrong at these dotted places, in words; empty when nothing is."""
    for place, rule in rules.items():
        value = _value_at(values, place)
        if not rule.holds(value):
            found = "missing" if value is None else f"{value!r:.{_SHOWN}}"
            return f"{place} is {found}; it must be {rule.words}"
    return ""


def _value_at(values: Any, place: str) -> Any:
    for name in place.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values
