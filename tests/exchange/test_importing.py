"""An import: cut anywhere it ends as an undisturbed one, and the world that it is for is asked."""

from contextlib import closing

import av
import numpy as np
import pytest
from command_line import wm
from listening import Listening
from PIL import Image

from stages.artifacts.episodes import EpisodeSet
from stages.artifacts.workspace import Workspace
from stages.contracts import Job, WorldSpec
from stages.errors import ArtifactDamaged, InputsMismatch, Interrupted, NumbersBad, UsageError
from stages.events import Advanced
from stages.exchange import importing
from stages.exchange.importing import asked_for, run
from stages.rollout import Config, plan

NOWHERE = WorldSpec(env="none", crop=(0, 0, 0, 0), engine="gymnasium", size=64)
FAMILY = {"family": "world-models", "recipe": "imported", "preset": "", "seed": 0}


@pytest.fixture
def folder(tmp_path):
    """Ten episodes of wider pictures, one of them empty."""
    place = tmp_path / "mine"
    place.mkdir()
    for number in range(10):
        random = np.random.default_rng(number)
        steps = 0 if number == 4 else 12 + number
        np.savez(
            place / f"{number}.npz",
            observations=random.integers(0, 256, (steps + 1, 70, 90), dtype=np.uint8),
            actions=random.normal(size=(steps, 2)),
            rewards=random.normal(size=steps),
            seed=100 + number,
        )
    return place


def bring(tmp_path, folder, *, name="w", world=NOWHERE, progress=None, **options):
    workspace = Workspace.open(tmp_path / name, create=True)
    asked = asked_for("npz", [str(folder)], **options)
    job = Job(world=world, **FAMILY)
    return workspace, run(workspace, asked, job, progress=progress or Listening())


def files(workspace, report):
    return {path.name: path.read_bytes() for path in workspace.get(report.artifact).files(".h5")}


def test_frames_are_shrunk_as_pillow_does_and_the_rest_is_untouched(tmp_path, folder):
    workspace, report = bring(tmp_path, folder, crop="2,66,10,90")
    artifact = workspace.get(report.artifact)
    episodes = EpisodeSet.of([artifact])
    numbers = [number for number in range(10) if number != 4]
    assert episodes.seeds.tolist() == [100 + number for number in numbers]
    for place, number in enumerate(numbers):
        recorded, source = episodes.episode(place), np.load(folder / f"{number}.npz")
        np.testing.assert_array_equal(recorded.rewards, source["rewards"])
        np.testing.assert_array_equal(recorded.actions, source["actions"].astype(np.float32))
        assert recorded.truncations.tolist() == [False] * (len(recorded.rewards) - 1) + [True]
        image = Image.fromarray(source["observations"][-1][2:66, 10:90])
        wanted = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR), dtype=int)
        for channel in range(3):
            difference = np.abs(recorded.observations[-1][..., channel] - wanted)
            assert difference.max() <= 1
    episodes.close()
    summary = artifact.manifest.summary
    assert (summary["episodes"], summary["left_out"], summary["cut_short"]) == (9, 1, 9)
    actions = np.concatenate([np.load(path)["actions"] for path in folder.glob("*.npz")])
    np.testing.assert_allclose(summary["actions"]["low"], actions.min(axis=0), rtol=1e-6)
    np.testing.assert_allclose(summary["actions"]["high"], actions.max(axis=0), rtol=1e-6)


def test_the_same_again_is_up_to_date_wherever_it_lies(tmp_path, folder):
    _, first = bring(tmp_path, folder)
    moved = folder.rename(tmp_path / "moved")
    _, second = bring(tmp_path, moved)
    assert (first.up_to_date, second.up_to_date) == (False, True)
    assert first.artifact == second.artifact
    assert bring(tmp_path, moved, crop="0,70,0,70")[1].artifact == "rollouts/0002"


@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_an_import_that_was_stopped_goes_on(tmp_path, folder, monkeypatch, stop_after):
    monkeypatch.setattr(importing, "SHARD_FRAMES", 40)  # three episodes or so
    workspace, whole = bring(tmp_path, folder, name="whole")
    expected = files(workspace, whole)
    assert len(expected) > 3
    with pytest.raises(Interrupted):
        bring(tmp_path, folder, progress=Listening(stop_after))
    workspace, resumed = bring(tmp_path, folder)
    assert files(workspace, resumed) == expected
    told = [each.manifest.summary for each in workspace.artifacts("rollouts")]
    assert told[0]["left_out"] == 1


def test_seeds_that_are_not_of_every_episode_are_counted_instead():
    assert importing.carried([5, 3, 9]) == [5, 3, 9]
    for told in ([5, None, 9], [5, 5, 9], [5, -1, 9], [None]):
        assert importing.carried(told) == []


def test_a_known_world_says_what_an_action_is(tmp_path, folder):
    world = WorldSpec(env="CarRacing-v3", engine="gymnasium", repeat=4)
    with pytest.raises(UsageError, match="vector of 3 floats"):
        bring(tmp_path, folder, world=world, crop="0,0,0,0")
    told = '{"format": "wm-npz", "format_version": 1, "actions": {"kind": "choice", "size": 2, '
    (folder / "dataset.json").write_text(told + '"low": [], "high": []}}')
    with pytest.raises(InputsMismatch, match="other actions than CarRacing-v3"):
        bring(tmp_path, folder, world=world)


def test_actions_that_are_no_numbers_are_named(tmp_path, folder):
    source = dict(np.load(folder / "7.npz"))
    source["actions"][3, 1] = np.nan
    np.savez(folder / "7.npz", **source)
    (folder / "dataset.json").write_text(
        '{"format": "wm-npz", "format_version": 1, "actions": '
        '{"kind": "box", "size": 2, "low": [-9, -9], "high": [9, 9]}}'
    )
    with pytest.raises(NumbersBad, match=r"7\.npz") as caught:
        bring(tmp_path, folder)
    assert "row 3" in caught.value.what


def test_nothing_but_empty_episodes_is_refused(tmp_path):
    (tmp_path / "e").mkdir()
    np.savez(tmp_path / "e/a.npz", observations=np.zeros((1, 8, 8), np.uint8), actions=np.zeros(0))
    with pytest.raises(UsageError):
        bring(tmp_path, tmp_path / "e")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"what": "npz", "places": ["a", "b"]}, "one place"),
        ({"what": "npz", "places": ["a"], "observation": "x"}, "Minari"),
        ({"what": "minari", "places": ["a"], "every": 2}, "films"),
        ({"what": "npz", "places": ["a"], "crop": "1,2"}, "--crop 0,84,0,96"),
    ],
)
def test_options_of_another_format_are_refused(words, said):
    what, places, options = words.pop("what"), words.pop("places"), words
    with pytest.raises(UsageError) as caught:
        asked_for(what, places, **options)
    assert said in str(caught.value)


def racing(folder, size):
    """Pictures and actions as CarRacing has them, of this height and width."""
    random = np.random.default_rng(3)
    folder.mkdir()
    np.savez(
        folder / "a.npz",
        observations=random.integers(0, 256, (6, *size, 3), dtype=np.uint8),
        actions=np.zeros((5, 3), np.float32),
    )
    return folder


def test_what_part_of_its_frames_a_world_shows_is_asked_for(tmp_path):
    """CarRacing's V sees rows 0 to 84 of 96: whole frames would be another picture."""
    world = WorldSpec(env="CarRacing-v3", engine="gymnasium", repeat=4, crop=(0, 84, 0, 96))
    whole = racing(tmp_path / "whole", (96, 96))
    with pytest.raises(UsageError, match="is not said") as caught:
        bring(tmp_path, whole, world=world)
    assert "--crop 0,84,0,96" in caught.value.fix
    seen = []
    for crop in ("0,84,0,96", "0,0,0,0"):
        workspace, report = bring(tmp_path, whole, world=world, crop=crop)
        with closing(EpisodeSet.of([workspace.get(report.artifact)])) as episodes:
            seen.append(episodes.episode(0).observations[0])
    source = np.load(whole / "a.npz")["observations"][0]
    for ours, rows in zip(seen, (84, 96), strict=True):
        wanted = Image.fromarray(source[:rows]).resize((64, 64), Image.Resampling.BILINEAR)
        assert np.abs(ours.astype(int) - np.asarray(wanted, dtype=int)).max() <= 1


def test_frames_of_the_size_that_v_sees_count_as_cropped_and_that_is_told(tmp_path):
    world = WorldSpec(env="CarRacing-v3", engine="gymnasium", repeat=4, crop=(0, 84, 0, 96))
    done = racing(tmp_path / "done", (64, 64))
    heard = Listening()
    workspace, report = bring(tmp_path, done, world=world, progress=heard)
    assert "count as cropped already" in heard.said
    with closing(EpisodeSet.of([workspace.get(report.artifact)])) as episodes:
        found = episodes.episode(0).observations
    np.testing.assert_array_equal(found, np.load(done / "a.npz")["observations"])


def film(path, count):
    """A film of so many frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "bgr0"
        for grey in range(count):
            shown = np.full((64, 64, 3), grey, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def test_films_run_no_code_of_the_environment(tmp_path):
    """A module that there is not is not even looked for."""
    world = WorldSpec(env="no_such_module:Mine-v0", engine="gymnasium", crop=(0, 0, 0, 0))
    workspace = Workspace.open(tmp_path / "w", create=True)
    asked = asked_for("video", [film(tmp_path / "a.mkv", 5)])
    report = run(workspace, asked, Job(world=world, **FAMILY), progress=Listening())
    assert workspace.get(report.artifact).manifest.summary["actions"]["kind"] == "none"


class Told(Listening):
    """Keeps how many items were done each time when something was read."""

    def __init__(self):
        super().__init__()
        self.polled = []

    def poll(self):
        self.polled.append(self.done[-1] if self.done else 0)

    @property
    def done(self):
        return [event.done for event in self.events if isinstance(event, Advanced)]


def test_a_film_is_done_when_all_of_its_pieces_are(tmp_path):
    places = [film(tmp_path / "a.mkv", 50), film(tmp_path / "b.mkv", 30)]
    workspace = Workspace.open(tmp_path / "w", create=True)
    for films, pieces in ((places[:1], [5]), (places, [5, 3])):
        heard = Told()
        asked = asked_for("video", films, cut=10)
        report = run(workspace, asked, Job(world=NOWHERE, **FAMILY), progress=heard)
        assert workspace.get(report.artifact).manifest.summary["episodes"] == sum(pieces)
        assert heard.done == list(range(len(films) + 1))
        for number, count in enumerate(pieces):  # its first one tells that another is done
            assert heard.polled.count(number) >= count - 1


def test_every_file_counts_even_an_empty_one(tmp_path, folder):
    heard = Told()
    bring(tmp_path, folder, progress=heard)
    assert heard.done == list(range(11))


def test_empty_episodes_behind_a_full_shard_are_counted_too(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(importing, "SHARD_FRAMES", 22)  # the last one fills its shard
    for name in ("z", "zz"):
        nothing = np.zeros((1, 70, 90), np.uint8)
        columns = {"rewards": np.zeros(0), "seed": 1000 + len(name)}
        np.savez(folder / f"{name}.npz", observations=nothing, actions=np.zeros((0, 2)), **columns)
    workspace, report = bring(tmp_path, folder)
    told = workspace.get(report.artifact).manifest.summary
    assert (told["episodes"], told["left_out"]) == (9, 3)


def test_a_damaged_import_is_not_passed_over_for_an_older_one(tmp_path, folder):
    workspace, _ = bring(tmp_path, folder)
    _, newer = bring(tmp_path, folder, crop="0,70,0,70")
    path = workspace.root / newer.artifact / "manifest.json"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactDamaged, match="rollouts/0002"):
        plan(Workspace.open(workspace.root), Config(), Job(world=NOWHERE, **FAMILY))


def test_an_import_that_is_refused_first_leaves_no_workspace(tmp_path, folder):
    """Otherwise the next `wm run` there would drive the world of the default recipe."""
    root = tmp_path / "new"
    wm("import", "npz", tmp_path / "mistyped", "-w", root, "--preset", "debug", code=3)
    assert not (root / "workspace.json").exists()
    assert "There is no workspace at" in wm("status", "-w", root).said
    wm("import", "npz", folder, "-w", root, "--preset", "debug")
    assert "recipe imported" in wm("status", "-w", root).said
