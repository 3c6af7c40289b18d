"""Doom's TakeCover against ViZDoom's own interface, and what its engines leave behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import vizdoom
from command_line import environment, wait_until

from stages.contracts import WorldSpec
from stages.errors import EnvironmentLacks, UsageError
from stages.worlds import take_cover
from stages.worlds.making import frames_per_second, make_world
from stages.worlds.take_cover import button

SPEC = WorldSpec(
    env="VizdoomTakeCover-v1", engine="gymnasium", crop=(0, 240, 0, 320), max_frames=2100
)
LEFT, RIGHT, STILL = -0.9, 0.8, 0.2
BUTTONS = {LEFT: [True, False], RIGHT: [False, True], STILL: [False, False]}  # move left, right
SHARED = Path("/dev/shm")


@pytest.fixture
def world():
    made = make_world(SPEC, raw=True)
    yield made
    made.close()


def plain_game(seed, steers):
    """The same game by ViZDoom's C++ interface: screens, rewards and whether it ended."""
    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.scenarios_path) / "take_cover.cfg"))
    game.set_window_visible(False)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_doom_config_path(os.devnull)
    # gymnasium seeds its generator, and the wrapper draws the game's seed from it.
    game.set_seed(int(np.random.default_rng(seed).integers(0, 2**32, dtype=np.uint32)))
    game.init()
    screens, rewards = [game.get_state().screen_buffer], []
    for steer in steers:
        rewards.append(game.make_action(BUTTONS[steer], 1))
        if game.is_episode_finished():
            break
        screens.append(game.get_state().screen_buffer)
    ended = game.is_episode_finished()
    game.close()
    return screens, rewards, ended


def steering(num_steps):
    return [(LEFT, STILL, RIGHT, RIGHT, LEFT)[step // 9 % 5] for step in range(num_steps)]


def test_it_is_the_game_tic_by_tic(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # ViZDoom's own interface writes where it stands
    steers = steering(1200)
    screens, rewards, ended = plain_game(21, steers)
    assert ended and 50 < len(rewards) < 1200
    np.testing.assert_array_equal(world.reset([21])[0], screens[0])
    for step, (steer, reward) in enumerate(zip(steers, rewards, strict=False), start=1):
        found = world.step(np.array([[steer]], dtype=np.float32))
        assert found.reward[0] == reward == 1.0
        assert found.terminated[0] == (step == len(rewards))
        # The end has no screen: the last one is shown again, never a black one.
        np.testing.assert_array_equal(found.observation[0], screens[min(step, len(screens) - 1)])
    assert not world.live.any()
    assert found.facts["health"][0] <= 0
    assert found.observation.max() > 0


def test_the_number_that_steers():
    steers = [-1, -0.34, -0.33, 0, 0.33, 0.34, 1]
    pressed = ["left", "left", "nothing", "nothing", "nothing", "right", "right"]
    names = {take_cover.LEFT: "left", take_cover.RIGHT: "right", take_cover.NOTHING: "nothing"}
    assert [names[button(steer)] for steer in steers] == pressed


def test_an_action_is_one_number_and_seconds_have_35_tics(world):
    assert (world.action_spec.kind, world.action_spec.size) == ("box", 1)
    assert (world.action_spec.low, world.action_spec.high) == ((-1.0,), (1.0,))
    assert world.observation_shape == (240, 320, 3)
    assert frames_per_second(SPEC.env) == 35


def test_lanes_and_episodes_before_change_nothing(world):
    def first_frames(seeds):
        world.reset(seeds)
        return [
            world.step(np.full((len(seeds), 1), LEFT, dtype=np.float32)).observation.copy()
            for _ in range(120)
        ]

    alone = first_frames([5])
    together = first_frames([4, 5, 6])
    again = first_frames([5])
    for one, many, later in zip(alone, together, again, strict=True):
        np.testing.assert_array_equal(one[0], many[1])
        np.testing.assert_array_equal(one[0], later[0])
    assert (together[-1][0] != together[-1][1]).any(), "other seeds, other fireballs"


def test_the_time_limit_is_no_death():
    made = make_world(WorldSpec(**{**vars(SPEC), "max_frames": 30}))
    made.reset([3])
    for _ in range(30):
        last = made.step(np.zeros((1, 1), dtype=np.float32))
    assert (last.terminated[0], last.truncated[0]) == (False, True)
    made.close()


PLAY = """
import sys, time
import numpy as np
from stages.contracts import WorldSpec
from stages.worlds.making import make_world
world = make_world(WorldSpec(env="VizdoomTakeCover-v1", engine="gymnasium",
                             crop=(0, 240, 0, 320), max_frames=2100))
world.reset([1, 2])
print("playing", flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
"""


def engines(folder):
    """Numbers of the engines that run in this folder's place."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, where = (process / "comm").read_text(), (process / "cwd").readlink()
        except OSError:
            continue
        if name.strip() == "vizdoom" and folder in where.parents:
            found.append(int(process.name))
    return found


def segments(folder):
    """What engines of this folder share in memory."""
    names = [path.name.partition("-")[2] for path in folder.glob("wm-vizdoom-*/[0-9]*-*")]
    return [path for name in names for path in SHARED.glob(f"ViZDoom*{name}")]


@pytest.mark.parametrize("how", ["in order", "SIGKILL"])
def test_no_engine_outlives_its_process_and_the_next_one_cleans_up(how, tmp_path):
    there = tmp_path / "cwd"
    there.mkdir()

    def start(word):
        return subprocess.Popen(
            [sys.executable, "-c", PLAY, word],
            stdout=subprocess.PIPE,
            text=True,
            cwd=there,
            env=environment(TMPDIR=str(tmp_path)),
        )

    with start("wait" if how == "SIGKILL" else "end") as process:
        assert process.stdout.readline() == "playing\n"
        if how == "SIGKILL":
            assert len(engines(tmp_path)) == 2
            assert len(segments(tmp_path)) == 6
            os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not engines(tmp_path), seconds=10)
    if how == "SIGKILL":
        assert len(segments(tmp_path)) == 6
        with start("end") as following:
            assert following.stdout.read() == "playing\n"
        assert following.returncode == 0
    assert segments(tmp_path) == []
    assert list(tmp_path.glob("wm-vizdoom-*/[0-9]*-*")) == []
    assert list(there.iterdir()) == [], "nothing is written where the command is given"


def test_a_worker_leaves_nothing_either(tmp_path, monkeypatch):
    from stages.events import Silent
    from stages.execution.local import LocalExecutor
    from stages.execution.protocol import Task

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with LocalExecutor(1) as executor:
        play = PLAY.replace("sys.argv[1]", "''") + "sys.modules['kept'] = world\n"
        tasks = [Task(0, exec, play)]
        list(executor.run(tasks, monitor=Silent()))
        assert len(segments(tmp_path)) == 6
    wait_until(lambda: not engines(tmp_path) and not segments(tmp_path), seconds=10)


def test_without_vizdoom_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("stages.worlds.opening.find_spec", lambda name: None)
    with pytest.raises(EnvironmentLacks, match="ViZDoom") as refusal:
        make_world(SPEC)
    assert 'pip install "wm-pixels[doom]"' in refusal.value.fix


def test_other_games_of_vizdoom_are_refused_by_name():
    with pytest.raises(UsageError, match="VizdoomTakeCover-v1"):
        make_world(WorldSpec(env="VizdoomBasic-v1", engine="gymnasium"))


def test_a_folder_of_somebody_else_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(take_cover.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"wm-vizdoom-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentLacks, match="somebody else"):
        take_cover._folder()


def test_a_missing_engine_is_an_error_and_no_crash(tmp_path, monkeypatch):
    monkeypatch.setattr(take_cover.vizdoom, "__file__", str(tmp_path / "__init__.py"))
    made = make_world(SPEC)
    with pytest.raises(EnvironmentLacks, match="engine is missing"):
        made.reset([1])
    made.close()
