"""Data sets that the minari package made: with JPEG, with several observations, or unfit."""

import json
from pathlib import Path

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple
from minari.data_collector import EpisodeBuffer

from stages.artifacts.minari_data import MinariData
from stages.contracts import ActionSpec
from stages.errors import ArtifactDamaged, InputMissing, NumbersBad, UsageError
from stages.worlds.gymnasium_world import action_spec_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
PICTURE = Box(0, 255, (8, 10, 3), np.uint8)
CHOICE = Discrete(3)


def nothing() -> None:
    pass


def shown(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 10, 3), dtype=np.uint8)


def smooth(count):
    """Pictures that JPEG hardly changes."""
    ramp = np.linspace(60, 200, 10, dtype=np.uint8)
    return np.broadcast_to(ramp[None, None, :, None], (count, 8, 10, 3)).copy()


def buffer(observations, actions, **changed):
    count = len(actions)
    columns = {
        "observations": observations,
        "actions": actions,
        "rewards": np.arange(count, dtype=np.float64),
        "terminations": np.arange(count) == count - 1,
        "truncations": np.zeros(count, dtype=bool),
        **changed,
    }
    return EpisodeBuffer(**columns)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def make(buffers, *, space=PICTURE, actions=CHOICE, jpeg=False):
    minari.create_dataset_from_buffers(
        "mine-v0", buffers, observation_space=space, action_space=actions, jpeg_encoding=jpeg
    )


def read(place="mine-v0", key=""):
    data = MinariData(str(place), key, action_spec_of, nothing)
    return data, [reader() for _, reader in data.episodes(lambda frames, _: frames)]


def test_a_data_set_comes_as_the_package_wrote_it_by_id_folder_or_data(home):
    first, second = shown(4), shown(3, seed=1)
    make([buffer(first, np.array([0, 1, 2]), seed=11), buffer(second, np.array([2, 2]), seed=5)])
    for place in ("mine-v0", home / "mine-v0", home / "mine-v0" / "data"):
        data, (one, other) = read(place)
        np.testing.assert_array_equal(one.observations, first)
        np.testing.assert_array_equal(other.observations, second)
        assert one.actions.tolist() == [0, 1, 2]
        assert one.rewards.tolist() == [0, 1, 2]
        assert one.terminations.tolist() == [False, False, True]
        assert data.seeds() == [11, 5]
        assert data.actions() == ActionSpec("choice", 3)


def test_frames_in_jpeg_are_decoded(home):
    frames = smooth(4)
    make([buffer(frames, np.array([0, 1, 2]))], jpeg=True)
    data, (episode,) = read()
    assert episode.observations.shape == frames.shape
    assert np.abs(episode.observations.astype(int) - frames.astype(int)).max() <= 6
    assert data.seeds() == [None]


def test_one_picture_of_several_observations_is_chosen_by_its_name(home):
    near, far = shown(3), shown(3, seed=1)
    space = Dict({"eyes": Tuple((PICTURE, PICTURE)), "speed": Box(-1, 1, (2,), np.float32)})
    observations = {"eyes": (near, far), "speed": np.zeros((3, 2), np.float32)}
    make([buffer(observations, np.array([0, 1]))], space=space)
    with pytest.raises(UsageError) as caught:
        read()
    assert "eyes/0, eyes/1" in str(caught.value)
    with pytest.raises(UsageError, match="speed"):
        read(key="speed")
    _, (episode,) = read(key="eyes/1")
    np.testing.assert_array_equal(episode.observations, far)


def test_the_only_picture_needs_no_name(home):
    frames = shown(3)
    space = Dict({"camera": PICTURE, "speed": Box(-1, 1, (2,), np.float32)})
    make([buffer({"camera": frames, "speed": np.zeros((3, 2))}, np.array([0, 1]))], space=space)
    _, (episode,) = read()
    np.testing.assert_array_equal(episode.observations, frames)


def test_boxes_keep_their_bounds(home):
    box = Box(np.array([-1, 0], np.float32), np.array([1, 5], np.float32))
    make([buffer(shown(3), np.array([[0.5, 4], [-1, 0]], np.float32))], actions=box)
    data, (episode,) = read()
    assert data.actions() == ActionSpec("box", 2, (-1.0, 0.0), (1.0, 5.0))
    assert episode.actions.tolist() == [[0.5, 4], [-1, 0]]


@pytest.mark.parametrize(
    ("space", "actions", "said"),
    [
        (Box(-1, 1, (4,), np.float32), CHOICE, "no pictures"),
        (PICTURE, MultiBinary(2), "MultiBinary"),
        (PICTURE, Discrete(3, start=1), "counted from 0"),
        (PICTURE, Box(-np.inf, np.inf, (2,), np.float32), "finite bounds"),
    ],
    ids=["vectors", "buttons", "counted from 1", "unbounded"],
)
def test_other_spaces_are_refused_by_name(home, space, actions, said):
    taken = [np.stack([each.sample() for _ in range(n)]) for each, n in ((space, 3), (actions, 2))]
    make([buffer(*taken)], space=space, actions=actions)
    with pytest.raises(UsageError) as caught:
        read()
    assert said in str(caught.value)


def test_a_reward_that_is_no_number_is_named_with_its_episode(home):
    bad = buffer(shown(3), np.array([0, 1]), rewards=np.array([0.0, np.inf]))
    make([buffer(shown(3), np.array([0, 1])), bad])
    with pytest.raises(NumbersBad, match="episode 1 of mine-v0"):
        read()


def test_its_environment_is_never_made(home):
    """Without spaces the package would ask gymnasium to make it, which may run any module."""
    gymnasium.register("Trap-v0", entry_point=lambda: pytest.fail("the environment was made"))
    make([buffer(shown(3), np.array([0, 1]))])
    path = home / "mine-v0" / "data" / "metadata.json"
    told = json.loads(path.read_text())
    told["env_spec"] = gymnasium.spec("CartPole-v1").to_json().replace("CartPole-v1", "Trap-v0")
    path.write_text(json.dumps(told))
    read()
    del told["action_space"]
    path.write_text(json.dumps(told))
    with pytest.raises(UsageError, match="action_space"):
        read()
    del gymnasium.registry["Trap-v0"]


def test_what_cannot_be_read_is_damaged_or_missing(home):
    with pytest.raises(InputMissing, match="nowhere-v0"):
        read("nowhere-v0")
    assert not (home / "nowhere-v0").exists()
    make([buffer(shown(3), np.array([0, 1]))])
    main = home / "mine-v0" / "data" / "main_data.hdf5"
    main.write_bytes(main.read_bytes()[:500])
    with pytest.raises(ArtifactDamaged):
        read()
    (home / "mine-v0" / "data" / "metadata.json").write_text("[")
    with pytest.raises(ArtifactDamaged):
        read()


@pytest.mark.parametrize("place", ["episode_0", "episode_0/rewards", "episode_0/observations/eye"])
@pytest.mark.parametrize("kind", ["external", "soft"])
def test_what_lies_in_another_place_is_not_followed(home, place, kind):
    """The digest of the data set would not cover it."""
    space = Dict({"eye": PICTURE})
    make([buffer({"eye": shown(3)}, np.array([0, 1]))], space=space)
    main = home / "mine-v0" / "data" / "main_data.hdf5"
    assert len(read()[1]) == 1
    other = home / "other.hdf5"
    other.write_bytes(main.read_bytes())
    with h5py.File(main, "a") as file:
        file.copy("episode_0", "beside")
        del file[place]
        inside = place.replace("episode_0", "beside")
        file[place] = (
            h5py.ExternalLink(str(other), place)
            if kind == "external"
            else h5py.SoftLink(f"/{inside}")
        )
        assert file[place] is not None  # there, for whoever follows it
    with pytest.raises(ArtifactDamaged, match="episode 0 of mine-v0 is refused"):
        read()
