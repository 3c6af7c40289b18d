"""Where `wm` and `python -m wm_cli` begin and end."""

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import NoReturn

from wm_cli.streams import lost_output, outlast_readers, say_now

STOPPED = "Stopped. Nothing that was finished is lost: the same command goes on from there."
INTERRUPTED, TERMINATED = 130, 143  # exit codes, as in stages.errors
STOPPED_BY: list[int] = []  # signals that stop_at_once has handled
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Run the command line in `sys.argv` and leave with its exit code."""
    outlast_readers()
    try:
        for number in obeyed():
            signal.signal(number, stop_at_once)
        from wm_cli.app import run

        sys.excepthook = _report_defect
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before a command had begun, e.g. during imports
        code = INTERRUPTED
    if code == INTERRUPTED and STOPPED_BY and STOPPED_BY[-1] != signal.SIGINT:
        code = TERMINATED  # typer answers every KeyboardInterrupt with 130
    _leave(code)


def obeyed() -> list[signal.Signals]:
    """The signals that stop a command: SIGHUP unless it was ignored from the start (nohup)."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in STOPPING if number != signal.SIGHUP or not ignored]


def stop_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    """Handle a signal by ending whatever runs; stderr's buffer is passed by: it may be in use."""
    STOPPED_BY.append(number)
    say_now(f"\n{STOPPED}\n")
    raise KeyboardInterrupt


def _leave(code: int) -> NoReturn:
    for number in obeyed():
        signal.signal(number, signal.SIG_DFL)
    lost = lost_output()
    if lost is not None and code == 0:
        from stages.errors import EnvironmentLacks
        from wm_cli.render import show_error

        what = "Not all of the output could be written."
        kept = "What the command has made is kept: `wm status` shows it."
        error = EnvironmentLacks(what, why=f"{lost.strerror}.", fix=kept)
        show_error("", error)
        code = error.exit_code
    sys.stderr.flush()
    if code in (INTERRUPTED, TERMINATED):
        os._exit(code)  # threads may still compute a step that nobody waits for
    sys.exit(code)


def _report_defect(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What Python calls for an exception that nobody expected, before it exits with 1."""
    if "--debug" in sys.argv:
        sys.__excepthook__(kind, error, trace)
        return
    from wm_cli.render import show_defect

    show_defect(error)


if __name__ == "__main__":
    main()
