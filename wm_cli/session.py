"""One command from its options to its exit code: signals, progress, errors and the report."""

import traceback
from collections.abc import Callable

import typer

from stages.errors import StageError, StopNow
from stages.events import Monitor, Report
from wm_cli.options import OutputOptions
from wm_cli.signals import Stopper

Work = Callable[[Monitor], Report]


def carry_out(command: str, options: OutputOptions, work: Work) -> None:
    """Do a command's work, show its report, and leave with its exit code."""
    with Stopper() as stopper:
        try:
            code = _carried_out(command, options, work, stopper)
        except KeyboardInterrupt:  # the handler has said so
            code = stopper.exit_code
    raise typer.Exit(code)


def _carried_out(command: str, options: OutputOptions, work: Work, stopper: Stopper) -> int:
    from wm_cli.render import show_error, show_report  # rich is not loaded where Tab is answered

    try:
        report = _monitored(command, work, stopper)
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


def _monitored(command: str, work: Work, stopper: Stopper) -> Report:
    from wm_cli.progress import ScreenMonitor
    from wm_cli.render import console, reserved_stdout

    screen = console(stderr=True)
    with reserved_stdout(), ScreenMonitor(command, console=screen, stopper=stopper) as monitor:
        return work(monitor)
