"""Data sets of the minari package, read and written by the package itself (the extra `minari`)."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np

from stages.artifacts.disk import digest_file, explained, sync_file, sync_folder
from stages.artifacts.episodes import EpisodeRecord
from stages.artifacts.foreign import (
    BLOCK,
    ForeignEpisode,
    Shrink,
    actions_column,
    aligned,
    check_frames,
    flags_column,
    numbers_column,
)
from stages.artifacts.hdf5 import check_heaps
from stages.artifacts.minari_sizes import Told, check_episode
from stages.artifacts.plain import COUNT, TEXT, fault, optional
from stages.contracts import ActionSpec
from stages.errors import ArtifactDamaged, EnvironmentLacks, InputMissing, StageError, UsageError

DATA, METADATA, MAIN = "data", "metadata.json", "main_data.hdf5"
FORMAT = "hdf5"  # of the package's own; its readers of the others cut long episodes
LOCAL = Path(".minari") / "datasets"  # below the home, unless MINARI_DATASETS_PATH says otherwise
Where = tuple[str | int, ...]  # a space among others
_ID = re.compile(r"[-\w]+-v\d+")
_RULES = {"total_episodes": COUNT, "data_format": TEXT, "dataset_id": optional(TEXT)}


def require_minari() -> None:
    """EnvironmentLacks where the package is missing."""
    if find_spec("minari") is None or find_spec("PIL") is None:
        raise EnvironmentLacks(
            "Minari data sets need the package minari, which is not installed.",
            fix='Install it with: pip install "wm-pixels[minari]"',
        )


class MinariData:
    """A data set in a folder, or one that the package keeps under its id."""

    frames_per_second: float | None = None
    lacks: tuple[str, ...] = ()
    tells_actions = True

    def __init__(
        self, place: str, key: str, spec_of: Callable[[Any], ActionSpec], poll: Callable[[], None]
    ) -> None:
        """`key` names one of several observations; `spec_of` tells what an action space is."""
        require_minari()
        folder = _found(place)
        self._storage, metadata = _storage(folder)
        self.name = metadata.get("dataset_id") or folder.parent.name
        self.num_items: int = metadata["total_episodes"]
        self.key = _picture(self._storage.observation_space, key)
        self._actions = spec_of(self._storage.action_space)
        self._main = folder / MAIN
        self._told = _columns(self._storage, self.key)
        digests = hashlib.sha256()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            poll()
            digests.update(f"{path.relative_to(folder)} {digest_file(path)}\n".encode())
        self.content = digests.hexdigest()

    def actions(self) -> ActionSpec:
        """What its action space says."""
        return self._actions

    def seeds(self) -> list[int | None]:
        """The seed of every episode, where it has one."""
        with _reading(self.name):
            told = self._storage.get_episode_metadata(range(self.num_items))
            return [None if one.get("seed") is None else int(one["seed"]) for one in told]

    def episodes(self, shrink: Shrink) -> Iterator[tuple[int, Callable[[], ForeignEpisode | None]]]:
        """Number and reader of every episode."""
        for number in range(self.num_items):
            yield number, partial(self._episode, number, shrink)

    def _episode(self, number: int, shrink: Shrink) -> ForeignEpisode | None:
        source = f"episode {number} of {self.name}"
        with _reading(source):
            check_episode(self._main, number, self._told, source)
            (found,) = self._storage.get_episodes([number])
        frames = np.asarray(_inside(found["observations"], self.key))
        check_frames(frames.shape, frames.dtype, source)
        actions = actions_column(np.asarray(found["actions"]), source)
        num_steps = len(actions)
        if num_steps == 0:
            return None
        columns = {"actions": actions}
        columns["rewards"] = numbers_column(
            "rewards", np.asarray(found["rewards"]), num_steps, source
        )
        for name in ("terminations", "truncations"):
            columns[name] = flags_column(name, np.asarray(found[name]), num_steps, source)
        columns = aligned(columns, len(frames), after=False, source=source)
        if not len(columns["actions"]):
            return None
        pieces = [shrink(frames[at : at + BLOCK], source) for at in range(0, len(frames), BLOCK)]
        return ForeignEpisode(source, np.concatenate(pieces), **columns)


def _found(place: str) -> Path:
    """The folder with the data: the one named, its `data`, or that of a local id."""
    home = os.environ.get("MINARI_DATASETS_PATH")
    local = Path(home) if home else Path.home() / LOCAL
    with explained("read", Path(place)):
        for folder in (Path(place), Path(place) / DATA, local / place / DATA):
            if (folder / METADATA).is_file():
                return folder
    raise InputMissing(
        f"There is no Minari data set at {place}.",
        why=f"Neither it nor a data set of this id in {local} has a {DATA}/{METADATA}.",
        fix="Name its folder, or the id of one that `minari list local` shows.",
    )


def _storage(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The package's reader, which is not asked to make the environment, and the metadata."""
    from minari import supported_dataset_versions
    from minari.dataset.minari_storage import MinariStorage

    with _reading(folder.parent.name):
        told = MinariStorage.read_raw_metadata(folder)
        wrong = fault(told, _RULES) if isinstance(told, dict) else "it is no object"
        if wrong:
            raise ArtifactDamaged(f"{folder / METADATA} is damaged.", why=f"{wrong}.")
        if told["data_format"] != FORMAT:
            raise UsageError(
                f"The data set {folder.parent.name} is of the format {told['data_format']}.",
                why=f"Of the formats of minari {FORMAT} alone is read.",
                fix=f"Write it anew as {FORMAT} with minari: docs/own-data.md has the lines.",
            )
        missing = [one for one in ("observation_space", "action_space") if one not in told]
        if missing:  # the package would make the environment, which runs code that it names
            raise UsageError(
                f"The data set {folder.parent.name} does not tell its {missing[0]}.",
                fix="Write it anew with a newer minari, which keeps its spaces.",
            )
        if told.get("minari_version") not in supported_dataset_versions:
            raise UsageError(
                f"The data set {folder.parent.name} is of minari {told.get('minari_version')}.",
                why="The installed package does not read that version.",
            )
        check_heaps(folder / MAIN)
        return MinariStorage.read(folder), told


@contextmanager
def _reading(source: str) -> Iterator[None]:
    """Say which data set cannot be read, whatever the package raises on it."""
    try:
        yield
    except (StageError, MemoryError):
        raise
    except PermissionError as error:
        raise EnvironmentLacks(f"{source} may not be read.", why=f"{error}.") from error
    except ImportError as error:
        raise EnvironmentLacks(f"{source} needs another package.", why=f"{error}.") from error
    except Exception as error:
        raise ArtifactDamaged(
            f"{source} cannot be read by minari.", why=f"{type(error).__name__}: {error}."
        ) from error


def _picture(space: Any, key: str) -> tuple[str, ...]:
    """Where the pictures are in an observation.

    Raises:
        UsageError: there are none, several, or not under that name.
    """
    found = list(_pictures(space))
    if key:
        where = tuple(key.split("/"))
        if where not in found:
            raise UsageError(
                f"There are no pictures under --observation {key}.", why=_held(space, found)
            )
        return where
    if len(found) != 1:
        raise UsageError(
            "The data set has no pictures." if not found else "The data set has several pictures.",
            why=_held(space, found),
            fix="Choose one with --observation KEY." if found else "wm learns from pixels.",
        )
    return found[0]


def _held(space: Any, found: Sequence[tuple[str, ...]]) -> str:
    names = ", ".join("/".join(where) or "the observation itself" for where in found)
    return f"Pictures of uint8 are: {names}." if found else f"An observation is {space}."


def _pictures(space: Any) -> Iterator[tuple[str, ...]]:
    for where, one in _leaves(space, ()):
        shape = getattr(one, "shape", None) or ()
        if str(getattr(one, "dtype", "")) == "uint8" and len(shape) in (2, 3):
            yield tuple(map(str, where))


def _leaves(space: Any, where: Where) -> Iterator[tuple[Where, Any]]:
    """The spaces inside of one, by names and by numbers."""
    inside = getattr(space, "spaces", None)
    if inside is None:
        yield where, space
        return
    for name, one in inside.items() if isinstance(inside, Mapping) else enumerate(inside):
        yield from _leaves(one, (*where, name))


def _columns(storage: Any, key: tuple[str, ...]) -> Told:
    """What the package would decode, by its place in the file; actions are never pictures."""
    from minari.dataset.minari_storage import is_image_space

    jpegs, picture = {}, key
    for where, space in _leaves(storage.observation_space, ()):
        names = [f"_index_{name}" if isinstance(name, int) else name for name in where]
        if storage.jpeg_encoding and is_image_space(space):
            jpegs[("observations", *names)] = space.shape
        if tuple(map(str, where)) == key:
            picture = ("observations", *names)
    return Told(picture, jpegs)


def _inside(observations: Any, where: Sequence[str]) -> Any:
    for name in where:
        observations = observations[name if isinstance(observations, Mapping) else int(name)]
    return observations


# -------------------------------------------------------------------------------------- writing


def write_minari(
    folder: Path,
    name: str,
    records: Iterator[EpisodeRecord],
    spaces: tuple[Any, Any],
    told: Mapping[str, str],
) -> None:
    """Write episodes into an empty folder as the data set `name`, one at a time, without loss.

    `spaces` are those of observations and actions.
    """
    require_minari()
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    def buffers() -> Iterator[Any]:
        for number, record in enumerate(records):
            yield EpisodeBuffer(
                id=number,
                seed=record.seed,
                observations=record.observations,
                actions=record.actions,
                rewards=record.rewards,
                terminations=record.terminations,
                truncations=record.truncations,
            )

    with catch_warnings(), explained("write", folder):
        simplefilter("ignore")  # of authors and links that nobody knows
        data = folder / DATA
        data.mkdir()
        storage = MinariStorage.new(
            data,
            observation_space=spaces[0],
            action_space=spaces[1],
            data_format=FORMAT,
            jpeg_encoding=False,
        )
        version = minari.__version__
        storage.update_metadata({"dataset_id": name, "minari_version": version, **told})
        storage.update_episodes(buffers())
        for path in data.iterdir():
            sync_file(path)
        sync_folder(data)


def dataset_id(folder: Path) -> str:
    """The id of a data set that is written into this folder, which ends in -v0, -v1, ...

    Raises:
        UsageError: it could not be an id.
    """
    if not _ID.fullmatch(folder.name):
        raise UsageError(
            f"{folder.name!r} cannot be the id of a Minari data set.",
            why="An id is letters, digits, - and _, and ends in its version.",
            fix=f"For example: {folder.parent / 'driving-v0'}",
        )
    return folder.name
