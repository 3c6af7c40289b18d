"""The loop that every train-* stage runs: Adam steps that can be stopped and gone on with.

Stopped after any step and resumed from its TrainingState, a run on the CPU with the same number
of threads equals the uninterrupted one bit for bit, its metrics included.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from stages.artifacts.weights import Tensors, check_shapes
from stages.errors import Interrupted, NumbersBad, StopNow
from stages.events import Advanced, Monitor
from stages.training.adam import Adam
from stages.training.device import Holes
from stages.training.parts import Crew, Part, Summed, crew

LOOK_EVERY = 10  # steps: in 50 that are all different 3 GB are lost
MODEL, MEAN, SQUARE, SUMS = "model/", "adam/mean/", "adam/square/", "sums/"

Loss = Callable[[int], Sequence[Part]]  # the parts of a step's batch
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn, resolved from a stage's Config."""

    section: str  # of the recipe, for messages
    seed: int  # for messages
    num_steps: int
    learning_rate: float
    rate_decay: float = 1.0  # the rate is min_rate + (learning_rate - min_rate) * decay**step
    min_rate: float = 0.0
    clip: float = 0.0  # every element of the gradient to +-clip; 0: as it is
    log_every: int = 100  # steps per line of metrics, which holds their means
    checkpoint_seconds: float = 60.0  # decides when a checkpoint is written, never what is in it

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        return self.min_rate + (self.learning_rate - self.min_rate) * self.rate_decay**step


@dataclass(frozen=True)
class TrainingState:
    """Everything needed to go on after `step` steps; plain arrays, for safetensors."""

    step: int
    tensors: Tensors = field(repr=False)

    def weights(self) -> Tensors:
        """The model's own arrays, as its state_dict names them."""
        return {
            name.removeprefix(MODEL): array
            for name, array in self.tensors.items()
            if name.startswith(MODEL)
        }


def fit(
    model: torch.nn.Module,
    loss: Loss,
    plan: Plan,
    *,
    save: Callable[[TrainingState], None],
    log: Callable[[Metrics], None],
    monitor: Monitor,
    state: TrainingState | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TrainingState:
    """Train `model` in place until plan.num_steps and return the last state.

    Args:
        model: on its device, with its initial weights.
        loss: the parts of one step, functions of the step and the model alone: noise comes from
            generators seeded with the step. The math threads are shared out among them.
        plan: how.
        save: stores a checkpoint; called every plan.checkpoint_seconds, on interruption and at
            the end, and never with a state that is not finite.
        log: receives the metrics of every plan.log_every steps; on resume the caller has cut
            the lines whose `step` lies behind the restored one.
        monitor: told of and polled at every step.
        state: where to go on; None starts.
        clock: seconds.

    Raises:
        NumbersBad: the loss or its gradient is not finite; the last checkpoint stays.
        Interrupted, StopNow: the monitor said so, or the caller's signals; a checkpoint is saved
            first, unless StopNow came while the weights were being changed.
    """
    with crew(torch.get_num_threads()) as threads:
        trainer = _Trainer(model, loss, plan, threads)
        if state is not None:
            trainer.restore(state)
        saved_step, saved_at, holes = trainer.step, clock(), Holes()
        model.train()
        try:
            while trainer.step < plan.num_steps:
                monitor.poll()
                value = trainer.advance(trainer.learn(), saved_step)
                if trainer.step % plan.log_every == 0:
                    log(trainer.take_means())
                if trainer.step % LOOK_EVERY == 0:
                    holes.look()
                trainer.whole = True
                monitor.emit(Advanced(trainer.step, plan.num_steps, "steps", f"loss {value:.4g}"))
                if clock() - saved_at >= plan.checkpoint_seconds:
                    save(trainer.state(saved_step))
                    saved_step, saved_at = trainer.step, clock()
            last = trainer.state(saved_step)
            if trainer.step > saved_step:
                save(last)
        except (Interrupted, StopNow):
            if trainer.whole and trainer.step > saved_step:
                save(trainer.state(saved_step))
            raise
    return last


def check_errors(errors: Metrics, *, section: str, step: int) -> None:
    """Refuse errors of a trained model that are no finite numbers, before they are recorded."""
    for name, value in errors.items():
        if not np.isfinite(value):
            raise NumbersBad(
                f"{name} on held-out episodes is {value} after {section} step {step}.",
                why=f"The weights of step {step} are kept, and finite.",
                fix=f"Look at what this stage reads, or train again with a smaller "
                f"{section}.learning_rate.",
            )


class _Trainer:
    """Model, optimiser and the sums behind the next line of metrics."""

    def __init__(self, model: torch.nn.Module, loss: Loss, plan: Plan, threads: Crew) -> None:
        self.step = 0
        self.whole = True  # weights, moments, sums and log belong to the same step
        self._model, self._loss, self._plan, self._threads = model, loss, plan, threads
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._adam = Adam(self._trained.values(), fused=True)
        self._sums: dict[str, float] = {}

    def learn(self) -> Summed:
        """Loss and gradients of the next step; changes nothing, and may be broken off."""
        return self._threads.learn(self._loss(self.step), self._trained.values())

    def advance(self, learnt: Summed, saved_step: int) -> float:
        """One step of Adam; the loss before it. Not `whole` again before the step is logged."""
        self.whole = False
        found = learnt.scalars
        self._require_finite(f"loss of {self._place}", found["loss"], saved_step)
        for (name, parameter), gradient in zip(
            self._trained.items(), learnt.gradients, strict=True
        ):
            assert gradient is not None, f"the loss does not depend on {name}"
            parameter.grad = gradient.contiguous()  # fused Adam reads it as it lies in memory
        found["grad_norm"] = self._gradient_norm()
        self._require_finite(f"gradient of {self._place}", found["grad_norm"], saved_step)
        if self._plan.clip:
            torch.nn.utils.clip_grad_value_(self._trained.values(), self._plan.clip)
        self._adam.step(self._plan.rate(self.step))
        self.step += 1
        for name, value in found.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        return float(found["loss"])

    def _gradient_norm(self) -> float:
        """Euclidean norm over all parameters, before clipping."""
        gradients = [p.grad for p in self._trained.values() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def take_means(self) -> dict[str, float]:
        """Means since the last call, for one line of metrics."""
        # Sorted, as sums come back from a checkpoint: a resumed run writes the same bytes.
        means = {name: self._sums[name] / self._plan.log_every for name in sorted(self._sums)}
        self._sums = {}
        return {"step": self.step, "learning_rate": self._plan.rate(self.step - 1), **means}

    def state(self, saved_step: int) -> TrainingState:
        """A copy of everything; NumbersBad when the weights are not finite."""
        tensors = {MODEL + name: _copy(t) for name, t in self._model.state_dict().items()}
        for name, parameter in self._trained.items():
            moments = self._adam.moments(parameter)
            tensors[MEAN + name] = _copy(moments.mean)
            tensors[SQUARE + name] = _copy(moments.square)
        for name, value in self._sums.items():
            tensors[SUMS + name] = np.array([value])
        for name, array in tensors.items():
            finite = np.isfinite(array)
            if not finite.all():
                bad = float(array[~finite][0])
                self._require_finite(f"array {name} after {self._place}", bad, saved_step)
        return TrainingState(self.step, tensors)

    def restore(self, state: TrainingState) -> None:
        """Take over a state; ArtifactDamaged when it is not one of this model."""
        sums = {name: a for name, a in state.tensors.items() if name.startswith(SUMS)}
        expected = {**self._shapes(), **dict.fromkeys(sums, (1,))}
        check_shapes(state.tensors, expected, source="The checkpoint's arrays")
        weights = {name: torch.from_numpy(array.copy()) for name, array in state.weights().items()}
        self._model.load_state_dict(weights)
        self.step = state.step
        self._sums = {name.removeprefix(SUMS): float(a.item()) for name, a in sums.items()}
        if state.step == 0:
            return
        for name, parameter in self._trained.items():
            mean, square = (torch.tensor(state.tensors[kind + name]) for kind in (MEAN, SQUARE))
            self._adam.restore(parameter, mean, square, state.step)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {MODEL + name: tuple(t.shape) for name, t in self._model.state_dict().items()}
        for name, parameter in self._trained.items():
            shapes[MEAN + name] = shapes[SQUARE + name] = tuple(parameter.shape)
        return shapes

    @property
    def _place(self) -> str:
        return f"{self._plan.section} step {self.step}"

    def _require_finite(self, what: str, value: float, saved_step: int) -> None:
        if np.isfinite(value):
            return
        section, slower = self._plan.section, self._plan.learning_rate / 10
        kept = f"that of step {saved_step}" if saved_step else "the initial one"
        # No step has been taken before step 0: what it learns from, or starts from, is to blame.
        rate = f"Try a smaller rate: --set {section}.learning_rate={slower:g}"
        data = "Nothing was learnt yet, so it is not the rate: look at what this stage reads."
        raise NumbersBad(
            f"The {what} is {value} (seed {self._plan.seed}).",
            why=f"The last good state is kept: {kept}.",
            fix=rate if self.step else data,
        )


def _copy(tensor: torch.Tensor) -> NDArray[np.generic]:
    """An array of its own: the optimiser goes on writing into the tensor."""
    return np.array(tensor.detach().cpu().numpy())
