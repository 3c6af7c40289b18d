"""Which of several workspaces are seeds of one experiment, and what they are called."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from xml.etree.ElementTree import Element

from stages.artifacts.canonical import canonical_json
from stages.report.drawing import NUM_COLOURS
from stages.report.gathering import Seen
from stages.report.labelling import told_apart
from stages.report.markup import tag

MOST_NAMED = 60  # characters of a group's settings in its name


@dataclass(frozen=True)
class Group:
    """Workspaces that differ in nothing but the seed, as far as their settings and imports tell."""

    name: str
    runs: Sequence[Seen]
    colour: int


def same_seeds(groups: Sequence[Group]) -> list[Element]:
    """A warning where a group counts one seed several times."""
    called = called_apart([one for group in groups for one in group.runs])
    found: list[Element] = []
    for group in groups:
        by_seed: dict[int, list[str]] = {}
        for one in group.runs:
            by_seed.setdefault(one.prepared.job.seed, []).append(called[one.place])
        for seed, names in by_seed.items():
            if len(names) > 1:
                words = f"{', '.join(names)} of {group.name} have the same seed, {seed}."
                says = "They count as several workspaces, and say no more of other seeds than one."
                found.append(tag("p", f"{words} {says}"))
    return found


def grouped(seen: Sequence[Seen]) -> list[Group]:
    """Workspaces by their settings and imports, in the order in which they were named."""
    found: dict[bytes, list[Seen]] = {}
    for one in seen:
        settings = one.prepared.settings
        sections = {name: asdict(section) for name, section in settings.sections.items()}
        told = {"family": settings.family, "recipe": settings.recipe, **sections}
        told["imports"] = _imports(one)
        found.setdefault(canonical_json(told), []).append(one)
    names = [_name(runs[0]) for runs in found.values()]
    called = called_apart(seen)
    fuller = [
        f"{name} ({called[runs[0].place]})"
        for name, runs in zip(names, found.values(), strict=True)
    ]
    return [
        Group(name, runs, number % NUM_COLOURS)
        for number, (name, runs) in enumerate(
            zip(told_apart(names, fuller), found.values(), strict=True)
        )
    ]


def _imports(seen: Seen) -> list[str]:
    """The data that were imported, and what was taken of them; paths and order do not matter."""
    configs = [one.manifest.config.get("import") for one in seen.artifacts["rollouts"]]
    return sorted({canonical_json(config).decode() for config in configs if config})


def called_apart(seen: Sequence[Seen]) -> dict[str, str]:
    """Place -> what a workspace is called: its folder, or all of its place where two are alike."""
    places = [one.place for one in seen]
    return dict(zip(places, told_apart([one.name for one in seen], places), strict=True))


def _name(seen: Seen) -> str:
    stored = seen.workspace.settings() or {}
    words = [seen.prepared.job.recipe, seen.prepared.job.preset, *stored.get("overrides", ())]
    name = " ".join(word for word in words if word)
    return name if len(name) <= MOST_NAMED else f"{name[:MOST_NAMED]}…"
