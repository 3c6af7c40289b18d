"""How much memory training needs, on a small and on a ten times larger data set.

The data are generated: real artifacts whose frames are patterns that compress well. Each stage runs
as a user would run it, in processes of its own, and the largest resident size of every process is
read from the system while it works. Encoding is stopped after a while: it goes shard by shard.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from time import monotonic, sleep

import numpy as np

from stages import rollout, sample_latents, stage_named
from stages.artifacts.shards import shard_name
from stages.artifacts.sidecars import put
from stages.contracts import Resources
from stages.errors import EnvironmentLacks
from stages.events import Advanced, Monitor, Noted, Report, Scalar, Silent, Table
from stages.pipeline import Prepared, Request, prepare, verb
from stages.training.seeding import episode_seeds, generator

SIZES = (200_000, 2_000_000)  # frames
BATCHES = 200
EPISODE_STEPS = 999  # actions; an episode has one more frame
SHARD_EPISODES = 8
ENCODING_SECONDS = 30.0
POLL_SECONDS = 0.1
STATUS = Path("/proc/self/status")


def measure(*, progress: Monitor, sizes: Sequence[int] = SIZES, batches: int = BATCHES) -> Report:
    """Peak resident megabytes of each stage by number of frames; nothing is left behind."""
    if not STATUS.exists():
        raise EnvironmentLacks(
            "The resident size of processes cannot be read here.",
            why="It is taken from /proc, which Linux has.",
            fix="Run it on Linux.",
        )
    peaks: dict[str, list[float]] = {}
    for frames in sizes:
        with TemporaryDirectory(prefix="wm-memory-") as folder:
            progress.emit(Noted(f"{frames:,} frames in {folder}"))
            for stage, peak in _stages(Path(folder), frames, batches, progress):
                peaks.setdefault(stage, []).append(peak / 1e6)
    rows: list[tuple[Scalar, ...]] = [
        (stage, *(round(mb) for mb in found), _growth(found)) for stage, found in peaks.items()
    ]
    columns = ("stage", *(f"{frames:,} frames" for frames in sizes), "growth")
    title = f"Peak resident megabytes, all processes of a stage, {batches} batches"
    return Report(command="bench", tables=(Table(title, columns, rows),))


def _growth(found: Sequence[float]) -> str:
    return f"{100 * (found[-1] / found[0] - 1):+.1f} %"


def _stages(
    root: Path, frames: int, batches: int, progress: Monitor
) -> Iterator[tuple[str, float]]:
    """Peak bytes of train-vision, sample-latents and train-memory in a workspace of this size."""
    prepared = _prepared(root, frames)
    record(prepared, progress)
    few = ["--set", f"vision.steps={batches}", "--set", "vision.held_out_frames=16"]
    yield "train-vision", peak_of(["train-vision", "-w", str(root), *few], progress)
    yield (
        "sample-latents",
        peak_of(["sample-latents", "-w", str(root)], progress, seconds=ENCODING_SECONDS),
    )
    encode(prepared, progress)
    few = ["--set", f"memory.steps={batches}"]
    yield "train-memory", peak_of(["train-memory", "-w", str(root), *few], progress)


def _prepared(root: Path, frames: int) -> Prepared:
    request = Request(
        recipe="carracing",
        preset="quick",
        overrides=(
            f"rollout.episodes={frames // (EPISODE_STEPS + 1)}",
            f"rollout.task_episodes={SHARD_EPISODES}",
        ),
        resources=Resources(),
    )
    return prepare(root, request, progress=Silent())


def record(prepared: Prepared, progress: Monitor) -> None:
    """A rollout of generated episodes: the shards that `rollout.run` then finds and commits."""
    from stages.artifacts.episodes import EpisodeRecord, EpisodeShardWriter

    config, job = prepared.config(stage_named("rollout")), prepared.job
    plan = rollout.plan(prepared.workspace, config, job)
    with prepared.workspace.lock("rollouts"):
        partial = prepared.workspace.begin("rollouts", plan.fingerprint)
    tasks = list(rollout.recording_tasks(prepared.workspace, config, job, partial.path))
    for number, task in enumerate(tasks):
        writer = EpisodeShardWriter(engine=task.engine, env=task.world.env, policy=task.policy)
        for seed in task.seeds:
            writer.append(
                EpisodeRecord(
                    seed=seed,
                    observations=_pattern(seed),
                    actions=np.zeros((EPISODE_STEPS, 3), dtype=np.float32),
                    **_columns(),
                    facts={},
                )
            )
        put(partial.path / task.name, writer.image())
        progress.emit(Advanced(number + 1, len(tasks), "generated shards"))
        progress.poll()
    rollout.run(prepared.workspace, config, job, progress=Silent())


def encode(prepared: Prepared, progress: Monitor) -> None:
    """The latents of that rollout, drawn instead of encoded."""
    from stages.artifacts.latents import LatentRecord, latents_image

    config = prepared.config(stage_named("sample-latents"))
    plan = sample_latents.plan(prepared.workspace, config, prepared.job)
    with prepared.workspace.lock("latents"):
        partial = prepared.workspace.begin("latents", plan.fingerprint)
    episodes = prepared.config(stage_named("rollout")).episodes
    seeds = episode_seeds("rollout", prepared.job.seed, 0, episodes)
    for number, start in enumerate(range(0, episodes, SHARD_EPISODES)):
        records = []
        for seed in seeds[start : start + SHARD_EPISODES]:
            random = generator(seed, "bench-latents")
            mu = random.standard_normal((EPISODE_STEPS + 1, 32), dtype=np.float32)
            records.append(
                LatentRecord(
                    seed=seed,
                    mu=mu.astype(np.float16),
                    logvar=np.full_like(mu, -2, dtype=np.float16),
                    actions=random.uniform(0, 1, (EPISODE_STEPS, 3)).astype(np.float32),
                    **_columns(),
                )
            )
        put(partial.path / shard_name(number), latents_image(records))
        progress.emit(Advanced(start + SHARD_EPISODES, episodes, "generated episodes"))
        progress.poll()
    job = replace(prepared.job, resources=Resources(workers=1))
    verb(stage_named("sample-latents")).run(prepared.workspace, config, job, progress=Silent())


def _columns() -> "dict[str, np.ndarray]":
    return {
        "rewards": np.zeros(EPISODE_STEPS),
        "terminations": np.zeros(EPISODE_STEPS, dtype=np.bool_),
        "truncations": np.arange(EPISODE_STEPS) == EPISODE_STEPS - 1,
    }


def _pattern(seed: int) -> "np.ndarray":
    """Frames uint8 [T + 1, 64, 64, 3]: coarse blocks of an episode's colours that move."""
    blocks = generator(seed, "bench-frames").integers(0, 256, (8, 8, 3), dtype=np.uint8)
    frame = blocks.repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([np.roll(frame, step, axis=0) for step in range(EPISODE_STEPS + 1)])


def peak_of(words: Sequence[str], progress: Monitor, *, seconds: float | None = None) -> float:
    """Largest resident bytes of a command, its processes added up; interrupted after a time."""
    command = [sys.executable, "-P", "-m", "wm_cli", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with TemporaryFile() as output:  # a pipe would fill up, since nobody reads while we look
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        peaks, stopped = _watched(process, progress, seconds)
        output.seek(0)
        said = output.read().decode(errors="replace")
    if process.returncode != 0 and not stopped:
        raise EnvironmentLacks(f"`wm {words[0]}` failed while it was measured.", why=said[-500:])
    return sum(peaks.values())


def _watched(
    process: "subprocess.Popen[bytes]", progress: Monitor, seconds: float | None
) -> tuple[dict[int, float], bool]:
    """Peak bytes by process until the first has ended, and whether it was told to."""
    peaks: dict[int, float] = {}
    started, stopped = monotonic(), False
    try:
        while process.poll() is None:
            for pid in _family(process.pid):
                peaks[pid] = max(peaks.get(pid, 0.0), _high_water(pid))
            if seconds is not None and not stopped and monotonic() - started > seconds:
                process.send_signal(signal.SIGINT)
                stopped = True
            progress.poll()
            sleep(POLL_SECONDS)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
    return peaks, stopped


def _family(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # it has just ended
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def _high_water(pid: int) -> float:
    """Bytes of the largest resident size so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    kilobytes = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return 1024.0 * int(kilobytes[0]) if kilobytes else 0.0
