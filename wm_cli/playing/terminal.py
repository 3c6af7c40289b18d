"""Pictures in a terminal: two pixels per character, and its keyboard, which tells no key's end."""

import os
import select
import shutil
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pygame
from numpy.typing import NDArray

from stages.playing.scene import Picture
from wm_cli.playing.keys import Keys, Press
from wm_cli.playing.texts import Shown, key_text
from wm_cli.wording import printable

HOLD_SECONDS = 0.3  # a key counts as held for so long: terminals do not say when it is let go
FIRST_HOLD_SECONDS = 0.6  # and at first until the keyboard begins to repeat it
REPEAT_SECONDS = 0.15  # the same key so soon again is one that is held down
ESCAPES = {"A": "up", "B": "down", "C": "right", "D": "left"}
PLAIN = {" ": "space", "\t": "tab", "\r": "return", "\n": "return", "\x1b": "escape"}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
RAMP = " .:-=+*#%@"  # from dark to bright, where there are no colours
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[2J", "\x1b[0m\x1b[?25h\x1b[?1049l"
LEAST = (40, 12)  # columns and rows


def why_no_terminal() -> str:
    """Why nobody could play in a terminal; empty when somebody can."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return "There is no terminal to draw in and to read keys from."
    if os.environ.get("TERM", "dumb") == "dumb":
        return "This terminal (TERM=dumb) cannot be drawn in."
    return ""


class Terminal:
    """Draws moments on stderr and reads keys from stdin; a context manager."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paint = _painter()
        self._held: dict[str, float] = {}  # until when
        self._seen: dict[str, float] = {}  # when each key came last
        self._keys = True

    def __enter__(self) -> "Terminal":
        """Take the whole screen; keys come at once and are not echoed."""
        self._in, self._out = sys.stdin.fileno(), sys.stderr.fileno()
        self._before = termios.tcgetattr(self._in)
        mode = termios.tcgetattr(self._in)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 0, 0
        mode[6][termios.VSUSP] = b"\x00"  # Ctrl-Z would leave the terminal as it is now
        termios.tcsetattr(self._in, termios.TCSADRAIN, mode)
        self._write(ENTER)
        return self

    def __exit__(self, *error: object) -> None:
        """Give the terminal back as it was."""
        self._write(LEAVE)
        termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def keys(self) -> Keys:
        """What was typed since the last look."""
        text, closed = "", False
        while select.select([self._in], [], [], 0)[0]:
            try:
                got = os.read(self._in, 1024)
            except OSError:  # the terminal is gone
                got = b""
            if not got:
                closed = True
                break
            text += got.decode(errors="replace")
        return self.pressed(text, closed=closed)

    def pressed(self, text: str, *, closed: bool = False) -> Keys:
        """What these characters mean, coming now."""
        now = self._clock()
        presses: list[Press] = []
        for name in key_names(text):
            repeats = now - self._seen.get(name, -1.0) < REPEAT_SECONDS
            self._hold(name, now)
            self._seen[name] = now
            presses.append(Press(name, repeats=repeats))
        self._held = {name: until for name, until in self._held.items() if until > now}
        return Keys(tuple(presses), frozenset(self._held), closed)

    def _hold(self, name: str, now: float) -> None:
        """Take a key for held; of several only the newest repeats, and the others stay with it."""
        held = {other for other, until in self._held.items() if until > now}
        held.discard(OPPOSITE.get(name, ""))
        self._held = {other: max(self._held[other], now + HOLD_SECONDS) for other in held}
        self._held[name] = now + (HOLD_SECONDS if name in held else FIRST_HOLD_SECONDS)

    def toggle_keys(self) -> None:
        """Show or hide the list of keys."""
        self._keys = not self._keys

    def show(self, shown: Shown) -> None:
        """Draw this moment over the one before."""
        columns, rows = shutil.get_terminal_size()
        lines = self.lines(shown, columns, rows)
        body = "\x1b[0m\x1b[K\r\n".join(lines)
        self._write(f"\x1b[H{body}\x1b[0m\x1b[K\x1b[J")

    def lines(self, shown: Shown, columns: int, rows: int) -> list[str]:
        """What the screen shows, line by line, in so much room."""
        if (columns, rows) < LEAST or rows < LEAST[1]:
            return [f"This takes {LEAST[0]} columns and {LEAST[1]} rows."[:columns]]
        mark = "[recording] " if shown.recording else ""
        head = [_cut(mark + shown.headline, columns)]
        head += _folded([f"{label} {value}" for label, value in shown.facts], columns)
        foot = [_cut(shown.message, columns)]
        if self._keys:
            foot += _folded([key_text(row) for row in shown.keys], columns)
        room = rows - len(head) - len(foot) - 1  # a row of titles
        pictures = shown.moment.pictures
        if room < 4 and self._keys:  # the pictures are worth more
            foot, room = foot[:1], rows - len(head) - 2
        return [*head, *self._strip(pictures, columns, max(room, 2)), *foot]

    def _strip(self, pictures: tuple[Picture, ...], columns: int, rows: int) -> Iterator[str]:
        """The titles, and the pictures side by side."""
        each = (columns - (len(pictures) - 1)) // len(pictures)
        shapes = [_fitting(picture, each, rows) for picture in pictures]
        titles = zip(pictures, shapes, strict=True)
        yield " ".join(f"{_cut(one.title, width):<{width}}" for one, (width, _) in titles)
        high = max(height for _, height in shapes)
        painted = [
            self._paint(_shrunk(picture.pixels, width, 2 * height))
            for picture, (width, height) in zip(pictures, shapes, strict=True)
        ]
        for row in range(high):
            yield "\x1b[0m ".join(
                lines[row] if row < len(lines) else " " * width
                for lines, (width, _) in zip(painted, shapes, strict=True)
            )

    def _write(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(self._out, data) :]


def key_names(text: str) -> Iterator[str]:
    """Names of the keys that sent these characters; sequences of other keys are dropped."""
    place = 0
    while place < len(text):
        if text[place] == "\x1b" and text[place + 1 : place + 2] in {"[", "O"}:
            end = place + 2
            while end < len(text) and not ("@" <= text[end] <= "~"):
                end += 1
            arrow = ESCAPES.get(text[end : end + 1])
            place = end + 1
            if arrow:
                yield arrow
            continue
        character = text[place]
        place += 1
        if character in PLAIN:
            yield PLAIN[character]
        elif character.isprintable():
            yield character.lower()


def _fitting(picture: Picture, columns: int, rows: int) -> tuple[int, int]:
    """Columns and rows of a picture, a character being twice as high as wide."""
    height, width, _ = picture.pixels.shape
    wide = min(columns, round(2 * rows * width / height))
    return max(wide, 1), max(round(wide * height / width / 2), 1)


def _shrunk(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The picture [H, W, 3] as [height, width, 3]."""
    surface = pygame.surfarray.make_surface(pixels.swapaxes(0, 1))
    scaled = pygame.transform.smoothscale(surface, (width, height))
    small: NDArray[np.uint8] = pygame.surfarray.array3d(scaled).swapaxes(0, 1)
    return small


def _painter() -> Callable[[NDArray[np.uint8]], list[str]]:
    """How this terminal shows pictures [2 * rows, columns, 3]: as lines of text."""
    if os.environ.get("NO_COLOR"):
        return _in_characters
    true = os.environ.get("COLORTERM", "") in {"truecolor", "24bit"}
    return lambda pixels: _in_blocks(pixels, _true if true else _of_256)


def _in_blocks(pixels: NDArray[np.uint8], colour: Callable[[Any], str]) -> list[str]:
    lines = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        line, last = "", ""
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            code = f"\x1b[38;{colour(above)};48;{colour(below)}m"
            line += "▀" if code == last else f"{code}▀"
            last = code
        lines.append(line)
    return lines


def _in_characters(pixels: NDArray[np.uint8]) -> list[str]:
    grey = pixels.astype(np.float64).mean(axis=2)
    rows = (grey[::2] + grey[1::2]) / 2
    places = (rows * len(RAMP) / 256).astype(int)
    return ["".join(RAMP[place] for place in row) for row in places]


def _true(colour: list[int]) -> str:
    return f"2;{colour[0]};{colour[1]};{colour[2]}"


def _of_256(colour: list[int]) -> str:
    """The nearest of the 6 x 6 x 6 colours that nearly every terminal has."""
    red, green, blue = (round(part / 51) for part in colour)
    return f"5;{16 + 36 * red + 6 * green + blue}"


def _folded(cells: list[str], columns: int) -> list[str]:
    """Cells side by side, on as many lines as they take."""
    lines: list[str] = []
    for cell in cells:
        longer = f"{lines[-1]}   {cell}" if lines else cell
        if lines and len(longer) <= columns:
            lines[-1] = longer
        else:
            lines.append(_cut(cell, columns))
    return lines


def _cut(text: str, columns: int) -> str:
    plain = printable(text).replace("\n", " ")
    return plain if len(plain) <= columns else f"{plain[: columns - 1]}…"
