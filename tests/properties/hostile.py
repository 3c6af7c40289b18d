"""Strategies of hostile input: arbitrary bytes and JSON, and mutations of what is valid.

A mutation of something valid reaches deeper than noise does: everything but one place is right.
"""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

# What JSON can say and Python's writer would not: put in place of a value as text.
RAW = "@raw:"
RAW_TEXTS = (
    "1e999", "-1e999", "NaN", "Infinity", "9" * 30, "-" + "9" * 400, "9" * 5000, "1e-999",
    r'"\ud800"', r'"\udfff\ud800"', r'"\u0000"', '{"a": 1, "a": 2}', "[" * 40 + "]" * 40,
    '{"a":' * 40 + "1" + "}" * 40, "[" * 20 + "]" * 20, "01", "'text'", "",
)  # fmt: skip
NASTY_TEXTS = (
    "", ".", "..", "../../etc/passwd", "/etc/passwd", "/dev/zero", "~root", "a/b", "a\\b", "C:\\x",
    "\x00", "a\x00b", "\x1b[2J\x1b]0;owned\x07", "\u202egnp.exe", "\n", "x" * 5000, "none", "nan",
    "os:system", "control/0001", "vision/0001", "__class__", "{0.__class__}", "%s%n", "${HOME}",
    "`id`", "$(id)", "\U0001f600", "é", "0" * 64, "rollouts", "agents", "manifest.json",
)  # fmt: skip
HUGE = (-1, 0, 1, 2, 255, 2**20, 2**31 - 1, 2**31, 2**32, 2**53, 2**60, 2**63 - 1, 10**12, -(2**62))

texts = st.sampled_from(NASTY_TEXTS) | st.text(max_size=8)
numbers = st.sampled_from(HUGE) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
raws = st.sampled_from(RAW_TEXTS).map(lambda text: RAW + text)
json_values = st.recursive(
    scalars | raws,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=6,
)


def written(document: Any) -> bytes:
    """JSON with the raw texts in place."""
    text = json.dumps(document, ensure_ascii=False)
    for raw in RAW_TEXTS:
        text = text.replace(json.dumps(RAW + raw, ensure_ascii=False), raw)
    return text.encode(errors="surrogatepass")


@st.composite
def mutated_json(draw: st.DrawFn, document: Any, *, most: int = 2) -> Any:
    """The document with one or two places replaced, removed, moved or added to."""
    changed = deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(changed))
        if not places:
            return draw(json_values)
        *path, last = draw(st.sampled_from(places))
        holder = changed
        for step in path:
            holder = holder[step]
        action = draw(st.sampled_from(("replace", "replace", "replace", "remove", "add", "borrow")))
        if action == "remove":
            del holder[last]
        elif action == "add" and isinstance(holder, dict):
            holder[draw(texts)] = draw(json_values)
        elif action == "borrow":  # what stands elsewhere in the same document
            holder[last] = deepcopy(_at(changed, draw(st.sampled_from(places))))
        else:
            holder[last] = draw(json_values)
    return changed


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside."""
    inner = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list) else inner:
        yield (*path, key)
        yield from _places(item, (*path, key))


def _at(value: Any, path: Sequence[Any]) -> Any:
    for step in path:
        value = value[step]
    return value


@st.composite
def mutated_bytes(draw: st.DrawFn, *samples: bytes, most: int = 4) -> bytes:
    """One of the samples with flipped bits, bytes removed, inserted, repeated, or of another."""
    content = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.sampled_from((1, 2, 4, 8, 64, 512)))
        action = draw(st.sampled_from(("flip", "flip", "set", "cut", "insert", "repeat", "splice")))
        if action == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif action == "set":
            content[place : place + length] = bytes(
                [draw(st.sampled_from((0, 1, 127, 255)))]
            ) * min(length, len(content) - place)
        elif action == "cut":
            del content[place : place + length]
        elif action == "insert":
            content[place:place] = draw(st.binary(max_size=16))
        elif action == "repeat":
            content[place:place] = content[place : place + length]
        else:
            other = draw(st.sampled_from(samples))
            start = draw(st.integers(0, max(0, len(other) - 1)))
            content[place : place + length] = other[start : start + length]
    return bytes(content)


def json_files(document: Any) -> st.SearchStrategy[bytes]:
    """Files that may stand where this document belongs."""
    return (
        mutated_json(document).map(written)
        | mutated_json(document).map(written)
        | mutated_bytes(written(document))
        | json_values.map(written)
        | st.binary(max_size=64)
    )
