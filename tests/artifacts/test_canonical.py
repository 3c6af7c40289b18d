import hashlib
import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.canonical import canonical_json, fingerprint, readable_json
from stages.errors import UsageError

BASE = {
    "stage": "rollout",
    "algorithm": 1,
    "config": {"world": {"env": "CarRacing-v3", "crop": (0, 84, 0, 96)}, "seed": 1},
    "parents": ["a" * 64, "b" * 64],
    "family": "world-models",
}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@dataclass(frozen=True)
class Crop:
    top: int = 0
    scale: float = 0.1


def print_of(**changes):
    arguments = BASE | changes
    return fingerprint(arguments.pop("stage"), **arguments)


def test_the_spelling_is_the_documented_one():
    value = {"b": (1, 2.0), "a": Crop(), "c": [None, True, "ü"]}
    assert canonical_json(value) == (
        b'{"a":{"scale":0.1,"top":0},"b":[1,2.0],"c":[null,true,"\\u00fc"]}'
    )


@given(PLAIN)
def test_any_plain_value_survives_and_order_does_not_matter(value):
    assert json.loads(canonical_json(value)) == value
    assert json.loads(readable_json(value)) == value
    if isinstance(value, dict):
        assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_the_fingerprint_is_a_digest_that_anyone_can_compute():
    text = (
        '{"algorithm":1,"config":{"seed":1,"world":{"crop":[0,84,0,96],"env":"CarRacing-v3"}},'
        f'"family":"world-models","parents":["{"a" * 64}","{"b" * 64}"],"stage":"rollout"}}'
    )
    assert print_of() == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "evaluate"},
        {"algorithm": 2},
        {"config": {"world": {"env": "CarRacing-v3", "crop": (0, 84, 0, 96)}, "seed": 2}},
        {"parents": ["b" * 64, "a" * 64]},
        {"family": "iris"},
    ],
)
def test_everything_that_matters_changes_the_fingerprint(change):
    assert print_of(**change) != print_of()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused_with_their_place(number):
    with pytest.raises(UsageError, match=r"memory\.lr\[1\]"):
        canonical_json({"memory": {"lr": [1.0, number]}})


@pytest.mark.parametrize("value", [{1}, b"x", np.float32(1), np.zeros(2), object(), Crop, {1: 2}])
def test_what_has_no_spelling_is_refused(value):
    with pytest.raises(TypeError, match="world"):
        canonical_json({"world": value})
