"""A question to whoever sits at the terminal, before something is removed."""

import select
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from stages.errors import Interrupted, UsageError
from stages.events import Monitor
from wm_cli.render import console, show_proposal
from wm_cli.wording import size

if TYPE_CHECKING:
    from stages.artifacts.workspace import Workspace
    from stages.inspection.leftovers import Leftover

LOOK_SECONDS = 0.1  # between two looks at the signals


def may_remove(workspace: "Workspace", found: Sequence["Leftover"], monitor: Monitor) -> bool:
    """Show what would go and ask; where there is nothing to remove nobody is asked.

    Raises:
        UsageError: there is no terminal to ask at.
        Interrupted: Ctrl-C, or another signal, instead of an answer.
    """
    from stages.clean import listing, removable
    from stages.inspection.leftovers import command

    doomed = removable(found)
    if not doomed:
        return True
    things = "this thing" if len(doomed) == 1 else f"these {len(doomed)} things"
    what = f"{things} ({size(sum(one.size.bytes for one in doomed))})"
    show_proposal(listing(workspace, doomed))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"Nothing was removed: there is no terminal to ask whether {what} may go.",
            fix=f"Remove without being asked: {command(workspace, 'clean')} --yes",
        )
    try:
        return _agreed(f"Remove {what}?", monitor)
    except Interrupted as stop:
        raise type(stop)("Stopped at the question; nothing was removed.") from stop


def _agreed(question: str, monitor: Monitor) -> bool:
    """Whether the answer is yes; anything else is no, and so is the end of the input."""
    screen = console(stderr=True)
    screen.print(Text(f"{question} [y/N] "), end="", soft_wrap=True)
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
        monitor.poll()
    try:
        answer = sys.stdin.readline()
    except (OSError, UnicodeDecodeError):  # the terminal is gone
        return False
    if not answer.endswith("\n"):  # the end of the input: what follows begins a line
        screen.print()
    return answer.strip().lower() in {"y", "yes"}
