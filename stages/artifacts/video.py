"""Films of episodes: H.264 in mp4 by PyAV, which brings its own encoder."""

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
    require_encoder()
    import io

    import av

    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as container:
        stream: Any = None
        for frame in frames:
            enlarged = _even(frame.repeat(SCALE, axis=0).repeat(SCALE, axis=1))
            if stream is None:
                stream = container.add_stream("h264", rate=Fraction(frames_per_second))
                stream.height, stream.width = enlarged.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "18"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(enlarged, format="rgb24")))
        assert stream is not None, "a film without frames"
        container.mux(stream.encode())
    write_file(path, content.getvalue())


def _even(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without a last odd row or column: the encoder halves the colour planes."""
    rows, columns = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
    return np.ascontiguousarray(frame[:rows, :columns])
