"""NumPy archives: every layout against rows picked by hand, and what is refused."""

import io
import json
import zipfile

import numpy as np
import pytest

from stages.artifacts.npz_data import AFTER, NpzData
from stages.contracts import ActionSpec
from stages.errors import ArtifactDamaged, InputMissing, NumbersBad, StageError, UsageError


def nothing() -> None:
    pass


def as_they_are(frames, source):
    return frames if frames.ndim == 4 else frames[..., None].repeat(3, axis=-1)


def frames(count, *, seed=0, shape=(5, 7, 3)):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def read(folder, *, shrink=as_they_are):
    data = NpzData(folder, nothing)
    return data, [reader() for _, reader in data.episodes(shrink)]


def save(path, **arrays):
    path.parent.mkdir(exist_ok=True, parents=True)
    np.savez_compressed(path, **arrays)
    return path.parent


def test_every_column_comes_as_it_was_written_in_pieces_of_any_size(tmp_path):
    shown = frames(200)  # several blocks
    rewards, actions = np.linspace(-1, 1, 199), np.arange(398, dtype=np.float64).reshape(199, 2)
    ends = np.arange(199) == 198
    save(
        tmp_path / "d" / "a.npz",
        observations=shown,
        actions=actions,
        rewards=rewards.astype(np.float32),
        terminations=ends,
        truncations=~ends & ends,
        seed=np.int64(7),
    )
    data, (episode,) = read(tmp_path / "d")
    np.testing.assert_array_equal(episode.observations, shown)
    np.testing.assert_array_equal(episode.actions, actions.astype(np.float32))
    np.testing.assert_array_equal(episode.rewards, rewards.astype(np.float32).astype(np.float64))
    assert episode.terminations.tolist() == ends.tolist()
    assert not episode.truncations.any()
    assert data.seeds() == [7]
    assert data.actions() == ActionSpec("box", 2, (0.0, 1.0), (396.0, 397.0))


def test_frames_before_their_actions_keep_every_reward_and_the_end(tmp_path):
    """The layout of the original: what came of the last action was never seen."""
    shown = frames(4)
    done = np.array([0, 0, 0, 1])
    save(tmp_path / "d" / "a.npz", obs=shown, action=[3, 1, 2, 0], reward=[1, 2, 4, 8], done=done)
    data, (episode,) = read(tmp_path / "d")
    np.testing.assert_array_equal(episode.observations, shown)
    assert episode.actions.tolist() == [3, 1, 2]
    assert episode.rewards.tolist() == [1, 2, 4 + 8]
    assert episode.terminations.tolist() == [False, False, True]
    assert data.actions() == ActionSpec("choice", 4)


def test_frames_after_their_actions_lose_the_first(tmp_path):
    shown = frames(3)
    columns = {"observations": shown, "actions": np.ones((3, 1), np.float32), AFTER: [0, 0, 1]}
    save(tmp_path / "d" / "a.npz", rewards=[5, 6, 7], **columns)
    _, (episode,) = read(tmp_path / "d")
    np.testing.assert_array_equal(episode.observations, shown)
    assert episode.rewards.tolist() == [6, 7]
    assert episode.terminations.tolist() == [False, True]


def test_what_is_missing_is_told_and_empty_episodes_are_none(tmp_path):
    save(tmp_path / "d" / "a.npz", observations=frames(3), actions=[0, 1])
    save(tmp_path / "d" / "b.npz", observations=frames(1), actions=np.zeros(0, np.int64))
    data, (first, second) = read(tmp_path / "d")
    assert data.lacks == ("rewards", "terminations")
    assert first.rewards.tolist() == [0, 0]
    assert second is None


def test_the_folder_may_tell_its_actions(tmp_path):
    folder = save(tmp_path / "d" / "a.npz", observations=frames(3), actions=[0, 1])
    actions = {"kind": "choice", "size": 5, "low": [], "high": []}
    told = {"format": "wm-npz", "format_version": 1, "actions": actions}
    (folder / "dataset.json").write_text(json.dumps(told))
    assert NpzData(folder, nothing).actions() == ActionSpec("choice", 5)
    actions["low"] = [0.0]
    (folder / "dataset.json").write_text(json.dumps(told))
    with pytest.raises(ArtifactDamaged, match="bounds"):
        NpzData(folder, nothing)


def test_content_is_known_by_its_bytes_alone(tmp_path):
    one = save(tmp_path / "one" / "a.npz", observations=frames(3), actions=[0, 1])
    other = save(tmp_path / "other" / "z.npz", observations=frames(3), actions=[0, 1])
    third = save(tmp_path / "third" / "a.npz", observations=frames(3, seed=1), actions=[0, 1])
    digests = [NpzData(folder, nothing).content for folder in (one, other, third)]
    assert digests[0] == digests[1] != digests[2]


GOOD = {"observations": frames(4), "actions": np.array([0, 1, 0])}
REFUSED = {
    "floats": ({"observations": frames(4) / np.float32(255)}, UsageError, "Multiply by 255"),
    "colours first": ({"observations": frames(4, shape=(3, 5, 7))}, UsageError, "moveaxis"),
    "too few frames": ({"observations": frames(2)}, UsageError, "2 frames and 3 actions"),
    "one-hot": ({"actions": np.eye(3, dtype=np.int64)}, UsageError, "instead of one-hot"),
    "texts": ({"actions": np.array(["a", "b", "c"])}, UsageError, "one choice"),
    "no number": ({"rewards": [0.0, np.nan, 0.0]}, NumbersBad, "nan in row 1"),
    "a reward too few": ({"rewards": [0.0, 1.0]}, UsageError, "each of its 3"),
    "an early end": ({"terminations": [True, False, False]}, UsageError, "goes on after its end"),
    "two names": ({"obs": frames(4)}, UsageError, "observations and obs"),
    "objects": ({"rewards": np.array([{}, 1, 2], dtype=object)}, ArtifactDamaged, "run code"),
    "columns first": ({"observations": np.asfortranarray(frames(4))}, UsageError, "contiguous"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_it_is(tmp_path, name):
    change, kind, said = REFUSED[name]
    folder = tmp_path / "d"
    folder.mkdir()
    np.savez(folder / "a.npz", **{**GOOD, **change})
    with pytest.raises(kind) as caught:
        read(folder)
    assert said in str(caught.value)


def member(shape, content, *, descr="|u1"):
    header = io.BytesIO()
    told = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, told)
    return header.getvalue() + content


@pytest.mark.parametrize(
    "shape",
    [(10**9, 64, 64, 3), (2**62, 2**62, 3, 3), (4, 5, 7, 3)],
    ids=["a bomb", "beyond every number", "a lie"],
)
def test_a_header_that_promises_more_than_there_is_is_refused_at_once(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("observations.npy", member(shape, b"\0" * 100))
        file.writestr("actions.npy", member((3,), b"\0" * 3))
    with pytest.raises((ArtifactDamaged, UsageError)):
        read(tmp_path)


def test_garbage_of_every_kind_is_refused(tmp_path):
    good = save(tmp_path / "d" / "a.npz", **GOOD) / "a.npz"
    content = good.read_bytes()
    random = np.random.default_rng(3)
    for number in range(300):
        broken = bytearray(content)
        for place in random.integers(0, len(content), size=1 + number % 4):
            broken[place] = random.integers(256)
        good.write_bytes(bytes(broken[: len(content) - number % 7 * 100]))
        try:
            data, _ = read(good.parent)
            data.seeds()
        except StageError:
            continue


def test_a_place_without_archives_is_missing(tmp_path):
    with pytest.raises(InputMissing, match=r"no \.npz"):
        NpzData(tmp_path, nothing)
    with pytest.raises(InputMissing, match="nothing at"):
        NpzData(tmp_path / "nowhere", nothing)


@pytest.mark.parametrize("name", ["rewards", "terminations", "truncations"])
@pytest.mark.parametrize("lacking", ["a", "b"])
def test_files_that_tell_different_things_are_refused(tmp_path, name, lacking):
    """A file without rewards among others with some is a fault, not an episode that earned none."""
    told = {"rewards": np.ones(3), "terminations": np.zeros(3), "truncations": np.zeros(3)}
    for file in "abc":
        kept = {one: rows for one, rows in told.items() if (one, file) != (name, lacking)}
        save(tmp_path / "d" / f"{file}.npz", **GOOD, **kept)
    with pytest.raises(UsageError, match=f"{name}, and {lacking}.npz has not"):
        read(tmp_path / "d")


@pytest.mark.parametrize("filler", [np.nan, 999.0])
@pytest.mark.parametrize("layout", ["before", "after"])
def test_an_action_that_is_not_imported_says_nothing_of_the_bounds(tmp_path, filler, layout):
    """Recorders fill the row that nobody acted in with what comes to hand."""
    actions = np.array([[filler], [0.25], [-0.5]], np.float32)
    flags = {AFTER: [0, 0, 1]}
    if layout == "before":
        actions, flags = actions[::-1], {"done": [0, 0, 1]}
    save(tmp_path / "d" / "a.npz", observations=frames(3), actions=actions, **flags)
    data, (episode,) = read(tmp_path / "d")
    assert data.actions() == ActionSpec("box", 1, (-0.5,), (0.25,))
    assert sorted(episode.actions[:, 0].tolist()) == [-0.5, 0.25]


def test_an_action_that_is_no_number_is_named_before_it_makes_bounds(tmp_path):
    save(tmp_path / "d" / "a.npz", observations=frames(3), actions=np.zeros((2, 1)))
    save(tmp_path / "d" / "b.npz", observations=frames(3), actions=np.array([[0.0], [np.inf]]))
    with pytest.raises(NumbersBad, match=r"b\.npz has \[inf\] in row 1"):
        NpzData(tmp_path / "d", nothing).actions()


@pytest.mark.parametrize(("low", "high"), [(1.0, -1.0), (-1e39, 1.0), (0.0, 3.5e38)])
def test_bounds_that_no_action_could_have_are_refused(tmp_path, low, high):
    folder = save(tmp_path / "d" / "a.npz", observations=frames(3), actions=np.zeros((2, 1)))
    actions = {"kind": "box", "size": 1, "low": [low], "high": [high]}
    told = {"format": "wm-npz", "format_version": 1, "actions": actions}
    (folder / "dataset.json").write_text(json.dumps(told))
    with pytest.raises(ArtifactDamaged, match="tells the bounds"):
        NpzData(folder, nothing)
