"""The layers lie over each other in the promised order, and every value knows who chose it."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from stages.contracts import WorldSpec
from stages.errors import UsageError
from stages.settings.recipes import Recipe, load_recipe
from stages.settings.resolve import option, resolve

KEY = "memory.num_steps"
LAYERS = {  # name of the layer -> (value it sets, origin it leaves), in order of precedence
    "recipe": (11, "recipe r"),
    "preset": (12, "preset p"),
    "inherited": (13, "workspace"),
    "overrides": (14, "--set"),
    "named": (15, "--steps"),
}
SUBSETS = [chosen for size in range(6) for chosen in itertools.combinations(LAYERS, size)]


def layered(chosen: tuple[str, ...], sections: dict[str, type]) -> Any:
    def table(layer: str) -> dict[str, Any]:
        return {"memory": {"num_steps": LAYERS[layer][0]}} if layer in chosen else {}

    def flat(layer: str) -> dict[str, Any]:
        return {KEY: LAYERS[layer][0]} if layer in chosen else {}

    recipe = Recipe("r", "f", "", table("recipe"), {"p": table("preset")}, "p")
    return resolve(
        sections,
        recipe,
        inherited=flat("inherited"),
        overrides=flat("overrides"),
        named=flat("named"),
    )


@pytest.mark.parametrize("chosen", SUBSETS, ids="-".join)
def test_the_last_layer_that_speaks_holds(chosen: tuple[str, ...], sections: dict[str, type]):
    settings = layered(chosen, sections)
    value, origin = LAYERS[chosen[-1]] if chosen else (100, "default")
    assert settings.sections["memory"].num_steps == value
    assert settings.origins[KEY] == origin


def test_the_whole_of_a_recipe(sections: dict[str, type], toy: Path):
    settings = resolve(sections, load_recipe(toy))
    assert (settings.family, settings.recipe, settings.preset) == ("world-models", "toy", "quick")
    assert settings.seed == 0
    assert settings.sections["world"] == WorldSpec(repeat=2)
    assert settings.sections["memory"] == sections["memory"](lr=2e-3, layers=(8, 8), num_steps=20)
    assert settings.plain()["memory"] == {
        "lr": 2e-3,
        "num_steps": 20,
        "cell": "lstm",
        "masked": True,
        "layers": [8, 8],
        "window": [4, 0.5],
        "limit": None,
    }


def test_a_preset_may_be_chosen_or_absent(sections: dict[str, type], toy: Path):
    assert resolve(sections, load_recipe(toy), preset="paper").sections["memory"].lr == 1e-4
    bare = resolve(sections, Recipe("r", "f", "", {}))
    assert bare.preset == ""
    assert bare.sections["memory"] == sections["memory"]()


def test_inherited_keys_keep_the_name_of_the_recipe_that_wrote_them(
    sections: dict[str, type], toy: Path
):
    child = toy.parent / "child.toml"
    child.write_text('extends = "toy.toml"\n[world]\nsize = 32\n')
    origins = resolve(sections, load_recipe(child)).origins
    assert origins["world.size"] == "recipe child"
    assert origins["world.repeat"] == "recipe toy"
    assert origins[KEY] == "preset quick of toy"


def test_options_that_were_not_given_change_nothing(sections: dict[str, type], toy: Path):
    recipe = load_recipe(toy)
    settings = resolve(sections, recipe, named={"seed": None, KEY: None})
    assert settings == resolve(sections, recipe)


def test_the_seed_has_an_origin_of_its_own(sections: dict[str, type], toy: Path):
    recipe = load_recipe(toy)
    stored = resolve(sections, recipe, inherited={"seed": 5})
    assert (stored.seed, stored.origins["seed"]) == (5, "workspace")
    named = resolve(sections, recipe, inherited={"seed": 5}, named={"seed": 7})
    assert (named.seed, named.origins["seed"]) == (7, "--seed")
    for wrong in (-1, 2**63, 1.5, True, "1"):
        with pytest.raises(UsageError, match="seed"):
            resolve(sections, recipe, named={"seed": wrong})


def test_rows_show_every_key_once(sections: dict[str, type], toy: Path):
    settings = resolve(sections, load_recipe(toy), overrides={"memory.limit": 9})
    rows = {key: (value, origin) for key, value, origin in settings.rows()}
    num_keys = 1 + sum(len(values) for values in settings.plain().values())
    assert len(settings.rows()) == len(rows) == num_keys == len(settings.origins)
    assert rows["memory.limit"] == ("9", "--set")
    assert rows["memory.layers"] == ("[8, 8]", "recipe toy")
    assert rows["memory.masked"] == ("true", "default")


def test_what_auto_became_replaces_it(sections: dict[str, type], toy: Path):
    settings = resolve(sections, load_recipe(toy))
    changed = settings.changed("world.engine", "envpool", origin="auto")
    assert changed.sections["world"].engine == "envpool"
    assert changed.origins["world.engine"] == "auto"
    assert changed.sections["memory"] == settings.sections["memory"]
    assert settings.sections["world"].engine == "auto"
    for key, value in (("world.engine", "warp"), ("world.engin", "envpool"), ("memory.limit", 2)):
        with pytest.raises(UsageError):
            settings.changed(key, value, origin="auto")


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ({"preset": "quik"}, ("toy", "Did you mean quick?")),
        ({"overrides": {"memory.lrr": 1}}, ("--set", "memory.lr?")),
        ({"overrides": {"memory.lr": "1e-3x"}}, ("memory.lr", "--set", "number")),
        ({"overrides": {"memory.lr": 0}}, ("memory.lr", "> 0")),
        ({"overrides": {"memory.limit": 2}}, ("[memory]", "shorter than window")),
        ({"named": {"memory.num_steps": 0}}, ("--steps", ">= 1")),
        ({"inherited": {"gone.key": 1}}, ("gone.key", "workspace")),
    ],
)
def test_wrong_values_are_traced_to_who_gave_them(
    arguments: dict[str, Any], fragments: tuple[str, ...], sections: dict[str, type], toy: Path
):
    with pytest.raises(UsageError) as caught:
        resolve(sections, load_recipe(toy), **arguments)
    assert all(fragment in str(caught.value) for fragment in fragments)


@pytest.mark.parametrize(
    ("tables", "presets", "fragments"),
    [
        ({"memroy": {}}, {}, ("[memroy]", "Did you mean memory?")),
        ({"memory": {"lrr": 1}}, {}, ("memory.lrr", "recipe r")),
        ({}, {"p": {"memroy": {}}}, ("[presets.p.memroy]", "Did you mean memory?")),
        ({}, {"p": {"memory": {"num_steps": 2.5}}}, ("preset p", "2.5")),
        ({"memory": {"window": {"a": 1}}}, {}, ("memory.window", "list of 2")),
    ],
)
def test_a_recipe_that_does_not_fit_the_sections_is_refused(
    tables: Any, presets: Any, fragments: tuple[str, ...], sections: dict[str, type]
):
    with pytest.raises(UsageError) as caught:
        resolve(sections, Recipe("r", "f", "", tables, presets, "p" if presets else ""))
    assert all(fragment in str(caught.value) for fragment in fragments)


def test_the_option_of_a_key_is_its_name_without_num():
    assert [option(key) for key in ("seed", "rollout.num_episodes", "world.max_frames")] == [
        "--seed",
        "--episodes",
        "--max-frames",
    ]
