"""Several workspaces beside each other: seeds of one experiment together, experiments overlaid."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from xml.etree.ElementTree import Element

import numpy as np

from stages.artifacts.artifact import Artifact
from stages.events import Scalar
from stages.report import markup
from stages.report.again_part import whole_commands
from stages.report.charts import Line, Row, curves, dots
from stages.report.gathering import (
    Seen,
    Series,
    dreams_alone,
    evaluation_of,
    metrics,
    number_at,
    returns_of,
    search,
)
from stages.report.grouping import Group, called_apart, grouped, same_seeds
from stages.report.markup import code, figure, section, shown, tag
from stages.report.page import document, troubles
from stages.report.statistics import (
    Estimate,
    Values,
    estimated,
    interquartile_mean,
    interval_of_curves,
    mean_of_runs,
    on_one_axis,
)

TITLE = "Comparison of workspaces"
HINT = "Nothing here has got so far."

Read = Callable[[Seen], Series | None]


def compare(seen: Sequence[Seen]) -> bytes:
    """The page that tells of several workspaces."""
    groups = grouped(seen)
    parts = [_scores(groups), _learning(groups), _models(groups), _again(seen)]
    words = ", ".join(f"{one.name} ({len(one.runs)})" for one in groups)
    above = [
        tag("h1", TITLE),
        tag(
            "p",
            f"{len(seen)} workspaces by their settings and imports: {words}. Workspaces of a group "
            "differ in the seed alone.",
            class_="lead",
        ),
        *_worlds(seen),
        *same_seeds(groups),
        *(element for one in seen for element in troubles(one)),
    ]
    return document(TITLE, above, parts)


def _worlds(seen: Sequence[Seen]) -> list[Element]:
    """A warning where returns are of different worlds."""
    found = sorted({one.prepared.job.world.env for one in seen})
    if len(found) == 1:
        return []
    return [tag("p", f"Returns of {', '.join(found)} cannot be compared with each other.")]


def _scores(groups: Sequence[Group]) -> Element:
    told = [(group, [(one, _returns(one)) for one in group.runs]) for group in groups]
    called = called_apart([one for group in groups for one in group.runs])
    summaries: list[tuple[Scalar, ...]] = []
    rows: list[Row] = []
    together: list[Row] = []
    for group, found in told:
        runs = [np.array(values) for _, values in found if values]
        if not runs:
            summaries.append((group.name, len(group.runs), 0, 0, None, None, None, None))
            continue
        mean, middle = estimated(runs, mean_of_runs), estimated(runs, interquartile_mean)
        count = sum(map(len, runs))
        summaries.append(
            (
                group.name,
                len(group.runs),
                len(runs),
                count,
                mean.value,
                _interval(mean),
                middle.value,
                _interval(middle),
            )
        )
        averages = [float(run.mean()) for run in runs]
        together.append(Row(group.name, averages, mean.value, mean.low, mean.high, group.colour))
        for one, values in found:
            if values:
                rows.append(_row(group, one, called[one.place], values))
    columns = (
        "group",
        "workspaces",
        "scored",
        "episodes",
        "mean",
        "95 % interval",
        "IQM",
        "95 % interval of it",
    )
    says = (
        "The mean is that of the workspaces' means; IQM, the interquartile mean, is the mean of "
        "the middle half of all their episodes. Intervals: bootstrap over workspaces and over "
        "their episodes. One workspace says nothing of other seeds: its interval is that of its "
        "episodes; that of two to five is too narrow."
    )
    return section(
        "scores",
        "Scores",
        markup.table(columns, summaries),
        tag("p", says, class_="small"),
        _drawn(together, rows) if rows else tag("p", HINT, class_="missing"),
    )


def _drawn(together: Sequence[Row], rows: Sequence[Row]) -> Element:
    """Groups with a dot per workspace, and workspaces with a dot per episode."""
    return tag(
        "div",
        figure(
            *dots(together, x="mean return", each="workspaces"),
            title="Groups",
            says="A dot is a workspace; above them the mean and its interval.",
        ),
        figure(
            *dots(rows, x="return"),
            title="Every episode",
            says="A dot is an episode; above them the workspace's mean and its interval.",
        ),
        class_="pair",
    )


def _interval(one: Estimate) -> str:
    return f"{shown(one.low)} to {shown(one.high)}"


def _row(group: Group, seen: Seen, name: str, values: Sequence[float]) -> Row:
    scores = evaluation_of(seen)
    assert scores is not None, "returns come from an evaluation"
    low, high = (
        number_at(scores.manifest.summary, "scores", "agent", name)
        for name in ("ci95_low", "ci95_high")
    )
    return Row(name, values, float(np.mean(values)), low, high, group.colour)


def _returns(seen: Seen) -> list[float]:
    evaluation = evaluation_of(seen)
    if evaluation is None:
        return []
    return seen.noted(lambda: returns_of(seen, evaluation, "agent")) or []


def _learning(groups: Sequence[Group]) -> Element:
    return section(
        "search",
        "C: acting",
        _overlaid(
            groups,
            (
                ("Mean vector by generation", "generation", "return", _by_generation),
                ("Mean vector by frames of the world", "frames", "return", _by_frames),
                ("Population mean", "generation", "return where candidates were tried", _mean),
                ("Step size, or noise of ppo", "generation", "sigma", _sigma),
            ),
        ),
    )


def _models(groups: Sequence[Group]) -> Element:
    def measure(kind: str, name: str) -> Read:
        def read(seen: Seen) -> Series | None:
            newest = seen.newest(kind)
            return metrics(seen, newest).get(name) if newest is not None else None

        return read

    vision, memory = measure("vision", "vision/reconstruction"), measure("memory", "memory/nll")
    return section(
        "models",
        "V and M",
        _overlaid(
            groups,
            (
                ("V in training", "training step", "squared error per frame", vision),
                ("M in training", "training step", "nats per latent", memory),
            ),
        ),
        _model_table(groups),
    )


def _overlaid(groups: Sequence[Group], charts: Sequence[tuple[str, str, str, Read]]) -> Element:
    drawn = []
    for title, x, y, read in charts:
        lines = [line for group in groups for line in _lines(group, read)]
        if lines:
            says = "Thick: mean of a group; shaded: its bootstrap interval; thin: each workspace."
            several = any(len(group.runs) > 1 for group in groups)
            log = title.startswith("V ")
            chart = curves(lines, x=x, y=y, log_y=log)
            drawn.append(figure(*chart, title=title, says=says if several else ""))
    return tag("div", *drawn, class_="pair") if drawn else tag("p", HINT, class_="missing")


def _lines(group: Group, read: Read) -> list[Line]:
    """The curves of a group: each of its runs, and their mean."""
    found = [series for one in group.runs if (series := one.noted(partial(read, one)))]
    found = [one for one in found if len(one.x)]
    if not found:
        return []
    if len(found) == 1:
        return [Line(group.name, found[0].x, found[0].y, group.colour)]
    thin = [Line("", one.x, one.y, group.colour, faint=True, told=False) for one in found]
    places, values = on_one_axis([(one.x, one.y) for one in found])
    if not len(places):  # none is where another is
        return [replace(thin[0], label=group.name, told=True), *thin[1:]]
    label = f"{group.name}, {len(found)} workspaces"
    band = interval_of_curves(values)
    return [*thin, Line(label, places, values.mean(axis=0), group.colour, band=band)]


def _by_generation(seen: Seen) -> Series | None:
    return _of_search(seen, "scored", "score")


def _by_frames(seen: Seen) -> Series | None:
    return _of_search(seen, "frames", "score")


def _mean(seen: Seen) -> Series | None:
    return _of_search(seen, "generations", "mean")


def _sigma(seen: Seen) -> Series | None:
    return _of_search(seen, "generations", "sigma")


def _of_search(seen: Seen, x: str, y: str) -> Series | None:
    newest = seen.newest("control")
    if newest is None:
        return None
    found = search(seen, newest)
    places: Values = getattr(found, x)
    return Series(places, getattr(found, y)) if len(places) else None


def _model_table(groups: Sequence[Group]) -> Element:
    columns = ("workspace", "group", "seed", "V error", "M nats", "selected", "return", "± s.e.")
    called = called_apart([one for group in groups for one in group.runs])
    rows = [
        (
            called[one.place],
            group.name,
            one.prepared.job.seed,
            _told(one.newest("vision"), "reconstruction"),
            _told(one.newest("memory"), "nll"),
            _selected(one),
            _told(evaluation_of(one), "mean"),
            _told(evaluation_of(one), "stderr"),
        )
        for group in groups
        for one in group.runs
    ]
    return markup.table(columns, rows, caption="The newest artifacts of every workspace")


def _selected(seen: Seen) -> float | None:
    """The score of the selected mean vector, where the world gave it."""
    control = seen.newest("control")
    return None if control is None or dreams_alone(control) else _told(control, "selected_score")


def _told(artifact: Artifact | None, name: str) -> float | None:
    return number_at(artifact.manifest.summary, name) if artifact is not None else None


def _again(seen: Sequence[Seen]) -> Element:
    lines = [line for one in seen for line in whole_commands(one)]
    return section("again", "Do it again", code(lines))
