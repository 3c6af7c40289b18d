"""One command from its options to its exit code: signals, progress, errors and the report."""

import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

import typer

from stages.errors import StageError, StopNow
from stages.events import Monitor, Report
from wm_cli.options import OutputOptions, SettingOptions, StageOptions
from wm_cli.signals import Stopper

if TYPE_CHECKING:
    from wm_cli.progress import Listener

Work = Callable[[Monitor], Report]


def carry_out(command: str, options: OutputOptions, work: Work) -> None:
    """Do a command's work, show its report, and leave with its exit code."""
    with Stopper() as stopper:
        try:
            code = _carried_out(command, options, work, stopper)
        except KeyboardInterrupt:  # the handler has said so
            code = stopper.exit_code
    raise typer.Exit(code)


def look_on(options: SettingOptions, seconds: float) -> NoReturn:
    """Show what runs in a workspace until Ctrl-C, and leave."""
    from stages.artifacts.workspace import Workspace
    from wm_cli.render import console, show_error
    from wm_cli.watching import watch

    try:
        workspace = Workspace.open(options.workspace)
        code = watch(workspace, screen=console(), seconds=seconds, as_json=options.as_json)
    except StageError as error:
        if options.debug:
            traceback.print_exc()
        show_error("status", error)
        code = error.exit_code
    raise typer.Exit(code)


def _carried_out(command: str, options: OutputOptions, work: Work, stopper: Stopper) -> int:
    from wm_cli.render import show_error, show_report  # rich is not loaded where Tab is answered

    try:
        report = _monitored(command, work, stopper, trackers(options))
        show_report(report, as_json=options.as_json)
        return report.exit_code
    except StageError as error:
        if options.debug:
            traceback.print_exc()
        show_error(command, error)
        return error.exit_code
    except StopNow:
        show_error(command, stopper.reason)
        return stopper.exit_code


def _monitored(
    command: str, work: Work, stopper: Stopper, listeners: "Sequence[Listener]"
) -> Report:
    from wm_cli.progress import ScreenMonitor
    from wm_cli.render import console, reserved_stdout

    screen = ScreenMonitor(
        command, console=console(stderr=True), stopper=stopper, listeners=listeners
    )
    with reserved_stdout(), screen as monitor:
        return work(monitor)


def trackers(options: OutputOptions) -> "list[Listener]":
    """The trackers that --track names, each in a thread of its own."""
    if not isinstance(options, StageOptions) or not options.track:
        return []
    from stages.tracking.aside import Aside
    from stages.tracking.protocol import makers

    return [Aside(name, make) for name, make in makers(options.track).items()]
