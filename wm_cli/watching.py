"""`wm status --watch`: the running stages of a workspace, looked at again and again."""

import dataclasses
import json
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import NoReturn

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stages.artifacts.workspace import Workspace
from stages.errors import ExitCode
from stages.inspection.running import Running, remark, running
from wm_cli.__main__ import obeyed
from wm_cli.progress import is_live
from wm_cli.wording import duration, printable, rate, size

NOTHING = "Nothing runs in this workspace."
BAR_CELLS = 20
INDENT = "  "


def watch(workspace: Workspace, *, screen: Console, seconds: float, as_json: bool) -> int:
    """Show what runs until Ctrl-C, which is how one leaves, or until nobody reads; exit code 0.

    On a terminal in one place; otherwise a block every so many seconds, or a JSON object a line.
    SIGTERM and a terminal that closes end it as they end every command, with 143.
    """
    previous = {number: signal.signal(number, _leave) for number in obeyed()}
    try:
        if as_json:
            _repeat(lambda: print(json_line(workspace), flush=True), seconds)  # noqa: T201
        elif is_live(screen):
            with Live(console=screen, auto_refresh=False, transient=False) as live:
                _repeat(lambda: live.update(picture(workspace), refresh=True), seconds)
        else:
            _repeat(lambda: screen.print(block(workspace), soft_wrap=True), seconds)
    except _LeftError as left:
        return ExitCode.DONE if left.number == signal.SIGINT else ExitCode.TERMINATED
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return ExitCode.DONE


class _LeftError(BaseException):
    """A signal came. Nothing but `watch` may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise _LeftError(number)


def json_line(workspace: Workspace) -> str:
    """What runs now, as one JSON object."""
    found = [dataclasses.asdict(one) for one in running(workspace)]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"time": now, "running": found}, allow_nan=False)


def block(workspace: Workspace) -> Text:
    """What runs now, as plain lines under the time."""
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    lines = [f"{now} {workspace.root}"]
    for one in running(workspace):
        head, *others = lines_of(one)
        lines += [head, *(INDENT + line for line in others)]
    return Text("\n".join(printable(line) for line in lines if line) + _nothing(lines))


def picture(workspace: Workspace) -> Group:
    """The same with bars, for a terminal: no line is wider than it."""
    found = running(workspace)
    shown: list[RenderableType] = [_text(str(workspace.root), "dim")]
    for one in found:
        head, *others = lines_of(one)
        shown.append(_text(head, "bold"))
        if one.done is not None and one.total:
            bar = ProgressBar(total=one.total, completed=one.done, width=BAR_CELLS)
            row = Table.grid(padding=(0, 1), pad_edge=True)
            row.add_row(bar, _text(others.pop(0)))
            shown.append(row)
        shown += [_text(INDENT + line) for line in others]
    if not found:
        shown.append(_text(NOTHING))
    return Group(*shown, _text("Ctrl-C leaves; nothing is changed.", "dim"))


def lines_of(one: Running) -> list[str]:
    """What there is to say about a running stage, most important first; the first line names it."""
    workers = f"{one.workers} workers" if one.workers else ""
    memory = size(one.memory_bytes) if one.memory_bytes else ""
    who = f"process {one.process} on {one.host}"
    head = f"{one.stage}: " + _joined(remark(one), _age(one.since), memory, workers, who)
    left = f"{duration(one.left_seconds)} left" if one.left_seconds is not None else ""
    pace = _joined(one.count, rate(one.per_second) if one.per_second else "", left)
    doing = f"now {one.doing}" if one.doing else ""
    return [head, *(line for line in (pace, one.latest, doing) if line)]


def _text(words: str, style: str = "") -> Text:
    return Text(printable(words), style=style, no_wrap=True, overflow="ellipsis")


def _nothing(lines: Sequence[str]) -> str:
    return f"\n{NOTHING}" if len(lines) == 1 else ""


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _age(since: str) -> str:
    try:
        seconds = time.time() - datetime.fromisoformat(since).timestamp()
    except (ValueError, OverflowError, OSError):
        return ""
    return f"for {duration(max(1.0, seconds))}"


def _repeat(look: Callable[[], None], seconds: float) -> None:
    """Look every so many seconds for as long as somebody reads."""
    while True:
        look()
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if _reader_left(min(left, 1.0)):
                return


def _reader_left(seconds: float) -> bool:
    """Wait so long; whether stdout was a pipe and its reader has gone."""
    poller = select.poll()
    poller.register(sys.stdout.fileno(), 0)
    gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))
    time.sleep(0 if gone else seconds)
    return gone
