"""Whatever is given to a reader, it is read or refused with a StageError and its exit code.

Never another exception, a crash of a library, a hang, or an allocation without bound. All readers
run in one process of their own, which says before every example which one it is. `WM_EXAMPLES=20`
tries 20 times as many, and others every time.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, environment

CHILD = Path(__file__).with_name("child.py")
FACTOR = float(os.environ.get("WM_EXAMPLES", "0"))  # 0: the usual examples, always the same
SECONDS = 240.0  # for all of them, a quarter of it where nothing else runs
MEMORY = 2**30  # bytes that readers may add to the process
READERS = (
    "manifest",
    "commands",
    "trained agent",
    "packed agent",
    "workspace.json",
    "recipe",
    "override",
    "id",
    "episodes",
    "latents",
    "found",
    "safetensors",
    "npz",
    "dataset.json",
    "table",
    "result",
    "horizon",
    "state",
    "search log",
    "checkpoint",
    "lock note",
    "digests",
    "report",
    "reported files",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What became of every reader; fails with the example that crashed the process or hung it."""
    folder = tmp_path_factory.mktemp("hostile")
    seed = random.SystemRandom().randrange(1, 2**31) if FACTOR else 0
    words = [sys.executable, CHILD, folder, FACTOR or 1, seed]
    try:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=ROOT,
            env=environment(OPENBLAS_NUM_THREADS="1"),
            capture_output=True,
            text=True,
            timeout=SECONDS * max(1.0, FACTOR),
            check=False,
        )
        how = f"ended with {done.returncode}:\n{done.stderr[-3000:]}"
    except subprocess.TimeoutExpired:
        how = "did not end"
    else:
        if done.returncode == 0:
            return json.loads((folder / "results.json").read_bytes())
    announced = (folder / "announced.json").read_text(errors="replace")
    pytest.fail(f"The process {how}\nseed {seed}, while it read {announced[:5000]}")


@pytest.mark.parametrize("name", READERS)
def test_hostile_input_ends_in_a_stage_error(name, results):
    found = results[name]
    assert not found["fault"], found["fault"]
    assert sum(found["counts"].values()) > 0
    assert found["peak"] - found["peak_before"] < MEMORY


def test_every_reader_is_asked(results):
    assert sorted(results) == sorted(READERS)
    refused = {name for name in results if set(results[name]["counts"]) - {"read"}}
    never = {"lock note", "digests", "report"}  # a report tells of what is damaged
    assert set(READERS) - refused <= never
