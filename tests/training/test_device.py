"""Devices and threads."""

import ctypes
import subprocess
import sys

import pytest
import torch
from command_line import environment

from stages.errors import EnvironmentLacks, UsageError
from stages.execution.cores import available_cores
from stages.training import device
from stages.training.device import (
    keep_freed_memory,
    resolve_device,
    return_freed_memory,
    torch_generator,
    use_threads,
)


@pytest.fixture
def _same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Library:
    """A C library whose mallopt takes thresholds up to a size; 0 refuses all."""

    def __init__(self, largest):
        self.largest, self.values = largest, {}

    def mallopt(self, parameter, value):
        if parameter == -3 and value > self.largest:
            return 0
        self.values[parameter] = value
        return 1


@pytest.mark.parametrize(("largest", "taken"), [(2**40, 2**30), (2**25, 2**25)])
def test_freed_memory_is_kept_as_far_as_the_library_allows(monkeypatch, largest, taken):
    library = Library(largest)
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: library)
    keep_freed_memory()
    assert library.values[-3] == taken
    assert library.values[-1] > 2**30
    assert library.values[-2] > 0


def test_afterwards_large_pieces_go_back_to_the_system_as_usual(monkeypatch):
    library = Library(2**40)
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: library)
    keep_freed_memory()
    return_freed_memory()
    assert library.values[-3] == library.values[-1] == 128 * 1024  # glibc's manual, mallopt(3)


def test_a_library_that_keeps_nothing_is_left_alone(monkeypatch):
    """Half of the settings would be worse than none: the library's own adapting would stop."""
    refusing = Library(0)
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: refusing)
    keep_freed_memory()
    assert refusing.values == {}
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: object())  # macOS, musl
    keep_freed_memory()
    return_freed_memory()


SIZES_THAT_DIFFER = """
import ctypes, sys
import torch
from stages.execution.memory import in_use
from stages.training.device import Holes, keep_freed_memory

keep_freed_memory()
holes = Holes()
kept = [torch.ones(2**18)]
holes.look()
usual = in_use().num_bytes
pieces = [torch.ones(2**18) for _ in range(400)]  # 400 MB, every fourth of which stays
del pieces[::4], pieces[::3], pieces[::2]
full = in_use().num_bytes
holes.look()
print(usual, full, in_use().num_bytes, sum(piece.nbytes for piece in pieces))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_holes_between_tensors_are_given_back():
    words = [sys.executable, "-c", SIZES_THAT_DIFFER]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment())
    usual, full, after, live = map(int, done.stdout.split())
    assert full > 1.5 * usual, "what is freed is kept at first"
    assert after < usual + live + 40 * 2**20


def test_auto_is_a_device_that_computes():
    device = resolve_device("auto")
    assert float(torch.ones(3, device=device).sum()) == 3


def test_a_device_that_is_not_there_is_refused():
    assert resolve_device("cpu") == torch.device("cpu")
    absent = [
        name
        for name, present in [
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
        ]
        if not present
    ]
    for name in absent:
        with pytest.raises(EnvironmentLacks, match=name):
            resolve_device(name)
    with pytest.raises(UsageError, match="gpu"):
        resolve_device("gpu")


@pytest.mark.usefixtures("_same_threads")
def test_threads_are_set_and_returned():
    assert use_threads(1) == torch.get_num_threads() == 1
    assert use_threads(0) == torch.get_num_threads() == available_cores()
    with pytest.raises(UsageError):
        use_threads(-1)


def test_generators_repeat_and_leave_the_global_one_alone():
    state = torch.get_rng_state()
    cpu = torch.device("cpu")
    first, again, other = (
        torch.randn(4, generator=torch_generator(1, "noise", step, device=cpu))
        for step in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())
