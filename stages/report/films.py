"""Films of a good, a typical and a bad episode of an evaluation, driven again from their seeds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

import numpy as np

from stages.agents import trained_agent
from stages.artifacts.artifact import Artifact
from stages.artifacts.fitting import parent_of
from stages.artifacts.pictures import png
from stages.artifacts.summaries import world_of
from stages.artifacts.video import Film
from stages.evaluate import driven_again
from stages.events import Doing, Noted
from stages.report import markup
from stages.report.gathering import Episode, Seen, episodes
from stages.report.markup import figure, shown, tag
from stages.worlds.making import frames_per_second, is_own

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]  # [H, W, 3]

CHOSEN = (("a good one", 0.9), ("a typical one", 0.5), ("a bad one", 0.1))  # places among all
MOST_FRAMES = 400  # of a film; a longer episode plays faster
LEAST_PIXELS = 240  # rows of a film
QUALITY = 30  # x264's constant rate factor: three films together take one to three MB
NUM_STILLS = 8
HOW = 'Films need the package PyAV: pip install "wm-pixels[video]"'


@dataclass(frozen=True)
class Driven:
    """An episode that was driven again; of its frames only a few are kept."""

    stills: Sequence["Picture"]  # [N, H, W, 3], evenly spread
    film: bytes | None  # mp4; None without the encoder
    stride: int  # actions from one frame of the film to the next
    total_reward: float


def chosen(rows: Sequence[Episode]) -> list[tuple[str, Episode]]:
    """The episodes of the agent at the 90th, 50th and 10th percentile, each of them once."""
    ranked = sorted(
        (one for one in rows if one.who == "agent"), key=lambda one: (one.total_reward, one.seed)
    )
    found: dict[int, tuple[str, Episode]] = {}
    for label, share in CHOSEN if len(ranked) > 2 else CHOSEN[: len(ranked)]:
        place = round(share * (len(ranked) - 1))
        found.setdefault(place, (label, ranked[place]))
    return list(found.values())


def films(seen: Seen, evaluation: Artifact, *, asked: bool) -> Element:
    """Three films side by side, each with what was scored then.

    A world that a module of somebody's own registers is driven only where one `asked` for it: a
    manifest that names one may come from anywhere, and importing a module runs it.

    Raises:
        StageError: the agent is gone or damaged, or this machine lacks its world.
    """
    world = world_of(evaluation.manifest, evaluation.id)
    if is_own(world.env) and not asked:
        words = f"{world.env} is code of its own, which a report does not run by itself:"
        return markup.missing(words, seen.command("report --videos"))
    import torch

    torch.set_num_threads(1)  # the same bits as in a worker
    speed = frames_per_second(world.env) / world.repeat
    control = seen.workspace.resolve(parent_of(evaluation, "control"))
    agent, parameters = trained_agent(seen.workspace, control)
    most = evaluation.manifest.config["evaluate"]["max_steps"]
    made = []
    for label, episode in chosen(episodes(seen, evaluation)):
        seen.progress.emit(Doing(f"filming {label}, of {episode.num_steps:,} steps"))
        frames = driven_again(agent, parameters, world, episode.seed, most)
        again = _filmed(frames, episode.num_steps, speed, seen.progress.poll)
        made.append(_shown(label, episode, again))
    if find_spec("av") is None:
        seen.progress.emit(Noted(HOW))
        made.append(tag("p", HOW, class_="missing"))
    return tag("div", *made, class_="films")


def _filmed(
    driven: Iterable[tuple["Picture", float]],
    num_steps: int,
    speed: float,
    poll: Callable[[], None],
) -> Driven:
    """An episode that took `num_steps` when it was scored, with as few frames as a film needs."""
    stride = -(-(num_steps + 1) // MOST_FRAMES)
    places = set(np.linspace(0, num_steps // stride * stride, NUM_STILLS).astype(int).tolist())
    film: Film | None = None
    stills: list[Picture] = []
    total = 0.0
    for count, (frame, earned) in enumerate(driven):
        poll()
        total = earned
        if count in places:
            stills.append(frame.copy())
        if count % stride == 0 and find_spec("av") is not None:
            scale = -(-LEAST_PIXELS // frame.shape[0])
            film = film or Film(frames_per_second=speed, scale=scale, quality=QUALITY)
            film.add(frame)
        if count > 2 * num_steps + 100:
            break  # it goes otherwise here, and nothing bounds it
    return Driven(stills, film.content() if film else None, stride, total)


def _shown(label: str, episode: Episode, again: Driven) -> Element:
    faster = f", {again.stride} times as fast" if again.stride > 1 else ""
    says = f"Seed {episode.seed}, {episode.num_steps:,} steps{faster}."
    if not np.isclose(again.total_reward, episode.total_reward, atol=1e-6):
        says += (
            f" Driven again on this machine its return is {shown(again.total_reward)}: other "
            "versions of packages, or another processor."
        )
    title = f"{label}: return {shown(episode.total_reward)}"
    alt = f"An episode of the agent, {label}, with a return of {shown(episode.total_reward)}."
    if again.film is None:
        strip = np.concatenate([still[::2, ::2] for still in again.stills], axis=1)
        return figure(markup.picture(png(strip), alt), title=title, says=says)
    middle = again.stills[len(again.stills) // 2]
    player = tag(
        "video",
        src=markup.data_uri(again.film, "video/mp4"),
        poster=markup.data_uri(png(middle), "image/png"),
        controls="",
        loop="",
        muted="",
        playsinline="",
        preload="metadata",
        width=middle.shape[1],
        height=middle.shape[0],
        aria_label=alt,
    )
    return figure(player, title=title, says=says)
