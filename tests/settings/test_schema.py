"""Sections are built strictly and describe themselves."""

import dataclasses
from typing import Any

import pytest

from stages.contracts import WorldSpec
from stages.errors import UsageError
from stages.settings.schema import build, convert_key, defaults, describe, unknown_key


def test_absent_names_keep_their_default():
    spec = build(WorldSpec, {"repeat": 4}, section="world")
    assert spec == dataclasses.replace(WorldSpec(), repeat=4)


def test_a_section_survives_the_way_through_plain_values():
    spec = WorldSpec(env="ALE/Breakout-v5", crop=(34, 194, 0, 160), max_frames=400)
    plain = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(spec).items()
    }
    assert build(WorldSpec, plain, section="world") == spec


@pytest.mark.parametrize(
    ("values", "fragments"),
    [
        ({"repeats": 4}, ("world.repeats", "Did you mean world.repeat?")),
        ({"repeat": 0}, ("world.repeat", "less than 1")),
        ({"crop": [0, 84, 0]}, ("world.crop", "4 values are needed, not 3")),
        ({"engine": "envpol"}, ("world.engine", "Did you mean envpool?")),
    ],
)
def test_a_wrong_table_is_refused_by_key(values: dict[str, Any], fragments: tuple[str, ...]):
    with pytest.raises(UsageError) as caught:
        build(WorldSpec, values, section="world", source="a manifest")
    assert all(fragment in str(caught.value) for fragment in fragments)
    assert "a manifest" in caught.value.what


def test_a_combination_that_the_class_refuses_names_the_section(sections: dict[str, type]):
    with pytest.raises(UsageError, match=r"\[memory\]") as caught:
        build(sections["memory"], {"limit": 2}, section="memory")
    assert caught.value.why == "limit 2 is shorter than window 4"


def test_every_key_of_the_world_is_documented_with_its_default():
    rows = {row.key: row for row in describe({"world": WorldSpec})}
    assert list(rows) == [f"world.{field.name}" for field in dataclasses.fields(WorldSpec)]
    assert all(row.doc for row in rows.values())
    assert rows["world.crop"].default == "[0, 84, 0, 96]"
    assert rows["world.repeat"].type == "integer"


def test_limits_are_part_of_the_description(sections: dict[str, type]):
    limits = {row.key: row.limits for row in describe(sections)}
    assert limits["memory.cell"] == "lstm | gru"
    assert limits["memory.lr"] == "> 0 and <= 1"
    assert limits["memory.masked"] == ""


def test_declared_defaults_obey_their_own_rules(sections: dict[str, type]):
    for section, cls in sections.items():
        assert build(cls, defaults(cls), section=section) == cls()


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("memory.num_step", "memory.num_steps"),
        ("memory.learning_rate", "[memory] has: lr"),
        ("lr", "memory.lr"),
        ("mem.lr", "memory.lr"),
        ("memory.size", "world.size"),
        ("world.lr", "memory.lr"),
        ("memory.num-steps", "memory.num_steps"),
        ("memry.num_steps", "memory.num_steps"),
        ("memory.zzz", "layers"),  # everything that the section has
        ("zzz.qqq", "world, memory"),  # every section there is
    ],
)
def test_unknown_keys_are_answered_with_the_nearest(key: str, hint: str, sections: dict[str, type]):
    assert hint in unknown_key(key, sections).fix
    with pytest.raises(UsageError, match="There is no setting"):
        convert_key(key, 1, sections)
