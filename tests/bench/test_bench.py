"""`wm bench` on the real machine with tiny laps: what it reports, and what it leaves behind."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from command_line import python

from stages.bench import bench
from stages.bench.bench import Request, run
from stages.errors import Interrupted, UsageError
from stages.events import Advanced, Silent
from wm_cli.render import json_text

FRAMES = {"rollout", "control", "train-vision", "sample-latents"}


class Stopping(Silent):
    """Asks to stop once so many rounds are over."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def emit(self, event):
        if isinstance(event, Advanced) and event.unit.startswith("rounds of"):
            self.rounds -= event.done > 0

    def poll(self):
        if self.rounds <= 0:
            raise Interrupted("stop")


def tables(report):
    document = json.loads(json_text(report))
    return {table["title"]: table["rows"] for table in document["tables"]}


def children():
    """Processes that this one has started and that live."""
    mine = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] not in "ZX":
            mine.append(int(path.parent.name))
    return set(mine)


def test_every_row_reports_its_rates_and_ratios_and_nothing_is_left(tiny, temporary):
    before = children()
    report = run(Request(workers=2, device="cpu", sizes=tiny), progress=Silent())
    assert list(temporary.glob("wm-bench-*")) == []
    assert children() == before
    rates, spread, learnt = tables(report).values()
    names = [row["row"] for row in rates]
    assert names == [
        *("rollout", "control", "train-vision", "sample-latents", "train-memory"),
        *("dream 3", "dream-world 3", "dream 20", "dream-world 20", "disk"),
    ]
    for row, ends in zip(rates, spread, strict=True):
        assert row["ours"] > 0 < row["ceiling"]
        assert row["unit"] == ("frames" if row["row"] in FRAMES else row["unit"])
        assert ends["row"] == row["row"]
        assert ends["share_least"] <= row["share"] <= ends["share_largest"]
        if row["plain"] is None:
            assert row["times"] is ends["times_least"] is ends["times_largest"] is None
        else:
            assert ends["times_least"] <= row["times"] <= ends["times_largest"]
    without = {row["row"] for row in rates if row["plain"] is None}
    assert without == {"sample-latents", "disk"}
    assert [row["model"] for row in learnt] == ["V", "M"]
    for row in learnt:  # bfloat16 or float32, three steps lead to the same place
        assert float(row["difference"].removesuffix("%")) == pytest.approx(0, abs=2)
        assert row["ours"] < row["start"]
    assert json.loads(json_text(report))["summary"]["cores"] == 2


def test_only_the_rows_that_are_named_are_held(tiny, temporary):
    report = run(Request(rows=("disk",), workers=1, sizes=tiny), progress=Silent())
    assert [row["row"] for row in tables(report)["Rates per second"]] == ["disk"]


def test_an_unknown_row_is_answered_with_the_nearest_one(tiny, temporary):
    with pytest.raises(UsageError) as refused:
        run(Request(rows=("disk", "train-vison"), sizes=tiny), progress=Silent())
    assert "'train-vision'" in refused.value.fix
    assert "train-vison" in refused.value.what
    assert list(temporary.glob("wm-bench-*")) == []


def test_without_envpool_the_ceiling_is_gymnasium_in_processes(tiny, temporary, monkeypatch):
    monkeypatch.setattr("stages.bench.world_rows.has_envpool", lambda: False)
    report = run(Request(rows=("rollout",), workers=2, sizes=tiny), progress=Silent())
    [row] = tables(report)["Rates per second"]
    assert "ceiling: gymnasium alone in 2 processes" in row["used"]
    assert "EnvPool" not in row["used"].split("ceiling")[1]
    assert row["ceiling"] > 0


def test_a_stopped_benchmark_leaves_neither_files_nor_processes(tiny, temporary):
    before = children()
    with pytest.raises(Interrupted, match="keeps nothing"):
        run(Request(rows=("rollout", "dream"), workers=2, sizes=tiny), progress=Stopping(1))
    assert list(temporary.glob("wm-bench-*")) == []
    assert children() == before


def test_the_command_prints_the_same_as_json(tiny, temporary, monkeypatch, capfd):
    from wm_cli.app import run as wm

    monkeypatch.setattr(bench, "QUICK", tiny)
    assert wm(["bench", "disk", "dream", "--quick", "--json", "--workers", "1"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["command"] == "bench"
    assert [row["row"] for row in found["tables"][0]["rows"]] == [
        *("dream 3", "dream-world 3", "dream 20", "dream-world 20", "disk")
    ]
    assert wm(["bench", "rolout"]) == 2
    assert "Did you mean 'rollout'?" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("other", [["--quick"], ["disk"], ["--workers", "2"], ["--device", "cpu"]])
def test_memory_is_not_measured_beside_rows(other, capsys):
    from wm_cli.app import run as wm

    assert wm(["bench", "--memory", *other]) == 2
    assert "Leave out --memory" in capsys.readouterr().err


def test_training_and_dreams_are_timed_where_the_device_is(tiny):
    """On the device of `elsewhere`, which is none of the processor's."""
    rows = json.loads(python("-c", ELSEWHERE, json.dumps(asdict(tiny))))
    assert [row["row"] for row in rows] == ["train-memory", "dream 3", "dream-world 3"]
    for row in rows:
        assert row["ours"] > 0 < row["ceiling"]
        assert "elsewhere" in row["used"]
        assert "workers" not in row["used"]


ELSEWHERE = """
import json, sys
from elsewhere import connect, stand_in_for_cuda
library = connect()
stand_in_for_cuda()
from stages.bench.bench import Request, run
from stages.bench.worksite import Sizes
from stages.events import Silent
from wm_cli.render import json_text
sizes = Sizes(**{**json.loads(sys.argv[1]), "dream_lanes": (3,), "rounds": 1})
request = Request(rows=("train-memory", "dream"), workers=1, device="cuda", sizes=sizes)
print(json.dumps(json.loads(json_text(run(request, progress=Silent())))["tables"][0]["rows"]))
"""
