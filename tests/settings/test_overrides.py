"""What may follow `--set`, and what the habits of other tools are answered with."""

from typing import Any

import pytest

from stages.errors import UsageError
from stages.settings.overrides import parse_overrides


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 1e-3),
        ("1_000", 1000),
        ("-2", -2),
        ("0x10", 16),
        ("true", True),
        ("none", "none"),
        ("ALE/Pong-v5", "ALE/Pong-v5"),
        ("CarRacing-v3", "CarRacing-v3"),
        ('"a, b = c"', "a, b = c"),
        ("'1'", "1"),
        ('""', ""),
        ("[1, 2]", [1, 2]),
        ("[0,84,0,96]", [0, 84, 0, 96]),
        ("[]", []),
        ("[gymnasium, envpool]", ["gymnasium", "envpool"]),
        ('[bare, "quo,ted", 3]', ["bare", "quo,ted", 3]),
        ("2024-01-01", "2024-01-01"),  # a date of TOML is text here
        ("x=y", "x=y"),
        ("007", "007"),
        ("5 # five", "5 # five"),  # nothing is dropped as a comment
        (" 7 ", 7),
    ],
)
def test_values_are_toml_with_bare_text(text: str, expected: Any):
    found = parse_overrides([f"memory.key={text}"])
    assert found == {"memory.key": expected}
    assert type(found["memory.key"]) is type(expected)


def test_keys_are_collected_and_the_later_word_holds():
    words = ["a.b=1", "c.d=2", "a.b=3"]
    assert parse_overrides(words) == {"a.b": 3, "c.d": 2}
    assert parse_overrides([]) == {}


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("+memory.lr=1", "leave the + out"),
        ("++memory.lr=1", "leave the + out"),
        ("~memory.lr", "cannot be removed"),
        ("memory.lr=1,2", "for v in 1 2; do"),
        ("memory.cell=lstm,gru", "memory.cell=[lstm,gru]"),
        ("memory.lr=${other.lr}", "not interpolated"),
        ("memory.lr=1 memory.steps=2", "One value per option"),
        ("memory.lr", "section.name=value"),
        ("memory.lr 3", "section.name=value"),
        ("lr=3", "section.name"),
        ("seed=3", "--seed N"),
        ("memory.lr=", '""'),
        ("=3", "section.name"),
        ("memory..lr=3", "section.name"),
        ("memory.lr='3", "not closed"),
        ("memory.lr=[1, 2", "not closed"),
        ("memory.lr=[1], [2]", "shell loop"),
        ("memory.lr=1\nmemory.steps=2", "One line"),
        ("memory.lr=[1, 'a]", "not closed"),
    ],
)
def test_other_habits_get_one_line_that_says_what_to_write(word: str, hint: str):
    with pytest.raises(UsageError) as caught:
        parse_overrides([word])
    assert hint in caught.value.fix
    assert "\n" not in str(caught.value)


def test_deep_nesting_does_not_exhaust_the_stack():
    for text in ("[" * 4000 + "x" + "]" * 4000, "[" * 9000, "[" * 9000 + "]" * 9000):
        with pytest.raises(UsageError) as caught:
            parse_overrides([f"a.b={text}"])
        assert len(str(caught.value)) < 1000
