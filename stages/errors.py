"""Errors that a user is meant to read, and the one table of exit codes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Every way a `wm` command can end."""

    DONE = 0  # done, or already up to date
    INTERNAL = 1  # a defect in wm itself
    USAGE = 2  # the command line or a setting is wrong
    MISSING = 3  # an input artifact is not there
    DAMAGED = 4  # an artifact is not what its manifest says
    MISMATCH = 5  # inputs do not fit together
    ENVIRONMENT = 6  # the machine lacks something
    BUSY = 7  # another run holds this stage
    NUMBERS = 8  # NaN or infinity where a number must be
    INTERRUPTED = 130  # SIGINT; the same command resumes
    TERMINATED = 143  # SIGTERM or SIGHUP; the same command resumes


class StageError(Exception):
    """Something a user can act on: what happened, why, and what to do about it."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the pipe between a worker and the supervisor with all three sentences."""
        return (_rebuild, (type(self), self.what, self.why, self.fix))

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.fix) if part)


def _rebuild(kind: type[StageError], what: str, why: str, fix: str) -> StageError:
    return kind(what, why=why, fix=fix)


class UsageError(StageError):
    """A wrong option, setting, recipe or preset."""

    exit_code = ExitCode.USAGE


class InputMissing(StageError):
    """A stage's input artifact does not exist yet."""

    exit_code = ExitCode.MISSING


class ArtifactDamaged(StageError):
    """Bytes on disk differ from what the manifest promises, or cannot be read by this version."""

    exit_code = ExitCode.DAMAGED


class InputsMismatch(StageError):
    """Inputs that exist, are whole, and do not belong together."""

    exit_code = ExitCode.MISMATCH


class EnvironmentLacks(StageError):
    """A package, a permission, disk space or a system library is missing."""

    exit_code = ExitCode.ENVIRONMENT


class StageBusy(StageError):
    """Another process runs the same stage of the same workspace."""

    exit_code = ExitCode.BUSY


class NumbersBad(StageError):
    """NaN or infinity in a loss, a fitness, a reward, an observation or a latent."""

    exit_code = ExitCode.NUMBERS

    def __init__(self, what: str, *, why: str = "", fix: str = "", lane: int | None = None) -> None:
        """`lane` is the episode of a batch that it was found in, for who knows that one's seed."""
        super().__init__(what, why=why, fix=fix)
        self.lane = lane


@contextmanager
def keeping(kept: Callable[[], str]) -> Iterator[None]:
    """Let bad numbers that pass say which good state is kept."""
    try:
        yield
    except NumbersBad as error:
        why = " ".join(filter(None, (error.why, kept())))
        raise NumbersBad(error.what, why=why, fix=error.fix) from error


class Interrupted(StageError):
    """The user pressed Ctrl-C; progress is saved."""

    exit_code = ExitCode.INTERRUPTED


class Terminated(Interrupted):
    """The process was asked to end (SIGTERM, SIGHUP); progress is saved."""

    exit_code = ExitCode.TERMINATED


class StopNow(KeyboardInterrupt):
    """A stop was asked for and no safe point came: raised wherever the work stands.

    No StageError, so that nobody takes it for a fault of the file or the task at hand.
    """
