"""`wm doctor`: what this machine can do, what it lacks, and the command that mends it."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from stages.artifacts.versions import box2d_distributions, processor
from stages.artifacts.workspace import Workspace
from stages.errors import ExitCode, StageError
from stages.events import Report, Table
from stages.execution.cores import available_cores
from stages.inspection.leftovers import UNFINISHED, Leftover, advice, command, leftovers
from stages.inspection.packages import Requirement, probe, requirements, supported_python
from stages.worlds.making import BOX2D_AGAIN, BOX2D_SOURCE

LITTLE_MEMORY = 2 * 10**9  # bytes; the smallest that trains V comfortably
LITTLE_DISK = 2 * 10**9  # bytes; a rollout of the preset hour
LITTLE_SHARED = 64 * 10**6  # bytes; docker's default
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
EXTRAS = {None, "fast", "video", "doom", "minari", "tensorboard"}  # that are tried
MODULES = {  # distribution -> module that is tried; the base, then the extras
    "numpy": "numpy",
    "h5py": "h5py",
    "torch": "torch",
    "gymnasium": "gymnasium",
    "pygame-ce": "pygame",
    "Box2D": "Box2D",
    "ale-py": "ale_py",
    "cma": "cma",
    "safetensors": "safetensors.numpy",
    "matplotlib": "matplotlib",
    "envpool": "envpool",
    "av": "av",
    "vizdoom": "vizdoom",
    "minari": "minari",
    "tensorboard": "tensorboard.summary.writer.record_writer",
}


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    what: str
    state: str  # ok | warning | missing
    found: str
    fix: str | None = None
    needed: bool = False  # without it the base does not work


def examine(root: Path) -> Report:
    """Look at the machine and at what a crash left in the workspace at `root`.

    The exit code is 6 when something is missing that the base needs.
    """
    tried = probe(MODULES.values())
    workspace = Workspace(root.absolute())
    left, unreadable = _left(workspace)
    findings = [
        _python(),
        *_packages(tried),
        *_box2d(tried),
        _atari_roms(),
        _devices(tried),
        _hdf5(tried),
        *_machine(root),
        *_tools(),
        *_threads(),
        *unreadable,
        *_summary_of(workspace, left),
    ]
    lacking = [one.what for one in findings if one.needed and one.state == "missing"]
    rows = [(one.what, one.state, one.found, one.fix) for one in findings]
    note = f"The base lacks: {', '.join(lacking)}." if lacking else "Everything needed is there."
    examination = Table("Examination", ("what", "state", "found", "fix"), rows)
    return Report(
        command="doctor",
        tables=(examination, _table_of(workspace, left)) if left else (examination,),
        notes=(note,),
        exit_code=ExitCode.ENVIRONMENT if lacking else ExitCode.DONE,
    )


def _left(workspace: Workspace) -> tuple[list[Leftover], list[Finding]]:
    """What a crash left in the workspace, if there is one; or why that cannot be seen."""
    try:
        return leftovers(workspace) if Workspace.exists(workspace.root) else [], []
    except StageError as error:
        found = f"{error.what} {error.why}".strip()
        return [], [Finding("left by a crash", "warning", found, error.fix or None)]


def _summary_of(workspace: Workspace, left: list[Leftover]) -> Iterator[Finding]:
    if left:
        things = "1 thing" if len(left) == 1 else f"{len(left)} things"
        megabytes = sum(one.size.bytes for one in left) / 1e6
        found = f"{things}, {megabytes:.1f} MB: see below"
        # Where there is work that somebody may want to go on with, the table says how.
        harmless = all(one.kept or one.what != UNFINISHED for one in left)
        removable = any(not one.kept for one in left)
        fix = command(workspace, "clean") if removable and harmless else None
        yield Finding("left by a crash", "warning", found, fix)


def _table_of(workspace: Workspace, left: list[Leftover]) -> Table:
    told = advice(workspace, left)
    rows = [
        (
            one.name(workspace),
            one.what,
            one.size.files,
            one.size.bytes,
            one.age,
            because,
            fix or None,
        )
        for one in left
        for because, fix in [told[one.path]]
    ]
    columns = ("leftover", "what", "files", "bytes", "age_seconds", "because", "fix")
    return Table("Left by a crash", columns, rows)


def _python() -> Finding:
    bounds = supported_python()
    found = f"{platform.python_version()} at {sys.executable}"
    if bounds.allows(platform.python_version()):
        return Finding("Python", "ok", found)
    fix = f"Make the environment with a Python {bounds.text}."
    return Finding("Python", "missing", found, fix, needed=True)


def _packages(tried: dict[str, str]) -> Iterator[Finding]:
    """A line for every requirement but Box2D, which has a story of its own."""
    for one in requirements():
        if one.name.lower() not in {"box2d", "box2d-py"} and one.extra in EXTRAS:
            yield _package(one, tried)


def _package(one: Requirement, tried: dict[str, str]) -> Finding:
    what = f"{one.name} (extra {one.extra})" if one.extra else one.name
    fix = f'pip install "wm-pixels[{one.extra}]"' if one.extra else f'pip install "{one.text}"'
    needed = one.extra is None
    if one.installed is None:
        return Finding(what, "missing", f"not installed, {one.bounds.text}", fix, needed)
    failure = tried.get(MODULES.get(one.name, ""), "").partition("error: ")[2]
    if failure:
        return Finding(what, "missing", f"{one.installed}, but {failure}", fix, needed)
    if not one.bounds.allows(one.installed):
        return Finding(what, "warning", f"{one.installed}, outside {one.bounds.text}", fix)
    return Finding(what, "ok", one.installed)


def _box2d(tried: dict[str, str]) -> Iterator[Finding]:
    """The binding that CarRacing needs, and the trap of two distributions with one folder."""
    owners = box2d_distributions()
    failure = tried.get("Box2D", "").partition("error: ")[2]
    has_wheel = any(one.name == "Box2D" for one in requirements())
    if len(owners) > 1:
        yield Finding(
            "Box2D",
            "missing" if failure else "warning",
            f"{' and '.join(owners)} own the same folder; the later one is in use",
            f"pip uninstall box2d-py; {BOX2D_AGAIN}",
            needed=bool(failure),
        )
    elif failure or not owners:
        found = f"{owners[0]}, but {failure}" if owners else "not installed: no CarRacing"
        fix = BOX2D_AGAIN if has_wheel else BOX2D_SOURCE
        yield Finding("Box2D", "missing", found, fix, needed=has_wheel)
    else:
        yield Finding("Box2D", "ok", owners[0])


def _atari_roms() -> Finding:
    """Count the games that ale-py brings, without loading it."""
    spec = find_spec("ale_py")
    folder = Path(spec.origin or "").parent / "roms" if spec else Path("nowhere")
    num_roms = len(list(folder.glob("*.bin")))
    if num_roms == 0:
        return Finding("Atari games", "missing", "none", "pip install --force-reinstall ale-py")
    return Finding("Atari games", "ok", f"{num_roms} in ale-py")


def _devices(tried: dict[str, str]) -> Finding:
    """What torch can compute on; nothing but the CPU is fine."""
    return Finding("devices", "ok", tried.get("torch", "cpu").partition("; ")[2] or "cpu")


def _hdf5(tried: dict[str, str]) -> Finding:
    version = tried.get("h5py", "").partition("; ")[2]
    return Finding("HDF5", "ok" if version else "warning", version or "unknown")


def _machine(root: Path) -> Iterator[Finding]:
    cores, all_cores = available_cores(), os.cpu_count() or 1
    yield Finding("cores", "ok", f"{cores} of {all_cores} may be used, {processor()}")
    memory = _available_memory()
    if memory is not None:
        fix = "Choose a smaller preset or fewer --workers." if memory < LITTLE_MEMORY else None
        yield Finding("memory", "warning" if fix else "ok", f"{_gb(memory)} available", fix)
    place = next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    fix = (
        f"Free some space, or choose another --workspace than {root}."
        if free < LITTLE_DISK
        else None
    )
    yield Finding("disk", "warning" if fix else "ok", f"{_gb(free)} free at {place}", fix)
    if not os.access(place, os.W_OK):
        fix = "Choose a folder that you may write with --workspace."
        yield Finding("workspace", "warning", f"{place} cannot be written", fix)
    yield from _shared_memory(Path("/dev/shm"))


def _shared_memory(place: Path) -> Iterator[Finding]:
    if place.is_dir():
        total = shutil.disk_usage(place).total
        fix = "In docker: --shm-size=1g." if total <= LITTLE_SHARED else None
        yield Finding("shared memory", "warning" if fix else "ok", _gb(total), fix)


def _available_memory() -> int | None:
    """Bytes that may still be used, also under the limit of the control group."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
    limits = [kilobytes["MemAvailable"] * 1024]
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        limits.append(limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no control group, or "max"
        pass
    return max(0, min(limits))


def _tools() -> Iterator[Finding]:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    driver = os.environ.get("SDL_VIDEODRIVER", "dummy unless set")
    shown = f"{display or 'none, and none is needed'}; SDL_VIDEODRIVER {driver}"
    yield Finding("display", "ok", shown)
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    for what, path, package in (
        ("C compiler", compiler, "gcc"),
        ("make", shutil.which("make"), "make"),
    ):
        fix = None if path else f"apt-get install {package}   (or your system's package)"
        yield Finding(what, "ok" if path else "warning", path or "not found", fix)


def _threads() -> Iterator[Finding]:
    """Thread variables decide which bits come out: said here, so that a difference is explained."""
    values = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    shown = ", ".join(f"{name}={value}" for name, value in values.items() if value) or "none set"
    single = values["OPENBLAS_NUM_THREADS"] in {None, "1"}
    fix = None if single else "unset OPENBLAS_NUM_THREADS   (a resumed search may differ)"
    yield Finding("math threads", "ok" if single else "warning", shown, fix)


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 10**9:.1f} GB"
