"""The workspaces that are tortured, what an undisturbed run makes of them, and what may be left.

Two references, both of all six stages: `micro` through the command line with two workers, and
`nano`, in a fraction of a second per stage, in one process without workers.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from command_line import KINDS, MADE_BY, MICRO, copied, digests, manifest, payload, settings, wm
from failing_calls import WatchedCalls

from torture.processes import forked

RECIPE, PRESET, SEED = "carracing", "debug", 7
NANO = (
    "rollout.episodes=4",
    "rollout.gymnasium_episodes=1",
    "rollout.task_episodes=1",
    "rollout.max_steps=6",
    "vision.latent_size=2",
    "vision.steps=1",
    "vision.batch_size=4",
    "vision.held_out=0.5",
    "vision.held_out_frames=16",
    "vision.log_every=1",
    "memory.hidden_size=4",
    "memory.num_mixtures=2",
    "memory.steps=3",
    "memory.batch_size=2",
    "memory.held_out=0.5",
    "memory.log_every=1",
    "control.generations=2",
    "control.population=4",
    "control.episodes=[1]",
    "control.components=2",
    "control.sigma_end=0.02",
    "control.starts=1",
    "control.patience=0",
    "control.max_steps=[4]",
    "control.select_every=2",
    "control.select_episodes=1",
    "control.task_lanes=2",
    "evaluate.episodes=2",
    "evaluate.random_episodes=1",
    "evaluate.task_episodes=1",
    "evaluate.max_steps=4",
)
WITH_WORKERS = ("rollouts", "latents", "control", "evaluations")
LARGE = 2**20  # bytes; such files are only ever replaced, never written in place
SAME = ("payload_digest", "fingerprint", "files", "summary", "seeds", "config")  # of a manifest


class LostError(Exception):
    """Something was lost: the promise that a fault broke, in words."""


@dataclass(frozen=True)
class Scene:
    """What every case of a run shares."""

    folder: Path  # everything temporary
    seed: int
    quick: bool = False
    given: Path | None = None  # a micro workspace that exists already

    @property
    def micro(self) -> Path:
        """The micro reference, made by real commands that nobody disturbed."""
        root = self.given or self.folder / "micro"
        if not root.exists():
            words = ("--recipe", RECIPE, "--preset", PRESET, "--seed", SEED, "--workers", 2)
            wm("run", "-w", root, *words, *settings(*MICRO))
        return root

    @property
    def nano(self) -> Path:
        """The nano reference, every stage made in a process of its own: none knows what it read."""
        root, log = self.folder / "nano", self.folder / "nano.log"
        for kind in KINDS if not root.exists() else ():
            if forked(lambda kind=kind: _make_nano(root, kind), log=log).wait():
                raise LostError(log.read_text()[-2000:])
        return root

    def calls(self, kind: str) -> list[str]:
        """Names of the I/O calls of this kind's nano stage, in order."""
        return (self.nano.parent / f"nano-{kind}.txt").read_text().split()


def _make_nano(root: Path, kind: str) -> int:
    from stages.artifacts.disk import replaced

    watched = WatchedCalls()
    with replaced(watched):
        run_inline(root, kind)
    (root.parent / f"nano-{kind}.txt").write_text("\n".join(watched.names))
    return 0


# ------------------------------------------------------------------------ one stage in this process


def run_inline(root: Path, kind: str):
    """Run the stage of this kind here, its tasks too; its report. Raises what the stage raises."""
    from stages.contracts import Resources
    from stages.events import Silent
    from stages.pipeline import Request, prepare, run_stage

    named = {"recipe": RECIPE, "preset": PRESET, "seed": SEED, "overrides": NANO}
    request = Request(
        resources=Resources(workers=1, threads=1, checkpoint_seconds=0.0),
        **(named if kind == "rollouts" else {}),  # the first command: it makes the workspace
    )
    with _without_workers():
        return run_stage(
            prepare(root, request, progress=Silent()), MADE_BY[kind], progress=Silent()
        )


@contextlib.contextmanager
def _without_workers() -> Iterator[None]:
    """Let stages run their tasks in their own process."""
    import stages.evaluate
    import stages.hunt
    import stages.rollout
    import stages.sample_latents
    from stages.execution.inline import InlineExecutor

    with contextlib.ExitStack() as stack:
        for verb in (stages.rollout, stages.sample_latents, stages.hunt, stages.evaluate):
            inline = mock.patch.object(verb, "LocalExecutor", lambda *_, **__: InlineExecutor())
            stack.enter_context(inline)
        yield


def nano_copy(scene: Scene, target: Path, *, before: str) -> Path:
    """The inputs of a nano stage; those of the first are nothing, not even a workspace."""
    if before == "rollouts":
        return target
    return copied(scene.nano, target, before=before, copy=link_or_copy)


def link_or_copy(source: str, target: str) -> None:
    """Large files are not worth a copy: nothing writes into them."""
    if Path(source).stat().st_size >= LARGE:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


# -------------------------------------------------------------------------------------- the oracle


def check_intact(root: Path, reference: Path) -> None:
    """Every artifact that can be seen verifies, and is one that the reference has."""
    from stages.artifacts.workspace import Workspace
    from stages.inspection.verification import verify

    if not (root / "workspace.json").exists():
        if list(root.glob("*/*/manifest.json")):
            raise LostError(f"{root} has lost its workspace.json")
        return
    report = verify(Workspace.open(root))
    if report.exit_code:
        damaged = [row for row in report.tables[0].rows if row[1] == "damaged"]
        raise LostError(f"wm verify finds damage: {damaged}")
    known = digests(reference)
    for name, digest in digests(root).items():
        if known.get(name) != digest:
            raise LostError(f"{name} is not the one of the undisturbed run")


def check_finished(root: Path, kind: str, reference: Path, *, name: str = "") -> None:
    """The stage's artifact is that of the undisturbed run, and nothing else is left."""
    check_intact(root, reference)
    check_same(root, name or f"{kind}/0001", f"{kind}/0001", reference)
    left = [*root.glob("*/.partial-*"), *root.rglob(".tmp-*")]
    if left:
        raise LostError(f"left behind: {', '.join(str(path.relative_to(root)) for path in left)}")


def check_same(root: Path, name: str, wanted: str, reference: Path) -> None:
    """The artifact `name` holds what `wanted` holds in the reference, byte for byte."""
    if not (root / name / "manifest.json").exists():
        raise LostError(f"{name} is missing although its command ended well")
    if payload(root, name) != payload(reference, wanted):
        raise LostError(f"the payload of {name} differs from that of the undisturbed run")
    found, expected = manifest(root, name), manifest(reference, wanted)
    different = [key for key in SAME if found[key] != expected[key]]
    if found["provenance"]["threads"] != expected["provenance"]["threads"]:
        different.append("threads")
    if different:
        raise LostError(f"the manifest of {name} differs: {', '.join(different)}")


def check_no_temporaries(root: Path) -> None:
    """A refused stage has taken its temporary files away."""
    left = list(root.rglob(".tmp-*"))
    if left:
        raise LostError(f"a refused stage left {', '.join(path.name for path in left)}")
