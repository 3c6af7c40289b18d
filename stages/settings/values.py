"""One value of a setting: cast without loss, checked against its limits, written in words.

A setting is a bool, int, float, str, a tuple of one of these (of fixed or of any length), or one of
them `| None`. Nothing is bent: what does not fit raises UsageError with the key in its message.
"""

import difflib
import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any

from stages.contracts import SettingRule
from stages.errors import UsageError

MAX_EXACT_INT = 2**53  # larger integers change when they become a float
MAX_INT = 2**63 - 1  # what TOML, HDF5 and numpy can hold
MAX_DEPTH = 16  # of lists and tables in each other
MAX_SHOWN = 80  # characters of an offending value in a message
_PART = r"""(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""  # of a key
_DOTTED = re.compile(rf"(?:{_PART}[ \t]*+\.[ \t]*+){{{MAX_DEPTH}}}", re.ASCII)


def convert(value: Any, wanted: Any, rule: SettingRule, *, key: str, source: str = "") -> Any:
    """`value` as the type `wanted`, within the limits of `rule`; UsageError where it is not."""
    try:
        converted = _cast(value, wanted)
        _check_limits(converted, rule)
    except ValueError as refusal:
        expected = " ".join(part for part in (type_text(wanted), limits_text(rule)) if part)
        raise UsageError(
            f"{key} cannot be {_shown(value)}{f' ({source})' if source else ''}.",
            why=f"{refusal}",
            fix=f"Expected: {expected}{f' ({rule.doc})' if rule.doc else ''}.",
        ) from None
    return converted


def value_text(value: Any) -> str:
    """A value as one would write it after `--set key=`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(value_text(item) for item in value)}]"
    if isinstance(value, int) and abs(value) > MAX_INT:
        return hex(value)  # Python writes no more than some thousands of decimal digits
    return '""' if value == "" else str(value)


def is_deep(value: Any) -> bool:
    """Whether lists and tables lie in each other deeper than any setting needs."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [item for one in inner if isinstance(one, list) for item in one]
    return bool(level)


def is_dotted(text: str) -> bool:
    """Whether TOML would find a key of so many parts that reading it takes minutes."""
    return bool(_DOTTED.search(text))


def type_text(wanted: Any) -> str:
    """A type in words, e.g. `list of 4 integers`."""
    inner = _without_none(wanted)
    if inner is not wanted:
        return f"{type_text(inner)} or none"
    if typing.get_origin(wanted) is tuple:
        arguments = typing.get_args(wanted)
        if arguments[-1] is Ellipsis:
            return f"list of {_plural(arguments[0])}"
        kinds = dict.fromkeys(_plural(argument) for argument in arguments)
        return f"list of {len(arguments)} {' and '.join(kinds)}"
    return {bool: "true or false", int: "integer", float: "number", str: "text"}[wanted]


def limits_text(rule: SettingRule) -> str:
    """The limits of a rule, e.g. `>= 0 and <= 1` or `auto | cpu`; empty when there are none."""
    if rule.choices:
        return " | ".join(map(str, rule.choices))
    bounds = ((">=", rule.low), (">", rule.above), ("<=", rule.high))
    return " and ".join(f"{sign} {bound:.12g}" for sign, bound in bounds if bound is not None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean x?` with the nearest known name, else the list of what there is."""
    known = list(known)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known) or 'none'}."


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else value_text(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _plural(wanted: Any) -> str:
    return {bool: "true or false", int: "integers", float: "numbers", str: "texts"}[wanted]


def _without_none(wanted: Any) -> Any:
    """The type itself, or X of `X | None`."""
    if not isinstance(wanted, types.UnionType) and typing.get_origin(wanted) is not typing.Union:
        return wanted
    inner = [item for item in typing.get_args(wanted) if item is not types.NoneType]
    assert len(inner) == 1, f"a setting has one type, or one and None, not {wanted}"
    return inner[0]


def _cast(value: Any, wanted: Any) -> Any:
    inner = _without_none(wanted)
    if inner is not wanted:  # TOML has no null, so the word none stands for it
        return None if value is None or value == "none" else _cast(value, inner)
    if typing.get_origin(wanted) is tuple:
        return _cast_tuple(value, typing.get_args(wanted))
    casts = {bool: _cast_bool, int: _cast_int, float: _cast_float, str: _cast_str}
    return casts[wanted](value)


def _cast_tuple(value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """A list of any length may be written as its only item."""
    if not isinstance(value, list | tuple) and arguments[-1] is Ellipsis:
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError(f"A list is needed, such as [{value_text(value)}].")
    if arguments[-1] is Ellipsis:
        return tuple(_cast(item, arguments[0]) for item in value)
    if len(value) != len(arguments):
        raise ValueError(f"{len(arguments)} values are needed, not {len(value)}.")
    return tuple(_cast(item, wanted) for item, wanted in zip(value, arguments, strict=True))


def _cast_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("Write true or false, in small letters and without quotes.")
    return value


def _cast_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_shown(value)} is not an integer.")
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value} cannot become an integer without loss.")
    if abs(value) > MAX_INT:
        raise ValueError("It does not fit into 64 bits.")
    return int(value)


def _cast_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_shown(value)} is not a number.")
    if isinstance(value, int) and abs(value) > MAX_EXACT_INT:
        raise ValueError("So large an integer cannot become a number without loss.")
    if not math.isfinite(value):
        raise ValueError("The number must be finite.")
    return float(value)


def _cast_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f'Text is needed: write "{_shown(value)}" with its quotes.')
    if not value.isprintable():
        raise ValueError("It holds characters that cannot be printed.")
    return value


def _check_limits(value: Any, rule: SettingRule) -> None:
    if isinstance(value, tuple):
        for item in value:
            _check_limits(item, rule)
    elif value is not None:
        _check_choice(value, rule)
        _check_bounds(value, rule)


def _check_choice(value: Any, rule: SettingRule) -> None:
    if rule.choices and value not in rule.choices:
        raise ValueError(did_you_mean(str(value), map(str, rule.choices)))


def _check_bounds(value: Any, rule: SettingRule) -> None:
    if rule.low is not None and value < rule.low:
        raise ValueError(f"{value} is less than {rule.low:.12g}.")
    if rule.above is not None and value <= rule.above:
        raise ValueError(f"{value} is not greater than {rule.above:.12g}.")
    if rule.high is not None and value > rule.high:
        raise ValueError(f"{value} is more than {rule.high:.12g}.")
