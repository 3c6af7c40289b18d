"""What is measured as memory: real stages on generated artifacts, in processes of their own."""

import subprocess
import sys

import pytest

from stages.bench import memory_use
from stages.errors import EnvironmentLacks
from stages.events import Silent

HOLDS = "import sys, time; held = bytearray({}); time.sleep(1.5)"


@pytest.fixture
def free_memory(monkeypatch):
    """Runs any Python program in place of `wm`."""
    real = subprocess.Popen

    def start(command, **options):
        return real([sys.executable, *command[command.index("wm_cli") + 1 :]], **options)

    monkeypatch.setattr(memory_use.subprocess, "Popen", start)


def test_the_peak_grows_with_what_a_process_holds(free_memory):
    small = memory_use.peak_of(["-c", HOLDS.format(1)], Silent())
    large = memory_use.peak_of(["-c", HOLDS.format(200_000_000)], Silent())
    assert 190e6 < large - small < 215e6


def test_children_count(free_memory):
    child = HOLDS.format(100_000_000)
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert memory_use.peak_of(["-c", code], Silent()) > 105e6


def test_a_stage_that_fails_is_no_measurement(free_memory):
    with pytest.raises(EnvironmentLacks, match="failed while it was measured"):
        memory_use.peak_of(["-c", "raise SystemExit(3)"], Silent())


@pytest.mark.pipeline
def test_every_stage_is_measured_on_generated_data(monkeypatch, tmp_path):
    monkeypatch.setattr(memory_use, "ENCODING_SECONDS", 300.0)  # to its end
    monkeypatch.setattr(memory_use, "EPISODE_STEPS", 199)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    report = memory_use.measure(progress=Silent(), sizes=(1_800, 3_400), batches=2)
    (table,) = report.tables
    assert [row[0] for row in table.rows] == ["train-vision", "sample-latents", "train-memory"]
    for _, small, large, growth in table.rows:
        assert 100 < small < 3000 and 100 < large < 3000
        assert growth.endswith(" %")
    assert not list(tmp_path.iterdir())
