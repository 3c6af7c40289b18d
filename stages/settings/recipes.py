"""Recipes: TOML files that name a family and choose values for the keys of its sections.

    name = "carracing"                 # the file's name when left out
    family = "world-models"
    description = "one line"
    default_preset = "quick"
    extends = "other"                  # optional: a shipped recipe, or a path beside this file
    [memory]                           # one table per section
    learning_rate = 1e-3
    [presets.quick.memory]             # what the preset quick changes in it
    steps = 2000

Which sections and keys there are is checked in resolve.py, which knows the dataclasses.
"""

import errno
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from stages.errors import UsageError
from stages.settings.values import did_you_mean, is_deep, is_dotted

MAX_BYTES = 100_000  # a recipe is a page or two
MAX_CHAIN = 16  # recipes that extend each other
TEXTS = ("name", "family", "description", "default_preset", "extends")

Table = dict[str, Any]  # name -> plain value
Tables = dict[str, Table]  # section -> its table


@dataclass(frozen=True)
class Recipe:
    """A recipe with everything that it extends merged in."""

    name: str
    family: str
    description: str
    tables: Tables
    presets: dict[str, Tables] = field(default_factory=dict)
    default_preset: str = ""  # empty: no preset
    authors: Mapping[str, str] = field(default_factory=dict)  # dotted key -> recipe that set it


def available() -> list[str]:
    """Names of the recipes that are shipped."""
    found = (item.name for item in _shipped().iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """The shipped recipe of this name, or the file at this path (which ends in .toml).

    Raises:
        UsageError: no such recipe, no valid TOML, unknown top-level words, or a recipe that
            extends itself.
    """
    return _load(str(name_or_path), beside=Path(), chain=())


def _load(name_or_path: str, *, beside: Path, chain: tuple[str, ...]) -> Recipe:
    source, identity = _found(name_or_path, beside)
    if identity in chain or len(chain) >= MAX_CHAIN:
        circle = " -> ".join((*chain, identity))
        itself = "itself" if identity in chain else f"more than {MAX_CHAIN} others"
        raise UsageError(f"The recipe {source.name} extends {itself}.", why=f"{circle}.")
    content = _parse(_read(source), str(source))
    _check_shape(content, str(source))
    parent = None
    if "extends" in content:
        folder = source.parent if isinstance(source, Path) else beside
        parent = _load(content["extends"], beside=folder, chain=(*chain, identity))
    return _merge(content, parent, stem=source.name.removesuffix(".toml"))


def _shipped() -> Traversable:
    return resources.files("stages.settings") / "recipes"


def _found(name_or_path: str, beside: Path) -> tuple[Traversable, str]:
    """Where a recipe is, and what tells it from every other one."""
    try:
        source = _find(name_or_path, beside)
        return source, str(source.resolve() if isinstance(source, Path) else source)
    except (OSError, ValueError, RuntimeError) as error:  # too long, NUL, links in a circle
        raise _unreadable(name_or_path, error) from None


def _find(name_or_path: str, beside: Path) -> Traversable:
    if name_or_path.endswith(".toml") or "/" in name_or_path or "\\" in name_or_path:
        return beside / Path(name_or_path).expanduser()
    if name_or_path in available():
        return _shipped() / f"{name_or_path}.toml"
    file = beside / f"{name_or_path}.toml"
    near = did_you_mean(name_or_path, available())
    fix = f"For the file write {file}." if file.is_file() else near
    raise UsageError(f"There is no recipe {name_or_path!r}.", fix=fix)


def _read(source: Traversable) -> str:
    try:
        content = _start(source) if isinstance(source, Path) else source.read_bytes()
    except OSError as error:
        raise _unreadable(source, error) from None
    if len(content) > MAX_BYTES:
        raise UsageError(
            f"The recipe {source} is too large.", why=f"It has more than {MAX_BYTES} bytes."
        )
    try:
        return content.decode("utf-8-sig")  # some editors put a byte order mark before the text
    except UnicodeDecodeError as error:
        raise UsageError(f"The recipe {source} is not UTF-8 text.", why=f"{error}.") from None


def _start(path: Path) -> bytes:
    """What a plain file holds, cut behind what a recipe may have; a pipe is not waited for."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "It is not a plain file")
        return file.read(MAX_BYTES + 1)


def _unreadable(source: Traversable | str, error: Exception) -> UsageError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return UsageError(
        f"The recipe {source} cannot be read.",
        why=f"{reason}.",
        fix=f"Shipped recipes are: {', '.join(available()) or 'none'}.",
    )


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        if is_dotted(text) or is_deep(content := tomllib.loads(text)):
            raise RecursionError
        return content
    except RecursionError:
        raise UsageError(f"The recipe {where} is nested too deeply.") from None
    except ValueError as error:  # of tomllib, or a number of thousands of digits
        raise UsageError(
            f"The recipe {where} is not valid TOML: {error}.", why=_quoted_line(text, str(error))
        ) from None


def _quoted_line(text: str, message: str) -> str:
    """`line 3: lr = = 1` for the line that a message of tomllib points at."""
    lines = text.splitlines() or [""]
    found = re.search(r"at line (\d+)", message)
    number = min(int(found.group(1)), len(lines)) if found else len(lines)
    return f"line {number}: {lines[number - 1].strip()}"


def _check_shape(content: dict[str, Any], where: str) -> None:
    """Texts are text, sections are tables, presets are tables of sections."""
    for name, value in content.items():
        if name in TEXTS and not isinstance(value, str):
            raise UsageError(f"{name} must be text in the recipe {where}.")
        if name not in TEXTS and not isinstance(value, dict):
            raise UsageError(
                f"The recipe {where} has an unknown entry {name!r}.",
                why="Outside of sections a recipe has only these: " + ", ".join(TEXTS) + ".",
                fix=f"{did_you_mean(name, TEXTS)} A setting belongs below its [section].",
            )
    for preset, tables in content.get("presets", {}).items():
        loose = [""] if not isinstance(tables, dict) else _not_tables(tables)
        if loose:
            raise UsageError(
                f"The preset {preset} of the recipe {where} is not made of sections.",
                fix=f"Write [presets.{preset}.SECTION] above {loose[0] or 'its settings'}.",
            )


def _not_tables(tables: dict[str, Any]) -> list[str]:
    return [name for name, table in tables.items() if not isinstance(table, dict)]


def _merge(content: dict[str, Any], parent: Recipe | None, *, stem: str) -> Recipe:
    """The recipe in a file laid over the one that it extends."""
    base = parent or Recipe(name="", family="", description="", tables={})
    name = content.get("name", stem)
    family = content.get("family", base.family)
    if not family:
        raise UsageError(f"The recipe {name} names no family.", fix='Add: family = "world-models"')
    sections = {key: content[key] for key in content if key not in (*TEXTS, "presets")}
    presets = content.get("presets", {})
    default_preset = content.get("default_preset", base.default_preset)
    all_presets = {
        preset: _over(base.presets.get(preset, {}), presets.get(preset, {}))
        for preset in dict.fromkeys((*base.presets, *presets))
    }
    if default_preset and default_preset not in all_presets:
        raise UsageError(
            f"The recipe {name} has no preset {default_preset}, its default_preset.",
            fix=did_you_mean(default_preset, all_presets),
        )
    return Recipe(
        name=name,
        family=family,
        description=content.get("description", ""),
        tables=_over(base.tables, sections),
        presets=all_presets,
        default_preset=default_preset,
        authors={**base.authors, **_authored(name, sections, presets)},
    )


def _over(base: Tables, new: Tables) -> Tables:
    names = dict.fromkeys((*base, *new))
    return {name: {**base.get(name, {}), **new.get(name, {})} for name in names}


def _authored(name: str, sections: Tables, presets: dict[str, Tables]) -> dict[str, str]:
    prefixed = {"": sections} | {f"presets.{preset}.": presets[preset] for preset in presets}
    return {
        f"{prefix}{section}.{key}": name
        for prefix, tables in prefixed.items()
        for section, table in tables.items()
        for key in table
    }
