"""Episodes that others recorded, as their readers hand them over, and what is checked of all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.contracts import ActionSpec, Frames
from stages.errors import NumbersBad, UsageError

BLOCK = 64  # frames that are read, shrunk and forgotten together, at most
BLOCK_BYTES = 2**25  # that they take, at most, unless one frame is larger
MAX_FRAMES = 100_000  # of one episode: 1.2 GB at 64 x 64
MAX_PIXELS = 2**25  # of one frame: more than 7,680 x 4,320
Shrink = Callable[[Frames, str], Frames]  # frames [n, H, W] or [n, H, W, C] as V sees them, of whom
_KINDS = "uint8 [T + 1, rows, columns], or with 1, 3 or 4 colours as the last axis"


@dataclass(frozen=True)
class ForeignEpisode:
    """One episode of T steps, its frames already as V sees them."""

    name: str  # where it is, for messages: "a.npz", "episode_3"
    observations: NDArray[np.uint8]  # [T + 1, size, size, 3]
    actions: NDArray[Any]  # float32 [T, A] of a box, int64 [T] of a choice or of nobody
    rewards: NDArray[np.float64]  # [T]
    terminations: NDArray[np.bool_]  # [T]
    truncations: NDArray[np.bool_]  # [T]


class ForeignData(Protocol):
    """A data set of others: what it tells, and its episodes one by one."""

    name: str  # of its file or folder, without the path
    content: str  # sha256 of all that it holds
    num_items: int  # files, or episodes where there is one file
    lacks: tuple[str, ...]  # columns that it has not: "rewards"
    frames_per_second: float | None

    def seeds(self) -> Sequence[int | None]:
        """The seed of every item, where it tells one."""
        ...

    def actions(self) -> ActionSpec:
        """What an action is; where nothing tells it, what occurs."""
        ...

    @property
    def tells_actions(self) -> bool:
        """Whether that is told, not guessed from what occurs."""
        ...

    def episodes(self, shrink: Shrink) -> Iterator[tuple[int, Callable[[], ForeignEpisode | None]]]:
        """Number of the item and how to read the episode; None where it has no steps."""
        ...


def check_frames(shape: Sequence[int], dtype: Any, source: str) -> None:
    """Refuse what is no column of frames; `shape` is that of the whole column.

    Raises:
        UsageError: floats, axes in another order, too many frames, or too large ones.
    """
    whole = np.dtype(dtype) == np.uint8
    picture = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))
    if whole and picture and min(shape[1:]) > 0:
        if shape[0] > MAX_FRAMES:
            raise UsageError(
                f"The episode {source} has {shape[0]:,} frames.",
                why=f"At most {MAX_FRAMES:,} are read at once.",
                fix="Cut it into several episodes.",
            )
        if shape[1] * shape[2] > MAX_PIXELS:
            raise UsageError(
                f"The frames of {source} have {shape[1]:,} x {shape[2]:,} pixels.",
                why=f"At most {MAX_PIXELS:,} are read at once.",
                fix="Shrink them first.",
            )
        return
    fix = "Write them as uint8, 0 to 255, rows x columns x colours."
    if np.dtype(dtype).kind == "f":
        fix = "Multiply by 255 if they are 0 to 1, round, and write them as uint8."
    elif whole and len(shape) == 4 and shape[1] in (1, 3, 4):
        fix = "The colours come first: move them to the end, np.moveaxis(frames, 1, -1)."
    raise UsageError(
        f"The frames of {source} are {np.dtype(dtype)} {list(shape)}.",
        why=f"They must be {_KINDS}.",
        fix=fix,
    )


def actions_column(found: NDArray[Any], source: str) -> NDArray[Any]:
    """Actions as they are stored: float32 [T, A] of a box, int64 [T] of a choice.

    Raises:
        UsageError: they are neither.
    """
    flat = found.reshape(len(found)) if found.ndim == 2 and found.shape[1] == 1 else found
    if flat.dtype.kind in "iub" and flat.ndim == 1:
        return flat.astype(np.int64)
    if found.dtype.kind == "f" and (found.ndim == 1 or (found.ndim == 2 and found.shape[1] > 0)):
        rows = found[:, None] if found.ndim == 1 else found
        return np.ascontiguousarray(rows, dtype=np.float32)
    raise UsageError(
        f"The actions of {source} are {found.dtype} {list(found.shape)}.",
        why="An action is one vector of floats [T, A], or one choice, a whole number [T].",
        fix="Write vectors as float32, and choices as their number instead of one-hot.",
    )


def numbers_column(name: str, found: NDArray[Any], num_steps: int, source: str) -> NDArray[Any]:
    """A column of one number per step, float64 [T].

    Raises:
        UsageError: it has another shape or holds no numbers.
        NumbersBad: one of them is not finite.
    """
    if found.dtype.kind not in "biuf" or found.shape not in {(num_steps,), (num_steps, 1)}:
        raise UsageError(
            f"{name} of {source} are {found.dtype} {list(found.shape)}.",
            why=f"There must be a number for each of its {num_steps} actions.",
        )
    column = found.reshape(num_steps).astype(np.float64)
    bad = ~np.isfinite(column)
    if bad.any():
        row = int(np.argmax(bad))
        raise NumbersBad(
            f"{name} of {source} has {column[row]} in row {row}.",
            why="Only finite numbers are imported.",
            fix="Mend the data set, or leave that episode out.",
        )
    return column


def flags_column(name: str, found: NDArray[Any], num_steps: int, source: str) -> NDArray[np.bool_]:
    """A column of one yes or no per step, bool [T]; true at most at the last one.

    Raises:
        UsageError: an episode goes on behind its end.
    """
    flags: NDArray[np.bool_] = numbers_column(name, found, num_steps, source) != 0
    if flags[:-1].any():
        row = int(np.argmax(flags))
        raise UsageError(
            f"{source} goes on after its end: {name} is true in row {row} of {num_steps}.",
            why="An episode has one end, at its last step.",
            fix="Cut it there into several episodes.",
        )
    return flags


def check_within(actions: NDArray[Any], spec: ActionSpec, source: str) -> bool:
    """Refuse actions that are none of this kind; whether all lie inside its bounds.

    Raises:
        UsageError: another kind of action, another size, or a choice that there is not.
        NumbersBad: one is not finite.
    """
    if spec.kind == "none":
        return True
    box = actions.dtype == np.float32
    if box != (spec.kind == "box") or (box and actions.shape[1] != spec.size):
        kinds = {"box": f"a vector of {spec.size} floats", "choice": f"one of {spec.size} choices"}
        raise UsageError(
            f"The actions of {source} are {actions.dtype} {list(actions.shape)}.",
            why=f"Here an action is {kinds[spec.kind]}.",
        )
    if not box:
        if ((actions < 0) | (actions >= spec.size)).any():
            raise UsageError(
                f"{source} has the actions {actions.min()} to {actions.max()}.",
                why=f"Choices are counted from 0 to {spec.size - 1}.",
            )
        return True
    check_finite(actions, source)
    low, high = np.array(spec.low, dtype=np.float32), np.array(spec.high, dtype=np.float32)
    return bool(((actions >= low) & (actions <= high)).all())


def check_finite(actions: NDArray[Any], source: str) -> None:
    """Refuse vectors float32 [T, A] with a number that is none, NumbersBad; choices are whole."""
    if actions.dtype.kind == "f" and not np.isfinite(actions).all():
        row = int(np.argmin(np.isfinite(actions).all(axis=1)))
        raise NumbersBad(
            f"actions of {source} has {actions[row].tolist()} in row {row}.",
            why="Only finite numbers are imported.",
            fix="Mend the data set, or leave that episode out.",
        )


def aligned(
    columns: Mapping[str, NDArray[Any]], num_frames: int, *, after: bool, source: str
) -> dict[str, NDArray[Any]]:
    """The rows of the steps that lie between two frames.

    Of T actions there are T + 1 frames, or T of them: then either each was drawn `after` its
    action, and nobody saw what the first one was done upon; or before it, and nobody saw what
    came of the last one: its reward and its end then count for the step before.

    Raises:
        UsageError: another number of frames.
    """
    num_steps = len(columns["actions"])
    if num_frames == num_steps + 1:
        return dict(columns)
    if num_frames != num_steps:
        raise UsageError(
            f"{source} has {num_frames} frames and {num_steps} actions.",
            why="Of T actions there are T + 1 frames, or T where the first or the last is missing.",
        )
    if after or num_steps < 2:
        return {name: rows[1:] for name, rows in columns.items()}
    kept = {name: rows[:-1].copy() for name, rows in columns.items()}
    if "rewards" in kept:
        kept["rewards"][-1] += columns["rewards"][-1]
    for name in ("terminations", "truncations"):
        if name in kept:
            kept[name][-1] |= columns[name][-1]
    return kept
