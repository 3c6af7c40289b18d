"""`wm export minari|npz|mp4`: recorded episodes for other programs, and for people to look at.

Minari data sets and npz files hold what was recorded, bit for bit; films are packed with loss.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from shlex import quote

from stages.artifacts.artifact import Artifact
from stages.artifacts.aside import write_folder
from stages.artifacts.canonical import readable_json
from stages.artifacts.disk import explained, read_file, write_file
from stages.artifacts.episodes import EpisodeRecord, EpisodeSet
from stages.artifacts.fitting import check_actions_known
from stages.artifacts.plain import SIZE, one_of, parse_record
from stages.artifacts.summaries import actions_of
from stages.artifacts.workspace import Workspace
from stages.contracts import ActionSpec
from stages.errors import ArtifactDamaged, InputMissing, StageError, UsageError
from stages.events import Advanced, Monitor, Noted, Report

EPISODES = ("rollouts", "plays")  # kinds that hold some
SCALE = 256  # rows that a film has at least
MARK = "wm-export.json"  # in every export: what has it may be replaced
FORMAT, VERSION = "wm-export", 1
_EXPORTED = {  # names of what an export writes; whoever adds others keeps them
    "minari": re.compile(r"data|data/(metadata\.json|main_data\.hdf5)"),
    "npz": re.compile(r"episode-\d{5,}\.npz|dataset\.json"),
    "mp4": re.compile(r"episode-\d{5,}\.mp4"),
}
_READ = {
    "minari": "In Python: minari.MinariDataset({data!r})",
    "npz": "In Python: numpy.load({first!r})",
    "mp4": "One film per episode.",
}


def export_episodes(
    workspace: Workspace,
    what: str,
    target: Path,
    *,
    source: str,
    num_episodes: int | None,
    force: bool,
    progress: Monitor,
) -> Report:
    """Write the first episodes of an artifact, or all, into a folder outside of workspaces."""
    artifact = _recorded(workspace, source)
    folder = target.resolve()
    _check_place(folder, what, force=force)
    if what != "mp4":
        check_actions_known([artifact])
    with closing(EpisodeSet.of([artifact])) as episodes:
        count = min(num_episodes or episodes.num_episodes, episodes.num_episodes)
        if num_episodes is not None and num_episodes > count:
            progress.emit(Noted(f"{artifact.id} has {count} episodes."))

        def records() -> Iterator[EpisodeRecord]:
            for number in range(count):
                progress.poll()
                progress.emit(Advanced(number, count, "episodes"))
                yield episodes.episode(number)
            progress.emit(Advanced(count, count, "episodes"))

        fill = _FILLERS[what](artifact, folder, records)

        def marked(aside: Path) -> None:
            write_file(aside / MARK, _mark(what))
            fill(aside)

        write_folder(folder, marked)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    first = str(folder / "episode-00000.npz")
    return Report(
        command="export",
        path=str(folder),
        summary={"from": artifact.id, "episodes": count, "bytes": size},
        notes=tuple(_notes(what, data=str(folder / "data"), first=first)),
    )


def _notes(what: str, **places: str) -> Iterator[str]:
    yield _READ[what].format(**places)
    if what != "mp4":
        place = quote(str(Path(places["first"]).parent))
        yield f"In another workspace: wm import {what} {place}"


def _recorded(workspace: Workspace, source: str) -> Artifact:
    """The episodes that are exported."""
    found = workspace.get(source) if source else workspace.newest(EPISODES[0])
    if found is None:
        raise InputMissing(
            f"There are no recorded episodes in {workspace.root} yet.",
            fix="Record some with `wm rollout`, or import them with `wm import`.",
        )
    if found.kind not in EPISODES:
        raise UsageError(
            f"{found.id} holds no episodes.",
            why=f"Those of {' and '.join(EPISODES)} do.",
            fix="Write --from rollouts/0001, or leave it out for the newest.",
        )
    return found


def _check_place(folder: Path, what: str, *, force: bool) -> None:
    """Refuse a place where nothing may be written; with `force` an earlier export may go."""
    for place in (folder, *folder.parents):
        if Workspace.exists(place):
            raise UsageError(
                f"{folder} lies in the workspace {place}.",
                fix="Choose a new folder outside of every workspace.",
            )
    with explained("read", folder):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UsageError(f"{folder} is a file.", fix="Choose a new folder.")
        if not any(folder.iterdir()):
            return
        found = folder / MARK
        if not (found.is_file() and _is_mark(found, what)):
            raise UsageError(
                f"{folder} exists and is no earlier export of {what}.",
                why=f"It has no {MARK} that says so: it may be somebody's own.",
                fix="Choose a new folder.",
            )
        foreign = _foreign(folder, what)
    if foreign is not None:
        raise UsageError(
            f"{folder} holds more than an earlier export.",
            why=f"It holds {foreign!r}.",
            fix="Choose a new folder.",
        )
    if not force:
        raise UsageError(
            f"{folder} holds an export already.",
            fix="Choose a new folder, or replace it with --force.",
        )


def _foreign(folder: Path, what: str) -> str | None:
    """A file or folder that no export of this kind wrote."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name != MARK and not _EXPORTED[what].fullmatch(name):
            return name
    return None


def _mark(what: str) -> bytes:
    return readable_json({"format": FORMAT, "format_version": VERSION, "what": what})


def _is_mark(path: Path, what: str) -> bool:
    rules = {"format": one_of(FORMAT), "format_version": SIZE, "what": one_of(what)}
    try:
        parse_record(read_file(path, limit=1000), source=path.name, rules=rules)
    except ArtifactDamaged:
        return False
    return True


Fill = Callable[[Path], None]
Records = Callable[[], Iterator[EpisodeRecord]]


def _npz(artifact: Artifact, folder: Path, records: Records) -> Fill:
    from stages.artifacts.npz_data import TOLD, archive_image, told_image

    del folder

    def fill(aside: Path) -> None:
        write_file(aside / TOLD, told_image(_spec(artifact)))
        for number, record in enumerate(records()):
            write_file(aside / f"episode-{number:05d}.npz", archive_image(record))

    return fill


def _minari(artifact: Artifact, folder: Path, records: Records) -> Fill:
    from stages.artifacts.minari_data import dataset_id, require_minari, write_minari
    from stages.worlds.gymnasium_world import picture_space, space_of

    require_minari()
    name = dataset_id(folder)
    world = artifact.manifest.config["world"]
    spaces = (picture_space(world["size"]), space_of(_spec(artifact)))
    policy = str(artifact.manifest.summary.get("policy", ""))
    told = {
        "algorithm_name": policy,
        "description": f"Frames of {world['env']} at {world['size']} x {world['size']} pixels, "
        f"{world['repeat']} engine frames per action.",
    }

    def fill(aside: Path) -> None:
        write_minari(aside, name, records(), spaces, told)

    return fill


def _mp4(artifact: Artifact, folder: Path, records: Records) -> Fill:
    from stages.artifacts.video import Film, require_encoder

    del folder
    require_encoder()
    size = artifact.manifest.config["world"]["size"]
    rate = _rate(artifact)

    def fill(aside: Path) -> None:
        for number, record in enumerate(records()):
            film = Film(frames_per_second=rate, scale=-(-SCALE // size))
            for frame in record.observations:
                film.add(frame)
            film.write(aside / f"episode-{number:05d}.mp4")

    return fill


def _rate(artifact: Artifact) -> float:
    """Frames per second at which it happened; the usual number where nothing tells."""
    from stages.worlds.making import USUAL_FRAMES_PER_SECOND, frames_per_second, is_own

    told = artifact.manifest.summary.get("frames_per_second")
    if isinstance(told, int | float) and 0 < told < 1000:
        return float(told)
    world = artifact.manifest.config["world"]
    if is_own(world["env"]):  # whoever exports runs no code of a module that a manifest names
        return USUAL_FRAMES_PER_SECOND
    try:
        return frames_per_second(world["env"]) / int(world["repeat"])
    except StageError:  # the environment is not here, and is not needed
        return USUAL_FRAMES_PER_SECOND


def _spec(artifact: Artifact) -> ActionSpec:
    spec = actions_of(artifact.manifest)
    assert spec is not None, f"{artifact.id} tells its actions"
    return spec


_FILLERS: dict[str, Callable[[Artifact, Path, Records], Fill]] = {
    "minari": _minari,
    "npz": _npz,
    "mp4": _mp4,
}
