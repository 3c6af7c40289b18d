"""`wm evaluate --memory`: how good M's dreams are k steps on, as tables.

They are in the memory artifact. One that an earlier version made is measured on the spot, on the
latents that it learnt from; nothing is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from stages.artifacts.artifact import Artifact, repairable
from stages.artifacts.disk import read_file
from stages.artifacts.manifest import MANIFEST_LIMIT
from stages.artifacts.plain import (
    COUNT,
    NUMBER,
    Rule,
    exactly,
    fault,
    listed,
    optional,
    parse_record,
)
from stages.artifacts.workspace import Workspace
from stages.errors import ArtifactDamaged, InputMissing, InputsMismatch, UsageError
from stages.events import Monitor, Noted, Report, Scalar, Table
from stages.train_memory import HORIZON

KIND = "memory"
SURVIVING = ("real", "hard", "sampled")  # shares that go on
_MAYBE = optional(NUMBER)
_REWARD = dict.fromkeys(("real", "foreseen", "error", "correlation", "slope"), _MAYBE)
_ALIVE = dict.fromkeys(SURVIVING, NUMBER)
_ROW = {
    "steps": COUNT,
    "starts": COUNT,
    **dict.fromkeys(("error", "error_held", "error_mean", "nll", "nll_mean"), NUMBER),
    **dict.fromkeys(("entropy_floor", "spread", "distance", "distance_real", "lost"), NUMBER),
    "nll_held": _MAYBE,
    "reward": optional(exactly(_REWARD)),
    "alive": optional(exactly(_ALIVE)),
}
_BIN = {
    "steps": COUNT,
    **dict.fromkeys(("from", "to", "predicted", "unweighted", "observed"), NUMBER),
}
_ENDS = {
    "steps": COUNT,
    "events": COUNT,
    **dict.fromkeys(("observed", "predicted", "unweighted", "error", "error_unweighted"), NUMBER),
    **dict.fromkeys(("brier", "brier_unweighted", "brier_rate"), NUMBER),
    "bins": listed(exactly(_BIN)),
}
_RULES = {
    "horizon": listed(exactly(_ROW), least=1),
    "ends": optional(exactly(_ENDS)),
    **dict.fromkeys(("useful_steps", "starts", "first_frames", "episodes", "dreams"), COUNT),
    "end_weight": NUMBER,
}
_TRAINED = {  # what measuring needs to know of how a memory was trained
    "config.memory.held_out": NUMBER,
    "config.memory.end_weight": Rule("above 0", lambda v: type(v) in (int, float) and v > 0),
}


def foresight(workspace: Workspace, ids: Sequence[str], *, progress: Monitor) -> Report:
    """The tables of the newest memory, or of the one that is named.

    Raises:
        UsageError: something else is named, or more than one.
        InputMissing: there is no memory yet, or an old one whose latents are gone.
        ArtifactDamaged: its file is not what was written.
    """
    memory = _chosen(workspace, ids)
    if HORIZON in memory.names():
        with repairable(memory.remedy):
            content = read_file(memory.file(HORIZON), limit=MANIFEST_LIMIT)
            found = parse_horizon(content, source=f"{memory.id}/{HORIZON}")
    else:
        text = f"{memory.id} was made before {HORIZON} was: it is measured now, for this table."
        progress.emit(Noted(text))
        found = _measured(workspace, memory, progress)
    return Report(
        command="evaluate --memory",
        path=str(memory.path),
        summary={
            "memory": memory.id,
            "useful_steps": found["useful_steps"],
            "starts": found["starts"],
            "at_first_frames": found["first_frames"],
            "held_out_episodes": found["episodes"],
            "dreams_per_start": found["dreams"],
        },
        tables=tuple(tables(found)),
        notes=tuple(notes(found)),
    )


def parse_horizon(content: bytes, *, source: str) -> dict[str, Any]:
    """What `horizon.json` says; else ArtifactDamaged."""
    return parse_record(content, source=source, rules=_RULES)


def _chosen(workspace: Workspace, ids: Sequence[str]) -> Artifact:
    if len(ids) > 1 or any(name.partition("/")[0] != KIND for name in ids):
        raise UsageError(
            f"`wm evaluate --memory` reads one memory, not {', '.join(ids)}.",
            fix="Name one, such as --from memory/0001, or leave out --from for the newest.",
        )
    if ids:
        return workspace.get(ids[0])
    newest = workspace.newest(KIND)
    if newest is None:
        raise InputMissing(
            f"There is no memory in {workspace.root} yet.",
            why="`wm train-memory` trains one, and measures it.",
            fix="Run `wm train-memory` first, or `wm run` for all that is missing.",
        )
    return newest


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """What `horizon.json` says, for a terminal of 80 columns."""
    rows = found["horizon"]
    names = (
        "steps", "starts", "error", "error_held", "error_mean",
        "nll", "nll_held", "nll_mean", "entropy_floor",
    )  # fmt: skip
    shown = ("steps", "starts", "error", "held", "mean", "nats", "nats_held", "nats_mean", "floor")
    cells = [tuple(_rounded(row[name]) for name in names) for row in rows]
    yield Table("Dreams from held-out frames beside what came", shown, cells)
    alive = tuple(f"alive_{name}" for name in SURVIVING) if found["ends"] else ()
    becoming = ("steps", "error", "spread", "drift", *alive)
    cells = [(*_becoming(row), *_alive(row)[: len(alive)]) for row in rows]
    yield Table("What becomes of dreams", becoming, cells)
    if all(row["reward"] for row in rows):
        of_reward = [(row["steps"], *(row["reward"][name] for name in _REWARD)) for row in rows]
        yield Table("Reward of the steps together", ("steps", *_REWARD), of_reward)
    if found["ends"]:
        yield _end_table(found["ends"])


def _rounded(value: Scalar) -> Scalar:
    """To what 64 starts can tell; the file has all digits."""
    return round(value, 3) if isinstance(value, float) else value


def _becoming(row: Mapping[str, Any]) -> tuple[Scalar, ...]:
    real = row["distance_real"]
    share = row["distance"] / real if real else None
    drift = share * share if share is not None else None
    return (row["steps"], *map(_rounded, (row["error"], row["spread"], drift)))


def _alive(row: Mapping[str, Any]) -> tuple[Scalar, ...]:
    told = row["alive"] or dict.fromkeys(SURVIVING)
    return tuple(_rounded(told[name]) for name in SURVIVING)


def _end_table(ends: Mapping[str, Any]) -> Table:
    rows = [
        (f"{one['from']:g} to {one['to']:g}", one["steps"], one["predicted"], one["unweighted"],
         one["observed"])
        for one in ends["bins"]
    ]  # fmt: skip
    every = ("all", ends["steps"], ends["predicted"], ends["unweighted"], ends["observed"])
    columns = ("probability", "steps", "predicted", "unweighted", "observed")
    return Table("Ends, one step ahead", columns, [*rows, every])


def notes(found: Mapping[str, Any]) -> Iterator[str]:
    """What the words of the tables mean."""
    rows, ends = found["horizon"], found["ends"]
    yield (
        "error: root mean square per latent dimension of the dreams' mean; held: of the start "
        "that stays as it was; mean: of the training data's mean. nats: -log likelihood of what "
        "came, per dimension; floor: no model gets below. A row counts the starts whose recording "
        "lasts so many steps: many steps speak of long episodes."
    )
    yield (
        "spread: how far dreams of one start differ, in the unit of the error; well below it M is "
        "too sure. drift: squared distance of dreams from the data's mean, in that of what came: "
        "1 is healthy, near 0 dreams are all alike, far above 1 they leave the data."
    )
    if ends:
        yield (
            "alive: share that goes on; hard, sampled: of dreams, ended as control.dream_end says; "
            "real: of recordings (Kaplan and Meier)."
        )
    if rows[-1]["lost"]:
        yield (
            f"{rows[-1]['lost']:.2%} of the dreams were lost in huge numbers on the way, and stood "
            "still from then on."
        )
    if all(row["reward"] for row in rows):
        yield "slope: of real over foreseen; 1 is right, below 1 M exaggerates."
    if ends:
        yield (
            f"Ends: {ends['events']:,} of {ends['steps']:,} held-out steps end. Brier score "
            f"{ends['brier']:.3g}, of their share alone {ends['brier_rate']:.3g}; mean distance of "
            f"predicted from observed {ends['error']:.2g}. unweighted: without the weight "
            f"{found['end_weight']:g} that ends have in training (memory.end_weight)."
        )
    missing = [
        head
        for head, there in (("reward", all(row["reward"] for row in rows)), ("end", bool(ends)))
        if not there
    ]
    if missing:
        yield f"This memory has no {' and no '.join(missing)} head, so nothing is said of these."


def _measured(workspace: Workspace, memory: Artifact, progress: Monitor) -> dict[str, Any]:
    """What `horizon.json` of a memory would say; it is not written."""
    import torch

    from stages.agents import memory_model
    from stages.artifacts.latents import LatentSet
    from stages.described import record_of
    from stages.foresight import HeldOut, dreamt_errors
    from stages.memory.mdn_rnn import MDNRNNShape
    from stages.training.batches import split_episodes

    manifest = memory.manifest
    wrong = fault(vars(manifest), _TRAINED)
    if wrong:
        raise ArtifactDamaged(f"{memory.id}/manifest.json is not that of memory.", why=f"{wrong}.")
    latents = [workspace.resolve(one) for one in manifest.parents if one.kind == "latents"]
    shape = record_of(MDNRNNShape, manifest.summary["shape"])
    for one in latents:
        told = one.manifest.summary
        if (told["latent_size"], told["actions"]["size"]) != (shape.latent_size, shape.action_size):
            raise InputsMismatch(
                f"{memory.id} did not learn from {one.id}: their latents or actions differ in size."
            )
    model = memory_model(memory)
    settings = manifest.config["memory"]
    with closing(LatentSet.of(latents)) as episodes:
        split = split_episodes(episodes.seeds.tolist(), fraction=settings["held_out"])
        test = HeldOut(
            episodes,
            *split,
            seed=manifest.config["seed"],
            end_weight=settings["end_weight"],
            device=torch.device("cpu"),
        )
        return dreamt_errors(model, test, progress=progress)
