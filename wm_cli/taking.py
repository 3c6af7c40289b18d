"""A record of options made the parameters of a command."""

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Concatenate, TypeVar

from wm_cli.options import OutputOptions

Options = TypeVar("Options", bound=OutputOptions)


def taking(
    record: type[Options],
) -> Callable[[Callable[Concatenate[Options, ...], None]], Callable[..., None]]:
    """Give a command one option per field of `record`; it receives them as its first argument."""

    def decorate(command: Callable[Concatenate[Options, ...], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def flat(**given: Any) -> None:
            shared = {field.name: given.pop(field.name) for field in fields(record)}
            command(record(**shared), **given)

        parameters = [*_own_parameters(command), *_field_parameters(record)]
        flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        flat.__annotations__ = {each.name: each.annotation for each in parameters}
        return flat

    return decorate


def _own_parameters(command: Callable[..., None]) -> list[inspect.Parameter]:
    """The parameters of a command after the record, as keywords."""
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    return [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]


def _field_parameters(record: type[Any]) -> list[inspect.Parameter]:
    """One per field; how to answer comes last, as everywhere."""
    hints = typing.get_type_hints(record, include_extras=True)
    last = {field.name for field in fields(OutputOptions)}
    ordered = sorted(fields(record), key=lambda field: field.name in last)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in ordered
    ]
