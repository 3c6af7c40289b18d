"""What a play does and keeps, against plain counts of a world of one number."""

import numpy as np
import pytest
from plays import DRIVES, JOB, SITE, Counting, recorder, right

from stages.artifacts.episodes import EpisodeSet
from stages.artifacts.workspace import Workspace
from stages.inspection.leftovers import advice, leftovers
from stages.playing.recording import Recording, recover
from stages.playing.session import ALL, ASK, Command, Session, Terms


def begun(workspace, **terms):
    return Session(Counting(), Terms(**terms), open_recording=recorder(workspace))


def steps(session, number, now=0.0):
    for _ in range(number):
        session.advance(now, right)


def do(session, *commands, now=0.0):
    for command in commands:
        session.do(command, now, right)


def kept(artifact):
    source = EpisodeSet.of([artifact])
    return [source.episode(number) for number in range(source.num_episodes)]


def test_episodes_follow_each_other_after_a_rest(workspace):
    with begun(workspace, rest=2.0) as session:
        steps(session, 3)
        assert session.moment.ended and session.waits
        steps(session, 5, now=1.9)
        assert session.number == 0, "it rests"
        do(session, Command.PAUSE)
        steps(session, 5, now=9.0)
        assert session.number == 0, "it is paused"
        do(session, Command.PAUSE)
        session.advance(2.0, right)
        assert (session.number, session.moment.num_steps, session.moment.seed) == (1, 0, 101)
        steps(session, 4, now=3.0)
        assert session.moment.ended
    assert [(one.seed, one.num_steps, one.total) for one in session.played] == [
        (100, 3, 3.0),
        (101, 4, 4.0),
    ]
    assert session.scene.closed
    assert not session.artifacts, "nobody asked to keep anything"


def test_it_ends_after_the_episodes_that_were_asked_for(workspace):
    with begun(workspace, num_episodes=2, rest=0.0, driver="agent") as session:
        steps(session, 50)
        assert session.over
    assert [one.drivers for one in session.played] == ["agent", "agent"]
    assert session.played[1].total == pytest.approx(4 * DRIVES["agent"])


def test_pause_single_steps_and_drivers(workspace):
    with begun(workspace) as session:
        do(session, Command.PAUSE)
        steps(session, 4)
        assert session.moment.num_steps == 0
        do(session, Command.FORWARD, Command.DRIVER, Command.FORWARD, Command.DRIVER)
        do(session, Command.FORWARD)
        assert session.moment.total == pytest.approx(1 + DRIVES["agent"] + DRIVES["random"])
        do(session, Command.DRIVER)
        assert session.driver == "keyboard"
        do(session, Command.AGAIN)
        assert (session.number, session.moment.num_steps) == (0, 0)
        do(session, Command.NEXT, Command.NEXT, Command.PREVIOUS)
        assert session.number == 1
        do(session, *[Command.FASTER] * 9)
        assert session.speed == 4.0
    assert [(one.num_steps, one.ended) for one in session.played] == [(3, "ended")]


def test_a_recording_holds_whole_episodes_from_their_start(workspace):
    with begun(workspace, rest=0.0) as session:
        steps(session, 2)
        session.start_recording()  # in the middle of the first
        steps(session, 1)
        do(session, Command.DRIVER)
        steps(session, 1 + 2)  # on to the second, and two steps of it
        artifact = session.stop_recording()
        steps(session, 2)
    first, second = kept(artifact)
    assert [r.seed for r in (first, second)] == [100, 101]
    assert first.actions[:, 0].tolist() == [1, 1, 1]
    assert second.actions[:, 0].tolist() == [0.25, 0.25]
    assert first.terminations.tolist() == [False, False, True]
    assert (second.terminations.any(), second.truncations.tolist()) == (False, [False, True])
    assert first.observations[:, 0, 0, 0].tolist() == [100, 120, 140, 160]
    told = artifact.manifest
    assert told.seeds == {"purpose": "play", "seeds": [100, 101]}
    assert (told.summary["episodes"], told.summary["steps"]) == (2, 5)
    assert told.summary["policy"] == "keyboard, agent"
    assert [one.id for one in workspace.artifacts("plays")] == ["plays/0001"]
    assert session.played[0].kept and session.played[1].kept


def test_the_save_mode_asks_after_every_episode(workspace):
    with begun(workspace, keep=ASK) as session:
        steps(session, 3)
        assert session.asking
        do(session, Command.PAUSE, Command.DRIVER)
        assert session.asking and not session.paused and session.driver == "keyboard"
        do(session, Command.NO)
        steps(session, 4)
        do(session, Command.YES)
        assert (session.number, session.asking) == (2, False)
        steps(session, 2)
        do(session, Command.QUIT)
        assert session.asking and not session.over, "what was begun may be worth keeping"
        do(session, Command.YES)
        assert session.over
    assert [one.kept for one in session.played] == [False, True, True]
    (artifact,) = session.artifacts
    assert [(r.seed, r.num_steps) for r in kept(artifact)] == [(101, 4), (102, 2)]


def test_leaving_keeps_what_is_being_recorded(workspace):
    with pytest.raises(KeyboardInterrupt), begun(workspace, keep=ALL, rest=0.0) as session:
        steps(session, 3 + 1 + 2)
        raise KeyboardInterrupt
    (artifact,) = session.artifacts
    assert [r.num_steps for r in kept(artifact)] == [3, 2]


def test_nothing_played_leaves_nothing(workspace):
    with begun(workspace, keep=ALL) as session:
        assert not session.over
    assert session.artifacts == []
    assert not workspace.artifacts("plays") and not workspace.partials("plays")


def test_what_a_killed_play_had_kept_becomes_an_artifact(workspace):
    """A kill leaves the partial as it is: here its process never comes to the end."""
    import os

    child = os.fork()
    if child == 0:
        recording = Recording(workspace, JOB, SITE).__enter__()
        session = begun(workspace)
        session._open = lambda: recording
        session.__enter__()
        session.start_recording()
        steps(session, 3)
        os._exit(0)
    os.waitpid(child, 0)
    again = Workspace.open(workspace.root)
    assert len(again.partials("plays")) == 1 and not again.artifacts("plays")
    (left,) = [one for one in leftovers(again) if one.what == "unfinished work"]
    because, fix = advice(again, [left])[left.path]
    assert "makes an artifact" in because and fix.startswith("wm play -w ")
    (artifact,) = recover(again)
    (record,) = kept(artifact)
    assert record.actions[:, 0].tolist() == [1, 1, 1]
    assert np.array_equal(record.rewards, [1, 1, 1])
    assert not again.partials("plays") and not artifact.verify()
    assert recover(again) == []


def test_foreign_unfinished_work_is_left_alone(workspace):
    with workspace.lock("plays"):
        partial = workspace.begin("plays", "f" * 64)
        partial.write("shard-00000.h5", b"no shard")
        partial.record({"play": {"fingerprint": "f" * 64, "engine": "none"}})
    assert recover(Workspace.open(workspace.root)) == []
    assert len(workspace.partials("plays")) == 1
