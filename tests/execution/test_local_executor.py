"""LocalExecutor: complete and equal results whatever happens to its workers."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import execution_tasks as tasks
import numpy as np
import pytest
from command_line import wait_until
from watching import Recording, children, is_alive

from stages.errors import EnvironmentLacks, ExitCode, Interrupted, UsageError
from stages.events import Noted, Silent
from stages.execution import handle
from stages.execution.inline import InlineExecutor
from stages.execution.local import LocalExecutor
from stages.execution.protocol import Task, TaskAbandoned, TaskFailed

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


class StoppingAfter(Silent):
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def poll(self):
        if time.monotonic() > self.end:
            raise Interrupted("stopped")


def noises(seeds, executor, **kwargs):
    work = [Task(seed, tasks.noise, seed) for seed in seeds]
    return {done.key: done.value for done in executor.run(work, monitor=Silent(), **kwargs)}


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_results_do_not_depend_on_the_number_of_workers(num_workers):
    expected = {seed: np.random.default_rng(seed).standard_normal(70_000) for seed in range(9)}
    with LocalExecutor(num_workers) as executor:
        found = noises(range(9), executor)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[seed], expected[seed]) for seed in expected)


def test_exactly_as_many_processes_as_workers_even_with_fewer_tasks():
    before = set(children())
    with LocalExecutor(3) as executor:
        assert set(children()) == before  # nothing starts before it is needed
        assert noises([1], executor).keys() == {1}
        assert len(set(children()) - before) == 3
        started = set(children())
        noises(range(4), executor)
        assert set(children()) == started  # kept between runs
    assert set(children()) == before


def test_workers_have_one_math_thread_and_ignore_ctrl_c():
    with LocalExecutor(1) as executor:
        (done,) = executor.run([Task("e", tasks.environment, None)], monitor=Silent())
    pid, threads, on_interrupt = done.value
    assert pid != os.getpid()
    assert (threads, on_interrupt) == ("1", "SIG_IGN")


@pytest.mark.parametrize("how", ["killed", "segfaults", "stopped", "sleeps", "exits", "leaves"])
def test_a_lost_worker_costs_nothing_but_time(how, tmp_path):
    work = [Task(k, tasks.noise, k) for k in range(6)]
    work[2] = Task(2, tasks.misbehave_once, (str(tmp_path / "mark"), how, 2))
    monitor = Recording()
    with LocalExecutor(2) as executor:
        found = {d.key: d.value for d in executor.run(work, deadline=4.0, monitor=monitor)}
        assert executor.num_lost == 1
    for seed in range(6):
        assert np.array_equal(found[seed], np.random.default_rng(seed).standard_normal(70_000))
    (note,) = monitor.events
    assert isinstance(note, Noted)
    assert note.warning
    assert "task 2" in note.text


def test_workers_killed_from_outside_at_random_moments():
    """Whoever is killed, however often, every result is there once and equal."""
    random = np.random.default_rng(0)
    before = set(children())
    found = {}
    with LocalExecutor(2, num_retries=20) as executor:
        work = [Task(seed, tasks.noise, seed) for seed in range(40)]
        for done in executor.run(work, monitor=Silent()):
            assert done.key not in found
            found[done.key] = done.value
            if done.key % 4 == 0:
                time.sleep(random.uniform(0, 0.02))
                victims = sorted(set(children()) - before)
                if victims:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(random.choice(victims)), signal.SIGKILL)
    assert sorted(found) == list(range(40))
    for seed, value in found.items():
        assert np.array_equal(value, np.random.default_rng(seed).standard_normal(70_000))


def test_a_worker_killed_between_runs_is_replaced_without_a_word():
    before = set(children())
    with LocalExecutor(2) as executor:
        noises(range(2), executor)
        for pid in set(children()) - before:
            os.kill(pid, signal.SIGKILL)
        assert noises(range(5), executor).keys() == set(range(5))
        assert len(set(children()) - before) == 2


def test_a_task_that_always_kills_its_worker_ends_with_its_key_and_log():
    work = [Task(1, tasks.square, 3), Task("episode 77", tasks.die_loudly, 77)]
    found = []
    with (
        LocalExecutor(2, num_retries=2) as executor,
        pytest.raises(TaskAbandoned) as caught,
    ):
        found.extend(executor.run(work, monitor=Silent()))
    assert [done.value for done in found] == [9]
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert "episode 77" in caught.value.what
    assert "3 workers" in caught.value.what
    assert "SIGKILL" in caught.value.why
    assert "opening track 77" in caught.value.why


def test_the_log_tells_about_the_lost_task_alone():
    with LocalExecutor(1, num_retries=0) as executor:
        list(executor.run([Task(0, tasks.chat, 0)], monitor=Silent()))
        with pytest.raises(TaskAbandoned) as caught:
            list(executor.run([Task(1, tasks.die_loudly, 5)], monitor=Silent()))
    assert "opening track 5" in caught.value.why
    assert "the task before" not in caught.value.why


def test_a_task_that_always_hangs_ends_too():
    with LocalExecutor(1, num_retries=1) as executor:
        work = [Task("t", tasks.misbehave, ("stopped", 0))]
        with pytest.raises(TaskAbandoned, match=r"gave no sign of life for 0\.3 s"):
            list(executor.run(work, deadline=0.3, monitor=Silent()))
        assert noises([4], executor).keys() == {4}  # the executor stays usable


def test_a_large_payload_for_a_stopped_worker_does_not_stop_the_supervisor():
    before = set(children())
    payload = np.ones(4_000_000)  # 32 MB, far beyond a socket's buffer
    with LocalExecutor(1) as executor:
        noises([0], executor)
        (pid,) = set(children()) - before
        os.kill(pid, signal.SIGSTOP)
        run = executor.run([Task(0, tasks.total, payload)], deadline=6.0, monitor=Silent())
        assert [done.value for done in run] == [4_000_000.0]
        assert executor.num_lost == 1


def executors():
    return [
        pytest.param(InlineExecutor, id="inline"),
        pytest.param(lambda: LocalExecutor(2), id="local"),
    ]


@pytest.mark.parametrize("make", executors())
def test_a_users_error_arrives_with_all_its_sentences(make):
    with make() as executor, pytest.raises(UsageError) as caught:
        list(executor.run([Task(k, tasks.raise_user_error, k) for k in range(6)], monitor=Silent()))
    assert (caught.value.what, caught.value.why, caught.value.fix) == (
        "Five is not allowed.",
        "It is prime.",
        "Use four.",
    )


@pytest.mark.parametrize("make", executors())
def test_a_defect_names_task_exception_and_line(make):
    with make() as executor, pytest.raises(TaskFailed) as caught:
        list(executor.run([Task("seed 9", tasks.raise_defect, 9)], monitor=Silent()))
    assert not isinstance(caught.value, TaskAbandoned)
    assert "seed 9" in caught.value.what
    assert "KeyError" in caught.value.what
    assert "raise_defect" in caught.value.why


@pytest.mark.parametrize(
    "function", [tasks.raise_odd_error, tasks.return_unpicklable], ids=["error", "value"]
)
def test_what_cannot_be_pickled_is_an_error_and_no_hang(function):
    with LocalExecutor(1) as executor:
        with pytest.raises(TaskFailed, match="task-1"):
            list(executor.run([Task("task-1", function, 0)], monitor=Silent()))
        assert executor.num_lost == 0


def test_a_raised_error_is_not_tried_again_and_spares_the_executor(tmp_path):
    with LocalExecutor(2) as executor:
        for _ in range(2):
            with pytest.raises(UsageError):
                list(executor.run([Task(0, tasks.raise_user_error, 5)], monitor=Silent()))
        assert executor.num_lost == 0
        assert noises(range(3), executor).keys() == {0, 1, 2}


def test_an_interrupt_ends_working_workers_at_once():
    before = set(children())
    with LocalExecutor(2) as executor:
        start = time.monotonic()
        work = [Task(k, tasks.sleep_long, 600) for k in range(3)]
        with pytest.raises(Interrupted):
            list(executor.run(work, monitor=StoppingAfter(0.5)))
        assert time.monotonic() - start < 3
        assert set(children()) == before
    assert set(children()) == before


def test_a_run_left_in_the_middle_does_not_disturb_the_next():
    with LocalExecutor(2) as executor:
        first = executor.run([Task(k, tasks.noise, k) for k in range(30)], monitor=Silent())
        next(first)
        second = executor.run([Task(k, tasks.noise, k) for k in range(100, 130)], monitor=Silent())
        found = {next(second).key}
        first.close()
        assert found | {done.key for done in second} == set(range(100, 130))
        assert noises(range(4), executor).keys() == set(range(4))


def test_tasks_are_taken_only_as_workers_become_free():
    taken = []

    def stream():
        for number in range(20):
            taken.append(number)
            yield Task(number, tasks.square, number)

    with LocalExecutor(2) as executor:
        run = executor.run(stream(), monitor=Silent())
        next(run)
        assert len(taken) <= 5
        assert sorted(done.value for done in run)[-1] == 19**2


def test_time_that_the_caller_takes_is_not_the_workers_time():
    with LocalExecutor(1) as executor:
        work = [Task(k, tasks.sleep_in_pieces, 4) for k in range(3)]
        for _ in executor.run(work, deadline=1.0, monitor=Silent()):
            time.sleep(1.3)
        assert executor.num_lost == 0


STOPPED = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
import execution_tasks as tasks
from stages.events import Silent
from stages.execution.local import LocalExecutor
from stages.execution.protocol import Task

with LocalExecutor(1) as executor:
    (done,) = executor.run([Task(0, tasks.environment, 0)], monitor=Silent())
    print(done.value[0], flush=True)
    list(executor.run([Task(0, tasks.sleep_in_pieces, 20)], deadline=2.0, monitor=Silent()))
    print(executor.num_lost, flush=True)
"""


def test_a_run_that_is_suspended_as_a_whole_goes_on():
    """Ctrl-Z and fg: the clock went on, nobody worked, no worker is to blame."""
    code = STOPPED.format(root=str(ROOT), here=str(HERE))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        worker = int(run.stdout.readline())
        time.sleep(0.2)
        for signum in (signal.SIGSTOP, signal.SIGCONT):
            for pid in (run.pid, worker):
                os.kill(pid, signum)
            time.sleep(2.5)
        assert run.stdout.readline() == "0\n"


PARENT = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
import execution_tasks as tasks
from stages.events import Silent
from stages.execution.local import LocalExecutor
from stages.execution.protocol import Task

with LocalExecutor(3) as executor:
    pids = executor.run([Task(k, tasks.environment, k) for k in range(12)], monitor=Silent())
    print(*sorted({{done.value[0] for done in pids}}), flush=True)
    list(executor.run([Task(k, tasks.{work}, {payload}) for k in range(2)], monitor=Silent()))
"""


@pytest.mark.parametrize("work, payload", [("sleep_long", 600), ("misbehave", ("spins", 0))])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphans_when_the_parent_is_killed(work, payload, signum):
    code = PARENT.format(root=str(ROOT), here=str(HERE), work=work, payload=payload)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert pids
        time.sleep(0.2)
        parent.send_signal(signum)
        parent.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_workers_are_replaced_after_their_share_of_tasks():
    work = [Task(k, tasks.environment, None) for k in range(7)]
    monitor = Recording()
    with LocalExecutor(1, tasks_per_worker=3) as executor:
        pids = [done.value[0] for done in executor.run(work, monitor=monitor)]
        assert executor.num_lost == 0
    assert len(set(pids)) == 3
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
    assert not monitor.events  # a planned change is no loss


def test_a_worker_that_cannot_be_ended_does_not_hold_up_the_others(monkeypatch):
    """As one that hangs inside the kernel, on a network disk that is gone."""
    monkeypatch.setattr(handle, "KILL_SECONDS", 0.2)
    worker = handle.WorkerHandle()
    worker.process.kill, kill = lambda: None, worker.process.kill
    os.kill(worker.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    worker.end()
    assert time.monotonic() - began < 5
    assert "cannot be ended" in worker.ending()
    kill()
    worker.process.wait()
    worker.free()


def test_what_a_worker_lacks_is_named(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(EnvironmentLacks, match="could not be started") as refusal:
        handle.WorkerHandle()
    assert "TMPDIR" in refusal.value.fix
    monkeypatch.undo()

    def too_many(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(handle.socket, "socketpair", too_many)
    with pytest.raises(EnvironmentLacks, match="could not be started") as refusal:
        handle.WorkerHandle()
    assert "--workers" in refusal.value.fix
