"""Lines of metrics are those of the tasks in their order, whoever finishes first."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from artifact_samples import new_workspace
from command_line import ROOT, copied, settings, wm

from stages.artifacts.metrics import METRICS, MetricsLog, TaskMetrics
from stages.control.scoring import ScoreLines
from stages.events import Measured, Silent
from stages.worlds.coverage import Tallies, Tally

RETURNS = [(1.0, 2.0), (4.0,), (8.0, -3.0, 1.0), (0.5,)]


class Heard(Silent):
    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)


def written(partial, order, monitor=None) -> list[str]:
    metrics = TaskMetrics(MetricsLog(partial, monitor or Silent()), Tallies("rollout").line)
    for number in order:
        metrics.finished(number, Tally(RETURNS[number], 10 * len(RETURNS[number])))
    return partial.lines(METRICS)


@pytest.fixture
def partial(tmp_path):
    workspace = new_workspace(tmp_path)
    with workspace.lock("rollouts"):
        yield workspace.begin("rollouts", "f" * 64)


def test_the_order_in_which_tasks_finish_does_not_show(partial):
    # By hand: means of the shards 1.5, 4, 2, 0.5, and of all episodes so far.
    means, so_far = [1.5, 4.0, 2.0, 0.5], [3 / 2, 7 / 3, 13 / 6, 13.5 / 7]
    for order in itertools.permutations(range(4)):
        records = [json.loads(line) for line in written(partial, order)]
        assert [one["step"] for one in records] == [2, 3, 6, 7]
        assert [one["rollout/steps"] for one in records] == [20, 30, 60, 70]
        assert [one["rollout/return/mean"] for one in records] == means
        assert [one["rollout/return/mean_so_far"] for one in records] == pytest.approx(so_far)
        assert all(one["rollout/length/mean"] == 10.0 for one in records)


def test_lines_are_on_disk_as_soon_as_they_are_due(partial):
    path = partial.path / METRICS
    metrics = TaskMetrics(MetricsLog(partial, Silent()), Tallies("rollout").line)
    metrics.finished(1, Tally((4.0,), 10))
    assert not path.exists(), "task 0 comes first"
    metrics.finished(0, Tally((1.0,), 10))
    assert len(path.read_bytes().splitlines()) == 2


def test_a_run_that_goes_on_replaces_what_it_finds(partial):
    first = written(partial, range(4))
    assert written(partial, (0, 2)) == first[:1]
    assert written(partial, (3, 2, 1, 0)) == first


def test_trackers_hear_the_lines_that_are_written(partial):
    heard = Heard()
    lines = written(partial, (2, 0, 1, 3), heard)
    told = [{"step": e.step, **e.values} for e in heard.events if isinstance(e, Measured)]
    assert told == [json.loads(line) for line in lines]


def test_an_evaluation_counts_who_drove():
    lines = ScoreLines()
    outcome = {"total_reward": 4.0, "num_steps": 10}
    other = {"total_reward": 8.0, "num_steps": 30}
    assert lines.line({"who": "agent", "outcomes": [outcome, other]}) == (
        2,
        {
            "evaluate/agent/return/mean": 6.0,
            "evaluate/agent/return/mean_so_far": 6.0,
            "evaluate/agent/length/mean": 20.0,
        },
    )
    step, values = lines.line({"who": "random", "outcomes": [outcome]})
    assert step == 3 and values["evaluate/random/return/mean_so_far"] == 4.0
    _, values = lines.line({"who": "agent", "outcomes": [outcome]})
    assert values["evaluate/agent/return/mean_so_far"] == pytest.approx(16 / 3)


@pytest.mark.pipeline
def test_the_documented_names_are_those_that_stages_write(
    micro_workspace, doom_workspace, tmp_path
):
    """Names in the tables of docs/metrics.md, and in the files of real runs with every head."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_/]+)` \|", page, re.MULTILINE))
    heads = copied(micro_workspace, tmp_path / "heads", before="memory")
    keys = ("memory.reward_head=true", "memory.end_head=true", "memory.steps=8")
    wm("train-memory", "-w", heads, *settings(*keys))
    brought = tmp_path / "brought"
    actions = np.zeros(4, dtype=np.int64)
    frames = np.zeros((5, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "one.npz", observations=frames, actions=actions, rewards=np.ones(4))
    wm("import", "npz", tmp_path, "-w", brought, "--recipe", "imported")
    found = set()
    for workspace in (micro_workspace, doom_workspace, heads, brought):
        for path in sorted(Path(workspace).glob(f"*/[0-9]*/{METRICS}")):
            records = [json.loads(line) for line in path.read_text().splitlines()]
            assert records and all(next(iter(one)) == "step" for one in records), path
            found |= {name for one in records for name in one}
    assert found - {"step"} == documented


@pytest.mark.pipeline
def test_every_stage_has_metrics_without_times(micro_workspace):
    kinds = ("rollouts", "vision", "latents", "memory", "control", "evaluations")
    for kind in kinds:
        text = (micro_workspace / kind / "0001" / METRICS).read_text()
        assert text.endswith("\n")
        assert not re.search(r"time|seconds|20[0-9]{2}-", text), kind
