"""Tasks that behave and tasks that do not; workers import them by name."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from stages.errors import StageError, UsageError


def square(number):
    return number * number


def noise(seed):
    """A result that depends on the payload only, big enough to need many reads."""
    return np.random.default_rng(seed).standard_normal(70_000)


def total(array):
    return float(array.sum())


def environment(_):
    return os.getpid(), os.environ["OMP_NUM_THREADS"], signal.getsignal(signal.SIGINT).name


def misbehave_once(payload):
    """(marker, how, seed): spoil the first try that finds no marker, then behave."""
    marker, how, seed = payload
    try:
        Path(marker).open("x").close()
    except FileExistsError:
        return noise(seed)
    return misbehave((how, seed))


def misbehave(payload):
    how, seed = payload
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfaults":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "sleeps":
        time.sleep(600)
    elif how == "spins":
        while True:
            sum(range(10**7))
    elif how == "exits":
        sys.exit(3)
    elif how == "leaves":
        os._exit(0)
    return noise(seed)


def die_loudly(seed):
    print("opening track", seed, file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def chat(number):
    print("the task before", flush=True)
    return number


def raise_user_error(number):
    if number == 5:
        raise UsageError("Five is not allowed.", why="It is prime.", fix="Use four.")
    return number


def raise_defect(number):
    return {}[f"entry {number}"]


class OddError(StageError):
    """Cannot be rebuilt from its three sentences."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.pair = (one, two)


def raise_odd_error(_):
    raise OddError("salt", "pepper")


def return_unpicklable(_):
    return lambda: 0


def sleep_long(seconds):
    time.sleep(seconds)


def sleep_in_pieces(num_pieces):
    """Takes 50 ms per piece while it may run; the time it is stopped does not count."""
    for _ in range(num_pieces):
        time.sleep(0.05)
    return num_pieces
