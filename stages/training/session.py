"""A training run inside a partial: its device and threads, its checkpoints, its metrics.

Checkpoints are safetensors whose digests stand in the partial's state; the last two are kept and
the newest that verifies is taken. Lines of metrics behind it are cut, so that a resumed run
writes them again.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from stages.artifacts.disk import digest_bytes
from stages.artifacts.partial import Partial
from stages.artifacts.scores import log_line, parse_log
from stages.artifacts.weights import pack_tensors, unpack_tensors
from stages.contracts import Resources
from stages.errors import ArtifactDamaged
from stages.events import Monitor, Noted
from stages.training.device import resolve_device, use_threads
from stages.training.loop import Loss, Metrics, Plan, TrainingState, fit

METRICS = "metrics.jsonl"
SUFFIX = ".checkpoint.safetensors"
HELD_OUT = "/held_out/"  # in the names of what is measured when training is over
KEPT = 2  # checkpoints


class Session:
    """Where a training run keeps what it needs to be gone on with."""

    def __init__(self, partial: Partial, resources: Resources, *, progress: Monitor) -> None:
        self._partial = partial
        self._progress = progress
        self._checkpoint_seconds = resources.checkpoint_seconds
        recorded = partial.recorded()
        self.device: torch.device = resolve_device(recorded.get("device", resources.device))
        self.threads = use_threads(recorded.get("threads", resources.threads))
        partial.record({"device": self.device.type, "threads": self.threads})
        if resources.threads and resources.threads != self.threads:
            progress.emit(
                Noted(f"Going on with {self.threads} math threads: the run began with them.")
            )

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
        self._partial.append(METRICS, log_line(metrics))

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
        content = pack_tensors(state.tensors, {"step": str(state.step)})
        self._partial.write(name, content)
        digests = self._partial.recorded().get("checkpoints", {})
        kept = dict(sorted({**digests, name: digest_bytes(content)}.items())[-KEPT:])
        self._partial.record({"checkpoints": kept})
        for old in self._partial.names(SUFFIX):
            if old not in kept:
                self._partial.remove(old)

    def _restore(self) -> TrainingState | None:
        state = self._newest()
        step = state.step if state is not None else 0
        lines = self._partial.lines(METRICS)
        records = parse_log(lines, source=METRICS)
        pairs = zip(lines, records, strict=True)
        kept = [line for line, one in pairs if one["step"] <= step and not _is_final(one)]
        self._partial.keep_lines(METRICS, kept)
        return state

    def _newest(self) -> TrainingState | None:
        """The newest checkpoint whose bytes are those that were written."""
        digests = self._partial.recorded().get("checkpoints", {})
        for name in sorted(digests, reverse=True):
            content = self._partial.read(name)
            if content is not None and digest_bytes(content) == digests[name]:
                tensors, metadata = unpack_tensors(content)
                return TrainingState(int(metadata["step"]), tensors)
            self._progress.emit(Noted(f"The checkpoint {name} is damaged; left out.", warning=True))
        if digests:
            raise ArtifactDamaged(
                f"No checkpoint in {self._partial.path} is whole.",
                why="Every one differs from what was written.",
                fix=f"Start again: remove {self._partial.path}",
            )
        return None


def _is_final(record: Mapping[str, Any]) -> bool:
    """Whether a line was written after training; a resumed run writes it again."""
    return any(HELD_OUT in name for name in record)
