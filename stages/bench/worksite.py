"""Where a benchmark works: a temporary workspace, warm workers, and models with fresh weights.

Everything lies in one temporary folder and is gone afterwards. Settings are those of the recipe
`carracing` with its preset `quick`, as a user would have them on this machine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from stages import stage_named, stage_writing
from stages.agents import AgentFiles
from stages.artifacts.artifact import Artifact
from stages.artifacts.disk import write_file
from stages.artifacts.weights import pack_tensors
from stages.artifacts.workspace import Workspace
from stages.contracts import Job, Resources
from stages.events import Advanced, Event, Monitor
from stages.execution.cores import resolve_workers
from stages.execution.local import LocalExecutor
from stages.execution.protocol import Task
from stages.families import build_memory, build_vision
from stages.pipeline import Prepared, Request, prepare, verb

if TYPE_CHECKING:
    import torch

    from stages.control.pilot import PilotShape

RECIPE, PRESET, SEED = "carracing", "quick", 1
LAP_SECONDS = 3600.0  # a lap gives no sign of life: after so long its worker hangs
MANY = 10**9  # a worker that were replaced would have to warm up again

Value = TypeVar("Value")


@dataclass(frozen=True)
class Sizes:
    """How much work a lap is; shrunk by --quick and by tests, never by the clock."""

    rounds: int = 5
    recording_lanes: int = 16  # episodes per worker and lap
    episode_actions: int = 100  # of a recorded episode, ours and the plain one
    control_lanes: int = 64  # of all workers together
    control_actions: int = 50  # of a driven episode, ours and the plain one
    raw_lanes: int = 64  # of EnvPool
    raw_steps: int = 50  # of every raw lane per lap
    vision_steps: int = 20
    encoding_batches: int = 16  # resident batches per worker and lap
    memory_steps: int = 20
    matrix_size: int = 2048
    matrix_seconds: float = 0.4
    dream_lanes: tuple[int, ...] = (64, 512, 4096)
    dream_lane_steps: int = 60_000  # steps of all lanes together per lap
    compiled: bool = True  # the dream's draw: half a minute before it is warm
    plain_dream_steps: int = 300  # per worker and lap
    disk_bytes: int = 16 * 10**6
    learning_steps: tuple[int, int] = (120, 150)  # of V and of M; 0 leaves the check out


class StepClock:
    """A monitor that notes when training steps ended and shows nothing; signals still stop."""

    def __init__(self, outer: Monitor, clock: Callable[[], float]) -> None:
        self._outer, self._clock = outer, clock
        self.times: list[float] = []

    def emit(self, event: Event) -> None:
        """Note the time of a step."""
        if isinstance(event, Advanced) and event.unit == "steps":
            self.times.append(self._clock())

    def poll(self) -> None:
        """Ask the outer monitor."""
        self._outer.poll()


class Worksite:
    """What the rows share: the workspace, the workers, the device, the models."""

    def __init__(
        self,
        root: Path,
        executor: LocalExecutor,
        *,
        sizes: Sizes,
        device: "torch.device",
        progress: Monitor,
    ) -> None:
        self.root, self.sizes, self.device, self.progress = root, sizes, device, progress
        self.cores = executor.num_workers
        self._executor = executor

    @cached_property
    def prepared(self) -> Prepared:
        """The temporary workspace with the settings that hold on this machine."""
        sizes = self.sizes
        episodes = sizes.rounds * self.cores * sizes.recording_lanes
        request = Request(
            recipe=RECIPE,
            preset=PRESET,
            seed=SEED,
            overrides=(
                f"rollout.episodes={max(2, episodes)}",
                f"rollout.task_episodes={sizes.recording_lanes}",
                f"rollout.max_steps={sizes.episode_actions}",
                "rollout.patience=0",
            ),
            resources=Resources(workers=self.cores, device=self.device.type, threads=self.cores),
        )
        return prepare(self.root / "workspace", request, progress=self.quiet())

    @property
    def workspace(self) -> Workspace:
        """The temporary workspace."""
        return self.prepared.workspace

    @property
    def job(self) -> Job:
        """World, seed and resources, for every stage."""
        return self.prepared.job

    def config(self, command: str) -> Any:
        """The settings of a stage."""
        return self.prepared.config(stage_named(command))

    def quiet(self) -> StepClock:
        """A monitor for what a stage says while it is measured."""
        from time import perf_counter

        return StepClock(self.progress, perf_counter)

    def make(self, command: str, monitor: Monitor, *, seed: int = SEED, **changes: Any) -> Artifact:
        """Run a stage in the temporary workspace with these settings changed."""
        stage = stage_named(command)
        config = replace(self.config(command), **changes)
        job = replace(self.job, seed=seed, force=True)
        report = verb(stage).run(self.workspace, config, job, progress=monitor)
        assert report.artifact is not None, f"{command} made nothing"
        return self.workspace.get(report.artifact)

    def artifact(self, kind: str) -> Artifact:
        """The newest artifact of a kind; the cheapest one that will do where there is none."""
        found = self.workspace.newest(kind)
        if found is not None:
            return found
        stage = stage_writing(kind)
        for parent in stage.reads:
            self.artifact(parent)
        changes = {"steps": 1} if kind == "vision" else {}
        config = replace(self.config(stage.name), **changes)
        verb(stage).run(self.workspace, config, self.job, progress=self.quiet())
        return self.artifact(kind)

    def everywhere(self, function: Callable[[Any], Value], payloads: Sequence[Any]) -> list[Value]:
        """Results of the function for every payload, in order, spread over the workers."""
        tasks = [Task(number, function, payload) for number, payload in enumerate(payloads)]
        quiet = self.quiet()
        finished = self._executor.run(tasks, monitor=quiet, deadline=LAP_SECONDS)
        by_number = {done.key: done.value for done in finished}
        return [by_number[number] for number in range(len(tasks))]

    def total(self, function: Callable[[Any], float], payloads: Sequence[Any]) -> float:
        """Units of work that the function returns for these payloads, spread over the workers."""
        return float(sum(self.everywhere(function, payloads)))

    @cached_property
    def models(self) -> "Models":
        """V and M with fresh weights, on disk as a stage would leave them."""
        shape = {"latent_size": self.config("train-vision").latent_size}
        memory = self.config("train-memory")
        memory_shape = {
            **shape,
            "action_size": 3,
            "hidden_size": memory.hidden_size,
            "num_mixtures": memory.num_mixtures,
            "reward_head": False,
            "end_head": False,
            "restart_flag": False,
            "min_log_sigma": memory.min_log_sigma,
        }
        vision_path, memory_path = self.root / "vision.safetensors", self.root / "m.safetensors"
        write_file(vision_path, _packed(build_vision(shape, seed=SEED)))
        write_file(memory_path, _packed(build_memory(memory_shape, seed=SEED)))
        return Models(str(vision_path), shape, str(memory_path), memory_shape)


@dataclass(frozen=True)
class Models:
    """Files of V and M and their shapes; plain, so that a worker can be told."""

    vision: str
    vision_shape: Mapping[str, Any]
    memory: str
    memory_shape: Mapping[str, Any]

    def agent(self, pilot: "PilotShape") -> AgentFiles:
        """What workers build a pilot from."""
        return AgentFiles(
            vision=self.vision,
            vision_digest="",
            vision_shape=self.vision_shape,
            memory=self.memory,
            memory_digest="",
            memory_shape=self.memory_shape,
            pilot=pilot,
        )


@contextmanager
def opened_worksite(
    *, sizes: Sizes, workers: int | None, device: str, progress: Monitor
) -> Iterator[Worksite]:
    """A worksite in a temporary folder; the folder and the workers are gone afterwards."""
    from stages.training.device import resolve_device, use_threads
    from stages.worlds.making import headless

    headless()  # before the workers start: the plain ways run in them too
    num_workers = resolve_workers(workers)
    use_threads(num_workers)
    with (
        TemporaryDirectory(prefix="wm-bench-") as folder,
        LocalExecutor(num_workers, tasks_per_worker=MANY) as executor,
    ):
        yield Worksite(
            Path(folder),
            executor,
            sizes=sizes,
            device=resolve_device(device),
            progress=progress,
        )


def _packed(model: "torch.nn.Module") -> bytes:
    return pack_tensors({name: value.numpy() for name, value in model.state_dict().items()})
