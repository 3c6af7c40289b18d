"""What is special about Gymnasium's CarRacing: facts of the drive, and frames left undrawn.

Drawing costs many times what physics does (docs/experiments.md), so a frame that nobody looks at
is not drawn. Drawing reads the state and changes nothing: what is drawn later is the same picture.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from gymnasium.envs.box2d.car_racing import CarRacing

from stages.worlds.gymnasium_world import Lane

FACTS: Mapping[str, type] = {
    "off_road": bool,  # no wheel touches the road
    "num_tiles": int,  # tiles visited so far
    "track_tiles": int,  # tiles of the track, N
    "track_share": float,  # the one divided by the other
    "lap_finished": bool,
}


class UndrawnCarRacing(CarRacing):  # type: ignore[misc]  # gymnasium is untyped here
    """CarRacing that draws its observation only while `drawing` is true.

    With `random_start` an episode begins at a tile drawn from its seed, so that recordings show
    all of the track; the track itself stays that of the seed.
    """

    drawing = True
    random_start = False
    track: list[Any]  # gymnasium sets it in reset

    def _create_track(self) -> Any:
        made = super()._create_track()
        if made and self.random_start:
            # The car is put on the first entry; nothing else but the length is read from the list.
            first = int(self.np_random.integers(len(self.track)))
            self.track = self.track[first:] + self.track[:first]
        return made

    def _render(self, mode: str) -> Any:
        if mode == "state_pixels" and not self.drawing:
            return self.state
        return super()._render(mode)

    def picture(self) -> Any:
        """The observation of the present state, uint8 [96, 96, 3]."""
        self.drawing = True
        self.state = self._render("state_pixels")
        return self.state


class CarRacingLane(Lane):
    """A lane of CarRacing that knows where the wheels are."""

    fact_types: ClassVar[Mapping[str, type]] = FACTS

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._car_racing: UndrawnCarRacing = env.unwrapped
        self._lap_finished = False

    def step(self, action: Any, *, draw: bool) -> tuple[Any, float, bool, bool]:
        """One engine frame; with `draw` false the picture is fresh only at the episode's end."""
        self._car_racing.drawing = draw
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._car_racing.drawing = True
        if not draw and (terminated or truncated):
            observation = self._car_racing.picture()
        self._lap_finished = bool(info.get("lap_finished", False))
        return observation, float(reward), bool(terminated), bool(truncated)

    def facts(self) -> Mapping[str, Any]:
        """Where the wheels are and how much of the track they have seen."""
        game = self._car_racing
        return {
            "off_road": not any(wheel.tiles for wheel in game.car.wheels),
            "num_tiles": game.tile_visited_count,
            "track_tiles": len(game.track),
            "track_share": game.tile_visited_count / len(game.track),
            "lap_finished": self._lap_finished,
        }
