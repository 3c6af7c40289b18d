"""CarRacing drawn with less work: the same picture, bit for bit, an order of magnitude sooner.

Gymnasium rotates 400 grass squares and every road polygon of the track in Python for each frame,
and builds a font. Here a polygon is drawn (by Gymnasium's own function, in the same order) only
when its bounding box touches the window, a background that fills the window is one fill, and the
font is made once. tests/worlds compares whole drives with Gymnasium's own frames, all 96 rows.
"""

import math
from functools import cache
from typing import Any

import numpy as np
import pygame
from gymnasium.envs.box2d.car_racing import (
    GRASS_DIM,
    PLAYFIELD,
    SCALE,
    STATE_H,
    STATE_W,
    WINDOW_H,
    WINDOW_W,
    ZOOM,
)
from numpy.typing import NDArray

from stages.worlds.car_racing import UndrawnCarRacing

MARGIN = 4  # pixels around the window: outlines are anti-aliased
HUD_HEIGHT = WINDOW_H / 8  # the bar with speed and score covers what is drawn there
FIELD = [
    (PLAYFIELD, PLAYFIELD),
    (PLAYFIELD, -PLAYFIELD),
    (-PLAYFIELD, -PLAYFIELD),
    (-PLAYFIELD, PLAYFIELD),
]
GRASS = [
    [
        (GRASS_DIM * x + GRASS_DIM, GRASS_DIM * y),
        (GRASS_DIM * x, GRASS_DIM * y),
        (GRASS_DIM * x, GRASS_DIM * y + GRASS_DIM),
        (GRASS_DIM * x + GRASS_DIM, GRASS_DIM * y + GRASS_DIM),
    ]
    for x in range(-20, 20, 2)
    for y in range(-20, 20, 2)
]
GRASS_CORNERS = np.array(GRASS)  # [400, 4, 2]


class CulledCarRacing(UndrawnCarRacing):
    """CarRacing whose observation is drawn from the polygons that can be seen."""

    _drawn_track: Any = None  # the road polygons that _corners and _boxes belong to

    def _render(self, mode: str) -> Any:
        if mode != "state_pixels" or not self.drawing or "t" not in self.__dict__:
            return super()._render(mode)
        zoom = 0.1 * SCALE * max(1 - self.t, 0) + ZOOM * SCALE * min(self.t, 1)
        angle = -self.car.hull.angle
        x, y = self.car.hull.position
        scroll = pygame.math.Vector2((-x * zoom, -y * zoom)).rotate_rad(angle)
        translation = (WINDOW_W / 2 + scroll[0], WINDOW_H / 4 + scroll[1])
        canvas, window = _surface("canvas"), _surface("window")
        self.surf = canvas
        self._render_road(zoom, translation, angle)
        self.car.draw(self.surf, zoom, translation, angle, False)
        _flip(canvas, window)
        self.surf = window
        self._render_indicators(WINDOW_W, WINDOW_H)
        self._write_score()
        return self._create_image_array(self.surf, (STATE_W, STATE_H))

    def _render_road(self, zoom: float, translation: tuple[float, float], angle: float) -> None:
        view = _View(zoom, translation, angle)
        if view.inside_field():
            self.surf.fill(self.bg_color)
        else:
            self.surf.fill((0, 0, 0))
            self._draw_colored_polygon(
                self.surf, FIELD, self.bg_color, zoom, translation, angle, clip=False
            )
        for number in view.visible(GRASS_CORNERS):
            self._draw_colored_polygon(
                self.surf, GRASS[number], self.grass_color, zoom, translation, angle
            )
        for number in view.visible(self._road_corners()):
            corners, color = self.road_poly[number]
            plain = [(corner[0], corner[1]) for corner in corners]
            self._draw_colored_polygon(
                self.surf, plain, [int(part) for part in color], zoom, translation, angle
            )

    def _road_corners(self) -> NDArray[np.float64]:
        """Corners of every road polygon of this track, [N, 4, 2]."""
        if self._drawn_track is not self.road_poly:
            self._drawn_track = self.road_poly
            self._corners = np.array([[c[:2] for c in corners] for corners, _ in self.road_poly])
        return self._corners

    def _write_score(self) -> None:
        text = _font().render(f"{self.reward:04.0f}", True, (255, 255, 255), (0, 0, 0))
        place = text.get_rect()
        place.center = (60, WINDOW_H - WINDOW_H * 2.5 / 40.0)
        self.surf.blit(text, place)


@cache
def _surface(name: str) -> Any:
    """What all lanes of a process draw on, one after the other: so it stays in the cache."""
    del name  # the canvas is upside down, the window as it is shown
    return pygame.Surface((WINDOW_W, WINDOW_H))


@cache
def _font() -> Any:
    pygame.font.init()
    return pygame.font.Font(pygame.font.get_default_font(), 42)


def _flip(canvas: Any, window: Any) -> None:
    """Copy the canvas upside down, as pygame.transform.flip does into a new surface."""
    rows = pygame.surfarray.pixels2d(canvas).T
    pygame.surfarray.pixels2d(window).T[:] = rows[::-1]


class _View:
    """Where world coordinates land in the window: rotate, zoom, translate."""

    def __init__(self, zoom: float, translation: tuple[float, float], angle: float) -> None:
        self._zoom, self._translation = zoom, translation
        self._cos, self._sin = math.cos(angle), math.sin(angle)

    def visible(self, corners: NDArray[np.float64]) -> list[int]:
        """Numbers of the polygons [N, 4, 2] whose bounding box touches the window, ascending."""
        x = (corners[..., 0] * self._cos - corners[..., 1] * self._sin) * self._zoom
        y = (corners[..., 0] * self._sin + corners[..., 1] * self._cos) * self._zoom
        x, y = x + self._translation[0], y + self._translation[1]
        inside = (x.max(1) > -MARGIN) & (x.min(1) < WINDOW_W + MARGIN)
        inside &= (y.max(1) > HUD_HEIGHT - MARGIN) & (y.min(1) < WINDOW_H + MARGIN)
        return [int(number) for number in np.flatnonzero(inside)]

    def inside_field(self) -> bool:
        """Whether the whole window, with a margin, shows the playfield."""
        corners = [(-8, -8), (WINDOW_W + 8, -8), (-8, WINDOW_H + 8), (WINDOW_W + 8, WINDOW_H + 8)]
        return all(self._on_field(*corner) for corner in corners)

    def _on_field(self, column: float, row: float) -> bool:
        u = (column - self._translation[0]) / self._zoom
        v = (row - self._translation[1]) / self._zoom
        x, y = u * self._cos + v * self._sin, v * self._cos - u * self._sin
        return bool(max(abs(x), abs(y)) < PLAYFIELD - 1)
