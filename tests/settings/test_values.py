"""Casts lose nothing, limits hold at their edges, and messages name the offender."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.contracts import SettingRule
from stages.errors import UsageError
from stages.settings.overrides import parse_overrides
from stages.settings.values import convert, did_you_mean, limits_text, type_text, value_text

FREE = SettingRule(doc="a thing")


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (3, float, 3.0),
        (2.0, int, 2),
        (2**53, float, 2.0**53),
        (2**63 - 1, int, 9223372036854775807),
        (True, bool, True),
        ("none", str, "none"),
        ("none", int | None, None),
        (None, str | None, None),
        (5, int | None, 5),
        ([1, 2.0], tuple[int, ...], (1, 2)),
        ([], tuple[int, ...], ()),
        ([1, 2], tuple[int, float], (1, 2.0)),
        (("a", "b"), tuple[str, str], ("a", "b")),
    ],
)
def test_a_value_without_loss_is_taken(value: Any, wanted: Any, expected: Any):
    found = convert(value, wanted, FREE, key="a.b")
    assert found == expected
    assert type(found) is type(expected)
    if isinstance(expected, tuple):
        assert [type(item) for item in found] == [type(item) for item in expected]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1, bool),
        ("true", bool),
        (True, int),
        (False, float),
        (2.5, int),
        ("3", int),
        ("1e-3", float),
        (2**53 + 1, float),
        (2**63, int),
        (1e300, int),
        (float("nan"), float),
        (float("inf"), float),
        (float("inf"), int),
        (float("nan"), int),
        (3, str),
        (None, int),
        (None, str),
        ("none", int),
        (3, tuple[int, int]),
        ("ab", tuple[int, ...]),
        (None, tuple[int, ...]),
        ([1, True], tuple[int, ...]),
        ([1], tuple[int, int]),
        ([1, 2, 3], tuple[int, int]),
        ({"a": 1}, int),
        ({"a": 1}, tuple[int, ...]),
        ([[1]], tuple[int, ...]),
    ],
)
def test_a_value_that_would_be_bent_is_refused_with_its_key(value: Any, wanted: Any):
    with pytest.raises(UsageError) as caught:
        convert(value, wanted, FREE, key="memory.thing", source="recipe toy")
    assert "memory.thing" in caught.value.what
    assert "recipe toy" in caught.value.what
    assert type_text(wanted) in caught.value.fix
    assert "a thing" in caught.value.fix


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        (SettingRule("", low=1), [1, 2], [0, -1]),
        (SettingRule("", high=1), [1, 0], [2]),
        (SettingRule("", above=0), [1], [0, -1]),
        (SettingRule("", low=0, high=2), [0, 1, 2], [-1, 3]),
        (SettingRule("", choices=(2, 4)), [2, 4], [3]),
    ],
)
def test_limits_hold_at_their_edges_and_for_every_element(
    rule: SettingRule, inside: list[int], outside: list[int]
):
    assert [convert(value, int, rule, key="a.b") for value in inside] == inside
    assert convert(inside, tuple[int, ...], rule, key="a.b") == tuple(inside)
    for value in outside:
        for wanted, given_value in ((int, value), (tuple[int, ...], [*inside, value])):
            with pytest.raises(UsageError):
                convert(given_value, wanted, rule, key="a.b")


def test_none_passes_limits():
    assert convert("none", int | None, SettingRule("", low=1), key="a.b") is None


def test_a_wrong_choice_is_answered_with_the_nearest():
    rule = SettingRule("", choices=("auto", "gymnasium", "envpool"))
    with pytest.raises(UsageError, match="gymnasium") as caught:
        convert("gymnasum", str, rule, key="world.engine")
    assert caught.value.why == "Did you mean gymnasium?"


def test_a_very_long_value_is_not_shown_whole():
    with pytest.raises(UsageError) as caught:
        convert("x" * 100_000, int, FREE, key="a.b")
    assert len(str(caught.value)) < 1000


plain = st.one_of(
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text("abcdefgh/-_", min_size=1).filter(lambda text: text not in ("inf", "nan")),
)


@given(value=st.one_of(plain, st.lists(plain, max_size=4)))
def test_what_value_text_writes_is_read_back_by_set(value: Any):
    if isinstance(value, str) and value[0] in "-":
        value = f"a{value}"
    found = parse_overrides([f"a.b={value_text(value)}"])["a.b"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (int | None, "integer or none"),
        (tuple[int, int, int, int], "list of 4 integers"),
        (tuple[float, ...], "list of numbers"),
        (bool, "true or false"),
    ],
)
def test_types_in_words(wanted: Any, words: str):
    assert type_text(wanted) == words


def test_limits_in_words():
    assert limits_text(SettingRule("", low=0, high=0.5)) == ">= 0 and <= 0.5"
    assert limits_text(SettingRule("", choices=("a", "b"))) == "a | b"
    assert limits_text(FREE) == ""


def test_without_a_near_name_everything_is_listed():
    assert did_you_mean("quik", ["debug", "quick"]) == "Did you mean quick?"
    assert did_you_mean("zzz", ["debug", "quick"]) == "There are: debug, quick."
    assert did_you_mean("zzz", []) == "There are: none."


def test_a_list_of_any_length_may_be_written_as_its_only_item():
    assert convert(3, tuple[int, ...], SettingRule("doc"), key="a.b") == (3,)
    assert convert([3], tuple[int, ...], SettingRule("doc"), key="a.b") == (3,)
