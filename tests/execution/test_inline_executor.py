"""InlineExecutor: the same answers in this process."""

import execution_tasks as tasks
import pytest

from stages.errors import Interrupted
from stages.events import Silent
from stages.execution.inline import InlineExecutor
from stages.execution.protocol import Task


def test_results_come_in_the_order_of_the_tasks():
    with InlineExecutor() as executor:
        work = [Task(f"t{k}", tasks.square, k) for k in (3, 1, 2)]
        found = [(done.key, done.value) for done in executor.run(work, monitor=Silent())]
    assert found == [("t3", 9), ("t1", 1), ("t2", 4)]


def test_a_monitor_stops_it_between_tasks():
    class StopsAtThird(Silent):
        polls = 0

        def poll(self):
            self.polls += 1
            if self.polls == 3:
                raise Interrupted("stopped")

    work = [Task(k, tasks.square, k) for k in range(9)]
    with InlineExecutor() as executor:
        run = executor.run(work, monitor=StopsAtThird())
        assert [next(run).key, next(run).key] == [0, 1]
        with pytest.raises(Interrupted):
            next(run)
