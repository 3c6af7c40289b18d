"""System calls that fail, die or are only counted, to put in the place of the real ones.

Inside `stages.artifacts.disk.replaced(...)` everything that a stage does to the disk goes through
them, so that the n-th call can be made to fail for every n.
"""

import os
import signal
from collections.abc import Callable, Iterable

from stages.artifacts.disk import SystemCalls


class QuickCalls(SystemCalls):
    """System calls that do not wait for the device, for tests that do not look at the waiting."""

    def sync(self, handle):
        pass


class WatchedCalls(QuickCalls):
    """System calls that are counted, those named by `only` or all; each may be stopped before."""

    def __init__(self, only: Iterable[str] = ()):
        self.only = frozenset(only)
        self.names: list[str] = []

    @property
    def count(self) -> int:
        return len(self.names)

    def before(self, call: Callable, arguments: tuple) -> None:
        """What happens before a call that counts; its name is the last of `names`."""

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("_") or not hasattr(SystemCalls, name):
            return found
        if self.only and name not in self.only:
            return found

        def call(*arguments):
            self.names.append(name)
            self.before(found, arguments)
            return found(*arguments)

        return call


class FailingCalls(WatchedCalls):
    """System calls of which the n-th fails, or all from the n-th on."""

    def __init__(self, error, *, at, lasting=False, only=()):
        super().__init__(only)
        self.error = error
        self.at = at
        self.lasting = lasting

    def before(self, call, arguments):
        if self.count == self.at or (self.lasting and self.count > self.at):
            if self.names[-1] == "close":  # it frees the handle whatever it reports
                call(*arguments)
            raise self.error


class DyingCalls(WatchedCalls):
    """System calls of which the n-th is never reached: kill -9 of this process; or half of it."""

    def __init__(self, *, at, half=False):
        super().__init__()
        self.at = at
        self.half = half

    def before(self, call, arguments):
        if self.count == self.at:
            if self.half:
                handle, content = arguments
                call(handle, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
