"""How C was found: population, mean vector, step size, and the dream beside the world."""

from functools import partial
from xml.etree.ElementTree import Element

from stages.artifacts.artifact import Artifact
from stages.control.config import PPO
from stages.report import markup
from stages.report.charts import DASHED, DOTTED, Line, curves
from stages.report.gathering import Search, Seen, dreams_alone, maker, search
from stages.report.markup import facts, figure, missing, section, tag

KIND = "control"
TITLE = "C: acting"


def search_part(seen: Seen) -> Element:
    """The newest search; earlier ones are folded away."""
    newest = seen.newest(KIND)
    if newest is None:
        command = seen.command(maker(KIND))
        return section(KIND, TITLE, missing("There is no C yet; this searches one:", command))
    summary = newest.manifest.summary
    place = summary.get("place", "world")
    in_dream = ", in the dream" if dreams_alone(newest) else ""
    told = [
        ("artifact", newest.id),
        ("C was tried in", f"the {place}" if place != "oracle" else "the oracle"),
        (f"selected mean vector{in_dream}", summary.get("selected_score")),
        ("of generation", summary.get("selected_generation")),
        ("generations", summary["generations"]),
        ("method", summary.get("method")),
        ("frames of the world", summary["frames"]),
        ("dreamt frames", summary.get("dreamt_frames")),
        ("parameters", summary["parameters"]),
    ]
    pairs = [(name, value) for name, value in told if value is not None]
    folded = [
        markup.details(f"Search of {one.id}", seen.tried(partial(_charts, seen, one)))
        for one in reversed(seen.artifacts[KIND][-4:-1])
    ]
    charts = seen.tried(lambda: _charts(seen, newest), about="Search.")
    return section(KIND, TITLE, facts(pairs), charts, *folded)


def _charts(seen: Seen, control: Artifact) -> Element:
    found = search(seen, control)
    place = control.manifest.summary.get("place", "world")
    climbs = control.manifest.summary.get("method") == PPO
    tried = _climb(found) if climbs else _population(found, place)
    shown = [tried, *_vectors(found, place), _sigma(found, climbs=climbs)]
    return tag("div", *shown, class_="pair")


def _population(found: Search, place: str) -> Element:
    where = " in the dream" if place == "dream" else ""
    lines = [
        Line(f"best candidate{where}", found.generations, found.best, 4, faint=True),
        Line(f"population mean{where}", found.generations, found.mean, 0),
    ]
    if place != "dream" and len(found.scored):
        lines.append(_score(found, "mean vector"))
    says = (
        "Candidates were tried in M's dream alone"
        + ("; what they are worth in the world is beside." if len(found.scored) else ".")
        if place == "dream"
        else "The mean vector of the search is scored on tracks of its own, with its standard "
        "error."
    )
    drawn = curves(lines, x="generation", y=f"return{where}")
    return figure(*drawn, title="Population", says=says)


def _climb(found: Search) -> Element:
    """What an actor dreamt while it learnt."""
    lines = [Line("mean of all lanes", found.generations, found.mean, 0)]
    drawn = curves(lines, x="generation", y="return in the dream")
    says = (
        "What the actor earned in the dreams that it learnt from, its noise included: pieces of "
        "episodes, where dreams begin anywhere."
    )
    return figure(*drawn, title="Dreams", says=says)


def _vectors(found: Search, place: str) -> list[Element]:
    """The mean vector in the dream, and in the world where there was one."""
    if place != "dream":
        return []
    lines = [_score(found, "in the world")] if len(found.scored) else []
    if len(found.dreamt):
        lines.append(Line("in the dream", found.dreamt_at, found.dreamt, 0, DASHED, dots=True))
    if not lines:
        return []
    title, says = (
        (
            "Dream and world",
            "The same vectors in both. Where the dream rises and the world does not, C has learnt "
            "what is wrong with M. Shaded: standard error.",
        )
        if len(found.scored)
        else (
            "Mean vector in the dream",
            "There was no world to drive in: C was chosen by what it earns in the dream, which is "
            "M's opinion.",
        )
    )
    drawn = curves(lines, x="generation", y="return of the mean vector")
    return [figure(*drawn, title=title, says=says)]


def _score(found: Search, label: str) -> Line:
    band = (found.score - found.stderr, found.score + found.stderr)
    return Line(label, found.scored, found.score, 1, band=band, dots=True)


def _sigma(found: Search, *, climbs: bool) -> Element:
    drawn = curves([Line("sigma", found.generations, found.sigma, 2, DOTTED)], x="generation", y="")
    title, says = (
        ("Noise", "Standard deviation of what C does while it learns; afterwards it does without.")
        if climbs
        else ("Step size", "Standard deviation of the search's distribution.")
    )
    return figure(*drawn, title=title, says=says)
