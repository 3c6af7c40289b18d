"""A training run inside a partial: its device and threads, its checkpoints, its metrics.

Checkpoints are safetensors; the last two are kept, and the newest whose bytes are those that were
written is taken. Lines of metrics behind it are cut, so that a resumed run writes them again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from stages.artifacts.metrics import METRICS, MetricsLog
from stages.artifacts.partial import Partial
from stages.artifacts.plain import COUNT
from stages.artifacts.scores import parse_log
from stages.artifacts.weights import pack_tensors, unpack_tensors
from stages.contracts import Resources
from stages.errors import ArtifactDamaged
from stages.events import Monitor, Noted
from stages.training.device import is_present, resolve_device, use_threads
from stages.training.loop import Loss, Metrics, Plan, TrainingState, fit

SUFFIX = ".checkpoint.safetensors"
HELD_OUT = "/held_out/"  # in the names of what is measured when training is over
KEPT = 2  # checkpoints


def settle(
    partial: Partial, resources: Resources, *, progress: Monitor
) -> tuple[torch.device, int]:
    """The device and the math threads of a run: those that it began with, if it did."""
    device = settle_device(partial, resources, progress=progress)
    threads = use_threads(partial.recorded().get("threads", resources.threads))
    partial.record({"threads": threads})
    if resources.threads and resources.threads != threads:
        progress.emit(Noted(f"Going on with {threads} math threads: the run began with them."))
    return device, threads


def settle_device(partial: Partial, resources: Resources, *, progress: Monitor) -> torch.device:
    """The device of a run: the one that it began on, where there is one of its kind."""
    begun = partial.recorded().get("device")
    if begun is None or not is_present(begun):
        device = resolve_device(resources.device)
        if begun is not None:
            there = f"The run began on {begun}, which is not here"
            progress.emit(Noted(f"{there}: it goes on on {device.type}."))
    else:
        device = resolve_device(begun)
        if resources.device not in {"auto", begun}:
            progress.emit(Noted(f"Going on on {begun}: the run began there."))
    partial.record({"device": device.type})
    return device


class Session:
    """Where a training run keeps what it needs to be gone on with."""

    def __init__(self, partial: Partial, resources: Resources, *, progress: Monitor) -> None:
        self._partial = partial
        self._progress = progress
        self._metrics = MetricsLog(partial, progress)
        self._checkpoint_seconds = resources.checkpoint_seconds
        self._num_lines = 0  # of metrics
        self.device, self.threads = settle(partial, resources, progress=progress)

    def fit(
        self,
        model: torch.nn.Module,
        loss: Loss,
        plan: Plan,
        *,
        prefix: str,
    ) -> TrainingState:
        """Train in place, from the newest checkpoint if there is one; metrics get the prefix."""
        return fit(
            model,
            loss,
            replace(plan, checkpoint_seconds=self._checkpoint_seconds),
            save=self._save,
            log=self._logger(prefix),
            monitor=self._progress,
            state=self._restore(),
        )

    def log(self, metrics: Metrics) -> None:
        """Add one line to the metrics."""
        self._metrics.add(metrics)
        self._num_lines += 1

    def log_held_out(self, step: int, prefix: str, errors: Metrics) -> None:
        """Add the line of what was measured on held-out episodes after the last step."""
        self.log({"step": step, **{f"{prefix}{HELD_OUT}{k}": v for k, v in errors.items()}})

    def _logger(self, prefix: str) -> Callable[[Metrics], None]:
        def log(metrics: Metrics) -> None:
            named = {f"{prefix}/{name}": value for name, value in metrics.items() if name != "step"}
            self.log({"step": metrics["step"], **named})

        return log

    def _save(self, state: TrainingState) -> None:
        name = f"step-{state.step:09d}{SUFFIX}"
        self._partial.seal(METRICS)
        told = {"step": str(state.step), "lines": str(self._num_lines)}
        self._partial.write(name, pack_tensors(state.tensors, told))
        for old in self._partial.names(SUFFIX)[:-KEPT]:
            self._partial.remove(old)

    def _restore(self) -> TrainingState | None:
        """The state to go on from; the metrics are cut behind its step."""
        lines = self._partial.lines(METRICS)
        records = parse_log(lines, source=METRICS, rules={"step": COUNT})
        steps = [None if _is_final(one) else one["step"] for one in records]
        state = self._newest([step for step in steps if step is not None])
        step = state.step if state is not None else 0
        pairs = zip(lines, records, steps, strict=True)
        kept = [(line, record) for line, record, one in pairs if one is not None and one <= step]
        self._partial.keep_lines(METRICS, [line for line, _ in kept])
        self._metrics.tell([record for _, record in kept])
        self._num_lines = len(kept)
        return state

    def _newest(self, steps: Sequence[int]) -> TrainingState | None:
        """The newest checkpoint whose bytes, and whose metrics, are those that were written."""
        names = self._partial.names(SUFFIX)
        for number, name in reversed(list(enumerate(names))):
            content = self._partial.read(name)
            if content is None:
                continue
            tensors, told = unpack_tensors(content)
            step = _told(told, "step", source=name)
            num_lines = sum(one <= step for one in steps)
            if _told({"lines": str(num_lines), **told}, "lines", source=name) == num_lines:
                for damaged in names[number + 1 :]:
                    self._partial.remove(damaged)
                return TrainingState(step, tensors)
        if names:
            raise ArtifactDamaged(
                f"No checkpoint in {self._partial.path} can be gone on from.",
                why="They, or the metrics up to them, differ from what was written.",
                fix=f"Start again: remove {self._partial.path}",
            )
        return None


def _told(metadata: Mapping[str, str], name: str, *, source: str) -> int:
    """A whole number that stands beside the arrays of a checkpoint."""
    text = metadata.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ArtifactDamaged(f"{source} has {text!r:.60} as its {name}.")
    return int(text)


def _is_final(record: Mapping[str, Any]) -> bool:
    """Whether a line was written after training; a resumed run writes it again."""
    return any(HELD_OUT in name for name in record)
