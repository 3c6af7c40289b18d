"""The executor of one machine: worker processes under a supervisor of our own.

The standard pools hang or lose tasks when a worker is killed. Here every worker has its own
channel; a worker that dies or gives no sign of life is replaced and its task runs again elsewhere.
POSIX only: it needs socketpair, poll and passing of descriptors.
"""

import itertools
import select
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from stages.errors import StageError
from stages.events import Monitor, Noted
from stages.execution.handle import Job, WorkerHandle
from stages.execution.protocol import Done, Task, TaskAbandoned, TaskFailed
from stages.execution.worker import FAILURE

TICK = 0.2  # seconds between looks at signals, clocks and processes
AWAY = 1.0  # the supervisor itself was stopped or busy when a round took longer
TASKS_PER_WORKER = 200  # then a fresh process: some engines leak (EnvPool 3 MB per pool of 16)
CLOSE_SECONDS = 1.0  # that workers get to end by themselves


@dataclass
class _Run:
    """The state of one call of run()."""

    number: int
    waiting: Iterator[Task]
    monitor: Monitor
    deadline: float | None  # seconds without a sign of life
    again: deque[Job] = field(default_factory=deque)  # jobs whose worker was lost
    failure: StageError | None = None

    def next_job(self) -> Job | None:
        """Lost jobs first, then the next task; None when there is nothing left to give out."""
        if self.again:
            return self.again.popleft()
        task = next(self.waiting, None)
        return None if task is None else Job(task, self.number)


class LocalExecutor:
    """Exactly `num_workers` processes, started at the first run and kept between runs."""

    def __init__(
        self,
        num_workers: int,
        *,
        num_retries: int = 2,
        tasks_per_worker: int = TASKS_PER_WORKER,
    ) -> None:
        assert num_workers > 0, f"num_workers = {num_workers}; see cores.resolve_workers"
        self.num_workers = num_workers
        self.num_lost = 0
        self._num_retries = num_retries
        self._tasks_per_worker = tasks_per_worker
        self._numbers = itertools.count()
        self._workers: list[WorkerHandle] = []
        self._seen = 0.0

    def run(
        self, tasks: Iterable[Task], *, monitor: Monitor, deadline: float | None = None
    ) -> Iterator[Done]:
        """Yield results as they complete; see protocol.Executor.run."""
        run = _Run(next(self._numbers), iter(tasks), monitor, deadline)
        self._prepare()
        try:
            self._give_out(run)
            while self._busy(run):
                monitor.poll()
                finished = self._round(run)
                if run.failure is None:
                    self._give_out(run)  # before yielding: workers work while the caller does
                yield from finished
                if run.failure is not None:
                    raise run.failure
        finally:
            self._abandon(run)

    def close(self) -> None:
        """End all workers: idle ones by themselves, the others by force."""
        for worker in self._workers:
            worker.hang_up()
        give_up = time.monotonic() + CLOSE_SECONDS
        for worker in list(self._workers):
            self._drop(worker, patience=max(0.0, give_up - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        """All workers there, alive, and without jobs of an earlier run."""
        self._seen = time.monotonic()
        for worker in list(self._workers):
            worker.hear(self._seen)
            if worker.job is not None or not worker.channel.open:
                self._drop(worker)
        while len(self._workers) < self.num_workers:
            self._start()

    def _busy(self, run: _Run) -> bool:
        return any(self._of(run))

    def _of(self, run: _Run) -> Iterator[WorkerHandle]:
        """Workers that have a job of this run."""
        for worker in self._workers:
            if worker.job is not None and worker.job.run == run.number:
                yield worker

    def _give_out(self, run: _Run) -> None:
        """A job for every idle worker, as far as there are any; lost workers are started again."""
        idle = [worker for worker in self._workers if worker.job is None]
        for place in range(len(idle) + self.num_workers - len(self._workers)):
            job = run.next_job()
            if job is None:
                return
            worker = idle[place] if place < len(idle) else self._start()
            worker.assign(job, deadline=run.deadline, now=time.monotonic())

    def _start(self) -> WorkerHandle:
        worker = WorkerHandle()
        self._workers.append(worker)
        return worker

    def _round(self, run: _Run) -> list[Done]:
        """Wait until something happens, at most a tick; results that came in."""
        spoke = self._wait()
        now = time.monotonic()
        away, self._seen = now - self._seen, now
        finished = []
        for worker in list(self._workers):
            if away > AWAY:
                worker.postpone(away)
            if worker in spoke:
                finished += self._listen(worker, run, now)
            elif late := worker.overdue(now):
                self._lose(worker, run, late)
            elif worker.process.poll() is not None:
                self._lose(worker, run, worker.ending())
        return finished

    def _wait(self) -> list[WorkerHandle]:
        """Workers whose channel can be read or written."""
        poller = select.poll()
        by_descriptor = {worker.channel.fileno(): worker for worker in self._workers}
        for descriptor, worker in by_descriptor.items():
            writing = select.POLLOUT if worker.channel.pending else 0
            poller.register(descriptor, select.POLLIN | writing)
        return [by_descriptor[found] for found, _ in poller.poll(TICK * 1000)]

    def _listen(self, worker: WorkerHandle, run: _Run, now: float) -> list[Done]:
        """Results from one worker; notes its failure or its end."""
        finished = []
        for kind, content in worker.hear(now):
            job, worker.job = worker.job, None
            worker.num_done += 1
            assert job is not None, "an answer without a job"
            if kind == FAILURE:
                run.failure = run.failure or _with_log(content, worker.log_tail())
            else:
                finished.append(Done(job.task.key, content))
        if not worker.channel.open:
            worker.end(patience=CLOSE_SECONDS)  # so that its exit status is known
            self._lose(worker, run, worker.ending())
        elif worker.job is None and worker.num_done >= self._tasks_per_worker:
            worker.hang_up()
            self._drop(worker, patience=CLOSE_SECONDS)
        return finished

    def _lose(self, worker: WorkerHandle, run: _Run, how: str) -> None:
        """Drop a worker that died or hangs; its job runs again unless it has had its tries."""
        job, log = worker.job, worker.log_tail()
        self._drop(worker)
        run.monitor.poll()  # a signal to the whole group also ends the workers
        self.num_lost += 1
        if job is None:
            return
        job.num_losses += 1
        if job.num_losses > self._num_retries:
            run.failure = run.failure or _abandoned(job, how, log)
            return
        text = f"The worker of task {job.task} {how}; the task runs again."
        run.monitor.emit(Noted(text, warning=True))
        run.again.append(job)

    def _drop(self, worker: WorkerHandle, *, patience: float = 0.0) -> None:
        worker.end(patience=patience)
        worker.free()
        self._workers.remove(worker)

    def _abandon(self, run: _Run) -> None:
        """Kill what still works for this run, fast: nobody waits for it any more."""
        for worker in list(self._of(run)):
            self._drop(worker)


def _with_log(failure: StageError, log: str) -> StageError:
    """A defect's last words: what its worker wrote besides the exception."""
    if isinstance(failure, TaskFailed) and log:
        failure.why += f"\nThe worker wrote:\n{log}"
    return failure


def _abandoned(job: Job, how: str, log: str) -> TaskAbandoned:
    killed = " Often that means that the memory ran out." if "SIGKILL" in how else ""
    written = f" The worker wrote:\n{log}" if log else " The worker wrote nothing."
    slow = " To wait longer for a slow machine: --stall-seconds." if "sign of life" in how else ""
    return TaskAbandoned(
        f"Task {job.task} was given up: it cost {job.num_losses} workers.",
        why=f"The last one {how}.{killed}{written}",
        fix=f"Try fewer workers.{slow} Finished tasks are kept: the same command goes on from "
        "there.",
    )
