"""One bound of the pixels of a frame, for every format."""

import av
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from minari.data_collector import EpisodeBuffer

from stages.artifacts import foreign
from stages.artifacts.film_data import FilmData
from stages.artifacts.minari_data import MinariData
from stages.artifacts.npz_archive import Archive
from stages.artifacts.npz_data import NpzData
from stages.errors import UsageError
from stages.worlds.gymnasium_world import action_spec_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
HEIGHT, WIDTH = 32, 48


def nothing() -> None:
    pass


def npz(folder, shown, actions):
    np.savez(folder / "a.npz", observations=shown, actions=actions)
    return NpzData(folder, nothing)


def film(folder, shown, _):
    with av.open(str(folder / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=20, width=WIDTH, height=HEIGHT)
        stream.pix_fmt = "bgr0"
        for frame in shown:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return FilmData([str(folder / "a.mkv")], every=1, cut=100, poll=nothing)


def data_set(folder, shown, actions, *, packed=False):
    ends = np.arange(len(actions)) == len(actions) - 1
    minari.create_dataset_from_buffers(
        "mine-v0",
        [EpisodeBuffer(None, None, None, shown, actions, 0.0 * actions, ends, ends)],
        observation_space=Box(0, 255, shown.shape[1:], np.uint8),
        action_space=Discrete(3),
        jpeg_encoding=packed,
    )
    return MinariData("mine-v0", "", action_spec_of, nothing)


def packed(folder, shown, actions):
    return data_set(folder, shown, actions, packed=True)


@pytest.mark.parametrize("write", [npz, film, data_set, packed])
def test_frames_have_as_many_pixels_at_most(write, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    source = write(tmp_path, np.zeros((4, HEIGHT, WIDTH, 3), np.uint8), np.array([0, 1, 2]))

    def read():
        return [reader() for _, reader in source.episodes(lambda frames, _: frames)]

    monkeypatch.setattr(foreign, "MAX_PIXELS", HEIGHT * WIDTH)
    assert len(read()) == 1
    monkeypatch.setattr(foreign, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(UsageError, match="32 x 48 pixels"):
        read()


def test_the_bound_is_that_of_eight_thousand_columns(tmp_path, monkeypatch):
    """7,680 x 4,320 is the largest size of films; 60,000 x 60,000 comes out of 10 MB of zeros."""
    foreign.check_frames((2, 4320, 7680, 3), np.uint8, "a")
    for shape in ((2, 60_000, 60_000), (2, 4320, 7800, 3)):
        with pytest.raises(UsageError, match="pixels"):
            foreign.check_frames(shape, np.uint8, "a")
    np.savez_compressed(
        tmp_path / "a.npz", observations=np.zeros((1, 4320, 7800), np.uint8), actions=np.zeros(0)
    )
    monkeypatch.setattr(Archive, "pieces", lambda *_: pytest.fail("a frame was unpacked"))
    ((_, reader),) = NpzData(tmp_path, nothing).episodes(lambda frames, _: frames)
    with pytest.raises(UsageError, match="4,320 x 7,800 pixels"):
        reader()
