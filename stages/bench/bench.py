"""`wm bench`: how fast every stage works on this machine, and how fast it could.

Every row is a contest in one run: our way, the ceiling of the machine, the plain way, in turns.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING

from stages.artifacts.versions import processor
from stages.bench.contest import Contest, Round, Standing, hold
from stages.bench.worksite import Sizes, Worksite, opened_worksite
from stages.errors import Interrupted, UsageError
from stages.events import Advanced, Monitor, Noted, Report, Scalar, Table

if TYPE_CHECKING:
    from stages.bench.learning import Learnt

FULL = Sizes()
QUICK = Sizes(
    rounds=2,
    recording_lanes=6,
    episode_actions=64,  # as long as a window of M
    control_actions=20,
    raw_steps=20,
    vision_steps=8,
    encoding_batches=6,
    memory_steps=8,
    matrix_seconds=0.2,
    dream_lane_steps=20_000,
    compiled=False,
    plain_dream_steps=100,
    disk_bytes=8 * 10**6,
    learning_steps=(0, 0),
)
ROWS: Mapping[str, tuple[str, str]] = {  # name -> module here, function that yields its contests
    "rollout": ("world_rows", "rollout_rows"),
    "control": ("world_rows", "control_rows"),
    "train-vision": ("model_rows", "vision_rows"),
    "sample-latents": ("model_rows", "latents_rows"),
    "train-memory": ("model_rows", "memory_rows"),
    "dream": ("dream_rows", "dream_rows"),
    "disk": ("world_rows", "disk_rows"),
}
RATES = ("row", "unit", "ours", "ceiling", "share", "plain", "times", "used")
SPREAD = ("row", "share_least", "share_largest", "times_least", "times_largest")


@dataclass(frozen=True)
class Request:
    """What is measured, and with what."""

    rows: tuple[str, ...] = ()  # empty: all
    quick: bool = False
    workers: int | None = None  # None: as many as cores
    device: str = "auto"  # for training and dreams; engines run on the CPU
    sizes: Sizes | None = None  # None: those of FULL, or of QUICK


def run(request: Request, *, progress: Monitor) -> Report:
    """Hold the contests and leave nothing behind."""
    rows, sizes = chosen_rows(request.rows), request.sizes or (QUICK if request.quick else FULL)
    started = monotonic()
    try:
        with opened_worksite(
            sizes=sizes, workers=request.workers, device=request.device, progress=progress
        ) as site:
            standings = list(_standings(site, rows))
            learnt = list(_learnt(site, rows))
            return _report(site, standings, learnt, seconds=monotonic() - started)
    except Interrupted as error:
        raise type(error)("The benchmark was stopped; it keeps nothing.") from error


def chosen_rows(names: Sequence[str]) -> tuple[str, ...]:
    """The rows of these names in the order of the table; all of them when none is named."""
    for name in names:
        if name not in ROWS:
            near = get_close_matches(name, ROWS, n=1, cutoff=0.4)
            raise UsageError(
                f"There is no row {name!r}.",
                why=f"The rows are {', '.join(ROWS)}.",
                fix=f"Did you mean {near[0]!r}?" if near else "",
            )
    return tuple(name for name in ROWS if name in names or not names)


def _standings(site: Worksite, rows: Sequence[str]) -> Iterator[Standing]:
    num_rounds = site.sizes.rounds
    for row in rows:
        for contest in _contests(site, row):
            rounds: list[Round] = []
            unit = f"rounds of {contest.row}"
            site.progress.emit(Advanced(0, num_rounds, unit))
            for one in hold(contest, num_rounds):
                rounds.append(one)
                site.progress.emit(Advanced(len(rounds), num_rounds, unit))
                site.progress.poll()
            yield Standing(contest, tuple(rounds))


def _contests(site: Worksite, row: str) -> Iterator[Contest]:
    module, function = ROWS[row]
    build: Callable[[Worksite], Iterator[Contest]] = getattr(
        import_module(f"stages.bench.{module}"), function
    )
    return build(site)


def _learnt(site: Worksite, rows: Sequence[str]) -> "Iterator[Learnt]":
    from stages.bench.learning import CHECKS

    for row, num_steps in zip(CHECKS, site.sizes.learning_steps, strict=True):
        if row in rows and num_steps:
            site.progress.emit(Noted(f"{row}: {num_steps} steps in both ways."))
            yield CHECKS[row](site, num_steps)


def _report(
    site: Worksite, standings: Sequence[Standing], learnt: "Sequence[Learnt]", *, seconds: float
) -> Report:
    tables = [
        Table("Rates per second", RATES, [_rates(one) for one in standings]),
        Table("The same ratios, round by round", SPREAD, [_spread(one) for one in standings]),
    ]
    notes = [
        "share: ours beside the ceiling; times: ours beside the plain way. Medians over the rounds."
    ]
    if learnt:
        tables.append(_learning_table(learnt))
        notes.append("plain again: the plain way beside itself, from weights a millionth off.")
    else:
        notes.append("Whether both ways learn equally was not checked (--quick, or other rows).")
    return Report(
        command="bench",
        summary={
            "cores": site.cores,
            "processor": processor(),
            "device": str(site.device),
            "rounds": site.sizes.rounds,
            "seconds": round(seconds, 1),
        },
        tables=tuple(tables),
        notes=tuple(notes),
    )


def _rates(standing: Standing) -> tuple[Scalar, ...]:
    contest, plain, times = standing.contest, standing.plain, standing.times
    return (
        contest.row,
        contest.unit,
        _rounded(standing.ours),
        _rounded(standing.ceiling),
        round(standing.share.median, 3),
        None if plain is None else _rounded(plain),
        None if times is None else round(times.median, 2),
        contest.used,
    )


def _spread(standing: Standing) -> tuple[Scalar, ...]:
    share, times = standing.share, standing.times
    ends = (None, None) if times is None else (round(times.low, 2), round(times.high, 2))
    return (standing.contest.row, round(share.low, 3), round(share.high, 3), *ends)


def _rounded(rate: float) -> int | float:
    """Whole numbers where they have digits enough."""
    return round(rate) if rate >= 100 else round(rate, 2)


def _learning_table(learnt: "Sequence[Learnt]") -> Table:
    columns = (
        *("model", "steps", "precision", "start", "ours", "plain"),
        *("difference", "plain_again", "measure"),
    )
    rows = [
        (
            one.model,
            one.steps,
            one.precision,
            one.start,
            one.ours,
            one.plain,
            f"{100 * one.difference:+.2f} %",
            f"{100 * one.plain_difference:+.2f} %",
            one.measure,
        )
        for one in learnt
    ]
    return Table("Held-out loss after the same steps, fast and plain", columns, rows)
