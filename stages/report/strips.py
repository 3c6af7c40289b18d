"""A dream beside what came: real frames, what V makes of them, and what M foresees unaided.

M follows a held-out recording for a while, then it dreams with the recorded actions and sees
nothing more. Axes: `T` steps of the episode, `K` dreamt steps, `P` dreams, `Z` latent size.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from stages.agents import memory_model, vision_model
from stages.artifacts.artifact import Artifact
from stages.artifacts.episodes import EpisodeShard, rows_of
from stages.artifacts.fitting import parent_of
from stages.artifacts.pictures import png
from stages.artifacts.summaries import STAND_INS
from stages.artifacts.workspace import Workspace
from stages.errors import ArtifactDamaged, InputsMismatch
from stages.report import markup
from stages.report.charts import DASHED, DOTTED, Line, under_frames
from stages.report.gathering import Seen, number_at
from stages.report.markup import figure, tag

if TYPE_CHECKING:
    from stages.artifacts.latents import LatentSet
    from stages.contracts import Frames
    from stages.memory.mdn_rnn import MDNRNN
    from stages.memory.starts import Starts

KIND = "memory"
RECORDED = "rollouts"
NUM_COLUMNS = 8  # frames beside each other; on a phone each is 40 pixels wide
MOST_STEPS = 42  # of the dream: a multiple of the columns less one
MOST_BEFORE = 40  # steps of the real past that M follows first, where there are so many
NUM_DREAMS = 16
ROWS = ("what came", "V's picture of it", "M's dream")

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Dreamt:
    """One start in a held-out episode, and the dreams from there."""

    seed: int  # of the episode
    start: int  # its step at which M stops seeing
    frames: "Frames"  # [3 * H, columns * W, 3], a row each as `ROWS`
    steps: Sequence[int]  # of the columns
    each: Floats  # [P, K + 1], error of what M expects in a dream; root mean square per latent
    together: Floats  # [K + 1], of the mean over dreams, as in horizon.json
    held: Floats  # [K + 1], of the start that stays as it was


def dream_strip(seen: Seen, memory: Artifact) -> Element:
    """The strip and the curve under it, column above step."""
    found = dream_beside(seen.workspace, memory)
    num_steps = len(found.held) - 1
    low, high = np.quantile(found.each, [0.1, 0.9], axis=0)
    x = np.arange(num_steps + 1)
    lines = [
        Line(f"mean of {len(found.each)} dreams", x, found.together, 0, band=(low, high)),
        Line("the dream above", x, found.each[0], 3, DASHED),
        Line("the start, held", x, found.held, 1, DOTTED),
    ]
    rows = "; ".join(
        f"{place}: {row}" for place, row in zip(("top", "middle", "bottom"), ROWS, strict=True)
    )
    alt = (
        f"Frames {', '.join(map(str, found.steps))} steps after the start. {rows}. The first "
        "column is the last frame that M saw."
    )
    says = (
        f"Held-out episode {found.seed}, from step {found.start} on. Top: what came. Middle: "
        "what V makes of it. Bottom: what M expects in a dream at temperature 1, with the recorded "
        "actions; after the first column it sees nothing more. Below: its error, root mean square "
        "per latent (shaded: 10 % to 90 % of the dreams)."
    )
    return figure(
        tag(
            "div",
            markup.picture(png(found.frames), alt, class_="pixels whole"),
            *under_frames(lines, num_steps=num_steps, num_frames=len(found.steps), y="error"),
            class_="strip",
        ),
        title="A dream beside what came",
        says=says,
    )


def dream_beside(workspace: Workspace, memory: Artifact) -> Dreamt:
    """Dream from a place in a held-out episode of those that M learnt from.

    Raises:
        StageError: V, the latents or the recordings are gone, damaged, or do not fit.
    """
    import torch

    from stages.artifacts.latents import LatentSet
    from stages.vision.vae import decode_latents, encode_frames

    torch.set_num_threads(1)  # the same bits on any number of cores
    v = vision_model(workspace.resolve(parent_of(memory, "vision")))
    model = memory_model(memory)
    latents = [workspace.resolve(one) for one in memory.manifest.parents if one.kind == "latents"]
    with closing(LatentSet.of(latents)) as episodes:
        number = _held_out(episodes, memory)
        record = episodes.episode(number)
        fits = record.mu.shape[1], record.actions.shape[1]
        if fits != (model.shape.latent_size, model.shape.action_size):
            raise InputsMismatch(f"{memory.id} did not learn from {latents[0].id}.")
        start, num_steps = _place(record.num_steps)
        starts = _starts(model, episodes, number, start, num_steps)
        shard, inside = episodes.locate(number)
        place = episodes.shards.index(shard)
    recorded = _recorded(workspace, latents, place, inside, record.seed)
    frames = recorded[start : start + num_steps + 1]
    first = starts.now.repeat(NUM_DREAMS, axis=0)[None]  # [1, P, Z]
    later = _expected(model, starts, record.seed, num_steps)
    expected = np.concatenate((first, later)).swapaxes(0, 1)  # [P, K + 1, Z]
    mu = record.mu[start : start + num_steps + 1].astype(np.float32)  # [K + 1, Z]
    steps = np.linspace(0, num_steps, min(NUM_COLUMNS, num_steps + 1)).round().astype(int)
    seen, _ = encode_frames(v, frames[steps])
    pictured = torch.from_numpy(expected[0, steps].astype(np.float32))
    rows = [frames[steps], decode_latents(v, seen), decode_latents(v, pictured)]
    return Dreamt(
        seed=record.seed,
        start=start,
        frames=np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0),
        steps=steps.tolist(),
        each=_distance(expected - mu),
        together=_distance(expected.mean(axis=0) - mu),
        held=_distance(starts.now_mu - mu),
    )


def _expected(model: "MDNRNN", starts: "Starts", seed: int, num_steps: int) -> Floats:
    """What M expects next in every dream, step after step, [K, P, Z]."""
    import torch

    from stages.memory.horizon import dream, predictive_means

    dreams = dream(
        model,
        starts,
        at=range(1, num_steps + 1),
        seed=seed,
        end_weight=1.0,
        num_dreams=NUM_DREAMS,
    )
    with torch.inference_mode():
        return np.stack([predictive_means(model, one.seen) for one in dreams])


def _distance(difference: Floats) -> Floats:
    """Root mean square over the last axis."""
    found: Floats = np.sqrt(np.square(difference, dtype=np.float64).mean(axis=-1))
    return found


def _held_out(episodes: "LatentSet", memory: Artifact) -> int:
    """The first episode that was held out from M and lasts long enough; else the longest."""
    from stages.training.batches import split_episodes

    share = number_at(memory.manifest.config, KIND, "held_out")
    if share is None:
        raise ArtifactDamaged(f"{memory.id}/manifest.json does not tell what was held out.")
    _, held_out = split_episodes(episodes.seeds.tolist(), fraction=share)
    lengths = episodes.lengths[held_out]
    enough = np.flatnonzero(lengths >= MOST_BEFORE + MOST_STEPS)
    return held_out[int(enough[0]) if len(enough) else int(np.argmax(lengths))]


def _place(num_steps: int) -> tuple[int, int]:
    """Where in an episode of so many steps the dream begins, and how long it is."""
    dreamt = min(MOST_STEPS, max(1, num_steps * MOST_STEPS // (MOST_BEFORE + MOST_STEPS)))
    return min(MOST_BEFORE, num_steps - dreamt), dreamt


def _starts(
    model: "MDNRNN", episodes: "LatentSet", number: int, start: int, num_steps: int
) -> "Starts":
    """What M knows after the real past, its latents the means of V's posteriors."""
    import torch

    from stages.memory.losses import draw_sequences
    from stages.memory.starts import Episodes, Place, gather_starts
    from stages.training.sequences import in_order_sequences

    (batch,) = in_order_sequences(episodes, [number], batch_size=1)
    drawn = draw_sequences(batch, np.zeros_like(batch.mu), device=torch.device("cpu"))
    known = Episodes(drawn, batch.mu, batch.logvar)
    return gather_starts(model, [known], [Place(0, start)], [num_steps])[0]


def _recorded(
    workspace: Workspace, latents: Sequence[Artifact], shard: int, inside: int, seed: int
) -> "Frames":
    """The frames [T + 1, H, W, C] of an episode, from the shard that its latents were made of."""
    files = [
        (recording, name)
        for one in latents
        for parent in one.manifest.parents
        if parent.kind in (RECORDED, *STAND_INS[RECORDED])
        for recording in (workspace.resolve(parent),)
        for name in recording.names(".h5")
    ]
    if shard >= len(files):
        raise InputsMismatch(f"{latents[0].id} has more shards than what it was made from.")
    recording, name = files[shard]
    with EpisodeShard(recording.file(name), rows_of(recording)) as opened:
        if inside >= opened.num_episodes or opened.seeds[inside] != seed:
            raise InputsMismatch(f"{recording.id}/{name} does not hold episode {seed}.")
        return opened.episode(inside).observations
