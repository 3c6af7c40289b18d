"""Films of what is played: the one of `--record`, and those that `,` starts and stops."""

from collections.abc import Callable
from pathlib import Path

from stages.artifacts.disk import explained
from stages.artifacts.video import Film, require_encoder
from stages.errors import EnvironmentLacks, UsageError
from stages.playing.scene import Moment
from wm_cli.playing.canvas import Canvas
from wm_cli.playing.keys import Keys
from wm_cli.playing.texts import Shown

SUFFIX = ".mp4"
Describe = Callable[[], Shown]


class Reel:
    """Collects a frame per step while it runs."""

    def __init__(self, describe: Describe, *, frames_per_second: float) -> None:
        self._describe, self._rate = describe, frames_per_second
        self._film: Film | None = None
        self._canvas: Canvas | None = None

    @property
    def runs(self) -> bool:
        """Whether frames are collected."""
        return self._film is not None

    def start(self) -> None:
        """Begin a film with what is shown now."""
        self._film = Film(frames_per_second=self._rate)
        self._add()

    def see(self, moment: Moment) -> None:  # noqa: ARG002  it is described with all around it
        """A step was taken."""
        if self._film is not None:
            self._add()

    def finish(self, path: Path) -> Path:
        """Put the film at `path`."""
        assert self._film is not None, "no film runs"
        self._film.write(path)
        self._film = None
        return path

    def _add(self) -> None:
        assert self._film is not None, "no film runs"
        shown = self._describe()
        if self._canvas is None:
            self._canvas = Canvas(shown, with_keys=False)
        self._film.add(self._canvas.pixels(shown))


class Nobody:
    """Where nobody looks and nothing is pressed: a film alone is made."""

    def __enter__(self) -> "Nobody":
        """Nothing is opened."""
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is closed."""

    def keys(self) -> Keys:
        """None."""
        return Keys()

    def toggle_keys(self) -> None:
        """There is no list."""

    def show(self, shown: Shown) -> None:
        """Nothing is shown."""


class FilmClock:
    """A clock that stands at the time that was waited for: a film takes as long as its work."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Go on at once."""
        self._now += max(seconds, 0.0)


def check_target(path: Path, *, force: bool) -> None:
    """Refuse a film that could not be written, before anything is played.

    Raises:
        UsageError: another ending, no such folder, or a file that is there already.
        EnvironmentLacks: there is no encoder.
    """
    require_encoder()
    if path.suffix.lower() != SUFFIX:
        raise UsageError(
            f"A film is an mp4 file, not {path.name!r}.",
            fix=f"Name it like --record {path.stem or 'film'}{SUFFIX}",
        )
    with explained("look at", path):
        if path.is_dir():
            raise UsageError(f"{path} is a folder.", fix="Name a file in it.")
        if not path.parent.is_dir():
            raise UsageError(
                f"The folder {path.parent} does not exist.", fix=f"Make it: mkdir -p {path.parent}"
            )
        if path.exists() and not force:
            raise UsageError(
                f"{path} is there already.", fix="Replace it with --force, or choose another name."
            )


def has_encoder() -> bool:
    """Whether films can be made here."""
    try:
        require_encoder()
    except EnvironmentLacks:
        return False
    return True
