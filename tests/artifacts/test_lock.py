import errno
import os
import signal
import subprocess
import sys

import pytest
from artifact_samples import REPOSITORY, new_workspace

from stages.artifacts.lock import StageLock
from stages.errors import StageBusy

HOLD = """
import sys
from pathlib import Path
from stages.artifacts.lock import StageLock
with StageLock(Path(sys.argv[1]), "rollout"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock `tmp_path/lock`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()
        process.kill()


def test_a_second_run_is_told_who_holds_the_stage(tmp_path, holder):
    lock = StageLock(tmp_path / "lock", "rollout")
    with pytest.raises(StageBusy) as caught, lock:
        pass
    assert f"process {holder.pid} on {os.uname().nodename} since 2" in caught.value.what
    assert "rollout" in caught.value.what
    assert caught.value.exit_code == 7
    assert f"process {holder.pid}" in lock.holder()
    assert not lock.held


def test_a_dead_holder_does_not_block(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock = StageLock(tmp_path / "lock", "rollout")
    assert lock.holder() is None
    with lock:
        assert f"process {os.getpid()}" in lock.holder()


def test_asking_for_the_holder_never_takes_the_lock_away(tmp_path, holder):
    lock = StageLock(tmp_path / "lock", "rollout")
    for _ in range(20):
        assert lock.holder() is not None
    holder.stdin.close()
    holder.wait()
    assert lock.holder() is None


def test_nobody_holds_a_lock_that_was_never_taken(tmp_path):
    assert StageLock(tmp_path / "lock", "rollout").holder() is None
    assert list(tmp_path.iterdir()) == []


def test_the_same_object_may_enter_again_and_another_may_not(tmp_path):
    lock, other = StageLock(tmp_path / "lock", "rollout"), StageLock(tmp_path / "lock", "rollout")
    with lock:
        with lock:
            pass
        with pytest.raises(StageBusy), other:
            pass
    with other:
        assert other.held and not lock.held


def test_different_stages_run_together(tmp_path):
    workspace, other = new_workspace(tmp_path), new_workspace(tmp_path)
    with workspace.lock("rollouts"), other.lock("vision"):
        assert workspace.lock_holder("vision") == other.lock_holder("vision") != None  # noqa: E711
        with pytest.raises(StageBusy), other.lock("rollouts"):
            pass


def test_the_lock_is_free_after_an_exception(tmp_path):
    lock = StageLock(tmp_path / "lock", "rollout")
    with pytest.raises(RuntimeError), lock:
        raise RuntimeError
    with StageLock(tmp_path / "lock", "rollout"):
        pass


def test_a_full_disk_does_not_keep_from_locking(tmp_path, monkeypatch):
    """`wm clean` is needed most where there is no room for a note of who holds the lock."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    workspace = new_workspace(tmp_path)
    monkeypatch.setattr(os, "pwrite", full)
    with workspace.lock("rollouts"):
        assert workspace.lock("rollouts").held
        other = StageLock(workspace.lock("rollouts").path, "rollout", patience=0)
        assert other.holder()
        with pytest.raises(StageBusy), other:
            pass
