"""Tasks that behave and tasks that do not; workers import them by name."""

import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from stages.errors import NumbersBad, StageError, UsageError
from stages.execution.worker import sign_of_life


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


def beat_in_pieces(num_pieces):
    """The same with a sign of life after every piece."""
    for _ in range(num_pieces):
        time.sleep(0.05)
        sign_of_life()
    return num_pieces


def beat_then_hang(num_pieces):
    beat_in_pieces(num_pieces)
    time.sleep(600)


def beat_then_stop_once(payload):
    """(marker, seed): show life for half a second; the first try then stops like a frozen one."""
    marker, seed = payload
    beat_in_pieces(10)
    try:
        Path(marker).open("x").close()
    except FileExistsError:
        return noise(seed)
    os.kill(os.getpid(), signal.SIGSTOP)
    return None


def beat_busily(payload):
    """(seconds, marker): as many signs as the processor gives; the marker says when it is done."""
    seconds, marker = payload
    end = time.monotonic() + seconds
    num_calls = 0
    while time.monotonic() < end:
        sign_of_life()
        num_calls += 1
    Path(marker).touch()
    return num_calls


def leave_a_child_behind(marker):
    """Once: die at once while a child keeps this worker's end of the connection open."""
    try:
        Path(marker).open("x").close()
    except FileExistsError:
        return "second try"
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def raise_bad_numbers(what):
    raise NumbersBad(what)


def complain_and_raise(number):
    print("the engine complains", file=sys.stderr)
    return {}[number]


def load(payload):
    """(folder, names): import these modules from there."""
    folder, names = payload
    sys.path.insert(0, folder)
    return [importlib.import_module(name).VALUE for name in names]


def beat_in_a_thread(seconds):
    """Stands still while another thread is busy."""
    threading.Thread(target=beat_in_pieces, args=(int(seconds / 0.05),), daemon=True).start()
    time.sleep(seconds)


def crash_deep_down(depth):
    """A segmentation fault under so many calls."""
    if depth:
        return crash_deep_down(depth - 1) + 1
    print("last words", file=sys.stderr, flush=True)
    return innermost_call()


def innermost_call():
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0
