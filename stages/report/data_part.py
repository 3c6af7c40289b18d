"""What was recorded: how long, how good, how varied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.artifact import Artifact
from stages.artifacts.episodes import EpisodeShard, rows_of
from stages.artifacts.pictures import png
from stages.errors import ArtifactDamaged
from stages.report import markup
from stages.report.charts import bars, histogram
from stages.report.gathering import Seen, maker, number_at
from stages.report.markup import figure, missing, section, tag

KIND = "rollouts"
TITLE = "Data"
MOST_BYTES = 2 * 10**9  # of the shards that are read; each is checked whole before it is used
MOST_SHARDS = 64
NUM_FRAMES = 8
MOST_DIMENSIONS = 4  # of an action that are drawn
MOST_CHOICES = 24  # that have a bar of their own
NAMES = {
    "share_of_track": "share of the track",
    "share_off_road": "share of steps off the road",
}


@dataclass(frozen=True)
class Coverage:
    """Some of the recorded episodes, E of them."""

    returns: NDArray[np.float64]  # [E]
    lengths: NDArray[np.int64]  # [E]
    actions: NDArray[Any]  # [steps, A] or [steps]
    frames: NDArray[np.uint8]  # [N, H, W, C], from different episodes


def data_part(seen: Seen) -> Element:
    """The newest recording in pictures, all of them in a table."""
    newest = seen.newest(KIND)
    if newest is None:
        command = seen.command(maker(KIND))
        return section("data", TITLE, missing("Nothing is recorded yet; this does:", command))
    return section(
        "data",
        TITLE,
        _table(seen.artifacts[KIND]),
        seen.tried(lambda: _charts(newest), about="What was recorded."),
    )


def _table(recordings: Sequence[Artifact]) -> Element:
    extra = [name for name in NAMES if any(name in r.manifest.summary for r in recordings)]
    columns = ("recording", "driven by", "episodes", "steps", "mean return", "best return")
    rows = []
    for one in recordings:
        told = one.manifest.summary
        numbers = [told.get(n) for n in ("episodes", "steps", "mean_return", "max_return", *extra)]
        rows.append((one.id, str(told.get("policy")), *map(_number, numbers)))
    return markup.table((*columns, *(NAMES[name] for name in extra)), rows)


def _number(value: Any) -> float | int | None:
    return value if type(value) in (int, float) else None


def _charts(recording: Artifact) -> Element:
    found = cover(recording)
    whole = number_at(recording.manifest.summary, "episodes")
    count = len(found.returns)
    some = (
        f"{count:,} of {whole:,.0f} episodes" if whole and whole != count else f"{count:,} episodes"
    )
    shown = [
        figure(*histogram([("return", found.returns)], x="return of an episode"), title="Returns"),
        figure(*histogram([("steps", found.lengths)], x="steps of an episode"), title="Lengths"),
        *_actions(found.actions, recording.manifest.summary["actions"]),
    ]
    strip = png(np.concatenate(list(found.frames), axis=1))
    picture = markup.picture(strip, "Recorded frames of different episodes.", class_="pixels whole")
    return tag(
        "div",
        figure(picture, title=f"Frames of {recording.id}", says=f"Counted below: {some}."),
        tag("div", *shown, class_="pair"),
    )


def _actions(actions: NDArray[Any], spec: dict[str, Any]) -> list[Element]:
    """How often each choice was made, or where the numbers of a box lie; films have neither."""
    if spec["kind"] == "none":
        return []
    if spec["kind"] == "choice":
        counts = np.bincount(actions, minlength=spec["size"])
        shares = counts / max(1, counts.sum())
        names = [f"choice {number}" for number in range(len(shares))][:MOST_CHOICES]
        values = shares[:MOST_CHOICES].tolist()
        if left := len(shares) - len(names):
            names, values = [*names, f"{left:,} others"], [*values, float(shares[-left:].sum())]
        return [figure(*bars(names, values, x="share of all steps"), title="Actions")]
    rows = [(f"number {place + 1}", actions[:, place]) for place in range(actions.shape[1])]
    drawn = histogram(rows[:MOST_DIMENSIONS], x="value", y="steps", num_bins=30)
    return [figure(*drawn, title="Actions")]


def cover(recording: Artifact) -> Coverage:
    """Read the shards of a recording until there are enough; no frames but a few."""
    returns: list[float] = []
    lengths: list[int] = []
    actions: list[NDArray[Any]] = []
    frames: list[NDArray[np.uint8]] = []
    size = 0
    names = recording.names(".h5")[:MOST_SHARDS]
    share = -(-NUM_FRAMES // max(1, len(names)))
    for name in names:
        size += recording.entry(name).bytes
        if returns and size > MOST_BYTES:
            break
        with EpisodeShard(recording.file(name), rows_of(recording)) as shard:
            steps = shard.step_offsets
            rewards = shard.column("rewards", 0, int(steps[-1]))
            returns += [float(part.sum()) for part in np.split(rewards, steps[1:-1])]
            lengths += shard.lengths.tolist()
            actions.append(shard.column("actions", 0, int(steps[-1])))
            for number in range(min(share, NUM_FRAMES - len(frames), shard.num_episodes)):
                middle = int(shard.observation_offsets[number] + shard.lengths[number] // 2)
                frames.append(shard.frames(middle, middle + 1)[0])
    wrong = _wrong(returns, actions, recording.manifest.summary["actions"])
    if wrong:
        raise ArtifactDamaged(f"{recording.id} is no recording.", why=wrong)
    return Coverage(np.array(returns), np.array(lengths), np.concatenate(actions), np.stack(frames))


def _wrong(
    returns: Sequence[float], actions: Sequence[NDArray[Any]], spec: Mapping[str, Any]
) -> str:
    """What nobody records, where there is such a thing."""
    if not returns:
        return "It holds no episode."
    if not np.isfinite(returns).all():
        return "A return is not finite."
    if spec["kind"] == "choice":
        low, high = min(int(a.min()) for a in actions), max(int(a.max()) for a in actions)
        return f"Choices go from {low} to {high}." if low < 0 or high >= spec["size"] else ""
    return "" if all(np.isfinite(one).all() for one in actions) else "An action is not finite."
