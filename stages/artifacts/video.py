"""Films of episodes: H.264 in mp4 by PyAV, which brings its own encoder."""

import io
from collections.abc import Iterable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.disk import write_file
from stages.errors import EnvironmentLacks

SCALE = 4  # pixels of the film per pixel of a frame
# x264 looks ahead with what lies in its memory: the same frames would give other bytes each time.
REPEATABLE = {"threads": "1", "x264-params": "mbtree=0"}
QUALITY = 18  # constant rate factor: hardly any difference is seen


def require_encoder() -> None:
    """EnvironmentLacks when no film could be written; asked before any work is done."""
    if find_spec("av") is None:
        raise EnvironmentLacks(
            "Videos need the package PyAV, which is not installed.",
            fix='Install it with: pip install "wm-pixels[video]"',
        )


def write_video(
    path: Path, frames: Iterable[NDArray[np.uint8]], *, frames_per_second: float
) -> None:
    """Write frames uint8 [H, W, 3] as an mp4 file, whole or not at all."""
    film = Film(frames_per_second=frames_per_second, scale=SCALE)
    for frame in frames:
        film.add(frame)
    film.write(path)


class Film:
    """A film in the making, held in memory: a file is there whole or not at all."""

    def __init__(self, *, frames_per_second: float, scale: int = 1, quality: int = QUALITY) -> None:
        """`scale`: pixels of the film per pixel of a frame; `quality` as x264 counts, 0 is best."""
        require_encoder()
        import av

        self._content = io.BytesIO()
        self._container = av.open(self._content, "w", format="mp4")
        self._rate = Fraction(frames_per_second).limit_denominator(1000)
        self._scale = scale
        self._quality = quality
        self._stream: Any = None
        self.num_frames = 0

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Show this frame uint8 [H, W, 3] next; all are of one size."""
        import av

        enlarged = _even(frame.repeat(self._scale, axis=0).repeat(self._scale, axis=1))
        if self._stream is None:
            self._stream = self._container.add_stream("h264", rate=self._rate)
            self._stream.height, self._stream.width = enlarged.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"crf": str(self._quality), **REPEATABLE}
        picture = av.VideoFrame.from_ndarray(enlarged, format="rgb24")
        self._container.mux(self._stream.encode(picture))
        self.num_frames += 1

    def write(self, path: Path) -> None:
        """End the film and put it at `path`."""
        write_file(path, self.content())

    def content(self) -> bytes:
        """End the film; the bytes of its file."""
        assert self._stream is not None, "a film without frames"
        self._container.mux(self._stream.encode())
        self._container.close()
        return self._content.getvalue()


def _even(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without a last odd row or column: the encoder halves the colour planes."""
    rows, columns = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
    return np.ascontiguousarray(frame[:rows, :columns])
