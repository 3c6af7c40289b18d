"""Flipped bits at random offsets of every kind of file, and coarser harm; nothing may be believed.

A case harms one file of a finished workspace or of unfinished work, and then runs a stage that
reads it. Either the stage refuses (exit code 4, or 3 for what is missing), or it ends with exactly
what the undisturbed run made, because it does not read the file or made it again. `wm verify` must
find every harm to an artifact and name the file.
"""

import random
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

from command_line import KINDS, MADE_BY, copied
from failing_calls import QuickCalls

from torture.ledger import ELSEWHERE, Tally
from torture.processes import Forked
from torture.scenes import (
    LostError,
    Scene,
    check_finished,
    check_intact,
    check_same,
    link_or_copy,
    nano_copy,
    run_inline,
)
from torture.selfkills import check_died, dying

LANES = 2
NUM_QUICK = 50
ENUMERATED = False
READERS = {  # kinds whose stages read a kind; the maker itself stands for those that nobody reads
    "rollouts": ("vision", "latents"),
    "vision": ("latents", "control", "evaluations"),
    "latents": ("memory", "control"),
    "memory": ("control", "evaluations"),
    "control": ("evaluations",),
    "evaluations": ("evaluations",),
}
# Where stages are killed: after this share of their I/O calls, or so many before their last one.
MOMENTS = (0.3, 0.5, 0.7, 0.85, -13, -9, -6)
FLIPS = 4  # for one coarser harm
REFUSED, NO_WORKSPACE = (3, 4), 2  # exit codes
PARTIAL, WORKSPACE = "partial", "workspace.json"


@dataclass(frozen=True)
class Case:
    """A harm to one file, and the stage that meets it."""

    index: int
    target: str  # kind of the artifact, PARTIAL or WORKSPACE
    kind: str  # the stage that runs afterwards makes this kind
    harm: str

    @property
    def stage(self) -> str:
        return ELSEWHERE if self.target == WORKSPACE else MADE_BY[self.kind]


def prepare(scene: Scene) -> None:
    """Make the reference, and stages that died at several moments."""
    (scene.folder / "partials").mkdir(exist_ok=True)
    waiting: deque[Forked] = deque()
    for kind, moment in product(KINDS, _moments(scene)):
        root = nano_copy(scene, _left_behind(scene, kind, moment), before=kind)
        total = len(scene.calls(kind))
        at = int(moment * total) if moment > 0 else total + int(moment)
        waiting.append(dying(root, kind, at, log=scene.folder / f"die-{kind}-{moment}.log"))
        if len(waiting) == LANES:
            check_died(waiting.popleft())
    for process in waiting:
        check_died(process)


def _moments(scene: Scene) -> tuple[float, ...]:
    return (0.7,) if scene.quick else MOMENTS


def _left_behind(scene: Scene, kind: str, moment: float) -> Path:
    """A workspace in which this kind's stage was killed at this moment."""
    return scene.folder / "partials" / f"{kind}-{moment}"


def cases(scene: Scene) -> Iterator[Case]:
    """For ever: artifacts, unfinished work and the settings, each by a random stage."""
    rng = random.Random(f"{scene.seed} bits")
    for index in count():
        harm = rng.choice(list(HARMS)) if index % (FLIPS + 1) == FLIPS else FLIP
        target = rng.choices(("artifact", PARTIAL, WORKSPACE), (8, 8, 1))[0]
        kind = rng.choice(KINDS)
        if target == "artifact":
            target = rng.choice(KINDS)
            kind = rng.choice(READERS[target])
        yield Case(index, target, kind, harm)


def attempt(scene: Scene, case: Case, folder: Path, tally: Tally) -> None:
    from stages.artifacts.disk import replaced

    rng = random.Random(f"{scene.seed} bits {case.index}")
    with replaced(QuickCalls()):
        if case.target == PARTIAL:
            _harm_partial(scene, case, folder / "workspace", rng, tally)
        elif case.target == WORKSPACE:
            _harm_settings(scene, case, folder / "workspace", rng, tally)
        else:
            _harm_artifact(scene, case, folder / "workspace", rng, tally)


# ------------------------------------------------------------------------------------- the targets


def _harm_artifact(scene: Scene, case: Case, root: Path, rng: random.Random, tally: Tally) -> None:
    before = None if case.kind == case.target else case.kind
    copied(scene.nano, root, before=before, copy=link_or_copy)
    there = sorted((root / case.target / "0001").iterdir())
    path = rng.choice(there)
    HARMS[case.harm](path, rng)
    what = path.name if path.name.startswith("manifest") else f"*{path.suffix}"
    tally.inject(f"{_of(case, what)} of an artifact", MADE_BY[case.target])
    if case.harm == FOREIGN:
        _check_told(root, f"{case.target}/0001", there)
        tally.note("foreign files told by wm verify, read by nobody")
    else:
        _check_found(root, f"{case.target}/0001", path, case.harm)
    _check_outcome(scene, case, root, tally)


def _harm_partial(scene: Scene, case: Case, root: Path, rng: random.Random, tally: Tally) -> None:
    source = _left_behind(scene, case.kind, rng.choice(_moments(scene)))
    shutil.copytree(source, root, copy_function=link_or_copy)
    files = sorted(path for path in root.glob(f"{case.kind}/.partial-*/*") if path.is_file())
    if not files:
        tally.note("died before there was anything to harm")
        return
    lasting = [path for path in files if not path.name.startswith(".tmp-")]
    path = rng.choice(lasting if lasting and rng.random() < 0.95 else files)
    HARMS[case.harm](path, rng)
    tally.inject(f"{_of(case, _part_of(path.name))} of unfinished work", case.stage)
    _check_outcome(scene, case, root, tally)


def _harm_settings(scene: Scene, case: Case, root: Path, rng: random.Random, tally: Tally) -> None:
    copied(scene.nano, root, before=case.kind, copy=link_or_copy)
    HARMS[case.harm](root / WORKSPACE, rng)
    tally.inject(f"{case.harm}: workspace.json", ELSEWHERE)
    _check_outcome(scene, case, root, tally)


def _of(case: Case, what: str) -> str:
    """Flipped bits are counted by file, coarser harm is not."""
    return f"{case.harm}: {what}" if case.harm == FLIP else f"{case.harm}: a file"


def _part_of(name: str) -> str:
    """What a file of unfinished work is."""
    if name.startswith(".digest-"):
        return "a digest"
    if name.startswith(".tmp-"):
        return "a temporary file"
    if "checkpoint" in name:
        return "a checkpoint"
    names = {"state.json": "the state", ".jsonl": "a log", ".h5": "a shard", ".json": "a task"}
    return names.get(name) or names.get(Path(name).suffix, "another file")


# --------------------------------------------------------------------------------------- the oracle


def _check_found(root: Path, name: str, path: Path, harm: str) -> None:
    """`wm verify` says that this artifact is damaged, and which file."""
    from stages.artifacts.workspace import Workspace
    from stages.inspection.verification import verify

    report = verify(Workspace.open(root))
    damaged = {row[0]: f"{row[0]} {row[3]}" for row in report.tables[0].rows if row[1] == "damaged"}
    if report.exit_code != 4 or not any(name in text for text in damaged.values()):
        raise LostError(f"wm verify does not find: {harm} of {name}/{path.name}")
    two = harm == "swapped"  # the other one may be the manifest, without which no file is looked at
    if not two and not any(path.name in text for text in damaged.values()):
        raise LostError(f"wm verify does not name {path.name}: {damaged}")


def _check_told(root: Path, name: str, there: list[Path]) -> None:
    """`wm verify` names what was put beside an artifact's own files, which are as they were."""
    from stages.artifacts.workspace import Workspace
    from stages.inspection.verification import verify

    report = verify(Workspace.open(root))
    told = {row[0]: row[3] or "" for row in report.tables[0].rows}
    for path in set((root / name).iterdir()) - set(there):
        if report.exit_code or path.name not in told[name]:
            raise LostError(f"wm verify does not tell of {path.name}: {told[name]}")


def _check_outcome(scene: Scene, case: Case, root: Path, tally: Tally) -> None:
    """The stage refuses as it should, or makes exactly what it would have made."""
    from stages.errors import StageError

    try:
        report = run_inline(root, case.kind)
    except StageError as refusal:
        gone = case.target == WORKSPACE and case.harm in ("removed", "renamed")
        if refusal.exit_code not in (*REFUSED, NO_WORKSPACE if gone else 0):
            raise LostError(f"refused with {refusal.exit_code!r}: {refusal}") from refusal
        if not refusal.fix:
            raise LostError(f"an error without what to do: {refusal}") from refusal
        tally.note("refused")
        return
    if report.up_to_date:
        tally.note("artifacts taken for up to date by their sizes; wm verify finds them")
        return
    tally.note("same result")
    check_same(root, report.artifact, f"{case.kind}/0001", scene.nano)
    if case.target == PARTIAL:
        check_intact(root, scene.nano)
        check_finished(root, case.kind, scene.nano, name=report.artifact)


# --------------------------------------------------------------------------------------- the harms


def _replaced(path: Path, content: bytes) -> None:
    """Other content under this name; the old file may have other names, as a link."""
    path.unlink()
    path.write_bytes(content)


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        place = rng.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
        _replaced(path, bytes(content))
    else:
        _replaced(path, b"\0")


def _cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    _replaced(path, content[: rng.randrange(len(content) or 1)])


def _empty(path: Path, rng: random.Random) -> None:
    _replaced(path, b"" if path.stat().st_size else b"\0")


def _remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def _rename(path: Path, rng: random.Random) -> None:
    path.rename(path.with_name(f"old-{path.name}"))


def _swap(path: Path, rng: random.Random) -> None:
    """Exchange this file's content with that of another one of its folder, of its kind if any."""
    others = [one for one in sorted(path.parent.iterdir()) if one.is_file() and one != path]
    alike = [one for one in others if one.suffix == path.suffix]
    contents = {one: one.read_bytes() for one in alike or others}
    mine = path.read_bytes()
    different = [one for one, content in contents.items() if content != mine]
    if not different:
        return _flip(path, rng)
    other = rng.choice(different)
    _replaced(path, contents[other])
    return _replaced(other, mine)


def _add(path: Path, rng: random.Random) -> None:
    """A file that nobody here wrote, with a name that could be one of ours."""
    number = rng.randrange(100)
    name = rng.choice(("notes.txt", f"shard-{number:05d}.h5", f"task-{number:05d}.json", "core"))
    place = path.with_name(name)
    with suppress(FileExistsError), place.open("xb") as file:
        file.write(rng.randbytes(1000))


FLIP, FOREIGN = "flipped bit", "foreign file"
HARMS: dict[str, Callable[[Path, random.Random], None]] = {
    FLIP: _flip,
    "cut": _cut,
    "emptied": _empty,
    "removed": _remove,
    "renamed": _rename,
    "swapped": _swap,
    FOREIGN: _add,
}
