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
from stages.events import Noted
from stages.report import markup
from stages.report.gathering import Episode, Seen, episodes
from stages.report.markup import figure, shown, tag
from stages.worlds.making import frames_per_second, is_own

if TYPE_CHECKING:
    from stages.contracts import Frames

CHOSEN = (("a good one", 0.9), ("a typical one", 0.5), ("a bad one", 0.1))  # places among all
MOST_FRAMES = 400  # of a film; a longer episode plays faster
LEAST_PIXELS = 240  # rows of a film
QUALITY = 30  # x264's constant rate factor: three films together take one to three MB
NUM_STILLS = 8
HOW = 'Films need the package PyAV: pip install "wm-pixels[video]"'


@dataclass(frozen=True)
class Driven:
    """An episode that was driven again: some of its frames, evenly spread."""

    frames: "Frames"  # [N, H, W, 3]
    stride: int  # actions from one frame to the next
    num_steps: int
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
        frames = driven_again(agent, parameters, world, episode.seed, most)
        again = _thinned(frames, episode.num_steps, seen.progress.poll)
        made.append(_shown(label, episode, again, speed))
    if find_spec("av") is None:
        seen.progress.emit(Noted(HOW))
        made.append(tag("p", HOW, class_="missing"))
    return tag("div", *made, class_="films")


def _thinned(
    driven: Iterable[tuple["Frames", float]], num_steps: int, poll: Callable[[], None]
) -> Driven:
    """An episode that took `num_steps` when it was scored, as few frames as a film needs."""
    stride = -(-(num_steps + 1) // MOST_FRAMES)
    frames, total, count = [], 0.0, -1
    for frame, earned in driven:
        poll()
        total = earned
        count += 1
        if count % stride == 0:
            frames.append(np.array(frame))
        if count > 2 * num_steps + 100:
            break  # it goes otherwise here, and nothing bounds it
    return Driven(np.stack(frames), stride, count, total)


def _shown(label: str, episode: Episode, again: Driven, speed: float) -> Element:
    faster = f", {again.stride} times as fast" if again.stride > 1 else ""
    says = f"Seed {episode.seed}, {episode.num_steps:,} steps{faster}."
    if not np.isclose(again.total_reward, episode.total_reward, atol=1e-6):
        says += (
            f" Driven again on this machine its return is {shown(again.total_reward)}: other "
            "versions of packages, or another processor."
        )
    title = f"{label}: return {shown(episode.total_reward)}"
    still = png(again.frames[len(again.frames) // 2])
    alt = f"An episode of the agent, {label}, with a return of {shown(episode.total_reward)}."
    if find_spec("av") is None:
        places = np.linspace(0, len(again.frames) - 1, NUM_STILLS).round().astype(int)
        strip = np.concatenate(list(again.frames[places][:, ::2, ::2]), axis=1)
        return figure(markup.picture(png(strip), alt), title=title, says=says)
    scale = -(-LEAST_PIXELS // again.frames.shape[1])
    film = Film(frames_per_second=speed, scale=scale, quality=QUALITY)
    for frame in again.frames:
        film.add(frame)
    player = tag(
        "video",
        src=markup.data_uri(film.content(), "video/mp4"),
        poster=markup.data_uri(still, "image/png"),
        controls="",
        loop="",
        muted="",
        playsinline="",
        preload="metadata",
        width=again.frames.shape[2],
        height=again.frames.shape[1],
        aria_label=alt,
    )
    return figure(player, title=title, says=says)
