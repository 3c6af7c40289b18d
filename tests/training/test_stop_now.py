"""StopNow comes at any moment, as a signal does: what is saved is always a whole step."""

import signal
import threading
import time

import numpy as np
import pytest
import torch

from stages.errors import StopNow
from stages.events import Silent
from stages.training.device import torch_generator
from stages.training.loop import Plan, fit
from stages.training.parts import Part

CPU = torch.device("cpu")
PLAN = Plan("vision", seed=3, num_steps=30, learning_rate=0.01, log_every=4)
NEVER = 1e9  # seconds between checkpoints


def make_model():
    model = torch.nn.Linear(5, 2)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=source)
    return model


class Training:
    """A run whose checkpoints and lines are kept; `at(moment, step)` is called at each of them."""

    def __init__(self, at=lambda moment, step: None, *, checkpoint_seconds=NEVER):
        self.saved, self.lines, self.at = [], [], at
        self.plan = Plan(**{**vars(PLAN), "checkpoint_seconds": checkpoint_seconds})

    def run(self, state=None):
        model = make_model()

        def loss(step):
            self.at("batch", step)
            inputs = torch.randn(16, 5, generator=torch_generator(0, "data", step, device=CPU))
            return [Part(1.0, lambda: {"loss": ((model(inputs) - inputs[:, :2]) ** 2).mean()})]

        def save(state):
            self.at("save", state.step)
            self.saved.append(state)
            self.at("saved", state.step)

        def log(line):
            self.at("log", line["step"])
            self.lines.append(line)
            self.at("logged", line["step"])

        return fit(model, loss, self.plan, save=save, log=log, monitor=Silent(), state=state)


def assert_equal(one, other):
    assert one.step == other.step
    for name, array in one.tensors.items():
        assert array.tobytes() == other.tensors[name].tobytes(), name


def stopping(moment, step):
    """Raises once, when this moment of this step has come."""
    left = [(moment, step)]

    def at(*now):
        if now in left:
            left.remove(now)
            raise StopNow

    return at


@pytest.mark.parametrize(
    ("moment", "step", "kept"),
    [
        ("batch", 13, 13),  # the step in progress is lost, nothing else
        ("save", 9, 9),  # a checkpoint was being written: it is written again
        ("saved", 9, 9),
        ("save", 30, 30),  # the last one
    ],
)
def test_the_last_whole_step_is_saved_and_gone_on_with(moment, step, kept):
    undisturbed = Training()
    whole = undisturbed.run()
    stopped = Training(stopping(moment, step), checkpoint_seconds=0 if step == 9 else NEVER)
    with pytest.raises(StopNow):
        stopped.run()
    assert stopped.saved[-1].step == kept
    resumed = Training()
    resumed.lines = [line for line in stopped.lines if line["step"] <= kept]
    assert_equal(resumed.run(stopped.saved[-1]), whole)
    assert resumed.lines == undisturbed.lines


@pytest.mark.parametrize("moment", ["log", "logged"])
def test_a_step_whose_line_may_be_missing_is_not_saved(moment):
    stopped = Training(stopping(moment, 12))
    with pytest.raises(StopNow):
        stopped.run()
    assert stopped.saved == [], "its sums are gone from the state, its line is not in the log"


def test_a_step_that_takes_long_is_broken_off_by_a_signal():
    """The signal comes while a part computes; nobody waits for the part."""
    ends, begun, saved = threading.Event(), threading.Event(), []
    model = make_model()

    def loss(step):
        def compute():
            if step == 5:
                begun.set()
                ends.wait(60)
            return {"loss": (model.weight**2).sum() + (model.bias**2).sum()}

        return [Part(1.0, compute)]

    def raise_it(number, frame):
        raise StopNow

    def send():
        begun.wait(60)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, raise_it)
    sender = threading.Thread(target=send)
    started = time.monotonic()
    try:
        sender.start()
        with pytest.raises(StopNow):
            fit(model, loss, PLAN, save=saved.append, log=lambda _: None, monitor=Silent())
        assert time.monotonic() - started < 30
    finally:
        ends.set()
        sender.join()
        signal.signal(signal.SIGUSR1, previous)
    assert [state.step for state in saved] == [5]
    assert np.isfinite(saved[0].tensors["model/weight"]).all()
