"""Episodes in which nothing happens are noticed from their shards, sound ones never."""

import numpy as np
import pytest

from stages.artifacts.episodes import EpisodeRecord, EpisodeShard, EpisodeShardWriter
from stages.events import OnceEach, Silent
from stages.worlds.monotony import REWARD_STEPS, STILL_STEPS, Monotony, glance

STEPS = 40


class Heard(Silent):
    """Keeps what was told."""

    def __init__(self):
        self.texts = []

    def emit(self, event):
        assert event.warning
        self.texts.append(event.text)


def recorded(
    path, *, episodes=2, steps=STEPS, reward=None, still=False, action=None, late=False, ended=False
):
    """A shard of noise in which some things are constant; `late`: but for one frame."""
    writer = EpisodeShardWriter(engine="none", env="none", policy="none")
    random = np.random.default_rng(3)
    for seed in range(episodes):
        frames = random.integers(0, 256, (steps + 1, 4, 4, 3), dtype=np.uint8)
        if still:
            frames[:] = seed
            frames[steps // 2] += late
        rewards = random.standard_normal(steps) if reward is None else np.full(steps, reward)
        actions = random.standard_normal((steps, 3)).astype(np.float32)
        if action is not None:
            actions[:] = action
        flags = np.zeros(steps, dtype=bool)
        ends = flags.copy()
        ends[-1] = ended
        writer.append(EpisodeRecord(seed, frames, actions, rewards, ends, flags))
    path.write_bytes(writer.image())
    return EpisodeShard(path)


@pytest.mark.parametrize(
    ("facts", "seen"),
    [
        ({}, (None, None, False)),
        ({"reward": -0.5}, (-0.5, None, False)),
        ({"still": True}, (None, None, True)),
        ({"still": True, "late": True}, (None, None, False)),
        ({"action": [1, 0, 0.5]}, (None, (1.0, 0.0, 0.5), False)),
    ],
)
def test_a_glance_sees_what_never_changes(facts, seen, tmp_path):
    found = glance(recorded(tmp_path / "shard.h5", **facts))
    assert (found.num_episodes, found.num_steps) == (2, 2 * STEPS)
    assert (found.reward, found.action, found.still) == seen
    assert found.monotonous == (seen != (None, None, False))


def told(*glances):
    heard = Heard()
    monotony = Monotony(OnceEach(heard))
    for found in glances:
        monotony.see(found)
    return heard.texts


def test_nothing_is_said_of_few_steps_and_everything_once(tmp_path):
    dull = glance(recorded(tmp_path / "a.h5", reward=0.0, still=True, action=[1, 2, 3], steps=49))
    assert dull.num_steps < STILL_STEPS
    assert told(dull) == []
    early = told(dull, dull)
    assert ["4 episodes" in early[0], "196 actions" in early[1], len(early)] == [True, True, 2]
    often = told(*[dull] * 40)
    assert len(often) == 3
    assert (
        f"{-(-REWARD_STEPS // 98) * 98:,} steps recorded so far earned the same reward, 0:"
        in (often[2])
    )


def test_rewards_that_differ_between_shards_differ(tmp_path):
    one = glance(recorded(tmp_path / "a.h5", reward=0.0, steps=1100))
    other = glance(recorded(tmp_path / "b.h5", reward=1.0, steps=1100))
    assert told(one)[0].startswith("All 2,200 steps")
    assert told(glance(recorded(tmp_path / "c.h5", reward=0.0, steps=900)), other) == []


def test_of_earlier_shards_no_more_are_read_than_it_takes(tmp_path):
    shards = [recorded(tmp_path / f"{n}.h5", reward=0.0 if n < 2 else None) for n in range(6)]
    asked = []

    def each():
        for number, shard in enumerate(shards):
            asked.append(number)
            yield shard

    heard = Heard()
    monotony = Monotony(OnceEach(heard))
    monotony.see_first(each())
    assert asked[:3] == [0, 1, 2]
    assert len(asked) <= 4
    assert heard.texts == []


def test_a_reward_for_every_step_that_is_survived_can_be_learnt_from(tmp_path):
    """As in Doom's TakeCover: what differs is how long an episode lasts."""
    alike = {"reward": 1.0, "steps": 1100}
    assert told(glance(recorded(tmp_path / "a.h5", **alike, ended=True))) == []
    assert len(told(glance(recorded(tmp_path / "b.h5", **alike)))) == 1, "cut by a limit"
    nothing = glance(recorded(tmp_path / "c.h5", reward=0.0, steps=1100, ended=True))
    assert len(told(nothing)) == 1
