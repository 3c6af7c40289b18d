"""The loop in front of a scripted somebody, on a clock that does not wait; and its films."""

import av
import numpy as np
import pytest
from plays import SPEC, Counting, recorder

from stages.artifacts.episodes import EpisodeSet
from stages.errors import UsageError
from stages.playing.session import ASK, Session, Terms
from wm_cli.playing.canvas import Canvas
from wm_cli.playing.film import FilmClock, Nobody, Reel, check_target
from wm_cli.playing.keys import Keys, Press, Steering
from wm_cli.playing.player import Player
from wm_cli.playing.terminal import Terminal

RATE = 10.0


class Somebody:
    """Presses keys at times that were written down, and remembers what was shown."""

    def __init__(self, clock, script, held=frozenset()):
        self.clock, self.script, self.held, self.seen = clock, sorted(script), held, []

    def keys(self):
        now, due = self.clock.now(), []
        while self.script and self.script[0][0] <= now:
            due.append(self.script.pop(0)[1])
        return Keys(tuple(Press(name) for name in due if name != "X"), self.held, "X" in due)

    def toggle_keys(self):
        pass

    def show(self, shown):
        self.seen.append((self.clock.now(), shown))


def play(workspace, script, *, held=frozenset(), films=None, **terms):
    clock = FilmClock()
    somebody = Somebody(clock, script, held)
    session = Session(Counting(), Terms(**terms), open_recording=recorder(workspace))
    player = Player(
        session,
        somebody,
        env="VizdoomTakeCover-v1",
        steering=Steering("VizdoomTakeCover-v1", SPEC),
        steps_per_second=RATE,
        films=films,
        clock=clock,
    )
    with session:
        player.run(lambda: None)
    return somebody, session, player


def test_it_plays_at_the_speed_of_the_world(workspace):
    somebody, session, _ = play(workspace, [(0.35, "q")], held=frozenset({"right"}))
    assert session.over and session.moment.num_steps == 3
    first = {}
    for time, shown in somebody.seen:
        first.setdefault(shown.moment.num_steps, time)
    assert [first[n] for n in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3], abs=1 / 60)
    assert session.moment.total == 3.0


def test_a_short_tap_between_two_steps_counts(workspace):
    _, session, _ = play(workspace, [(0.12, "left"), (0.35, "q")])
    assert session.moment.total == -1.0, "one step of three"


def test_twice_the_speed_and_a_window_that_is_closed(workspace):
    _, session, _ = play(workspace, [(0.0, "f"), (0.23, "X")])
    assert session.moment.num_steps == 3


def test_comma_records_a_film_and_episodes(workspace, tmp_path):
    told = []

    def films(artifact):
        told.append(artifact.id)
        return tmp_path / "film.mp4"

    script = [(0.15, ","), (0.32, ","), (0.4, "q")]
    somebody, session, player = play(workspace, script, held=frozenset({"right"}), films=films)
    assert told == ["plays/0001"] and player.films == [tmp_path / "film.mp4"]
    record = EpisodeSet.of(session.artifacts).episode(0)
    assert record.num_steps == 3 and record.seed == 100
    # What is shown at `,` is in the film, and every step after it.
    assert len(frames_of(tmp_path / "film.mp4")) == 1 + 2
    assert any(shown.recording for _, shown in somebody.seen)
    assert "plays/0001" in somebody.seen[-1][1].message


def test_a_film_that_nobody_ended_is_ended(workspace, tmp_path):
    films = {"films": lambda artifact: tmp_path / "left.mp4"}
    _, session, _ = play(workspace, [(0.0, ","), (0.25, "X")], **films)
    assert len(frames_of(tmp_path / "left.mp4")) == 1 + 2
    assert [one.id for one in session.artifacts] == ["plays/0001"]


def test_the_question_stands_on_screen_until_it_is_answered(workspace):
    script = [(0.9, "p"), (1.0, "y"), (1.05, "X")]
    somebody, session, _ = play(workspace, script, keep=ASK)
    asked = [time for time, shown in somebody.seen if shown.message.endswith("y / n")]
    assert min(asked) == pytest.approx(0.3, abs=0.05)
    assert max(asked) == pytest.approx(1.0, abs=0.1)
    assert [one.kept for one in session.played] == [True]


def frames_of(path):
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        assert float(stream.average_rate) == RATE
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


def test_a_film_shows_what_a_window_shows(workspace, tmp_path):
    session = Session(Counting(), Terms(), open_recording=recorder(workspace))
    player = Player(session, Nobody(), env="Toy", steering=None, steps_per_second=RATE)
    with session:
        reel = Reel(player.describe, frames_per_second=RATE)
        session.on_moment.append(reel.see)
        reel.start()
        expected = [Canvas(player.describe(), with_keys=False).pixels(player.describe())]
        for _ in range(3):
            session.advance(0.0, lambda: np.ones(1, np.float32))
            expected.append(Canvas(player.describe(), with_keys=False).pixels(player.describe()))
        reel.finish(tmp_path / "film.mp4")
    found = frames_of(tmp_path / "film.mp4")
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        height, width = one.shape[:2]
        difference = np.abs(one.astype(int) - other[:height, :width])
        assert difference.mean() < 2, "the encoder changes little"
    assert list(tmp_path.glob(".tmp*")) == []


def test_films_that_could_not_be_written_are_refused_at_once(tmp_path):
    good = tmp_path / "film.mp4"
    check_target(good, force=False)
    good.touch()
    with pytest.raises(UsageError, match="there already"):
        check_target(good, force=False)
    check_target(good, force=True)
    for bad in (tmp_path / "film.avi", tmp_path / "none" / "film.mp4", tmp_path):
        with pytest.raises(UsageError):
            check_target(bad, force=True)


def test_a_terminal_shows_pictures_as_high_as_there_is_room(workspace, monkeypatch):
    monkeypatch.setenv("COLORTERM", "truecolor")
    session = Session(Counting(), Terms(), open_recording=recorder(workspace))
    with session:
        player = Player(session, Nobody(), env="Toy", steering=None, steps_per_second=RATE)
        shown = player.describe()
    for columns, rows in ((80, 24), (200, 60), (40, 12)):
        lines = Terminal().lines(shown, columns, rows)
        assert len(lines) <= rows
        blocks = [line for line in lines if "▀" in line]
        assert blocks and all(line.count("▀") <= columns for line in blocks)
        # Every pixel of the toy's frame is grey 100.
        assert "\x1b[38;2;100;100;100;48;2;100;100;100m" in blocks[0]
    assert len(Terminal().lines(shown, 20, 5)) == 1


def test_a_recording_that_cannot_begin_is_told_and_the_play_goes_on(workspace):
    from stages.artifacts.workspace import Workspace

    other = Workspace.open(workspace.root)
    with other.lock("plays"):
        script = [(0.15, ","), (0.26, "q")]
        somebody, session, _ = play(workspace, script, held=frozenset({"right"}))
    assert session.moment.num_steps == 2 and not session.recording
    assert any("Not recording" in shown.message for _, shown in somebody.seen)
