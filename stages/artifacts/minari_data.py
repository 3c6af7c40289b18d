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
from stages.artifacts.shards import MAX_READ
from stages.contracts import ActionSpec
from stages.errors import ArtifactDamaged, EnvironmentLacks, InputMissing, StageError, UsageError

DATA, METADATA, MAIN = "data", "metadata.json", "main_data.hdf5"
LOCAL = Path(".minari") / "datasets"  # below the home, unless MINARI_DATASETS_PATH says otherwise
_ID = re.compile(r"[-\w]+-v\d+")


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
        self._storage = _storage(folder)
        metadata = self._storage.metadata
        self.name = str(metadata.get("dataset_id", folder.parent.name))
        self.num_items = int(self._storage.total_episodes)
        self.key, space = _picture(self._storage.observation_space, key)
        self.space = space
        self._actions = spec_of(self._storage.action_space)
        self._main = folder / MAIN
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
        self._check_size(number, source)
        with _reading(source):
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

    def _check_size(self, number: int, source: str) -> None:
        """Refuse what would not fit into memory, or lies in another file, before it is read."""
        if not self._main.exists():
            return  # of the format arrow
        import h5py

        def look(name: str, link: Any) -> None:
            if not isinstance(link, h5py.HardLink):
                raise ArtifactDamaged(f"{source} is refused.", why=f"Its {name} is a link.")
            one = file[name]
            if isinstance(one, h5py.Dataset) and (
                one.is_virtual or one.external or one.nbytes > MAX_READ
            ):
                raise ArtifactDamaged(
                    f"{source} is refused.",
                    why=f"Its {name} take {one.nbytes:,} bytes, or lie in another file.",
                )

        with _reading(source), h5py.File(self._main, "r", locking=False) as file:
            root = f"episode_{number}"
            link = file.get(root, getlink=True)
            if link is None:
                raise ArtifactDamaged(f"{source} is missing.")
            look(root, link)
            group = file[root]
            if not isinstance(group, h5py.Group):
                raise ArtifactDamaged(f"{source} is no group.")
            links: list[tuple[str, Any]] = []  # nothing may be raised or read in the visit
            group.visititems_links(lambda *link: links.append(link))
            for name, inside in links:
                look(f"{root}/{name}", inside)


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


def _storage(folder: Path) -> Any:
    """The package's reader, which is not asked to make the environment."""
    from minari import supported_dataset_versions
    from minari.dataset.minari_storage import MinariStorage

    with _reading(folder.parent.name):
        told = MinariStorage.read_raw_metadata(folder)
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
        return MinariStorage.read(folder)


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


def _picture(space: Any, key: str) -> tuple[tuple[str, ...], Any]:
    """Where the pictures are in an observation, and their space.

    Raises:
        UsageError: there are none, several, or not under that name.
    """
    found = dict(_pictures(space, ()))
    if key:
        where = tuple(key.split("/"))
        if where not in found:
            raise UsageError(
                f"There are no pictures under --observation {key}.", why=_held(space, found)
            )
        return where, found[where]
    if len(found) != 1:
        raise UsageError(
            "The data set has no pictures." if not found else "The data set has several pictures.",
            why=_held(space, found),
            fix="Choose one with --observation KEY." if found else "wm learns from pixels.",
        )
    return next(iter(found.items()))


def _held(space: Any, found: Mapping[tuple[str, ...], Any]) -> str:
    names = ", ".join("/".join(where) or "the observation itself" for where in found)
    return f"Pictures of uint8 are: {names}." if found else f"An observation is {space}."


def _pictures(space: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    inside = getattr(space, "spaces", None)
    if inside is not None:
        pairs = inside.items() if isinstance(inside, Mapping) else enumerate(inside)
        for name, one in pairs:
            yield from _pictures(one, (*where, str(name)))
        return
    shape = getattr(space, "shape", None) or ()
    if str(getattr(space, "dtype", "")) == "uint8" and len(shape) in (2, 3):
        yield where, space


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
            data_format="hdf5",
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
