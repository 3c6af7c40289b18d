"""Which engine is chosen, and that choosing loads nothing heavy."""

import os
import subprocess
import sys

import pytest

from stages.contracts import WorldSpec
from stages.errors import EnvironmentLacks, UsageError
from stages.worlds import making
from stages.worlds.making import engines_for, frames_per_second, headless, lap_rule, resolve_engine


@pytest.fixture
def no_envpool(monkeypatch):
    monkeypatch.setattr(making, "find_spec", lambda name: None)


def test_auto_takes_the_engine_that_steps_fastest():
    pytest.importorskip("envpool")
    assert resolve_engine(WorldSpec()) == "envpool"
    assert resolve_engine(WorldSpec(repeat=4)) == "gymnasium-fast"
    assert resolve_engine(WorldSpec(env="ALE/Breakout-v5")) == "gymnasium"
    assert resolve_engine(WorldSpec(engine="gymnasium")) == "gymnasium"


def test_auto_falls_back_and_envpool_by_name_tells_how_to_install_it(no_envpool):
    assert resolve_engine(WorldSpec()) == "gymnasium-fast"
    with pytest.raises(EnvironmentLacks) as caught:
        resolve_engine(WorldSpec(engine="envpool"))
    assert 'pip install "wm-pixels[fast]"' in caught.value.fix


def test_an_engine_that_does_not_offer_the_environment_is_refused():
    with pytest.raises(UsageError, match="gymnasium"):
        resolve_engine(WorldSpec(env="ALE/Breakout-v5", engine="envpool"))
    with pytest.raises(UsageError, match="gymnasium-fast"):
        resolve_engine(WorldSpec(env="ALE/Breakout-v5", engine="gymnasium-fast"))
    assert engines_for("CarRacing-v3") == ("gymnasium", "gymnasium-fast", "envpool")


def test_choosing_an_engine_loads_none():
    code = (
        "import sys\n"
        "from stages.contracts import WorldSpec\n"
        "from stages.worlds.making import resolve_engine\n"
        "resolve_engine(WorldSpec())\n"
        "heavy = {'torch', 'gymnasium', 'envpool', 'h5py', 'pygame'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_headless_fills_only_what_is_unset(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.delenv("SDL_AUDIODRIVER", raising=False)
    headless()
    assert os.environ["SDL_VIDEODRIVER"] == "x11"
    assert os.environ["SDL_AUDIODRIVER"] == "dummy"


def test_the_speed_of_a_film_is_that_of_its_world():
    found = frames_per_second("CarRacing-v3")  # loads Box2D, whose warnings it silences
    from gymnasium.envs.box2d.car_racing import FPS  # the time step of its physics is 1 / FPS

    assert found == FPS == 50
    assert frames_per_second("ALE/Breakout-v5") == 60 / 4, "the console's 60, of which v5 skips 3"
    assert frames_per_second("BreakoutNoFrameskip-v4") == 60


def test_the_lap_rule_names_the_version_it_holds_for():
    assert lap_rule("CarRacing-v3", "gymnasium") == "every-tile (gymnasium 1.4.0)"
    assert lap_rule("ALE/Breakout-v5", "gymnasium") == ""
