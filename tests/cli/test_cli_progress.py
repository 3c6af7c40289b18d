"""Progress lines and their arithmetic, with a clock of the test's own."""

import io

import pytest
from rich.console import Console

from stages.events import Advanced, Noted
from wm_cli.progress import Pace, ScreenMonitor
from wm_cli.signals import Stopper
from wm_cli.wording import cell, duration, printable, size


def lines_after(events, *, command="rollout"):
    """What a monitor without a terminal writes, for (second, event) pairs."""
    file, now = io.StringIO(), [0.0]
    monitor = ScreenMonitor(
        command, console=Console(file=file), stopper=Stopper(), clock=lambda: now[0]
    )
    with monitor:
        for second, event in events:
            now[0] = second
            monitor.emit(event)
    return file.getvalue().splitlines()


def test_a_line_every_ten_seconds_and_one_at_the_end():
    events = [(float(second), Advanced(second, 35, "steps")) for second in range(36)]
    lines = lines_after(events)
    assert [line.split()[1] for line in lines] == ["10/35", "20/35", "30/35", "35/35"]
    assert lines[0] == "rollout: 10/35 steps, 1/s, 25 s left"


def test_a_resumed_run_is_not_credited_with_the_work_of_the_first():
    pace = Pace(Advanced(500, 1000, "steps"), 100.0)
    assert pace.describe(Advanced(600, 1000, "steps"), 150.0) == "2/s, 3 min 20 s left"


def test_slow_work_is_told_per_unit():
    pace = Pace(Advanced(0, 10, "generations"), 0.0)
    assert pace.describe(Advanced(2, 10, "generations"), 60.0) == "30 s each, 4 min 0 s left"


def test_time_left_follows_the_share_of_the_work_where_units_differ():
    pace = Pace(Advanced(0, 10, "generations", share=0.0), 0.0)
    # A fifth of the generations, but a tenth of the work in a minute: nine more minutes.
    event = Advanced(2, 10, "generations", share=0.1)
    assert pace.describe(event, 60.0) == "30 s each, 9 min 0 s left"
    resumed = Pace(Advanced(5, 10, "generations", share=0.4), 0.0)
    event = Advanced(6, 10, "generations", share=0.5)
    assert resumed.describe(event, 60.0) == "1 min 0 s each, 5 min 0 s left"


def test_another_piece_of_work_has_a_pace_of_its_own():
    events = [
        (0.0, Advanced(0, 4, "episodes")),
        (8.0, Advanced(4, 4, "episodes")),
        (20.0, Advanced(0, 8, "steps")),
        (22.0, Advanced(8, 8, "steps")),
    ]
    assert lines_after(events) == [
        "rollout: 4/4 episodes, 2 s each, took 8 s",
        "rollout: 8/8 steps, 4/s, took 2 s",
    ]


def test_notes_appear_at_once_and_warnings_say_so():
    notes = [(0.0, Noted("[bold]literal[/bold]")), (0.0, Noted("a worker died", warning=True))]
    assert lines_after(notes) == ["[bold]literal[/bold]", "warning: a worker died"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.03, "30 ms"),
        (1.5, "1.5 s"),
        (12.4, "12 s"),
        (59.7, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.9, "1 h 0 min"),
        (12000, "3 h 20 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_700, "1 MB"), (1.5e9, "1.5 GB")],
)
def test_sizes(num_bytes, text):
    assert size(num_bytes) == text


def test_cells():
    assert cell(4348547) == "4,348,547"
    assert cell(7500, column="age_seconds") == "2 h 5 min"
    assert cell(0.30000000000000004) == "0.3"
    assert cell(True) == "yes"
    assert cell(None) == "-"
    assert cell(1500, column="bytes") == "1.5 kB"


def test_printable_keeps_letters_of_every_language():
    assert printable("naïve 世界\nline") == "naïve 世界\nline"
    assert printable("a\x1b[2J\r\x85") == "a\\x1b[2J\\r\\x85"
