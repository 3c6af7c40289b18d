"""What was played is read by later stages where it is named, and never where it is not."""

import h5py
import numpy as np
import pytest
from command_line import MICRO, copied, digests, manifest, settings, wm

from stages.worlds.making import headless

# Three whole episodes of 20 actions each, by chance, in a workspace that has nothing else.
PLAY = ("--preset", "debug", "--set", "world.max_frames=80", *settings(*MICRO))


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    root = tmp_path_factory.mktemp("played") / "ws"
    film = root.parent / "film.mp4"
    words = ("--episodes", 3, "--save", "all", "--seed", 3, "--json")
    report = wm("play", "-w", root, "--record", film, *words, *PLAY).report
    return root, film, report


def records(root, name):
    """Seed, actions, rewards and frames of every episode, read plainly."""
    for path in sorted((root / name).glob("*.h5")):
        with h5py.File(path) as file:
            assert dict(file.attrs)["policy"] == "random"
            yield (int(file["seeds"][0]), *(file[n][:] for n in ("actions", "rewards",
                   "observations", "terminations", "truncations")))  # fmt: skip


def test_a_play_is_recorded_as_the_world_gives_it(played):
    """Against gymnasium's own environment, stepped by the recorded actions."""
    import gymnasium

    from stages.worlds.opening import open_lane
    from stages.worlds.prepare import prepare

    headless()
    open_lane("CarRacing-v3").env.close()  # loads Box2D, whose warnings would end the process
    root, film, report = played
    assert report["artifact"] == "plays/0001" and film.stat().st_size > 1000
    told = manifest(root, "plays/0001")
    env = gymnasium.make("CarRacing-v3", max_episode_steps=80)
    seeds = []
    for seed, actions, rewards, frames, terminations, truncations in records(root, "plays/0001"):
        seeds.append(seed)
        frame, _ = env.reset(seed=seed)
        expected, earned = [frame], []
        for action in actions:
            total = 0.0
            for _ in range(4):
                frame, reward, _, cut, _ = env.step(action)
                total += float(reward)
            expected.append(frame)
            earned.append(total)
        assert len(actions) == 20 and cut and truncations[-1] and not terminations.any()
        assert rewards.tolist() == earned
        seen = prepare(np.stack(expected), tuple(told["config"]["world"]["crop"]), 64)
        assert np.array_equal(frames, seen)
    env.close()
    assert told["seeds"] == {"purpose": "play", "seeds": seeds}
    assert len(set(seeds)) == 3 and told["summary"]["engines"] == ["gymnasium"]
    assert told["parents"] == []


def test_v_and_latents_are_made_of_it_where_it_is_named(played, tmp_path):
    root = tmp_path / "ws"
    root.mkdir()
    import shutil

    shutil.copytree(played[0], root, dirs_exist_ok=True)
    said = wm("train-vision", "-w", root, code=3).said
    assert "wm rollout" in said, "what was played is no rollout by itself"
    wm("train-vision", "-w", root, "--from", "plays/0001")
    wm("sample-latents", "-w", root, "--from", "plays/0001")
    for name in ("vision/0001", "latents/0001"):
        parents = [parent["id"] for parent in manifest(root, name)["parents"]]
        assert parents[0] == "plays/0001"
    assert manifest(root, "latents/0001")["summary"]["episodes"] == 3
    wm("train-memory", "-w", root)
    wm("verify", "-w", root)
    # Beside a V there is more to see of it.
    film = tmp_path / "again.mp4"
    again = wm("play", "plays/0001", "-w", root, "--record", film, "--json").report
    assert again["tables"][0]["rows"][0]["steps"] == 20


def test_a_dream_is_played_again_and_never_learnt_from(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "ws")
    before = digests(root)
    words = ("--save", "all", "--set", "control.dream_steps=8")
    film = tmp_path / "dream.mp4"
    report = wm("play", "dream", "-w", root, "--record", film, *words, "--json").report
    assert report["artifact"] == "plays/0001"
    told = manifest(root, "plays/0001")
    assert told["summary"]["engines"] == ["dream"] and told["summary"]["policy"] == "agent"
    kinds = {parent["kind"] for parent in told["parents"]}
    assert kinds == {"vision", "memory", "control"}
    for stage in ("train-vision", "sample-latents"):
        said = wm(stage, "-w", root, "--from", "plays/0001", code=5).said
        assert "played in a dream" in said
    wm("play", "plays/0001", "-w", root, "--record", film, "--force")
    assert {name: digests(root)[name] for name in before} == before
    assert "Everything is up to date" in wm("status", "-w", root).said
    wm("verify", "-w", root)
    said = wm("play", "dream", "-w", root, "--record", film, code=2).said
    assert "--force" in said


def test_playing_without_recording_writes_nothing(tmp_path):
    film = tmp_path / "film.mp4"
    wm("play", "-w", tmp_path / "none", "--record", film, *PLAY)
    assert film.exists() and sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--record", "film.avi"), 2, "mp4"),
        (("--record", "none/film.mp4"), 2, "mkdir"),
        (("--record", "film.mp4", "--driver", "keyboard"), 2, "--driver agent"),
        (("--record", "film.mp4", "--save", "ask"), 2, "--save all"),
        (("--record", "film.mp4", "--driver", "agent"), 3, "wm train-control"),
        (("dream", "--record", "film.mp4"), 3, "wm train-vision"),
        (("nothing", "--record", "film.mp4"), 2, "rollouts/0001"),
        (("rollouts/0001", "--record", "film.mp4"), 3, "rollouts/0001"),
        (("rollouts/0001", "--save", "ask"), 2, "kept already"),
        (("--force",), 2, "--record"),
    ],
)
def test_what_cannot_be_played_is_refused_in_words(words, code, told, tmp_path):
    said = wm("play", "-w", tmp_path / "ws", *words, code=code, cwd=tmp_path).said
    assert told in said
    assert list(tmp_path.iterdir()) == []
