"""Where `wm` and `python -m wm_cli` begin and end."""

import contextlib
import io
import os
import signal
import sys
from types import FrameType, TracebackType
from typing import NoReturn

STOPPED = "Stopped. Nothing that was finished is lost: the same command goes on from there."


def main() -> None:
    """Run the command line in `sys.argv` and leave with its exit code."""
    _open_closed_streams()
    try:
        signal.signal(signal.SIGINT, stop_at_once)
        from wm_cli.app import run

        sys.excepthook = _report_defect
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before a command had begun, e.g. during imports
        code = 130
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.exit(code)


def stop_at_once(_number: int, _frame: FrameType | None) -> NoReturn:
    """Handle a signal by ending whatever runs; stderr is passed by, as it may be in use."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{STOPPED}\n".encode())
    raise KeyboardInterrupt


def _report_defect(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What Python calls for an exception that nobody expected, before it exits with 1."""
    if "--debug" in sys.argv:
        sys.__excepthook__(kind, error, trace)
        return
    from wm_cli.render import show_defect

    show_defect(error)


def _open_closed_streams() -> None:
    """Give closed standard streams to the null device.

    Otherwise the first file that is opened takes their number, and receives what is printed.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):  # a path that the terminal cannot spell ends nothing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
