"""A tracker that raises, hangs or is slow: the caller never waits, and is told once."""

import threading
import time
from pathlib import Path

import pytest

from stages.errors import EnvironmentLacks, UsageError
from stages.events import Began, Ended, Measured
from stages.tracking import aside, protocol
from stages.tracking.aside import Aside


class Kept:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.calls = []

    def start(self, run):
        self.calls.append(("start", run.run))

    def log(self, item):
        self.calls.append(("log", item.step))

    def finish(self):
        self.calls.append(("finish",))


def began(run="train-vision-0") -> Began:
    return Began("train-vision", run, Path("nowhere"), {}, lambda note: None)


def test_a_run_is_started_logged_and_finished_in_order():
    kept = Kept()
    tracker = Aside("kept", lambda: kept)
    for event in (Measured(0, {}), began("a"), Measured(1, {}), Ended(), Measured(2, {})):
        tracker.hear(event)
    tracker.hear(began("b"))
    tracker.close()
    assert kept.calls == [
        ("start", "a"),
        ("log", 1),
        ("log", 2),  # a film may come after the end
        ("finish",),
        ("start", "b"),
        ("finish",),
    ]
    assert tracker.remarks() == []


@pytest.mark.parametrize("where", ["start", "log", "finish", "make"])
def test_one_that_raises_is_left_out_with_one_warning(where):
    def fail(*_):
        raise OSError(28, "No space left on device")

    kept = Kept()
    if where != "make":
        setattr(kept, where, fail)
    tracker = Aside("bad", fail if where == "make" else lambda: kept)
    tracker.hear(began())
    for step in range(100):
        tracker.hear(Measured(step, {}))
    started = time.monotonic()
    tracker.close()
    assert time.monotonic() - started < 2
    (remark,) = tracker.remarks()
    assert "bad failed" in remark and "No space left on device" in remark
    assert tracker.remarks() == []


def test_one_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(aside, "PATIENCE", 0.3)
    over = threading.Event()
    kept = Kept()
    kept.log = lambda item: over.wait(60)
    tracker = Aside("stuck", lambda: kept)
    started = time.monotonic()
    tracker.hear(began())
    for step in range(3 * aside.ROOM):
        tracker.hear(Measured(step, {}))
    assert time.monotonic() - started < 10, "30,000 events are handed over at once"
    time.sleep(0.5)
    started = time.monotonic()
    tracker.close()
    assert time.monotonic() - started < 1
    remarks = tracker.remarks()
    over.set()
    assert any("busy with one event" in one for one in remarks)
    assert any("left out" in one for one in remarks)


def slow(seconds, steps):
    """A tracker that needs so long for each step of a run."""
    kept = Kept()
    log = kept.log
    kept.log = lambda item: (time.sleep(seconds), log(item))
    tracker = Aside("slow", lambda: kept)
    tracker.hear(began())
    for step in range(steps):
        tracker.hear(Measured(step, {}))
    return kept, tracker


def test_one_that_is_slow_is_waited_for(monkeypatch):
    monkeypatch.setattr(aside, "PATIENCE", 5.0)
    kept, tracker = slow(0.1, 8)
    tracker.close()
    assert [call for call in kept.calls if call[0] == "log"] == [("log", n) for n in range(8)]
    assert kept.calls[-1] == ("finish",)
    assert tracker.remarks() == []


@pytest.mark.parametrize("hurry", [False, True])
@pytest.mark.parametrize("room", [40, 10_000], ids=["full", "roomy"])
def test_the_end_waits_so_long_for_all_that_is_left_and_no_longer(monkeypatch, hurry, room):
    """No event takes long, but there are 10 s of them."""
    monkeypatch.setattr(aside, "ROOM", room)
    monkeypatch.setattr(aside, "HURRY" if hurry else "PATIENCE", 0.6)
    kept, tracker = slow(0.1, 100)
    started = time.monotonic()
    tracker.close(hurry=hurry)
    assert 0.5 < time.monotonic() - started < 2
    assert len(kept.calls) < 30
    assert [one for one in tracker.remarks() if "did not finish" in one]


def test_unknown_trackers_are_refused_with_the_list():
    with pytest.raises(UsageError) as caught:
        protocol.makers(["tensorboard", "wandbb"])
    assert "wandbb" in caught.value.what and "tensorboard" in caught.value.fix


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    kind = protocol.Kind("no_such_package", "tensorboard", "no.module", "Nothing")
    monkeypatch.setitem(protocol.KINDS, "tensorboard", kind)
    with pytest.raises(EnvironmentLacks) as caught:
        protocol.makers(["tensorboard"])
    assert caught.value.exit_code == 6
    assert 'pip install "wm-pixels[tensorboard]"' in caught.value.fix
