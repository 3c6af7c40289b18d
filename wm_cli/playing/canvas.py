"""Draws a moment with pygame, for windows and films alike; no display is needed for that."""

from typing import Any

import numpy as np
import pygame
import pygame.font
from numpy.typing import NDArray

from stages.playing.scene import Picture
from wm_cli.playing.texts import Row, Shown, key_text

PICTURE_HEIGHT = 288  # pixels; frames are enlarged to it without smoothing
MARGIN = 12
GAP = 10
BACKGROUND, PANEL = (24, 26, 30), (38, 41, 47)
TEXT, DIM, ACCENT, ALERT = (235, 235, 235), (150, 155, 165), (120, 190, 255), (255, 90, 90)
SIZES = {"headline": 24, "facts": 22, "titles": 18, "keys": 18}
LEAST_WIDTH = 720


class Canvas:
    """A picture of fixed size that shows one moment after the other."""

    def __init__(self, first: Shown, *, with_keys: bool) -> None:
        """As large as `first` needs; what is shown later has the same pictures and facts."""
        pygame.font.init()
        self._fonts = {name: pygame.font.Font(None, size) for name, size in SIZES.items()}
        self._with_keys = with_keys
        widths = [_width(picture) for picture in first.moment.pictures]
        inner = max(sum(widths) + GAP * (len(widths) - 1), LEAST_WIDTH)
        self._left = (inner - sum(widths) - GAP * (len(widths) - 1)) // 2
        self._width = inner + 2 * MARGIN
        self._top = MARGIN + 30 + 44  # headline and facts
        below = self._top + 20 + PICTURE_HEIGHT + 34
        rows = len(self._key_lines(first.keys)) if with_keys else 0
        self.surface = pygame.Surface((self._width, below + 20 * rows + (MARGIN if rows else 0)))
        self._below = below

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = self.surface.get_size()
        return width, height

    def draw(self, shown: Shown, *, keys: bool = True) -> pygame.Surface:
        """This moment."""
        self.surface.fill(BACKGROUND)
        self._write(shown.headline, "headline", (MARGIN, MARGIN), ACCENT)
        if shown.recording:
            self._write("recording", "headline", (self._width - MARGIN - 96, MARGIN), ALERT)
            pygame.draw.circle(self.surface, ALERT, (self._width - MARGIN - 6, MARGIN + 8), 6)
        self._facts(shown.facts)
        left = MARGIN + self._left
        for picture in shown.moment.pictures:
            left += self._picture(picture, left) + GAP
        colour = ALERT if shown.message.endswith("y / n") else TEXT
        self._write(shown.message, "facts", (MARGIN, self._below - 26), colour)
        if self._with_keys and keys:
            for number, line in enumerate(self._key_lines(shown.keys)):
                self._write(line, "keys", (MARGIN, self._below + 20 * number), DIM)
        return self.surface

    def pixels(self, shown: Shown) -> NDArray[np.uint8]:
        """This moment as an array [H, W, 3], for a film."""
        seen = pygame.surfarray.array3d(self.draw(shown))  # [W, H, 3]
        frame: NDArray[np.uint8] = np.ascontiguousarray(seen.swapaxes(0, 1))
        return frame

    def _facts(self, rows: tuple[Row, ...]) -> None:
        """Labels above their values, in columns as wide as the text may become."""
        left = MARGIN
        for label, value in rows:
            self._write(label, "titles", (left, MARGIN + 30), DIM)
            self._write(value, "facts", (left, MARGIN + 46), TEXT)
            widest = max(self._wide(label, "titles"), self._wide(value, "facts"), 62)
            left += max(widest, 150 if label == "action" and " " in value else 0) + 18

    def _picture(self, picture: Picture, left: int) -> int:
        width = _width(picture)
        pixels = pygame.surfarray.make_surface(picture.pixels.swapaxes(0, 1))
        enlarged = pygame.transform.scale(pixels, (width, PICTURE_HEIGHT))
        self._write(picture.title, "titles", (left, self._top), DIM)
        self.surface.blit(enlarged, (left, self._top + 20))
        return width

    def _key_lines(self, rows: tuple[Row, ...]) -> list[str]:
        """The list of keys, broken where the picture ends."""
        lines: list[str] = []
        for cell in map(key_text, rows):
            longer = f"{lines[-1]}     {cell}" if lines else cell
            if lines and self._wide(longer, "keys") <= self._width - 2 * MARGIN:
                lines[-1] = longer
            else:
                lines.append(cell)
        return lines

    def _wide(self, text: str, font: str) -> int:
        width, _ = self._fonts[font].size(text)
        return int(width)

    def _write(self, text: str, font: str, place: tuple[int, int], colour: Any) -> None:
        if text:
            self.surface.blit(self._fonts[font].render(text, True, colour), place)


def _width(picture: Picture) -> int:
    """Pixels that an enlarged picture is wide."""
    height, width = picture.pixels.shape[:2]
    return int(PICTURE_HEIGHT * width / height + 0.5)
