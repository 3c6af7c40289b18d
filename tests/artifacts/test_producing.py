"""How a stage's work is begun, gone on with and finished: what the user is told on the way."""

from dataclasses import replace

import pytest
from artifact_samples import SUMMARIES, WORLD, new_workspace, sample_files

from stages import stage_writing
from stages.artifacts import producing
from stages.artifacts.partial import Partial
from stages.artifacts.producing import Outcome, Plan, produce
from stages.contracts import Job, WorldSpec
from stages.errors import NumbersBad
from stages.events import Began, Noted, Silent


class Listener(Silent):
    def __init__(self):
        self.told = []
        self.runs = []

    def emit(self, event):
        if isinstance(event, Began):
            self.runs.append(event.run)
        if isinstance(event, Noted):
            self.told.append((event.text, event.warning))


class Half:
    """A stage that writes one file at a time and stops after so many."""

    def __init__(self, stop):
        self.stop = stop

    def __call__(self, partial):
        contents = sample_files()
        for number, (name, content) in enumerate(contents.items()):
            if number == self.stop:
                raise NumbersBad("Enough for today.")
            if not partial.has(name):
                partial.write(name, content)
        return Outcome(payload=list(contents), summary=SUMMARIES["rollouts"])


@pytest.fixture
def run(tmp_path, monkeypatch):
    workspace = new_workspace(tmp_path)
    plan = Plan(stage_writing("rollouts"), 1, "world-models", {"seed": 1, "world": WORLD})
    world = WorldSpec(**WORLD)
    job = Job(family="world-models", recipe="carracing", preset="debug", seed=1, world=world)

    def once(stop=None, *, versions=None, processor="one", force=False):
        monkeypatch.setattr(producing, "package_versions", lambda: versions or {"torch": "2.13"})
        monkeypatch.setattr(producing, "processor", lambda: processor)
        listener = Listener()
        try:
            produce(workspace, plan, replace(job, force=force), Half(stop), progress=listener)
        except NumbersBad:
            assert stop is not None
        finally:
            once.runs += listener.runs
        return listener.told

    once.root = workspace.root
    once.runs = []
    once.fingerprint = plan.fingerprint
    return once


RESUMING = ("Resuming rollout where it was left.", False)


def test_the_same_machine_is_not_mentioned(run):
    assert run(stop=1) == []
    assert run(stop=2) == [RESUMING]
    assert run() == [RESUMING]
    assert run() == [], "up to date"


def test_other_versions_and_another_processor_are_named_with_both_sides(run):
    run(stop=1)
    resuming, (text, warning) = run(stop=2, versions={"torch": "2.14", "cma": "4"}, processor="two")
    assert resuming == RESUMING
    assert warning
    for part in (
        "cma None then, 4 now",
        "processor one then, two now",
        "torch 2.13 then, 2.14 now",
    ):
        assert part in text
    assert run() == [RESUMING], "what counts is what the work began with"


def test_work_that_was_refused_before_it_began_leaves_nothing(run):
    assert run(stop=0) == []
    assert list((run.root / "rollouts").glob(".partial-*")) == []
    assert run() == []


def test_what_has_rotted_is_named_and_made_again(run):
    run(stop=2)
    (shard,) = run.root.glob("rollouts/.partial-*/shard-00000.h5")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    resuming, (text, warning) = run()
    assert (resuming, warning) == (RESUMING, True)
    assert "shard-00000.h5 has changed since it was written: that is not used." in text
    (made,) = run.root.glob("rollouts/0001/shard-00000.h5")
    assert made.read_bytes() == sample_files()["shard-00000.h5"]


def test_a_run_that_goes_on_has_its_name_and_one_that_is_forced_has_another(run):
    """Trackers begin the run of that name anew: nothing else may be under it."""
    for options in ({"stop": 1}, {"stop": 2}, {}, {}, {"stop": 1, "force": True}):
        run(**options)
    run(force=True)
    run(force=True)
    first = f"rollout-{run.fingerprint[:16]}"
    assert run.runs == [first, first, first, f"{first}-2", f"{first}-2", f"{first}-3"]


def test_a_commit_that_was_cut_before_its_rename_begins_no_run(run, monkeypatch):
    """A tracker would begin anew, and nobody would tell it again what it had shown."""

    def cut(*_):
        raise NumbersBad("The power is gone.")

    with monkeypatch.context() as patched:
        patched.setattr(Partial, "_publish", cut)
        run(stop=99)
    assert len(run.runs) == 1
    assert run() == []
    assert len(run.runs) == 1
    assert (run.root / "rollouts" / "0001" / "manifest.json").exists()
