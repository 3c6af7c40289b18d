"""How well the agent does: every episode of every evaluation, and films of three of them."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from stages.artifacts.artifact import Artifact
from stages.errors import ArtifactDamaged
from stages.events import Scalar
from stages.inspection.expectations import visitor
from stages.report import markup
from stages.report.charts import Row, dots, histogram
from stages.report.films import films
from stages.report.gathering import Seen, evaluation_of, maker, number_at, returns_of
from stages.report.markup import facts, figure, missing, section, tag

KIND = "evaluations"
TITLE = "Evaluation"
MOST = 8  # evaluations beside each other
AGENT, RANDOM = "agent", "random"
COLUMNS = {
    "episodes": "episodes",
    "mean": "mean",
    "stderr": "standard error",
    "ci95_low": "95 % from",
    "ci95_high": "to",
    "median": "median",
    "min": "worst",
    "max": "best",
    "share_900": "share above 900",
    "share_laps_finished": "laps finished",
}


def scores_part(seen: Seen, *, with_films: bool | None) -> Element:
    """The newest evaluation beside the earlier ones, packed agents and the random policy."""
    own = evaluation_of(seen)
    others = [one for one in reversed(seen.artifacts[KIND]) if one is not own]
    evaluations = [*([own] if own is not None else []), *others][:MOST]
    parts = []
    if own is None:
        command = seen.command(maker(KIND))
        parts.append(missing("No agent of this workspace is scored yet; this does:", command))
    else:
        parts.append(facts(_told(own)))
    if evaluations:
        parts.append(seen.tried(lambda: _charts(seen, evaluations), about="Episodes."))
        parts.append(_table(evaluations))
    if own is not None and with_films is not False:
        asked = with_films is True
        parts.append(seen.tried(lambda: films(seen, own, asked=asked), about="Films."))
    return section(KIND, TITLE, *parts)


def _told(newest: Artifact) -> list[tuple[str, Scalar]]:
    return [
        ("artifact", newest.id),
        ("agent", _driver(newest)),
        ("mean return", newest.manifest.summary["mean"]),
        ("standard error", newest.manifest.summary["stderr"]),
        ("95 % interval", interval(newest)),
        ("episodes", newest.manifest.summary["episodes"]),
        ("random policy", number_at(newest.manifest.summary, "scores", RANDOM, "mean")),
        ("world", newest.manifest.config["world"]["env"]),
        ("engine", newest.manifest.summary["engine"]),
    ]


def interval(evaluation: Artifact) -> str | None:
    """The interval of the agent's mean, as one cell."""
    scores = evaluation.manifest.summary
    low, high = (number_at(scores, "scores", AGENT, name) for name in ("ci95_low", "ci95_high"))
    return None if low is None or high is None else f"{markup.shown(low)} to {markup.shown(high)}"


def _charts(seen: Seen, evaluations: Sequence[Artifact]) -> Element:
    newest = evaluations[0]
    rows = [_row(seen, one, AGENT) for one in evaluations]
    told = [(newest.id, rows[0].values)]
    if number_at(newest.manifest.summary, "scores", RANDOM, "mean") is not None:
        rows.append(_row(seen, newest, RANDOM))
        told.append((RANDOM, rows[-1].values))
    shown = [
        figure(
            *dots(rows, x="return"),
            title="Every episode",
            says="A dot is an episode; above them the mean and its 95 % interval (bootstrap). All "
            "agents meet the same held-out seeds.",
        ),
        figure(*histogram(told, x="return"), title="Distribution"),
    ]
    return tag("div", *shown, class_="pair")


def _row(seen: Seen, evaluation: Artifact, who: str) -> Row:
    scores = evaluation.manifest.summary
    mean, low, high = (
        number_at(scores, "scores", who, name) for name in ("mean", "ci95_low", "ci95_high")
    )
    values = returns_of(seen, evaluation, who)
    if not values:
        raise ArtifactDamaged(f"{evaluation.id}/episodes.csv holds no episode of {who}.")
    if who == RANDOM:
        return Row(RANDOM, values, mean or 0.0, low, high, colour=1)
    ours = evaluation is evaluation_of(seen)
    return Row(
        visitor(evaluation) or _driver(evaluation),
        values,
        mean or 0.0,
        low,
        high,
        colour=0 if ours else 3,
    )


def _table(evaluations: Sequence[Artifact]) -> Element:
    told = [
        (one, who, scores)
        for one in evaluations
        for who, scores in one.manifest.summary["scores"].items()
        if who == AGENT or one is evaluations[0]
    ]
    names = [name for name in COLUMNS if any(name in scores for _, _, scores in told)]
    rows = [
        (
            one.id,
            who if who == RANDOM else visitor(one) or _driver(one),
            *(scores.get(name) for name in names),
        )
        for one, who, scores in told
    ]
    return markup.table(("evaluation", "of", *(COLUMNS[name] for name in names)), rows)


def _driver(evaluation: Artifact) -> str:
    return next((one.id for one in evaluation.manifest.parents if one.kind == "control"), AGENT)
