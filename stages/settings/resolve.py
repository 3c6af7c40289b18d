"""The value of every key and who chose it: default < recipe < preset < `--set` < named option."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.contracts import SettingRule
from stages.errors import UsageError
from stages.settings.recipes import Recipe, Tables
from stages.settings.schema import Sections, assemble, convert_key, defaults
from stages.settings.values import convert, did_you_mean, value_text

SEED = "seed"  # the one setting that belongs to no section
SEED_RULE = SettingRule("root of all randomness of a run", low=0)
Layer = tuple[str, Any, str]  # dotted key, plain value, origin


@dataclass(frozen=True)
class Settings:
    """Every value of a run, typed, with its origin."""

    family: str
    recipe: str
    preset: str  # empty: none
    seed: int
    sections: Mapping[str, Any]  # section -> instance of its dataclass
    origins: Mapping[str, str]  # "seed" and every dotted key -> who chose its value

    def plain(self) -> dict[str, Any]:
        """Section to name to plain value, as JSON and manifests hold it."""
        return {
            section: {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in dataclasses.asdict(values).items()
            }
            for section, values in self.sections.items()
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """Key, value as text, and origin: the seed, then every key in order."""
        rows = [(SEED, str(self.seed), self.origins[SEED])]
        for section, values in self.sections.items():
            for name in defaults(type(values)):
                key = f"{section}.{name}"
                rows.append((key, value_text(getattr(values, name)), self.origins[key]))
        return rows

    def changed(self, key: str, value: Any, *, origin: str) -> "Settings":
        """The same settings with one value replaced, e.g. an `auto` that was resolved."""
        section, _, name = key.partition(".")
        classes = {other: type(values) for other, values in self.sections.items()}
        converted = convert_key(key, value, classes, source=origin)
        old = {item: getattr(self.sections[section], item) for item in defaults(classes[section])}
        replaced = assemble(classes[section], {**old, name: converted}, section=section)
        return dataclasses.replace(
            self,
            sections={**self.sections, section: replaced},
            origins={**self.origins, key: origin},
        )


def resolve(
    sections: Sections,
    recipe: Recipe,
    *,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    named: Mapping[str, Any] | None = None,
    inherited: Mapping[str, Any] | None = None,
) -> Settings:
    """Lay all layers over each other, converting and checking every value on the way.

    Args:
        sections: section to dataclass, the whole table.
        recipe: the recipe, already loaded.
        preset: one of its presets; None takes the recipe's default.
        overrides: dotted key to plain value, from `--set`.
        named: dotted key (or `seed`) to the value of an option of its own; None is not given.
        inherited: what the workspace stored, dotted keys or `seed`; below `--set`.

    Raises:
        UsageError: unknown sections, keys or presets, values that do not fit.
    """
    preset = _known_preset(recipe, preset)
    for other, tables in recipe.presets.items():  # a slip in a preset shows before it is used
        for key, value, origin in _flat(tables, recipe, sections, preset=other):
            _convert(key, value, sections, origin)
    layers = (
        _declared(sections),
        _flat(recipe.tables, recipe, sections),
        _flat(recipe.presets.get(preset, {}), recipe, sections, preset=preset),
        ((key, value, "workspace") for key, value in (inherited or {}).items()),
        ((key, value, "--set") for key, value in (overrides or {}).items()),
        ((key, value, option(key)) for key, value in (named or {}).items() if value is not None),
    )
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value, origin in itertools.chain.from_iterable(layers):
        values[key] = _convert(key, value, sections, origin)
        origins[key] = origin
    return Settings(
        family=recipe.family,
        recipe=recipe.name,
        preset=preset,
        seed=values[SEED],
        sections={
            section: assemble(
                cls, {name: values[f"{section}.{name}"] for name in defaults(cls)}, section=section
            )
            for section, cls in sections.items()
        },
        origins=origins,
    )


def option(key: str) -> str:
    """The command line option that stands for a key: rollout.num_episodes is --episodes."""
    return "--" + key.rpartition(".")[2].removeprefix("num_").replace("_", "-")


def _known_preset(recipe: Recipe, preset: str | None) -> str:
    if preset is None:
        return recipe.default_preset
    if preset not in recipe.presets:
        raise UsageError(
            f"The recipe {recipe.name} has no preset {preset!r}.",
            fix=did_you_mean(preset, recipe.presets),
        )
    return preset


def _declared(sections: Sections) -> Iterator[Layer]:
    yield SEED, 0, "default"
    for section, cls in sections.items():
        for name, value in defaults(cls).items():
            yield f"{section}.{name}", value, "default"


def _flat(
    tables: Tables, recipe: Recipe, sections: Sections, *, preset: str = ""
) -> Iterator[Layer]:
    """The keys of a recipe's tables, or of those of one of its presets, with who wrote them."""
    prefix = f"presets.{preset}." if preset else ""
    for section, table in tables.items():
        if section not in sections:
            raise UsageError(
                f"The recipe {recipe.name} has an unknown section [{prefix}{section}].",
                fix=did_you_mean(section, sections),
            )
        for name, value in table.items():
            key = f"{section}.{name}"
            author = recipe.authors.get(prefix + key, recipe.name)
            by = "" if author == recipe.name else f" of {author}"
            yield key, value, f"preset {preset}{by}" if preset else f"recipe {author}"


def _convert(key: str, value: Any, sections: Sections, origin: str) -> Any:
    if key == SEED:
        return convert(value, int, SEED_RULE, key=SEED, source=origin)
    return convert_key(key, value, sections, source=origin)
