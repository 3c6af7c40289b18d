"""The quick part of the torture, and whether it can shout: defects are planted for it to find."""

import json
from pathlib import Path

import pytest
from command_line import python
from torture import ledger
from torture.soak import MB, Sample, fitted


@pytest.mark.pipeline
def test_a_little_of_every_slice_is_survived(micro_workspace, tmp_path):
    results = tmp_path / "results.jsonl"
    words = ("--quick", "--seed", 1, "--micro", micro_workspace, "--results", results)
    shown = python("-m", "torture", *words)
    book = ledger.read(results)
    assert book.num_lost == 0
    injected = {}
    for (name, _, _), count in book.counts.items():
        injected[name] = injected.get(name, 0) + count.injected
    assert injected["kills"] >= 2  # a journey may end before its kill
    assert injected["selfkills"] >= 12
    assert injected["calls"] >= 24
    assert injected["bits"] >= 45  # a few find nothing to harm
    assert injected["disk"] >= 1  # where nobody may mount, only the limit on sizes
    assert injected["stops"] >= 1  # a worker may have been through
    assert f"| {book.num_faults} | {book.num_faults} | 0 |" in shown
    assert python("-m", "torture", "--table", "--results", results).splitlines()[0] in shown


@pytest.mark.pipeline
def test_planted_defects_are_noticed(tmp_path):
    script = Path(__file__).with_name("planted_defects.py")
    found = json.loads(python("-c", RUN, script, tmp_path))
    assert len(found) == 4
    for name, seen in found.items():
        assert seen["healthy"]["lost"] == 0, (name, seen)
        assert seen["planted"]["lost"] > 0, (name, seen)


# A script has its own folder on its path, not that of the tests.
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_counts_add_up_over_runs(tmp_path):
    results = tmp_path / "results.jsonl"
    for faults, lost in ((5, 0), (7, 7)):
        tally = ledger.Tally(lost="something" if lost else "")
        for _ in range(faults):
            tally.inject("kill", "rollout")
        tally.note("at work")
        book = ledger.Book()
        book.add("kills", tally.packed())
        ledger.append(results, book.record("kills", seconds=6.0, seed=1))
    book = ledger.read(results)
    assert (book.num_faults, book.num_lost) == (12, 7)
    row = next(line for line in book.table() if "kills: kill" in line)
    assert row.startswith("| kills: kill | 12 |")
    assert row.endswith("| 12 | 5 | 7 |")
    assert list(book.remarks()) == ["- kills: 2 at work; 1.00 s per fault"]


def samples(name, growth):
    """A process of 200 MB that grows by so many bytes in each second, to and fro on the way."""
    return [
        Sample(float(s), name, int(200 * MB + growth * s + (s % 20) * MB / 4), 0)
        for s in range(0, 1200, 2)
    ]


@pytest.mark.parametrize(("growth", "flat"), [(0.0, True), (2000.0, True), (20_000.0, False)])
def test_a_soak_tells_growth_from_noise(growth, flat):
    (line,) = fitted(samples("worker 1", growth))
    assert line.flat is flat
    assert line.growth == pytest.approx(600 * growth, abs=0.5 * MB)


def test_a_process_that_did_not_live_through_the_half_has_no_line():
    short = [one for one in samples("worker 2", 0.0) if one.seconds < 900]
    assert [line.process for line in fitted(samples("worker 1", 0.0) + short)] == ["worker 1"]
