"""What a tracker is, and which there are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from stages.errors import EnvironmentLacks, UsageError
from stages.events import Began, Filmed, Measured, Pictured

Logged = Measured | Pictured | Filmed


class Tracker(Protocol):
    """Takes what the stages of one command tell. It may be slow, hang or raise (aside.py)."""

    def start(self, run: Began) -> None:
        """A stage begins; one that goes on tells again what it had told."""
        ...

    def log(self, item: Logged) -> None:
        """A line of metrics, a picture or a film of the run that was started last."""
        ...

    def finish(self) -> None:
        """The run that was started last is over, finished or not."""
        ...


@dataclass(frozen=True)
class Kind:
    """One tracker that users may choose."""

    package: str  # that it needs
    extra: str  # of wm that brings it
    module: str  # where it is
    name: str  # of its class, which takes no arguments


KINDS: Mapping[str, Kind] = {
    "tensorboard": Kind(
        "tensorboard", "tensorboard", "stages.tracking.tensorboard_files", "TensorBoardFiles"
    ),
}


def makers(names: Sequence[str]) -> dict[str, Callable[[], Tracker]]:
    """What makes the trackers of these names; nothing heavy is loaded before they are made.

    Raises:
        UsageError: there is no such tracker.
        EnvironmentLacks: its package is not installed.
    """
    for name in names:
        if name not in KINDS:
            raise UsageError(
                f"There is no tracker {name!r}.",
                fix=f"Choose from: {', '.join(KINDS)}.",
            )
        if find_spec(KINDS[name].package) is None:
            raise EnvironmentLacks(
                f"--track {name} needs the package {KINDS[name].package}, which is not installed.",
                fix=f'Install it with: pip install "wm-pixels[{KINDS[name].extra}]"',
            )
    return {name: _maker(KINDS[name]) for name in names}


def _maker(kind: Kind) -> Callable[[], Tracker]:
    def make() -> Tracker:
        return cast(Tracker, getattr(import_module(kind.module), kind.name)())

    return make
