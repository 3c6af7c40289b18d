"""What M foresees: its curves, how good its dreams are k steps on, and one dream to look at."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from xml.etree.ElementTree import Element

from stages.artifacts.artifact import Artifact
from stages.artifacts.disk import read_file
from stages.artifacts.manifest import MANIFEST_LIMIT
from stages.inspection.foresight import parse_horizon
from stages.report import markup
from stages.report.charts import DASHED, DOTTED, Level, Line, curves
from stages.report.gathering import Seen, maker, metrics
from stages.report.markup import facts, figure, missing, section, tag
from stages.report.strips import dream_strip
from stages.report.vision_part import measured
from stages.train_memory import HORIZON

KIND = "memory"
TITLE = "M: foreseeing"
BASELINES = {
    "baseline_unit_gaussian": "unit Gaussian",
    "baseline_unconditional_mixture": "mixture without input",
    "baseline_persistence": "persistence",
    "baseline_entropy_floor": "floor",
}
STYLES = (DASHED, DOTTED, (0, (8, 2)), (0, (3, 1, 1, 1)))


def memory_part(seen: Seen) -> Element:
    """The newest M; curves of earlier ones are folded away."""
    newest = seen.newest(KIND)
    if newest is None:
        command = seen.command(maker(KIND))
        return section(KIND, TITLE, missing("There is no M yet; this makes one:", command))
    summary = newest.manifest.summary
    told = [
        ("artifact", newest.id),
        ("held-out NLL, nats per latent", summary.get("nll")),
        ("above the floor", summary.get("nll_above_floor")),
        ("useful steps of a dream", summary.get("useful_steps")),
        ("units", summary["shape"]["hidden_size"]),
        ("parameters", summary["parameters"]),
    ]
    parts = [
        seen.tried(lambda: _charts(seen, newest), about="Curves."),
        seen.tried(lambda: dream_strip(seen, newest), about="A dream beside what came."),
        seen.tried(lambda: _horizon(seen, newest), about="How far dreams are good."),
    ]
    folded = [
        markup.details(f"Curves of {one.id}", seen.tried(partial(_charts, seen, one)))
        for one in reversed(seen.artifacts[KIND][-4:-1])
    ]
    return section(KIND, TITLE, facts(told), *parts, *folded)


def _charts(seen: Seen, memory: Artifact) -> Element:
    found, summary = metrics(seen, memory), memory.manifest.summary
    levels = [
        Level(label, summary[name], style)
        for (name, label), style in zip(BASELINES.items(), STYLES, strict=True)
        if type(summary.get(name)) in (int, float)
    ]
    shown = []
    if lines := measured(found, "memory", "nll"):
        shown.append(
            figure(
                *curves(lines, levels, x="training step", y="nats per latent"),
                title="Negative log likelihood, one step on",
                says="Levels are of held-out steps; no model gets below the floor.",
            )
        )
    for name, title in (("end", "Loss of the end head"), ("reward", "Loss of the reward head")):
        if lines := measured(found, "memory", name):
            shown.append(figure(*curves(lines, x="training step", y="loss"), title=title))
    return tag("div", *shown, class_="pair")


def _horizon(seen: Seen, memory: Artifact) -> Element:
    if HORIZON not in memory.names():
        command = seen.command(f"evaluate --memory --from {memory.id}")
        return missing(f"{memory.id} was made before {HORIZON} was; this measures it:", command)
    content = read_file(memory.file(HORIZON), limit=MANIFEST_LIMIT)
    found = parse_horizon(content, source=f"{memory.id}/{HORIZON}")
    rows = found["horizon"]
    shown = [_errors(rows, found), _likelihoods(rows)]
    if any(row["alive"] for row in rows):
        shown.append(_alive(rows))
    if found["ends"]:
        shown.append(_ends(found["ends"]))
    if any(row["reward"] for row in rows):
        shown.append(_rewards(rows))
    return tag("div", *shown, class_="pair")


def _errors(rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> Element:
    lines = [
        _line("dreams", rows, "error", 0),
        _line("the start, held", rows, "error_held", 1, DASHED),
        _line("mean of the data", rows, "error_mean", 2, DOTTED),
    ]
    says = (
        f"Root mean square per latent, from {found['starts']} places in {found['episodes']} "
        f"held-out episodes, {found['dreams']} dreams each, with the recorded actions."
    )
    drawn = curves(lines, x="dreamt steps", y="error", log_x=True)
    return figure(*drawn, title="Error of dreams by their length", says=says)


def _likelihoods(rows: Sequence[Mapping[str, Any]]) -> Element:
    lines = [
        _line("dreams", rows, "nll", 0),
        _line("the start, held", rows, "nll_held", 1, DASHED),
        _line("mean of the data", rows, "nll_mean", 2, DOTTED),
        _line("floor", rows, "entropy_floor", 3, DASHED),
    ]
    says = "−log likelihood of what came; dreams are useful while they stay below the others."
    drawn = curves(lines, x="dreamt steps", y="nats per latent", log_x=True)
    return figure(*drawn, title="What dreams know by their length", says=says)


def _alive(rows: Sequence[Mapping[str, Any]]) -> Element:
    told = [{"steps": row["steps"], **row["alive"]} for row in rows if row["alive"]]
    lines = [
        _line("recordings", told, "real", 1),
        _line("dreams, ended by chance", told, "sampled", 0),
        _line("dreams, ended where likely", told, "hard", 2, DASHED),
    ]
    says = "Share that goes on for so many steps. A dream that ends too late teaches carelessness."
    drawn = curves(lines, x="steps", y="share that goes on")
    return figure(*drawn, title="Do dreams end as episodes do?", says=says)


def _ends(ends: Mapping[str, Any]) -> Element:
    bins = [one for one in ends["bins"] if one["steps"]]
    lines = [
        Line("perfect", [0, 1], [0, 1], 2, DOTTED, told=True, faint=True),
        Line(
            "M, without its training weight",
            [one["unweighted"] for one in bins],
            [one["observed"] for one in bins],
            0,
            dots=True,
            faint=False,
        ),
    ]
    says = (
        f"{ends['events']:,} of {ends['steps']:,} held-out steps end. A point per bin: what M "
        "says, and how often it is so."
    )
    drawn = curves(lines, x="foreseen probability of the end", y="observed share")
    return figure(*drawn, title="Are ends foreseen rightly?", says=says)


def _rewards(rows: Sequence[Mapping[str, Any]]) -> Element:
    told = [{"steps": row["steps"], **row["reward"]} for row in rows if row["reward"]]
    lines = [
        _line("earned", told, "real", 1),
        _line("foreseen", told, "foreseen", 0),
        _line("error", told, "error", 2, DASHED),
    ]
    says = "Mean sum of the rewards of so many steps, and the root mean square error of that sum."
    drawn = curves(lines, x="steps", y="sum of rewards", log_x=True)
    return figure(*drawn, title="Rewards in dreams", says=says)


def _line(
    label: str, rows: Sequence[Mapping[str, Any]], name: str, colour: int, style: Any = "-"
) -> Line:
    there = [row for row in rows if row[name] is not None]
    steps, values = [row["steps"] for row in there], [row[name] for row in there]
    return Line(label, steps, values, colour, style)
