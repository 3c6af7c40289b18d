"""`wm export minari|npz|mp4`: where it writes and where never, and what it leaves when it dies."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from command_line import environment
from listening import Listening

from stages.artifacts.disk import SystemCalls, replaced
from stages.artifacts.workspace import Workspace
from stages.contracts import Job, WorldSpec
from stages.errors import Interrupted, UsageError
from stages.events import Noted, Silent
from stages.exchange.exporting import export_episodes
from stages.exchange.importing import asked_for, run

NOWHERE = WorldSpec(env="none", crop=(0, 0, 0, 0), engine="gymnasium", size=64)
COUNT = 5


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Five episodes of noise, which nobody writes to."""
    folder = tmp_path_factory.mktemp("exports")
    (folder / "mine").mkdir()
    for number in range(COUNT):
        random = np.random.default_rng(number)
        np.savez(
            folder / "mine" / f"{number}.npz",
            observations=random.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8),
            actions=random.integers(0, 2, 5),
            rewards=random.normal(size=5),
        )
    made = Workspace.open(folder / "w", create=True)
    job = Job(world=NOWHERE, family="world-models", recipe="imported", preset="", seed=0)
    run(made, asked_for("npz", [str(folder / "mine")]), job, progress=Silent())
    return made


def give(workspace, target, what="npz", *, count=None, force=False, progress=None):
    return export_episodes(
        workspace,
        what,
        target,
        source="",
        num_episodes=count,
        force=force,
        progress=progress or Silent(),
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def held(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("what", ["npz", "mp4", "minari"])
def test_an_earlier_export_is_replaced_with_force_alone(tmp_path, workspace, what):
    target = tmp_path / "out-v0"
    give(workspace, target, what)
    whole = held(target)
    with pytest.raises(UsageError, match="--force"):
        give(workspace, target, what, count=2)
    assert held(target) == whole
    give(workspace, target, what, count=2, force=True)
    fewer = held(target)
    assert sum(map(len, fewer.values())) < sum(map(len, whole.values()))
    if what != "minari":
        assert len([name for name in fewer if name.startswith("episode-")]) == 2
    assert names(tmp_path) == ["out-v0"]


@pytest.mark.parametrize("what", ["npz", "mp4", "minari"])
@pytest.mark.parametrize("force", [False, True])
def test_what_wm_did_not_write_is_never_replaced(tmp_path, workspace, what, force):
    """Names alone prove nothing: a data set of minari's own is a folder with `data`, too."""
    target = tmp_path / "own-v0"
    name = {"npz": "episode-00000.npz", "mp4": "episode-00000.mp4", "minari": "data/main_data.hdf5"}
    (target / name[what]).parent.mkdir(parents=True)
    (target / name[what]).write_bytes(b"precious")
    with pytest.raises(UsageError, match="no earlier export"):
        give(workspace, target, what, force=force)
    assert held(target) == {name[what]: b"precious"}


@pytest.mark.parametrize("added", ["notes.txt", "data/notes.txt", "data/w/workspace.json"])
def test_what_was_added_to_an_export_is_not_lost(tmp_path, workspace, added):
    target = tmp_path / "out-v0"
    give(workspace, target, "minari")
    (target / added).parent.mkdir(exist_ok=True)
    (target / added).write_bytes(b"precious")
    before = held(target)
    with pytest.raises(UsageError, match="more than an earlier export"):
        give(workspace, target, "minari", force=True)
    assert held(target) == before


def test_an_export_of_another_kind_is_not_replaced(tmp_path, workspace):
    give(workspace, tmp_path / "out")
    with pytest.raises(UsageError, match="no earlier export of mp4"):
        give(workspace, tmp_path / "out", "mp4", force=True)


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_into_or_over_a_workspace(tmp_path, workspace, force):
    inside = shutil.copytree(workspace.root, tmp_path / "w")
    before = held(tmp_path)
    (tmp_path / "link").symlink_to(inside, target_is_directory=True)
    for target in ("w", "w/out", "w/rollouts/out", "link/out"):
        with pytest.raises(UsageError, match="lies in the workspace"):
            give(workspace, tmp_path / target, force=force)
    (tmp_path / "above").mkdir()
    shutil.copytree(inside, tmp_path / "above" / "data")  # as a Minari data set has one
    with pytest.raises(UsageError, match="no earlier export"):
        give(workspace, tmp_path / "above", "minari", force=force)
    (tmp_path / "link").unlink()
    shutil.rmtree(tmp_path / "above")
    assert held(tmp_path) == before


def test_a_link_to_a_folder_stays_one(tmp_path, workspace):
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to("far", target_is_directory=True)
    give(workspace, tmp_path / "near")
    give(workspace, tmp_path / "near", count=1, force=True)
    assert (tmp_path / "near").is_symlink()
    assert (tmp_path / "far" / "episode-00000.npz").exists()
    assert not (tmp_path / "far" / "episode-00001.npz").exists()
    assert names(tmp_path) == ["far", "near"]


@pytest.mark.parametrize("what", ["npz", "mp4", "minari"])
def test_an_export_that_is_stopped_leaves_what_was_there(tmp_path, workspace, what):
    target = tmp_path / "out-v0"
    with pytest.raises(Interrupted):
        give(workspace, target, what, progress=Listening(stop_after=3))
    assert names(tmp_path) == []
    give(workspace, target, what, count=1)
    before = held(target)
    with pytest.raises(Interrupted):
        give(workspace, target, what, force=True, progress=Listening(stop_after=3))
    assert (held(target), names(tmp_path)) == (before, ["out-v0"])


def test_every_file_is_on_the_device_before_the_folder_has_its_name(tmp_path, workspace):
    """Also those that h5py writes, as calls to the system tell."""
    synced, renamed = set(), []

    class Watched(SystemCalls):
        def sync(self, handle):
            synced.add(os.fstat(handle).st_ino)
            super().sync(handle)

        def rename(self, source, target):
            if target.name == "out-v0":
                inodes = [path.stat().st_ino for path in (source, *source.rglob("*"))]
                renamed.append(set(inodes) <= synced)
            super().rename(source, target)

    with replaced(Watched()):
        give(workspace, tmp_path / "out-v0", "minari")
    assert renamed == [True]


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.artifacts.workspace import Workspace
from stages.events import Advanced, Silent
from stages.exchange.exporting import export_episodes

class Deadly(Silent):
    def emit(self, event):
        if isinstance(event, Advanced) and event.done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

export_episodes(
    Workspace.open(Path(sys.argv[1])), "npz", Path(sys.argv[2]),
    source="", num_episodes=None, force=True, progress=Deadly(),
)
"""


def test_an_export_that_is_killed_leaves_nothing_that_the_next_does_not_clear(tmp_path, workspace):
    target = tmp_path / "out"
    give(workspace, target, count=1)
    before = held(target)
    words = [sys.executable, "-c", KILLED, str(workspace.root), str(target)]
    done = subprocess.run(words, env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert held(target) == before
    give(workspace, target, force=True)
    assert names(tmp_path) == ["out"]
    assert len(list(target.glob("episode-*.npz"))) == COUNT


def test_the_first_episodes_are_taken_and_more_than_there_are_is_told(tmp_path, workspace):
    report = give(workspace, tmp_path / "two", count=2)
    assert report.summary["episodes"] == 2
    source = workspace.root.parent / "mine"
    for number in range(2):
        ours = np.load(tmp_path / "two" / f"episode-{number:05d}.npz")
        np.testing.assert_array_equal(
            ours["observations"], np.load(source / f"{number}.npz")["observations"]
        )
    heard = Listening()
    assert give(workspace, tmp_path / "all", count=9, progress=heard).summary["episodes"] == COUNT
    assert [one.text for one in heard.events if isinstance(one, Noted)] == [
        f"rollouts/0001 has {COUNT} episodes."
    ]


def film_of(path: Path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(video=0))
        return float(stream.average_rate), len(frames), (frames[0].height, frames[0].width)


def test_films_have_every_frame_four_times_as_large_at_their_speed(tmp_path, workspace):
    """64 x 64 pixels become 256 x 256; where nothing tells a rate it is 30 a second."""
    give(workspace, tmp_path / "films", "mp4", count=1)
    film = tmp_path / "films" / "episode-00000.mp4"
    assert film_of(film) == (30, 6, (256, 256))
    again = Workspace.open(tmp_path / "again", create=True)
    job = Job(world=NOWHERE, family="world-models", recipe="imported", preset="", seed=0)
    run(again, asked_for("video", [str(film)], every=2), job, progress=Silent())
    give(again, tmp_path / "slower", "mp4")
    assert film_of(tmp_path / "slower" / "episode-00000.mp4") == (15, 3, (256, 256))
