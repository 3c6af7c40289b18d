"""A training step's batch cut into parts, each computed by a thread of its own.

Threads that share every layer meet hundreds of times in a step, and where waking one takes long, as
on a virtual machine, two are slower than one. Threads that share the batch meet once
(docs/experiments.md). A part has 16 rows at least; where there are more threads than that allows, a
few share the layers of each part. Losses and gradients of the parts are summed in their order, so a
step depends on the number of threads, which is recorded, and not on how fast each of them was.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch

from stages.training.device import memory_kept, use_threads

MIN_ROWS = 16  # of a part: below it, a matrix product costs as much as one of 16 rows
LOOK_SECONDS = 0.5  # between two looks at signals

Scalars = Mapping[str, torch.Tensor]  # means over the rows of a part; "loss" is minimised


@dataclass(frozen=True)
class Part:
    """Some rows of a batch."""

    weight: float  # of its means in those of the batch; all parts of a step together have 1
    compute: Callable[[], Scalars]  # a function of the step and the model alone


@dataclass(frozen=True)
class Summed:
    """What all parts of a step amount to."""

    scalars: dict[str, float]
    gradients: list[torch.Tensor | None]  # of "loss"; None where it does not depend on a tensor


def cut_rows(num_rows: int, *, num_threads: int, device: torch.device) -> list[slice]:
    """Rows of the parts of a batch: one part per thread that finds enough to do; one on a GPU."""
    wanted = min(num_threads, num_rows // MIN_ROWS) if device.type == "cpu" else 1
    num_parts = max(1, wanted)
    stops = [num_rows * place // num_parts for place in range(num_parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(stops)]


class Crew:
    """Threads that compute parts side by side, with the math threads shared out among them."""

    def __init__(self, pool: ThreadPoolExecutor, num_threads: int) -> None:
        self._pool = pool
        self._num_threads = num_threads

    def learn(self, parts: Sequence[Part], parameters: Iterable[torch.Tensor]) -> Summed:
        """Weighted sums of the parts' scalars and of the gradients of their losses."""
        wanted = list(parameters)
        each = max(1, self._num_threads // len(parts))
        # None of them in this thread, so that a signal can end the wait for a step that takes long.
        running = [self._pool.submit(_learn, part, wanted, each) for part in parts]
        while wait(running, timeout=LOOK_SECONDS).not_done:
            pass  # a signal that comes just before the wait does not end it
        learnt = [one.result() for one in running]
        use_threads(self._num_threads)
        total = learnt[0]
        for one in learnt[1:]:
            for name, value in one.scalars.items():
                total.scalars[name] += value
            for place, gradient in enumerate(one.gradients):
                if gradient is not None:
                    known = total.gradients[place]
                    total.gradients[place] = gradient if known is None else known.add_(gradient)
        return total


@contextmanager
def crew(num_threads: int) -> Iterator[Crew]:
    """A crew of so many math threads; outside `learn` this thread has all of them."""
    with memory_kept():
        pool = ThreadPoolExecutor(num_threads, "part")
        patient = True
        try:
            yield Crew(pool, num_threads)
        except KeyboardInterrupt:  # StopNow is one
            patient = False  # nobody needs the step that they compute
            raise
        finally:
            pool.shutdown(wait=patient, cancel_futures=True)
            use_threads(num_threads)


def _learn(part: Part, parameters: Sequence[torch.Tensor], num_threads: int) -> Summed:
    use_threads(num_threads)  # of this thread
    scalars = part.compute()
    loss = scalars["loss"] * part.weight
    gradients: list[torch.Tensor | None] = [
        *torch.autograd.grad(loss, parameters, allow_unused=True)
    ]
    names = list(scalars)
    values = torch.stack([scalars[name].detach() for name in names]).tolist()
    found = {name: part.weight * value for name, value in zip(names, values, strict=True)}
    return Summed(found, gradients)
