"""Sections: frozen dataclasses of flat fields, each declared with `stages.contracts.setting`."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from stages.contracts import RULE, SettingRule
from stages.errors import UsageError
from stages.settings.values import convert, limits_text, type_text, value_text

Section = TypeVar("Section")
Sections = Mapping[str, type[Any]]  # name of the section -> its dataclass


@dataclass(frozen=True)
class SettingRow:
    """One key as documentation shows it."""

    key: str  # section.name
    type: str  # in words
    default: str  # as one would write it after --set
    limits: str  # e.g. ">= 0" or "auto | gymnasium"; empty when there are none
    doc: str


def describe(sections: Sections) -> list[SettingRow]:
    """Every key of these sections, in the order in which they are declared."""
    return [
        SettingRow(
            key=f"{section}.{field.name}",
            type=type_text(field.wanted),
            default=value_text(field.default),
            limits=limits_text(field.rule),
            doc=field.rule.doc,
        )
        for section, cls in sections.items()
        for field in _fields(cls)
    ]


def defaults(cls: type[Any]) -> dict[str, Any]:
    """The declared default of every field of a section."""
    return {field.name: field.default for field in _fields(cls)}


def build(
    cls: type[Section], values: Mapping[str, Any], *, section: str, source: str = ""
) -> Section:
    """A `cls` from plain values, such as the table of a manifest.

    Args:
        cls: the section's frozen dataclass.
        values: name to plain value; names that are absent keep their default.
        section: how messages call the section.
        source: where messages say that the values come from.

    Raises:
        UsageError: an unknown name, a value of the wrong type or out of range, or a combination
            that the class itself refuses with ValueError.
    """
    for name in values:
        if name not in defaults(cls):
            raise unknown_key(f"{section}.{name}", {section: cls}, source=source)
    converted = {
        field.name: convert(
            values.get(field.name, field.default),
            field.wanted,
            field.rule,
            key=f"{section}.{field.name}",
            source=source,
        )
        for field in _fields(cls)
    }
    return assemble(cls, converted, section=section)


def assemble(cls: type[Section], values: Mapping[str, Any], *, section: str) -> Section:
    """A `cls` from converted values; a ValueError of the class itself becomes a UsageError."""
    try:
        return cls(**values)
    except ValueError as refusal:
        raise UsageError(
            f"The settings of [{section}] do not fit together.", why=str(refusal)
        ) from None


def convert_key(key: str, value: Any, sections: Sections, *, source: str = "") -> Any:
    """The value of `section.name`, converted and checked; UsageError also for unknown keys."""
    section, _, name = key.partition(".")
    for field in _fields(sections[section]) if section in sections else ():
        if field.name == name:
            return convert(value, field.wanted, field.rule, key=key, source=source)
    raise unknown_key(key, sections, source=source)


def unknown_key(key: str, sections: Sections, *, source: str = "") -> UsageError:
    """The error for a key that does not exist, with the nearest ones that do."""
    section = key.partition(".")[0]
    nearest = _nearest_keys(key, [row.key for row in describe(sections)])
    if nearest:
        fix = f"Did you mean {' or '.join(nearest)}?"
    elif section in sections:
        fix = f"[{section}] has: {', '.join(defaults(sections[section])) or 'no keys'}."
    else:
        fix = f"Keys are written section.name; sections are: {', '.join(sections)}."
    return UsageError(f"There is no setting {key}{f' ({source})' if source else ''}.", fix=fix)


@dataclass(frozen=True)
class _Field:
    name: str
    wanted: Any  # the annotated type
    default: Any
    rule: SettingRule


def _fields(cls: type[Any]) -> list[_Field]:
    wanted = typing.get_type_hints(cls)
    found = []
    for item in dataclasses.fields(cls):
        assert item.default is not dataclasses.MISSING, f"{cls.__name__}.{item.name}: no default"
        rule = item.metadata.get(RULE, SettingRule(doc=""))
        found.append(_Field(item.name, wanted[item.name], item.default, rule))
    return found


def _nearest_keys(key: str, known: list[str]) -> list[str]:
    """A similar name in the same section, then the same name in others, then anything similar."""
    section, _, name = key.lower().replace("-", "_").rpartition(".")
    prefix = f"{section}."
    own = [item.removeprefix(prefix) for item in known if item.startswith(prefix)]
    similar = [prefix + item for item in difflib.get_close_matches(name, own, n=1, cutoff=0.6)]
    elsewhere = [item for item in known if item.partition(".")[2] == name]
    nearest = difflib.get_close_matches(key, elsewhere, n=2, cutoff=0)
    found = list(dict.fromkeys((*similar, *nearest)))
    if found or own:
        return found
    return difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
