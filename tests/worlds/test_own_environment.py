"""Environments named `module:EnvId`: what is shown of them, and what is said when they fail."""

import dataclasses
import sys
import textwrap

import gymnasium
import numpy as np
import pytest
from command_line import settings, wm

from stages.artifacts.workspace import Workspace
from stages.contracts import NO_WORLD, WorldSpec
from stages.errors import EnvironmentLacks, NumbersBad, UsageError
from stages.events import Silent
from stages.worlds.making import check_random_start, lap_rule, make_world, note_code, time_limit
from stages.worlds.own import code_digest
from wm_cli.playing.keys import Steering

MODULE = """
    import gymnasium
    import numpy as np
    from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

    SPACES = {spaces}


    class Mine(gymnasium.Env):
        observation_space, action_space = SPACES

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            {reset}
            return self.look(), {{}}

        def step(self, action):
            {step}
            return self.look(), 1.0, False, False, {{}}

        def look(self):
            space = self.observation_space
            return self.np_random.integers(0, 256, space.shape, dtype=np.uint8)


    gymnasium.register("Mine-v0", entry_point=Mine, max_episode_steps=5)
"""
PICTURE = "Box(0, 255, (20, 30, 3), np.uint8)"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a module into the current folder, and forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    written = []

    def write(
        spaces=f"({PICTURE}, Discrete(2))",
        *,
        reset="pass",
        step="pass",
        text=None,
        module="my_own_world",
    ):
        content = text or textwrap.dedent(MODULE).format(spaces=spaces, reset=reset, step=step)
        (tmp_path / f"{module}.py").write_text(content)
        written.append(module)
        return WorldSpec(env=f"{module}:Mine-v0", crop=(0, 0, 0, 0), engine="gymnasium")

    yield write
    for module in written:
        sys.modules.pop(module, None)
    gymnasium.registry.pop("Mine-v0", None)


@pytest.mark.parametrize("shape", ["(20, 30)", "(20, 30, 1)", "(20, 30, 3)", "(20, 30, 4)"])
def test_pictures_of_any_colours_have_three_afterwards(own, shape):
    spec = own(f"(Box(0, 255, {shape}, np.uint8), Discrete(2))")
    raw = make_world(spec, raw=True)
    seen = raw.reset([3, 4])
    assert seen.shape == (2, 20, 30, 3)
    after = raw.step(np.array([1, 1])).observation
    for lane, seed in enumerate((3, 4)):
        env = sys.modules["my_own_world"].Mine()
        frames = [env.reset(seed=seed)[0], env.step(1)[0]]
        for ours, theirs in zip((seen[lane], after[lane]), frames, strict=True):
            plain = theirs.reshape(20, 30, -1)
            for channel in range(3):
                wanted = plain[..., min(channel, plain.shape[2] - 1)]
                np.testing.assert_array_equal(ours[..., channel], wanted)
    assert make_world(spec).reset([3]).shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("spaces", "said"),
    [
        (f"({PICTURE}, MultiDiscrete([2, 2]))", "MultiDiscrete"),
        (f"({PICTURE}, Discrete(3, start=1))", "counted from 0"),
        (f"({PICTURE}, Box(-np.inf, np.inf, (2,), np.float32))", "finite bounds"),
        (f"({PICTURE}, Box(0, 9, (2,), np.int64))", "vector of floats"),
        (f"({PICTURE}, Box(-1, 1, (2, 2), np.float32))", "vector of floats"),
        ("(Box(-1, 1, (4,), np.float32), Discrete(2))", "AddRenderObservation"),
        ("(Box(0, 1, (20, 30, 3), np.float32), Discrete(2))", "uint8"),
        ("(Box(0, 255, (3, 20, 30), np.uint8), Discrete(2))", "colours last"),
        (f"(Dict(a={PICTURE}), Discrete(2))", "Dict"),
    ],
)
def test_other_spaces_are_refused_by_name(own, spaces, said):
    with pytest.raises(UsageError) as caught:
        make_world(own(spaces))
    assert said in str(caught.value)


@pytest.mark.parametrize(("repeat", "max_frames"), [(1, 0), (2, 0), (5, 0), (2, 3), (4, 9)])
def test_its_time_limit_is_told_before_it_is_reached(own, repeat, max_frames):
    spec = dataclasses.replace(own(), repeat=repeat, max_frames=max_frames)
    world = make_world(spec)
    world.reset([0])
    actions = 1
    while not world.step(np.array([0])).truncated[0]:
        actions += 1
    assert time_limit(spec) == actions


def test_a_world_that_is_not_here_tells_no_time_limit(own):
    assert time_limit(own(text="import not_installed_at_all")) == 0
    for env in ("module_that_is_not_there:Mine-v0", "Nothing-v0", "ALE/Breakout-v5", NO_WORLD):
        assert time_limit(WorldSpec(env=env)) == 0


@pytest.mark.parametrize("place", ["reset", "step"])
def test_what_fails_is_told_with_its_line(own, tmp_path, place):
    spec = own(**{place: "{}['key']"})
    lines = (tmp_path / "my_own_world.py").read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if "['key']" in line)
    with pytest.raises(UsageError) as caught:
        world = make_world(spec)
        world.reset([0])
        world.step(np.array([0]))
    assert place in caught.value.what
    assert f"KeyError: 'key' (my_own_world.py, line {number})" in caught.value.why


def test_other_frames_than_promised_are_bad_numbers(own):
    with pytest.raises(NumbersBad, match="float64"):
        make_world(own(reset="return np.zeros((20, 30, 3)), {}")).reset([0])


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("import not_installed_at_all", EnvironmentLacks, "not_installed_at_all"),
        ("x = (", UsageError, "SyntaxError"),
        ("1 / 0", UsageError, "line 1"),
        ("pass", UsageError, "registers no environment 'Mine-v0'"),
    ],
)
def test_a_module_that_cannot_be_used_says_why(own, text, kind, said):
    with pytest.raises(kind) as caught:
        make_world(own(text=text))
    assert said in str(caught.value)


def test_a_module_that_is_not_there_says_where_it_was_looked_for(own):
    with pytest.raises(UsageError, match="not found") as caught:
        make_world(WorldSpec(env="nobody_has_this:X-v0", engine="gymnasium"))
    assert "folder in which wm is called" in caught.value.why
    with pytest.raises(UsageError, match="not the name"):
        make_world(WorldSpec(env="../x:X-v0", engine="gymnasium"))


@pytest.mark.parametrize("module", ["CarRacingMods", "VizdoomThings"])
def test_a_module_may_be_called_as_known_environments_are(own, module):
    """It has neither a lap nor a car that could be moved, and no engine of theirs."""
    spec = own(module=module)
    world = make_world(spec, raw=True)
    assert world.reset([1]).shape == (1, 20, 30, 3)
    assert world.action_spec.kind == "choice"
    assert lap_rule(spec.env, "gymnasium") == ""
    with pytest.raises(UsageError, match="cannot begin at a random place"):
        check_random_start(spec.env, "gymnasium")
    assert Steering(spec.env, world.action_spec).help() == (("0-1", "choose"),)


def test_work_that_goes_on_with_changed_code_says_so(own, tmp_path):
    """Recordings begun with the old module and resumed with the new one would mix both."""
    spec = own()

    def told(env=spec.env):
        heard = []
        progress = type("Heard", (Silent,), {"emit": lambda _, event: heard.append(event.text)})()
        workspace = Workspace.open(tmp_path / "w", create=True)
        with workspace.lock("rollouts"):
            note_code(workspace.begin("rollouts", "0" * 64), env, progress)
        return heard

    assert told() == []
    assert told() == []
    own(step="pass  # nothing else")
    (text,) = told()
    assert "my_own_world has changed" in text
    assert told("CarRacing-v3") == []


def test_the_code_of_a_package_is_all_of_its_files(own, tmp_path):
    own()
    package = tmp_path / "my_own_package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "world.py", "inner/__init__.py", "inner/parts.py"):
        (package / name).write_text("")
    seen = [code_digest("my_own_package.world:Mine-v0")]
    assert seen[0] == code_digest("my_own_package.world:Mine-v0")
    for name in ("__init__.py", "inner/parts.py"):
        (package / name).write_text("PART = 1")
        seen.append(code_digest("my_own_package.world:Mine-v0"))
    assert len(set(seen)) == 3
    assert code_digest("no_such_module:Mine-v0") == ""


def test_settings_that_do_not_fit_its_actions_are_refused_before_any_work(own, tmp_path):
    """V and M would have learnt for nothing."""
    env = own(f"({PICTURE}, Box(-1, 1, (2,), np.float32))").env
    keys = settings(f"world.env={env}", "world.crop=[0,0,0,0]", "world.engine=gymnasium")
    refused = wm("run", "-w", "w", "--preset", "debug", *keys, code=2, cwd=tmp_path)
    assert "control.squash" in refused.said and "2 numbers" in refused.said
    assert "control.squash=[]" in refused.said
    assert not (tmp_path / "w" / "rollouts").exists()
