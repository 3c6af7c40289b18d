"""Help without what confuses: no types beside flags and arguments that say what they are."""

from typing import Any

from typer.core import TyperGroup

_FLAG = ""  # shown in the place of a type


def tidied(group: TyperGroup) -> TyperGroup:
    """The commands with help for people: a flag is no `<bool>`, an argument no `<list[str]>`."""
    for command in (group, *group.commands.values()):
        command.get_help_option = _with_plain_help(command.get_help_option)  # type: ignore[method-assign]
        for parameter in command.params:
            _tidy(parameter)
    return group


def _with_plain_help(make: Any) -> Any:
    """`--help` is made by typer when it is asked for."""

    def made(ctx: Any) -> Any:
        option = make(ctx)
        if option is not None:
            _tidy(option)
        return option

    return made


def _tidy(parameter: Any) -> None:
    if parameter.param_type_name == "argument":
        if parameter.metavar is not None:
            parameter.display_type_rich = _nothing
    elif parameter.is_flag and parameter.metavar is None:
        parameter.metavar = _FLAG


def _nothing(ctx: Any) -> None:
    """The type of an argument that is described in words."""
