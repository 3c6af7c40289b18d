"""A command line that cannot be understood, answered with the nearest one that can."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

from stages.errors import UsageError


def usage_error(error: typer.TyperException, words: Sequence[str], commands: Any) -> UsageError:
    """The error of the parser as one for users.

    Args:
        error: what the parser raised.
        words: the command line without `wm`.
        commands: name to command, as typer built them.
    """
    context = getattr(error, "ctx", None)
    path = f"wm {command_of(error, words, commands)}".strip()
    known = _options(context.command) if context else []
    if hasattr(error, "possibilities"):  # only errors about an unknown option have it
        option = str(getattr(error, "option_name", ""))
        fix = _unknown_option(option, known, words, commands, path)
        return UsageError(f"{error.message}.", fix=fix or _help(path))
    message = error.format_message().strip().replace("\n\t", " ").replace("Value error, ", "")
    stray = _stray_setting(message, words)
    place = _stray_workspace(message, words)
    near = _nearest_choice(message)
    fix = f"Did you mean {near}?" if near else _help(path)
    fix = f"Did you mean --set {stray}?" if stray else fix
    fix = f"Did you mean -w {place}?" if place else fix
    return UsageError(message, fix=fix)


def command_of(error: typer.TyperException, words: Sequence[str], commands: Any) -> str:
    """The command that the parser was at; empty at the top."""
    context = getattr(error, "ctx", None)
    if context:
        return str(context.command_path).partition(" ")[2]
    return words[0] if words and words[0] in commands else ""


def _stray_setting(message: str, words: Sequence[str]) -> str | None:
    """A word with `=` that the message complains about."""
    for word in words:
        if "=" in word and not word.startswith("-") and _names(message, word):
            return word
    return None


def _stray_workspace(message: str, words: Sequence[str]) -> str | None:
    """A word that is the path of a workspace and that the message complains about."""
    from stages.artifacts.workspace import Workspace

    for word in words:
        if not word.startswith("-") and _names(message, word) and Workspace.exists(Path(word)):
            return word
    return None


def _nearest_choice(message: str) -> str:
    """Of the values that an option takes, the one nearest to what was given; or nothing."""
    given, told, choices = message.rpartition(": ")[2].partition(" is not one of ")
    offered = re.findall(r"'([^']*)'", choices) if told else []
    near = difflib.get_close_matches(given.strip("'"), offered, n=1, cutoff=0.7)  # gpu is no cpu
    return near[0] if near else ""


def _names(message: str, word: str) -> bool:
    """Whether a message speaks of a word of the command line, whole."""
    return re.search(rf"(?<![^\s'\"(]){re.escape(word)}(?![^\s'\").,:])", message) is not None


def _unknown_option(
    option: str, known: list[str], words: Sequence[str], commands: Any, path: str
) -> str:
    if "." in option:
        key = option.lstrip("-")
        value = _value_after(option, words)
        return f"Did you mean --set {key}={value}?"
    owners = [name for name, command in commands.items() if option in _options(command)]
    if owners and path == "wm":
        return f"Options follow the command: wm {owners[0]} {option} ..."
    if owners:
        return f"It belongs to: {', '.join(f'wm {name}' for name in owners)}."
    keys = _keys_named(option)
    if keys:
        return f"Did you mean --set {' or --set '.join(f'{key}=...' for key in keys)}?"
    near = difflib.get_close_matches(option, known, n=1)
    return f"Did you mean {near[0]}?" if near else ""


def _value_after(option: str, words: Sequence[str]) -> str:
    """The value that came with an option, as `--key=value` or `--key value`."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == option and (equals or (following and not following.startswith("-"))):
            return value if equals else following
    return "..."


def _keys_named(option: str) -> list[str]:
    """Settings of the default recipe's family that are called like an option."""
    from stages.pipeline import DEFAULT_RECIPE, sections
    from stages.settings.recipes import load_recipe
    from stages.settings.schema import describe

    wanted = option.lstrip("-").replace("-", "_")
    rows = describe(sections(load_recipe(DEFAULT_RECIPE).family))
    return [row.key for row in rows if row.key.partition(".")[2] == wanted]


def _options(command: Any) -> list[str]:
    names: Iterable[str] = (
        name for each in command.params if each.param_type_name == "option" for name in each.opts
    )
    return [*names, "--help"]


def _help(path: str) -> str:
    return f"`{path} --help` shows what there is."
