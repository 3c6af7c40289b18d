"""Drives `wm` as a user does, in a process of its own, and looks at what it leaves on disk."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from warm_commands import run_warm

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("rollouts", "vision", "latents", "memory", "control", "evaluations")
STAGES = (
    "rollout",
    "train-vision",
    "sample-latents",
    "train-memory",
    "train-control",
    "evaluate",
)
MADE_BY = dict(zip(KINDS, STAGES, strict=True))
NO_BAR = {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "200"}

# Every stage in a second or two, in several pieces each.
MICRO = (
    "rollout.episodes=8",
    "rollout.gymnasium_episodes=2",
    "rollout.task_episodes=1",
    "rollout.max_steps=30",
    "vision.latent_size=8",
    "vision.steps=10",
    "vision.batch_size=16",
    "vision.held_out_frames=16",
    "vision.log_every=2",
    "memory.hidden_size=16",
    "memory.steps=120",
    "memory.batch_size=4",
    "memory.log_every=8",
    "control.generations=8",
    "control.population=4",
    "control.episodes=[1]",
    "control.components=4",
    "control.sigma_end=0.02",
    "control.starts=2",
    "control.start_generations=3",
    "control.patience=0",
    "control.max_steps=[12]",
    "control.select_every=3",
    "control.select_episodes=1",
    "control.task_lanes=2",
    "evaluate.episodes=4",
    "evaluate.random_episodes=2",
    "evaluate.task_episodes=1",
    "evaluate.max_steps=12",
)


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict:
        """What it printed with --json."""
        return json.loads(self.out)

    @property
    def said(self) -> str:
        """Everything it showed, on one line: panels break sentences anywhere."""
        return " ".join((self.out + self.err).replace("│", " ").split())


def environment(**extra: str) -> dict[str, str]:
    """The caller's environment, in which this checkout can be imported from any folder."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **NO_BAR, "PYTHONPATH": path, **extra}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "wm_cli", *map(str, words)]


def settings(*keys: str) -> list[str]:
    """The words that change these keys."""
    return [word for key in keys for word in ("--set", key)]


def wm(*words: object, code: int = 0, cwd: Path | None = None, **extra: str) -> Finished:
    """Run `wm` with these words to its end and compare its exit code."""
    run = fresh if extra or not hasattr(os, "pidfd_open") else forked
    finished = run([*map(str, words)], cwd, environment(**extra))
    assert finished.code == code, (
        f"wm {' '.join(map(str, words))} ended with {finished.code}, not {code}\n"
        f"{finished.out}\n{finished.err}"
    )
    assert "Traceback" not in finished.err + finished.out
    return finished


def fresh(words: list[str], cwd: Path | None, environment: dict[str, str]) -> Finished:
    """`wm` in an interpreter of its own, as a user starts it."""
    done = subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=900,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def forked(words: list[str], cwd: Path | None, environment: dict[str, str]) -> Finished:
    """`wm` in a process of its own that need not import: two seconds sooner."""
    path = str(ROOT / "wm_cli" / "__main__.py")
    return Finished(*run_warm([path, *words], cwd or Path.cwd(), environment))


def python(*words: object, code: int = 0) -> str:
    """What Python prints that has the tests on its path, and ends with this exit code."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT / "tests",
        env=environment(),
        timeout=1800,
        check=False,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def manifest(workspace: Path, name: str) -> dict:
    """The manifest of an artifact, read plainly."""
    return json.loads((workspace / name / "manifest.json").read_bytes())


def digests(workspace: Path) -> dict[str, str]:
    """Id of every artifact -> digest of its payload."""
    return {
        f"{path.parent.parent.name}/{path.parent.name}": json.loads(path.read_bytes())[
            "payload_digest"
        ]
        for path in sorted(workspace.glob("*/[0-9]*/manifest.json"))
    }


def payload(workspace: Path, name: str) -> dict[str, bytes]:
    """Content of every payload file of an artifact."""
    names = [entry["name"] for entry in manifest(workspace, name)["files"]]
    return {each: (workspace / name / each).read_bytes() for each in names}


def snapshot(workspace: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file and folder; locks are only ever rewritten."""
    return {
        str(path.relative_to(workspace)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(workspace.rglob("*"))
        if path.is_file() and path.name != ".lock"
    } | {str(path.relative_to(workspace)): (0, 0) for path in workspace.rglob("*") if path.is_dir()}


def copied(
    workspace: Path,
    target: Path,
    *,
    before: str | None = None,
    copy: Callable[[str, str], object] = shutil.copy2,
) -> Path:
    """A copy that may be written: of everything, or of the stages before the kind `before`."""
    kinds = KINDS if before is None else KINDS[: KINDS.index(before)]
    target.mkdir(parents=True)
    shutil.copy2(workspace / "workspace.json", target)
    for kind in kinds:
        if (workspace / kind).exists():
            shutil.copytree(workspace / kind, target / kind, copy_function=copy)
    return target


# ------------------------------------------------------------------------- killed and interrupted


def start_wm(*words: object, log: Path) -> subprocess.Popen[str]:
    """Start `wm` as the leader of a session of its own."""
    with log.open("w") as stream:
        return subprocess.Popen(
            command(*words),
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment(),
            text=True,
            start_new_session=True,
        )


def session_members(leader: int) -> list[int]:
    """Process ids in the session of `leader`, itself included; zombies are dead."""
    return list(_members(leader))


def _members(leader: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            yield int(path.parent.name)


def wait_until(condition, *, seconds: float = 60.0, pause: float = 0.002) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(pause)


def clear_session(process: subprocess.Popen[str]) -> None:
    """End what a failed test would leave."""
    for pid in session_members(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()


# ------------------------------------------- started by other programs, which may die before `wm`

MARK = "WM_TEST_MARK"


def start_marked(*words: object, mark: str, log: Path, **extra: str) -> subprocess.Popen[str]:
    """Start any program in a session of its own; whatever it starts in turn carries the mark."""
    with log.open("w") as stream, default_signals():
        return subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment(**{MARK: mark}, **extra),
            text=True,
            start_new_session=True,
        )


@contextlib.contextmanager
def default_signals() -> Iterator[None]:
    """Let children begin as in a terminal, also where the tests run under nohup or with `&`."""
    ignored = [n for n in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(n) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def marked(mark: str) -> dict[int, str]:
    """Processes that carry the mark, wherever they ended up: id -> command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            carries = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
        if carries and state not in "ZX":
            found[int(folder.name)] = words
    return found


def clear_marked(mark: str) -> None:
    """End what a failed test would leave."""
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
