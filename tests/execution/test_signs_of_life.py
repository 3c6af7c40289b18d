"""Who works may take as long as it likes; who gives no sign of life is replaced."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import execution_tasks as tasks
import numpy as np
import pytest
from command_line import wait_until
from watching import Recording

from stages.errors import NumbersBad
from stages.events import Silent
from stages.execution.handle import Job, WorkerHandle
from stages.execution.inline import InlineExecutor
from stages.execution.local import LocalExecutor
from stages.execution.protocol import Task, TaskAbandoned, TaskFailed
from stages.execution.worker import BEAT, READY, RESULT, sign_of_life

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture
def warm():
    """An executor of two workers that have loaded what the tasks need; a task has one try."""
    with LocalExecutor(2, num_retries=0) as executor:
        work = [Task(k, tasks.sleep_in_pieces, 4) for k in range(4)]
        list(executor.run(work, monitor=Silent()))
        yield executor


def test_a_task_that_gives_signs_outlives_its_deadline_many_times(warm):
    run = warm.run([Task(0, tasks.beat_in_pieces, 100)], deadline=1.0, monitor=Silent())
    assert [done.value for done in run] == [100]
    assert warm.num_lost == 0


def test_the_same_work_without_a_sign_is_given_up(warm):
    work = [Task(0, tasks.sleep_in_pieces, 100)]
    with pytest.raises(TaskAbandoned, match=r"gave no sign of life for 1 s"):
        list(warm.run(work, deadline=1.0, monitor=Silent()))


def test_a_task_whose_signs_cease_is_given_up_a_deadline_later(warm):
    start = time.monotonic()
    with pytest.raises(TaskAbandoned, match=r"gave no sign of life for 1 s") as caught:
        list(warm.run([Task(0, tasks.beat_then_hang, 40)], deadline=1.0, monitor=Silent()))
    assert 2.8 < time.monotonic() - start < 8  # two seconds of life and one without
    assert "--stall-seconds" in caught.value.fix


def test_loading_what_a_task_needs_is_progress_too(warm, tmp_path):
    names = [f"part_{number}" for number in range(40)]
    for name in names:
        (tmp_path / f"{name}.py").write_text("import time\ntime.sleep(0.1)\nVALUE = 3\n")
    run = warm.run([Task(0, tasks.load, (str(tmp_path), names))], deadline=1.0, monitor=Silent())
    assert [done.value for done in run] == [[3] * 40]
    assert warm.num_lost == 0


def test_signs_of_another_thread_do_not_count(warm):
    with pytest.raises(TaskAbandoned, match=r"gave no sign of life for 1 s"):
        list(warm.run([Task(0, tasks.beat_in_a_thread, 5)], deadline=1.0, monitor=Silent()))


def test_a_worker_that_freezes_in_its_task_is_replaced_within_the_deadline(tmp_path):
    marker = tmp_path / "frozen"
    work = [Task(k, tasks.noise, k) for k in range(6)]
    work[2] = Task(2, tasks.beat_then_stop_once, (str(marker), 2), "seeds 32-47")
    monitor = Recording()
    with LocalExecutor(2) as executor:
        found = {d.key: d.value for d in executor.run(work, deadline=3.0, monitor=monitor)}
        assert executor.num_lost == 1
    for seed in range(6):
        assert np.array_equal(found[seed], np.random.default_rng(seed).standard_normal(70_000))
    (note,) = monitor.events
    assert note.text == (
        "The worker of task 2 (seeds 32-47) gave no sign of life for 3 s; the task runs again."
    )
    assert 2.5 < monitor.times[0] - marker.stat().st_mtime < 6


def messages_of(handle, seconds=20.0):
    """Everything a worker says up to its result."""
    end = time.monotonic() + seconds
    found = []
    poller = select.poll()
    poller.register(handle.channel.fileno(), select.POLLIN)
    while not found or found[-1][0] != RESULT:
        assert time.monotonic() < end, found[-3:]
        poller.poll(100)
        handle.channel.flush()
        found += handle.channel.receive()
    return found


@pytest.fixture
def handle():
    """One worker, ready."""
    worker = WorkerHandle()
    worker.assign(Job(Task(0, tasks.square, 3), 0), deadline=None, now=time.monotonic())
    assert messages_of(worker) == [(READY, None), (RESULT, 9)]
    yield worker
    worker.end()
    worker.free()


@pytest.mark.parametrize(("deadline", "most"), [(2.0, 10), (300.0, 2)])
def test_signs_are_few_however_often_they_are_given(handle, deadline, most, tmp_path):
    """A tenth of the deadline apart, and never more than one a second."""
    task = Task(1, tasks.beat_busily, (2.0, str(tmp_path / "done")))
    handle.assign(Job(task, 0), deadline=deadline, now=time.monotonic())
    *signs, (_, num_calls) = messages_of(handle)
    assert {kind for kind, _ in signs} == {BEAT}
    assert most / 2 <= len(signs) <= most
    assert num_calls > 1000


def test_a_supervisor_that_does_not_listen_does_not_stop_the_work(handle, tmp_path):
    """A thousand signs a second, far more than a socket holds: whole frames, and no waiting."""
    marker = tmp_path / "done"
    task = Task(1, tasks.beat_busily, (2.0, str(marker)))
    handle.assign(Job(task, 0), deadline=0.01, now=time.monotonic())
    wait_until(marker.exists, seconds=20)
    *signs, (kind, num_calls) = messages_of(handle)
    assert {each for each, _ in signs} == {BEAT}
    assert 20 < len(signs) < 1500
    assert (kind, num_calls > 10_000) == (RESULT, True)


def test_signs_of_others_do_not_hide_a_dead_process(tmp_path):
    """Its connection stays open, held by a child; the others speak in every round."""
    monitor = Recording()
    work = [
        Task("dies", tasks.leave_a_child_behind, str(tmp_path / "died")),
        Task("lives", tasks.beat_in_pieces, 60),
    ]
    with LocalExecutor(2) as executor:
        list(executor.run([Task(k, tasks.square, k) for k in range(4)], monitor=Silent()))
        found = {d.key: d.value for d in executor.run(work, deadline=1.0, monitor=monitor)}
    assert found == {"dies": "second try", "lives": 60}
    assert "was killed by SIGKILL" in monitor.events[0].text


ALONE = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
import execution_tasks as tasks
from stages.events import Silent
from stages.execution.local import LocalExecutor
from stages.execution.protocol import Task

with LocalExecutor(1) as executor:
    list(executor.run([Task(0, tasks.environment, 0)], monitor=Silent()))
    print("ready", flush=True)
    (done,) = executor.run([Task(0, tasks.{work}, 70)], deadline=2.0, monitor=Silent())
    print(done.value, executor.num_lost, flush=True)
"""


@pytest.mark.parametrize("work", ["beat_in_pieces", "sleep_in_pieces"])
def test_a_supervisor_that_was_suspended_blames_nobody(work):
    """It alone was stopped, longer than the deadline; the worker went on."""
    code = ALONE.format(root=str(ROOT), here=str(HERE), work=work)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "ready\n"
        time.sleep(0.2)
        os.kill(run.pid, signal.SIGSTOP)
        time.sleep(2.8)
        os.kill(run.pid, signal.SIGCONT)
        assert run.stdout.readline() == "70 0\n"


def test_outside_of_a_worker_a_sign_is_nothing():
    sign_of_life()
    with InlineExecutor() as executor:
        (done,) = executor.run([Task(0, tasks.beat_in_pieces, 2)], monitor=Silent(), deadline=0.01)
    assert done.value == 2


def executors():
    return [
        pytest.param(InlineExecutor, id="inline"),
        pytest.param(lambda: LocalExecutor(1), id="local"),
    ]


@pytest.mark.parametrize("make", executors())
def test_bad_numbers_and_defects_name_the_seeds_of_their_task(make):
    with make() as executor:
        work = [Task(4, tasks.raise_bad_numbers, "A reward is nan.", "generation 3, seeds 7-8")]
        with pytest.raises(NumbersBad) as bad:
            list(executor.run(work, monitor=Silent()))
        work = [Task("shard-00002.h5", tasks.raise_defect, 1, "seeds 32-47")]
        with pytest.raises(TaskFailed) as failed:
            list(executor.run(work, monitor=Silent()))
    assert bad.value.what == "A reward is nan."
    assert bad.value.why == "It came up in task 4 (generation 3, seeds 7-8)."
    assert failed.value.what.startswith("Task shard-00002.h5 (seeds 32-47) failed with KeyError")


def test_a_defect_comes_with_its_workers_log():
    with LocalExecutor(1) as executor, pytest.raises(TaskFailed) as failed:
        list(executor.run([Task(0, tasks.complain_and_raise, 7)], monitor=Silent()))
    assert "KeyError: 7" in failed.value.why
    assert failed.value.why.endswith("The worker wrote:\nthe engine complains")


def test_what_is_given_up_names_its_seeds():
    with LocalExecutor(1, num_retries=0) as executor, pytest.raises(TaskAbandoned) as caught:
        list(executor.run([Task("t", tasks.die_loudly, 5, "seeds 12-27")], monitor=Silent()))
    assert caught.value.what == "Task t (seeds 12-27) was given up: it cost 1 workers."


def test_a_crash_is_shown_with_its_innermost_calls():
    with LocalExecutor(1, num_retries=0) as executor, pytest.raises(TaskAbandoned) as caught:
        list(executor.run([Task(0, tasks.crash_deep_down, 200)], monitor=Silent()))
    assert "last words\nFatal Python error: Segmentation fault" in caught.value.why
    assert "in innermost_call" in caught.value.why
    assert len(caught.value.why) < 3000
