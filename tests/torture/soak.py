"""A soak: `wm rollout` for twenty minutes with 4 workers, and the resident memory of each process.

CarRacing in full episodes, 16 to a task. A worker is replaced after 200 tasks; here none comes near
that, so that no replacement hides what grows. Of every process a straight line is laid through the
second half of its samples. Flat is a process that grew along its line, over that half, by at most
2 % of its resident memory or by 4 MB: what the allocator may take once more, and stays.
"""

import csv
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from command_line import ROOT, clear_session, settings, start_wm

from torture.processes import SLOW, Process, workers_of

NUM_WORKERS = 4
EVERY = 2.0  # seconds between samples
SETTINGS = ("rollout.episodes=100000", "rollout.patience=0", "rollout.task_episodes=16")
MB = 1e6
SHARE, LEAST = 0.02, 4 * MB  # of growth over the second half that still is flat
INTERRUPTED = 130
PLOT = ROOT / "docs" / "soak.svg"
SAMPLES = ROOT / "data" / "torture" / "soak.csv"


@dataclass(frozen=True)
class Sample:
    """What one process holds at one moment, in bytes."""

    seconds: float
    process: str
    resident: int
    proportional: int  # pages that are shared count in part: what ending it would free


@dataclass(frozen=True)
class Line:
    """The second half of one process's samples as a straight line."""

    process: str
    resident: float  # mean, bytes
    growth: float  # bytes over the half
    hours: float  # that the half lasts

    @property
    def flat(self) -> bool:
        return self.growth <= max(SHARE * self.resident, LEAST)

    def __str__(self) -> str:
        return (
            f"{self.process}: {self.resident / MB:.0f} MB resident, {self.growth / MB:+.2f} MB in "
            f"the second half, {self.growth / self.hours / MB:+.1f} MB/h: "
            f"{'flat' if self.flat else 'GROWS'}"
        )


def soak(minutes: float, *, samples: Path = SAMPLES, plot: Path = PLOT) -> int:
    """Run, write the samples, draw them, print the verdict; 1 unless all is flat."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        found = list(_recorded(folder, minutes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _write(found, samples)
    lines = fitted(found)
    draw(found, plot, minutes)
    for line in lines:
        print(line)
    print(f"Samples: {samples}\nPlot: {plot}")
    return 0 if len(lines) > NUM_WORKERS and all(line.flat for line in lines) else 1


def _recorded(folder: Path, minutes: float) -> Iterator[Sample]:
    words = ("rollout", "-w", folder / "workspace", "--recipe", "carracing", "--preset", "quick")
    process = start_wm(*words, *settings(*SETTINGS), "--workers", NUM_WORKERS, log=folder / "log")
    begun, said = time.monotonic(), 0.0
    names: dict[int, str] = {}
    try:
        while (seconds := time.monotonic() - begun) < 60 * minutes:
            if process.poll() is not None:
                raise RuntimeError(f"the rollout ended: {(folder / 'log').read_text()[-2000:]}")
            yield from _sampled(process, names, seconds)
            if seconds - said > 60:
                said = seconds
                shards = len(list(folder.glob("workspace/rollouts/.partial-*/shard-*.h5")))
                print(f"soak {seconds / 60:.0f} min: {shards} tasks of 16 episodes", flush=True)
            time.sleep(EVERY)
        os.kill(process.pid, signal.SIGINT)
        code = process.wait(SLOW)
        if code != INTERRUPTED:
            raise RuntimeError(f"after Ctrl-C the rollout ended with {code}")
    finally:
        clear_session(process)


def _sampled(process: Process, names: dict[int, str], seconds: float) -> Iterator[Sample]:
    names.setdefault(process.pid, "command")
    for pid in [process.pid, *workers_of(process)]:
        name = names.setdefault(pid, f"worker {len(names)}")
        try:
            yield Sample(seconds, name, *_memory(pid))
        except (OSError, KeyError):  # it has just ended
            continue


def _memory(pid: int) -> tuple[int, int]:
    """Resident bytes of a process, and its proportional share of them."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    values = {row.split(":")[0]: row.split()[1] for row in rows[1:]}
    return 1024 * int(values["Rss"]), 1024 * int(values["Pss"])


def _write(found: Sequence[Sample], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("seconds", "process", "resident_bytes", "proportional_bytes"))
        for one in found:
            writer.writerow((f"{one.seconds:.1f}", one.process, one.resident, one.proportional))


def fitted(found: Sequence[Sample]) -> list[Line]:
    """A line through the second half of every process that lived through all of it."""
    end = max(one.seconds for one in found)
    lines = []
    for name in dict.fromkeys(one.process for one in found):
        own = [one for one in found if one.process == name and one.seconds >= end / 2]
        if len(own) < 3 or own[-1].seconds - own[0].seconds < end / 2 - 3 * EVERY:
            continue
        seconds = np.array([one.seconds for one in own])
        resident = np.array([float(one.resident) for one in own])
        slope = float(np.polyfit(seconds - seconds[0], resident, 1)[0])  # bytes per second
        lines.append(Line(name, float(resident.mean()), slope * end / 2, end / 7200))
    return lines


def draw(found: Sequence[Sample], path: Path, minutes: float) -> None:
    """Resident memory of every process over time."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams.update({"svg.hashsalt": "soak", "svg.fonttype": "none", "font.size": 9})
    figure, axes = pyplot.subplots(figsize=(7, 3))
    for name in dict.fromkeys(one.process for one in found):
        own = [one for one in found if one.process == name][:: max(1, len(found) // 2000)]
        axes.plot(
            [one.seconds / 60 for one in own],
            [one.resident / MB for one in own],
            label=name,
            linewidth=1,
        )
    axes.axvline(max(one.seconds for one in found) / 120, color="grey", linewidth=0.5)
    axes.set(xlabel="minutes", ylabel="resident MB", xlim=(0, minutes), ylim=(0, None))
    axes.legend(loc="lower right", ncols=5, frameon=False, fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
