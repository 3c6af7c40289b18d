"""Minari data sets that somebody made to harm: refused before anything of them is decoded."""

import io
import json
import struct
from pathlib import Path

import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from minari.data_collector import EpisodeBuffer
from minari.dataset._storages.hdf5_storage import HDF5Storage
from PIL import Image

from stages.artifacts import foreign, minari_sizes
from stages.artifacts.minari_data import MinariData
from stages.errors import ArtifactDamaged, UsageError
from stages.worlds.gymnasium_world import action_spec_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
PICTURE = Box(0, 255, (40, 40, 3), np.uint8)  # from 32 x 32 on the package takes it for one
FRAMES = "episode_0/observations"
COUNT = 6


def opened(key=""):
    return MinariData("mine-v0", key, action_spec_of, lambda: None)


def read(key=""):
    return [reader() for _, reader in opened(key).episodes(lambda frames, _: frames)]


def noise(count=COUNT, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)


def jpeg(frame):
    content = io.BytesIO()
    Image.fromarray(frame).save(content, format="JPEG")
    return content.getvalue()


def make(observations, *, space=PICTURE, packed=True):
    steps = COUNT - 1
    buffer = EpisodeBuffer(
        observations=observations,
        actions=np.arange(steps) % 3,
        rewards=np.zeros(steps),
        terminations=np.zeros(steps, dtype=bool),
        truncations=np.arange(steps) == steps - 1,
    )
    minari.create_dataset_from_buffers(
        "mine-v0", [buffer], observation_space=space, action_space=Discrete(3), jpeg_encoding=packed
    )


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """The folder of a data set in JPEG."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    make(noise())
    assert read()[0].observations.shape == (COUNT, 40, 40, 3)
    return tmp_path / "mine-v0" / "data"


@pytest.fixture
def main(data) -> Path:
    return data / "main_data.hdf5"


def put(main, texts, place=FRAMES):
    """Write these texts, of any lengths, in place of a column."""
    with h5py.File(main, "a") as file:
        del file[place]
        column = file.create_dataset(place, (len(texts),), h5py.vlen_dtype(np.uint8), chunks=True)
        for number, text in enumerate(texts):
            column[number] = np.frombuffer(text, np.uint8)


def huge():
    """A small picture whose head says that it has 13,000 rows and columns."""
    content = bytearray(jpeg(noise(1)[0]))
    place = content.index(b"\xff\xc0") + 5  # baseline frame: marker, length, precision
    content[place : place + 4] = struct.pack(">HH", 13_000, 13_000)
    return bytes(content)


OTHERS = {
    "larger": (jpeg(np.zeros((500, 500, 3), np.uint8)), r"\[500, 500, 3\]"),
    "huge": (huge(), r"\[13000, 13000, 3\]"),
    "grey": (jpeg(np.zeros((40, 40), np.uint8)), r"\[40, 40, 1\]"),
    "garbage": (b"no picture", "is no JPEG"),
    "empty": (b"", "is no JPEG"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_jpeg_that_is_not_what_the_space_says_is_refused(main, kind, monkeypatch):
    content, said = OTHERS[kind]
    put(main, [*map(jpeg, noise(COUNT - 1)), content])
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("a picture was decoded"))
    with pytest.raises(ArtifactDamaged, match=said) as caught:
        read()
    assert f"{COUNT - 1} of episode 0 of mine-v0" in str(caught.value)


def test_pictures_of_equal_lengths_are_looked_at_too(main):
    """The package stores them as a plain array."""
    rows = np.stack([np.frombuffer(OTHERS["larger"][0], np.uint8)] * COUNT)
    with h5py.File(main, "a") as file:
        del file[FRAMES]
        file[FRAMES] = rows
    with pytest.raises(ArtifactDamaged, match=r"\[500, 500, 3\]"):
        read()


@pytest.mark.parametrize("packed", [True, False])
def test_pictures_that_are_not_imported_take_memory_too(tmp_path, monkeypatch, packed):
    """The package reads them all the same."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    space = Dict({"eyes": Tuple((PICTURE, PICTURE))})
    make({"eyes": (noise(), noise())}, space=space, packed=packed)
    assert len(read("eyes/0")) == 1
    with monkeypatch.context() as small:
        small.setattr(minari_sizes, "MAX_READ", 2 * noise().nbytes)  # and none for the rest
        with pytest.raises(ArtifactDamaged, match="it takes"):
            read("eyes/0")
    if packed:
        main = tmp_path / "mine-v0" / "data" / "main_data.hdf5"
        put(main, [OTHERS["larger"][0]] * COUNT, f"{FRAMES}/eyes/_index_1")
        with pytest.raises(ArtifactDamaged, match="500"):
            read("eyes/0")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("bound", ["MAX_FRAMES", "MAX_PIXELS"])
def test_frames_are_counted_before_they_are_decoded(tmp_path, monkeypatch, packed, bound):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    make((noise(), noise()), space=Tuple((PICTURE, PICTURE)), packed=packed)
    monkeypatch.setattr(foreign, bound, {"MAX_FRAMES": COUNT, "MAX_PIXELS": 40 * 40}[bound] - 1)
    monkeypatch.setattr(HDF5Storage, "get_episodes", lambda *_: pytest.fail("it was read"))
    with pytest.raises(UsageError, match="episode 0 of mine-v0 ha"):
        read("1")


def test_one_text_in_all_rows_is_not_read_again_and_again(main):
    """A row is the place of its text: a small file can name a large one in each."""
    large = jpeg(noise(1)[0]) + bytes(20_000)  # what follows the picture's end is passed over
    put(main, [large, *[jpeg(np.zeros((40, 40, 3), np.uint8))] * (COUNT - 1)])
    assert len(read()) == 1
    with h5py.File(main) as file:
        place = file[FRAMES].id.get_chunk_info(0).byte_offset
    content = bytearray(main.read_bytes())
    content[place : place + 16 * COUNT] = content[place : place + 16] * COUNT
    main.write_bytes(content)
    with h5py.File(main) as file:
        assert [len(row) for row in file[FRAMES]] == [len(large)] * COUNT
    with pytest.raises(ArtifactDamaged, match="larger than the file"):
        read()


@pytest.mark.parametrize("place", ["rewards", ""])
def test_what_has_two_names_is_refused(main, place):
    """Groups that hold each other would be read for ever."""
    with h5py.File(main, "a") as file:
        episode = file["episode_0"]
        episode.require_group("infos")["again"] = episode[place] if place else episode
    with pytest.raises(ArtifactDamaged, match="several names"):
        read()


def test_a_heap_in_which_the_library_goes_round_is_refused(main):
    put(main, list(map(jpeg, noise())))
    content = bytearray(main.read_bytes())
    start = content.index(b"GCOL")
    size = int.from_bytes(content[start + 8 : start + 16], "little")
    place = start + 16
    while place < start + size and content[place : place + 2] != b"\0\0":
        place += 16 + -(-int.from_bytes(content[place + 8 : place + 16], "little") // 8) * 8
    content[place + 8 : place + 16] = bytes(8)  # free space of no bytes
    main.write_bytes(content)
    with pytest.raises(ArtifactDamaged, match="heaps of texts"):
        opened()  # the library would hang at the first frame


@pytest.mark.parametrize("kind", ["arrow", "parquet", "zarr"])
def test_formats_whose_episodes_the_package_cuts_are_refused(data, kind):
    told = json.loads((data / "metadata.json").read_text())
    (data / "metadata.json").write_text(json.dumps({**told, "data_format": kind}))
    with pytest.raises(UsageError, match=f"format {kind}") as caught:
        opened()
    assert "docs/own-data.md" in caught.value.fix


BROKEN = {
    "no count": ("total_episodes", ...),
    "null": ("total_episodes", None),
    "a text": ("total_episodes", "x"),
    "negative": ("total_episodes", -1),
    "half": ("total_episodes", 1.5),
    "no format": ("data_format", ...),
    "a list as id": ("dataset_id", [1]),
    "a space of its own": ("action_space", 3),
}


@pytest.mark.parametrize("name", BROKEN)
def test_metadata_that_tell_no_sense_are_damaged(data, name):
    key, value = BROKEN[name]
    told = json.loads((data / "metadata.json").read_text())
    told = {one: kept for one, kept in told.items() if one != key}
    (data / "metadata.json").write_text(json.dumps(told if value is ... else {**told, key: value}))
    with pytest.raises(ArtifactDamaged):
        opened()


@pytest.mark.parametrize("content", ["null", "3", '"x"', "[]"])
def test_metadata_that_are_no_object_are_damaged(data, content):
    (data / "metadata.json").write_text(content)
    with pytest.raises(ArtifactDamaged, match="no object"):
        opened()


@pytest.mark.parametrize("key", ["author", "author_email", "total_steps"])
def test_what_nobody_needs_of_the_metadata_stands_in_no_way(data, key):
    told = json.loads((data / "metadata.json").read_text())
    (data / "metadata.json").write_text(json.dumps({**told, key: 3}))
    assert len(read()) == 1
