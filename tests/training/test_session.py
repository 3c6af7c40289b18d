"""A session killed at any moment leaves the metrics that an uninterrupted one leaves."""

import pytest
import torch
from training_samples import in_one_part

from stages.artifacts.workspace import Workspace
from stages.contracts import Resources
from stages.events import Noted, Silent
from stages.training.loop import Plan
from stages.training.session import METRICS, Session, settle_device

PLAN = {"section": "vision", "seed": 0, "learning_rate": 0.1, "log_every": 2}


class Listening(Silent):
    """Keeps what is noted."""

    def __init__(self):
        self.notes = []

    def emit(self, event):
        if isinstance(event, Noted):
            self.notes.append(event.text)


def trained(partial, num_steps):
    """Train as a stage does, up to the line of held-out errors."""
    session = Session(partial, Resources(threads=1), progress=Silent())
    model = torch.nn.Linear(2, 1)
    torch.nn.init.ones_(model.weight)

    def loss(step):
        inputs = torch.tensor([[1.0, float(step)]])
        return {"loss": (model(inputs) - 3).square().sum()}

    session.fit(model, in_one_part(loss), Plan(num_steps=num_steps, **PLAN), prefix="vision")
    session.log_held_out(num_steps, "vision", {"error": 1.5})
    return partial.lines(METRICS)


@pytest.mark.parametrize("num_steps", [0, 6])
def test_a_kill_after_training_does_not_repeat_the_last_line(tmp_path, num_steps):
    workspace = Workspace.open(tmp_path / "w", create=True)
    with workspace.lock("vision"):
        first = trained(workspace.begin("vision", "f" * 64), num_steps)
        again = trained(workspace.begin("vision", "f" * 64), num_steps)  # as after a kill
    assert again == first
    assert len(first) == num_steps // 2 + 1


@pytest.mark.parametrize(
    ("begun", "asked", "device", "note"),
    [
        (None, "cpu", "cpu", []),
        ("cpu", "auto", "cpu", []),
        ("cpu", "mps", "cpu", ["Going on on cpu: the run began there."]),
        ("cuda", "auto", "cpu", ["The run began on cuda, which is not here: it goes on on cpu."]),
        ("cuda", "cpu", "cpu", ["The run began on cuda, which is not here: it goes on on cpu."]),
    ],
)
def test_a_run_goes_on_where_it_began_if_it_can(begun, asked, device, note, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    workspace, heard = Workspace.open(tmp_path / "w", create=True), Listening()
    with workspace.lock("vision"):
        partial = workspace.begin("vision", "f" * 64)
        if begun:
            partial.record({"device": begun})
        found = settle_device(partial, Resources(device=asked), progress=heard)
        assert partial.recorded() == {"device": device}
    assert (found.type, heard.notes) == (device, note)
