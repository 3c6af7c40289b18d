"""The window with real keys under Xvfb, the terminal in a pseudo-terminal: whole commands."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import numpy as np
import pytest
from command_line import command, copied, environment, manifest, wm
from desktop import XVFB, desktop

needs_xvfb = pytest.mark.skipif(XVFB is None, reason="Xvfb is not installed")
SECONDS = 60  # that anything may take on a busy machine


def until(true, what, *, seconds=SECONDS):
    """Wait until `true()` is something, and give that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen")


@contextlib.contextmanager
def playing(screen, tmp_path, *words):
    """`wm play` on a display of its own; ended if the test did not end it."""
    env = environment(DISPLAY=screen.name)
    env.pop("SDL_VIDEODRIVER", None)
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command("play", *words), env=env, stdout=said, stderr=said)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


HEADER, PICTURES = slice(40, 75), slice(106, 394)  # rows of the numbers, and of the pictures


def changed(screen, window, before, rows):
    after = screen.pixels(window)
    return after if (after[rows] != before[rows]).any() else None


@needs_xvfb
def test_a_window_is_played_with_real_keys(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "ws")
    with desktop() as screen, playing(screen, tmp_path, "-w", root) as process:
        window = screen.window()
        first = screen.pixels(window)
        with screen.held("Up"):
            until(lambda: changed(screen, window, first, PICTURES) is not None, "driving")
        screen.tap("p")
        time.sleep(1.0)
        still = screen.pixels(window)
        time.sleep(1.0)
        assert np.array_equal(screen.pixels(window)[HEADER], still[HEADER]), "it is paused"
        screen.tap("period")
        until(lambda: changed(screen, window, still, HEADER) is not None, "a single step")
        screen.tap("comma")
        red = until(lambda: reddest(screen.pixels(window)[:36]), "the mark of a recording")
        assert red
        screen.tap("p")
        time.sleep(1.0)
        screen.tap("comma")
        until((root / "plays" / "0001" / "manifest.json").exists, "the recording's end")
        screen.close_window(window)
        assert process.wait(timeout=SECONDS) == 0, (tmp_path / "said").read_text()
    told = manifest(root, "plays/0001")["summary"]
    assert told["episodes"] == 1 and told["policy"] == "keyboard" and told["steps"] > 1
    assert (root / "videos" / "plays-0001.mp4").stat().st_size > 1000
    assert "plays/0001" in (tmp_path / "said").read_text()
    wm("verify", "-w", root)


def reddest(pixels):
    """How many pixels are of the colour of alarms."""
    return int((pixels == (255, 90, 90)).all(axis=2).sum())


@needs_xvfb
def test_the_agent_takes_over_and_q_leaves(micro_workspace, tmp_path):
    words = ("dream", "-w", micro_workspace, "--set", "control.dream_steps=400")
    with desktop() as screen, playing(screen, tmp_path, *words) as process:
        window = screen.window()
        before = screen.pixels(window)
        screen.tap("Tab")
        headline = slice(8, 34)
        until(lambda: changed(screen, window, before, headline) is not None, "another driver")
        screen.tap("q")
        assert process.wait(timeout=SECONDS) == 0, (tmp_path / "said").read_text()
    assert "agent" in (tmp_path / "said").read_text()


@needs_xvfb
def test_a_dream_is_warmed_cooled_begun_again_and_kept_or_not(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "ws")
    words = ("dream", "-w", root, "--set", "control.dream_steps=400", "--save", "ask")
    with desktop() as screen, playing(screen, tmp_path, *words) as process:
        window = screen.window()
        first = screen.pixels(window)
        until(lambda: changed(screen, window, first, HEADER) is not None, "a step")
        screen.tap("p")
        still = resting(screen, window)
        screen.tap("+")
        until(lambda: changed(screen, window, still, HEADER) is not None, "a warmer dream")
        screen.tap("-")
        until(lambda: changed(screen, window, still, HEADER) is None, "the temperature before")
        screen.tap("r")
        screen.tap("y")
        until(lambda: changed(screen, window, still, HEADER) is not None, "the beginning")
        start = resting(screen, window)
        screen.tap(".")
        until(lambda: changed(screen, window, start, HEADER) is not None, "a single step")
        screen.tap("q")
        resting(screen, window)
        screen.tap("n")
        assert process.wait(timeout=SECONDS) == 0, (tmp_path / "said").read_text()
    assert manifest(root, "plays/0001")["summary"]["episodes"] == 1, "the first, not the second"


@needs_xvfb
def test_a_recording_goes_forward_and_back(micro_workspace, tmp_path):
    words = ("rollouts/0001", "-w", micro_workspace)
    with desktop() as screen, playing(screen, tmp_path, *words) as process:
        window = screen.window()
        screen.tap("space")
        screen.tap("r")  # a busy machine pauses some steps after it; an episode back is its start
        before = resting(screen, window)
        for there, back in (("Right", "Left"), ("n", "b")):
            screen.tap(there)
            until(lambda: changed(screen, window, before, PICTURES) is not None, there)
            screen.tap(back)
            until(lambda: changed(screen, window, before, PICTURES) is None, back)
        screen.tap("q")
        assert process.wait(timeout=SECONDS) == 0, (tmp_path / "said").read_text()


def resting(screen, window):
    """What the window shows once it shows the same for half a second."""
    seen = screen.pixels(window)
    while True:
        time.sleep(0.5)
        now = screen.pixels(window)
        if np.array_equal(now[HEADER], seen[HEADER]):
            return now
        seen = now


def test_without_display_and_terminal_it_says_so(tmp_path):
    said = wm("play", "-w", tmp_path / "ws", code=6, DISPLAY="", WAYLAND_DISPLAY="").said
    assert "nowhere to play" in said and "--record" in said
    # A display that nobody serves: SDL would take an invisible driver, which is noticed.
    environment_without = environment(DISPLAY=":987")
    environment_without.pop("SDL_VIDEODRIVER", None)
    done = subprocess.run(
        command("play", "-w", tmp_path / "ws"),
        env=environment_without,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 6
    said = " ".join(done.stderr.split())
    assert "No display answers at DISPLAY=:987" in said and "--record" in said
    assert "invisible driver" in said
    said = wm("play", "-w", tmp_path / "ws", code=6, DISPLAY=":987", SDL_VIDEODRIVER="dummy").said
    assert "SDL_VIDEODRIVER=dummy" in said
    assert not (tmp_path / "ws").exists()


class Screen:
    """`wm play` in a pseudo-terminal of 100 x 40 characters."""

    def __init__(self, *words):
        self.process, self.text = None, ""
        env = environment(TERM="xterm-256color", DISPLAY="", WAYLAND_DISPLAY="", COLUMNS="")
        for name in ("COLUMNS", "NO_COLOR"):
            env.pop(name, None)
        self.process, self.handle = pty.fork()
        if self.process == 0:
            os.execve(command()[0], command("play", *words), env)
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))

    def shows(self, what, *, seconds=SECONDS):
        """Wait until this text has come since the last look."""
        end = time.monotonic() + seconds
        while what not in self.text:
            assert time.monotonic() < end, f"{what!r} was not shown: {self.text[-500:]!r}"
            self.read()
        self.text = self.text[self.text.index(what) + len(what) :]

    def read(self):
        if select.select([self.handle], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):
                self.text += os.read(self.handle, 65536).decode(errors="replace")

    def types(self, text):
        os.write(self.handle, text.encode())

    def ends(self):
        """Its exit code, once it has left; what it says meanwhile is read."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            self.read()
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                self.read()
                return os.waitstatus_to_exitcode(status)
        os.kill(self.process, signal.SIGKILL)
        raise AssertionError("it did not end")


SHOWN, HIDDEN = "\x1b[?1049h", "\x1b[?1049l"


def test_a_terminal_is_played_and_given_back(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "ws")
    screen = Screen("-w", root, "--save", "ask")
    screen.shows("Playing in the terminal")
    screen.shows(SHOWN)
    screen.shows("action +0.00 +0.00 +0.00")
    screen.types("\x1b[A")
    screen.shows("action +0.00 +1.00 +0.00")
    screen.types("\x1b[D")
    screen.shows("action -1.00")
    screen.shows("▀")
    screen.types("q")
    screen.shows("Keep this episode")
    screen.types("y")
    screen.shows(HIDDEN)
    assert screen.ends() == 0
    assert "plays/0001" in screen.text
    assert manifest(root, "plays/0001")["summary"]["policy"] == "keyboard"


def test_ctrl_c_gives_the_terminal_back_and_keeps_what_was_recorded(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "ws")
    screen = Screen("-w", root, "--save", "all", "--driver", "random")
    screen.shows("step 3")
    screen.types("\x03")
    screen.shows(HIDDEN)
    assert screen.ends() == 130
    said = " ".join(screen.text.split())
    assert "Kept: plays/0001" in said and "Traceback" not in said
    wm("verify", "-w", root)
