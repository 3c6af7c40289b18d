"""Films as episodes that nobody drove: frames by PyAV (the extra `video`), and no actions."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.disk import digest_file, explained
from stages.artifacts.foreign import BLOCK, BLOCK_BYTES, ForeignEpisode, Shrink, check_frames
from stages.artifacts.video import require_encoder
from stages.contracts import ActionSpec, Frames
from stages.errors import ArtifactDamaged, InputMissing, StageError

NOBODY = ActionSpec("none", 1)


class FilmData:
    """Films in the order they are named; long ones become several episodes."""

    lacks: tuple[str, ...] = ()  # nobody expects any of a film
    tells_actions = True

    def __init__(
        self, places: Sequence[str], *, every: int, cut: int, poll: Callable[[], None]
    ) -> None:
        """Of each film every `every`-th frame is taken; an episode has `cut` frames at most."""
        require_encoder()
        self._paths = [Path(place) for place in places]
        self._every, self._cut = every, cut
        digests = hashlib.sha256()
        for path in self._paths:
            poll()
            if not path.is_file():
                fix = f"Name the files in it: {path}/*.mp4" if path.is_dir() else ""
                raise InputMissing(f"There is no film at {path}.", fix=fix)
            digests.update(f"{digest_file(path)}\n".encode())
        self.content = digests.hexdigest()
        self.num_items = len(self._paths)
        self.name = ", ".join(path.name for path in self._paths[:4])
        if self.num_items > 4:
            self.name += f" and {self.num_items - 4} more"
        rate = _rate(self._paths[0])
        self.frames_per_second = rate / every if rate else None

    def actions(self) -> ActionSpec:
        """None."""
        return NOBODY

    def seeds(self) -> list[int | None]:
        """None."""
        return [None] * self.num_items

    def episodes(self, shrink: Shrink) -> Iterator[tuple[int, Callable[[], ForeignEpisode | None]]]:
        """Number of the film, and every piece of it, which has been read by then."""
        for number, path in enumerate(self._paths):
            for piece, frames in enumerate(self._pieces(path, shrink)):
                yield number, partial(_episode, frames, f"{path.name}, piece {piece}")

    def _pieces(self, path: Path, shrink: Shrink) -> Iterator[Frames]:
        """Shrunk frames of a film, at most `cut` at a time."""
        waiting: list[Frames] = []
        for block in _blocks(path, self._every):
            waiting.append(shrink(block, path.name))
            if sum(map(len, waiting)) >= self._cut:
                whole = np.concatenate(waiting)
                for start in range(0, len(whole) - self._cut + 1, self._cut):
                    yield whole[start : start + self._cut]
                rest = whole[len(whole) - len(whole) % self._cut :]
                waiting = [rest] if len(rest) else []
        if waiting:
            yield np.concatenate(waiting)


def _episode(frames: Frames, name: str) -> ForeignEpisode | None:
    steps = len(frames) - 1
    if steps < 1:
        return None
    idle = np.zeros(steps, dtype=np.bool_)
    return ForeignEpisode(name, frames, np.zeros(steps, np.int64), np.zeros(steps), idle, idle)


def _rate(path: Path) -> float | None:
    """Frames per second, where the film says."""
    with _opened(path) as container:
        rate = container.streams.video[0].average_rate
        return float(rate) if rate else None


def _blocks(path: Path, every: int) -> Iterator[NDArray[np.uint8]]:
    """Frames uint8 [n, H, W, 3] of a film, a few at a time."""
    frames: list[NDArray[np.uint8]] = []
    with _opened(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % every:
                continue
            check_frames((1, frame.height, frame.width, 3), np.uint8, path.name)
            shown = frame.to_ndarray(format="rgb24")
            if frames and frames[0].shape != shown.shape:
                raise ArtifactDamaged(
                    f"The frames of {path.name} change their size.",
                    why=f"From {frames[0].shape[:2]} to {shown.shape[:2]}.",
                )
            frames.append(shown)
            if len(frames) == BLOCK or len(frames) * shown.nbytes >= BLOCK_BYTES:
                yield np.stack(frames)
                frames = []
    if frames:
        yield np.stack(frames)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A film; a file that names others is not followed."""
    import av

    try:
        with explained("read", path), path.open("rb") as file:
            container = av.open(file, options={"protocol_whitelist": "pipe"})
            try:
                if not container.streams.video:
                    raise ArtifactDamaged(f"{path.name} has no pictures.")
                yield container
            finally:
                container.close()
    except StageError:
        raise
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise ArtifactDamaged(f"{path.name} cannot be read as a film.", why=f"{error}.") from error
