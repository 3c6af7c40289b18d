"""TensorBoard: event files in `tracking/tensorboard/<run>/` of the workspace.

Written with the tensorboard package alone; neither torch nor TensorFlow is loaded.
"""

import io
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from stages.events import Began, Measured, Pictured
from stages.tracking.protocol import Logged

FILE = "events.out.tfevents"
VERSION = "brain.Event:2"  # the first record of every event file
CONFIG = "config"
MAX_FRAMES = 150  # of a film
FRAME_SECONDS = 0.08  # that each of them is shown
MAX_SIDE = 256  # pixels


class TensorBoardFiles:
    """One folder per run; where a run goes on, its file is written anew from its metrics."""

    def __init__(self) -> None:
        self._writer: Any = None

    def start(self, run: Began) -> None:
        """Begin the run's file with its configuration."""
        folder = run.tracking / "tensorboard" / run.run
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{FILE}.*"):
            old.unlink()
        name = f"{FILE}.{time.time_ns() // 10**9}.{socket.gethostname()}.wm"
        self._writer = RecordWriter((folder / name).open("wb"))
        self._write(Event(wall_time=time.time(), file_version=VERSION))
        config = json.dumps(run.config, indent=2, sort_keys=True)
        # Four spaces make a block of code in Markdown.
        self._add(0, _text(CONFIG, "".join(f"    {line}\n" for line in config.splitlines())))

    def log(self, item: Logged) -> None:
        """Write it, and flush: TensorBoard may be looking."""
        if isinstance(item, Measured):
            values = [Summary.Value(tag=k, simple_value=v) for k, v in item.values.items()]
            self._add(item.step, *values)
        elif isinstance(item, Pictured):
            with Image.open(io.BytesIO(item.png)) as picture:
                self._add(item.step, _image(item.name, item.png, *picture.size))
        else:
            self._add(item.step, _film(item.name, item.path))

    def finish(self) -> None:
        """Close the file."""
        self._writer.close()

    def _add(self, step: int, *values: Any) -> None:
        summary = Summary(value=values)
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def _text(tag: str, text: str) -> Any:
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)


def _image(tag: str, encoded: bytes, width: int, height: int) -> Any:
    image = Summary.Image(encoded_image_string=encoded, width=width, height=height, colorspace=3)
    return Summary.Value(tag=tag, image=image)


def _film(tag: str, path: Path) -> Any:
    """An mp4 file as an animated GIF, which TensorBoard shows among the pictures."""
    pictures = [Image.fromarray(frame) for frame in _some_frames(path)]
    for picture in pictures:
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
    content = io.BytesIO()
    first, *others = pictures
    first.save(
        content,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=round(1000 * FRAME_SECONDS),
        loop=0,
    )
    return _image(tag, content.getvalue(), *first.size)


def _some_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Frames [H, W, 3], evenly spread over the film."""
    import av

    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        stride = max(1, -(-stream.frames // MAX_FRAMES))
        for number, frame in enumerate(film.decode(stream)):
            if number % stride == 0:
                yield frame.to_ndarray(format="rgb24")
