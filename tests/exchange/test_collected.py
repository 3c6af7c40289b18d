"""A data set that the minari package wrote, of a world with a box of actions, is learnt from."""

import sys
from importlib import import_module
from pathlib import Path

import minari
import numpy as np
import pytest
from command_line import manifest, settings, wm
from minari.data_collector import EpisodeBuffer

pytestmark = [pytest.mark.pipeline, pytest.mark.filterwarnings("ignore::UserWarning")]
MODULE = '''
import gymnasium
import numpy as np


class Dot(gymnasium.Env):
    """A dot that two numbers move; near the middle it earns."""

    observation_space = gymnasium.spaces.Box(0, 255, (40, 50, 3), np.uint8)
    action_space = gymnasium.spaces.Box(np.float32([-1, -0.3]), np.float32([1, 0.7]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(10, 30, 2)
        return self.picture(), {}

    def step(self, action):
        self.place = np.clip(self.place + 3 * np.asarray(action), 2, 37)
        away = float(np.abs(self.place - 20).max())
        return self.picture(), 1 - away / 20, away > 17, False, {}

    def picture(self):
        frame = np.full((40, 50, 3), 60, np.uint8)
        row, column = self.place.astype(int)
        frame[row - 2 : row + 3, column - 2 : column + 3] = (240, 200, 40)
        return frame


gymnasium.register("Dot-v0", entry_point="dot_world:Dot", max_episode_steps=12)
'''
LITTLE = settings(
    "vision.steps=4", "vision.batch_size=8", "vision.latent_size=4", "vision.held_out_frames=16",
    "memory.steps=4", "memory.hidden_size=8", "memory.batch_size=4",
    "control.generations=2", "control.population=4", "control.select_every=2",
    "control.select_episodes=1",
)  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    (tmp_path / "dot_world.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    yield tmp_path
    sys.modules.pop("dot_world", None)


def collected(num_episodes: int) -> list[EpisodeBuffer]:
    """Episodes of random actions, which the package has made a data set of, JPEG as it does."""
    env, found = import_module("dot_world").gymnasium.make("Dot-v0"), []
    for seed in range(num_episodes):
        seen, steps, over = [env.reset(seed=seed)[0]], [], False
        env.action_space.seed(seed)
        while not over:
            action = env.action_space.sample()
            frame, reward, terminated, truncated, _ = env.step(action)
            seen.append(frame)
            steps.append((action, reward, terminated, truncated))
            over = terminated or truncated
        actions, rewards, ends, cuts = map(np.array, zip(*steps, strict=True))
        found.append(
            EpisodeBuffer(
                seed=seed,
                observations=np.array(seen),
                actions=actions,
                rewards=rewards,
                terminations=ends,
                truncations=cuts,
            )
        )
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    minari.create_dataset_from_buffers("dot-v0", found, **spaces)
    return found


def test_a_set_of_the_package_is_imported_and_v_m_and_c_learn_from_it(place):
    import h5py

    recorded = collected(10)
    words = ("-w", place / "run", "--preset", "debug", *LITTLE)
    wm("import", "minari", "dot-v0", *words, cwd=place)
    with h5py.File(place / "run/rollouts/0001/shard-00000.h5") as shard:
        cuts = shard["step_offsets"][:]
        for told, start, stop in zip(recorded, cuts, cuts[1:], strict=False):
            np.testing.assert_array_equal(shard["actions"][start:stop], told.actions)
            np.testing.assert_allclose(shard["rewards"][start:stop], told.rewards)
        assert len(cuts) == 11
    wm("run", "-w", place / "run", cwd=place)
    control = manifest(place / "run", "control/0001")["summary"]
    assert (control["place"], control["actions"]["low"]) == ("dream", [-1, pytest.approx(-0.3)])
    refused = wm("evaluate", "-w", place / "run", cwd=place, code=2)
    assert "world.env=module:EnvId" in refused.said


def test_an_environment_with_a_box_of_actions_goes_through_every_stage(place):
    own = settings(
        "world.env=dot_world:Dot-v0", "world.crop=[0,0,0,0]", "world.repeat=1",
        "world.engine=gymnasium", "rollout.episodes=4", "rollout.gymnasium_episodes=0",
        "rollout.patience=0", "control.squash=[linear,clip]", "control.components=0",
        "control.starts=1", "control.patience=0",
        "control.max_steps=[0]",
        "evaluate.episodes=2", "evaluate.random_episodes=2",
    )  # fmt: skip
    wm("run", "-w", place / "own", "--preset", "debug", *own, *LITTLE, cwd=place)
    told = manifest(place / "own", "evaluations/0001")["summary"]
    assert told["episodes"] == 2 and -5 < told["mean"] <= 12
