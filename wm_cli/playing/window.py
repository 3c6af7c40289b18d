"""A window by pygame, and whether there is a display that anybody sees."""

import os
import sys
from typing import Any

import pygame

from stages.errors import EnvironmentLacks
from wm_cli.playing.canvas import Canvas
from wm_cli.playing.keys import Keys, Press
from wm_cli.playing.texts import Shown

INVISIBLE = ("dummy", "offscreen")  # drivers that SDL takes where there is no display
REPEAT_DELAY, REPEAT_EVERY = 400, 60  # milliseconds
NAMES = {
    pygame.K_LEFT: "left",
    pygame.K_RIGHT: "right",
    pygame.K_UP: "up",
    pygame.K_DOWN: "down",
    pygame.K_SPACE: "space",
    pygame.K_TAB: "tab",
    pygame.K_ESCAPE: "escape",
    pygame.K_RETURN: "return",
    pygame.K_KP_ENTER: "return",
    pygame.K_COMMA: ",",
    pygame.K_PERIOD: ".",
}


def why_no_window() -> str:
    """Why a window would be seen by nobody; empty when there is a display, which is then open."""
    named = [name for name in ("DISPLAY", "WAYLAND_DISPLAY") if os.environ.get(name)]
    if sys.platform == "linux" and not named:
        return "There is no display: neither DISPLAY nor WAYLAND_DISPLAY is set."
    told = " ".join(f"{name}={os.environ[name]}" for name in named) or "this desktop"
    try:
        pygame.display.init()
    except pygame.error as error:
        return f"No display answers at {told}: {error}."
    driver = pygame.display.get_driver()
    if driver not in INVISIBLE:
        return ""
    pygame.display.quit()
    chosen = os.environ.get("SDL_VIDEODRIVER")
    if chosen:
        return f"SDL_VIDEODRIVER={chosen} asks for windows that nobody sees."
    return f"No display answers at {told}: SDL fell back to the invisible driver {driver!r}."


class Window:
    """Shows moments in a window and reads its keyboard; a context manager."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._canvas: Canvas | None = None
        self._screen: Any = None
        self._down: dict[int, str] = {}  # keys that are held
        self._keys = True

    def __enter__(self) -> "Window":
        """The display is open; the window comes with the first picture."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        pygame.display.quit()

    def keys(self) -> Keys:
        """What happened since the last look."""
        if self._screen is None:
            return Keys()
        pressed: list[Press] = []
        closed = False
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                closed = True
            elif event.type == pygame.KEYDOWN and (name := _name(event)):
                pressed.append(Press(name, repeats=event.key in self._down))
                self._down[event.key] = name
            elif event.type == pygame.KEYUP:
                self._down.pop(event.key, None)
            elif event.type == pygame.WINDOWFOCUSLOST:  # what is let go elsewhere is not told
                self._down.clear()
        held = frozenset(self._down.values()) | {press.name for press in pressed}
        return Keys(tuple(pressed), held, closed)

    def toggle_keys(self) -> None:
        """Show or hide the list of keys."""
        self._keys = not self._keys

    def show(self, shown: Shown) -> None:
        """Draw this moment."""
        if self._canvas is None:
            self._open(shown)
        assert self._canvas is not None, "the window is open"
        drawn = self._canvas.draw(shown, keys=self._keys)
        size = self._screen.get_size()
        if size != self._canvas.size:
            drawn = pygame.transform.smoothscale(drawn, size)
        self._screen.blit(drawn, (0, 0))
        pygame.display.flip()

    def _open(self, shown: Shown) -> None:
        self._canvas = Canvas(shown, with_keys=True)
        try:
            self._screen = pygame.display.set_mode(self._canvas.size, pygame.RESIZABLE)
        except pygame.error as error:
            raise EnvironmentLacks(
                "The window cannot be opened.",
                why=f"{error}.",
                fix="Play in the terminal (--terminal), or make a film: --record FILE.mp4",
            ) from error
        pygame.display.set_caption(self._title)
        pygame.key.set_repeat(REPEAT_DELAY, REPEAT_EVERY)


def _name(event: Any) -> str:
    """The name of a key that went down; its character where it has one."""
    named = NAMES.get(event.key)
    if named is not None and not (named in ",." and event.unicode):
        return named
    character = str(event.unicode)
    return character.lower() if character.isprintable() else ""
