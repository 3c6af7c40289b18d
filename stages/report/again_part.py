"""How to do it again: the commands, exactly, and with what it was made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from shlex import quote
from typing import Any
from xml.etree.ElementTree import Element

from stages import STAGES, Stage
from stages.artifacts.artifact import Artifact
from stages.inspection.expectations import visitor
from stages.report import markup
from stages.report.gathering import Seen
from stages.report.markup import code, section, tag
from stages.settings.recipes import available
from stages.settings.values import value_text

TITLE = "Do it again"
ELSEWHERE = "DIR"  # a new folder


def again_part(seen: Seen) -> Element:
    """Commands, versions, machine."""
    stored = seen.workspace.settings() or {}
    recipe = stored.get("recipe", {}).get("name", "")
    notes = []
    if recipe and recipe not in available():
        notes.append(
            tag(
                "p",
                f"The recipe {recipe} is a file of somebody's own: give its path to --recipe. "
                "A copy of it is in workspace.json.",
            )
        )
    if stored.get("engine"):
        notes.append(
            tag(
                "p",
                "Where the engine is ",
                tag("code", "auto"),
                f", this workspace has {stored['engine']}.",
            )
        )
    return section(
        "again",
        TITLE,
        tag("p", "The whole of it, in a new folder:"),
        code([whole_command(stored)]),
        *notes,
        tag("p", "Artifact by artifact, as this workspace has them:"),
        code(commands(seen)),
        tag(
            "p",
            "On one machine with the same versions and the same number of math threads the same "
            "settings give the same bytes; elsewhere they give another run of the same experiment.",
        ),
        _machines(seen),
    )


def whole_command(stored: Mapping[str, Any]) -> str:
    """The command that does all of it with the workspace's settings."""
    words = ["wm run", f"-w {ELSEWHERE}"]
    if stored:
        words.append(f"--recipe {quote(stored['recipe']['name'])}")
        if stored.get("preset"):
            words.append(f"--preset {quote(stored['preset'])}")
        words.append(f"--seed {stored['seed']}")
        words += [f"--set {quote(word)}" for word in stored["overrides"]]
    return " ".join(words)


def commands(seen: Seen) -> list[str]:
    """A command per artifact, rounds one after the other, each with its inputs and its settings."""
    made = [
        (seen.rounds.get(one.id, 0), place, one.number, stage, one)
        for place, stage in enumerate(STAGES)
        for one in seen.artifacts[stage.writes]
    ]
    return [
        _command(seen, stage, one) for _, _, _, stage, one in sorted(made, key=lambda row: row[:3])
    ]


def _command(seen: Seen, stage: Stage, artifact: Artifact) -> str:
    words = [f"wm {stage.name}", f"-w {quote(seen.place)}"]
    if visitor(artifact):
        words.append(f"--agent {ELSEWHERE}  # {visitor(artifact)}")
        return " ".join(words)
    kinds = (*stage.reads, *((stage.writes,) if stage.warm else ()), "plays")
    words += [f"--from {one.id}" for one in artifact.manifest.parents if one.kind in kinds]
    changed = dict(_changes(seen, stage, artifact))
    seed = changed.pop("seed", None)
    words += [] if seed is None else [f"--seed {seed}"]
    words += [f"--set {quote(f'{key}={value}')}" for key, value in changed.items()]
    return " ".join(words)


def _changes(seen: Seen, stage: Stage, artifact: Artifact) -> Iterator[tuple[str, str]]:
    """Keys in which an artifact's settings differ from those of the workspace."""
    settings = seen.prepared.settings
    config = artifact.manifest.config
    for name in ("world", stage.section):
        here = asdict(settings.sections[name])
        told = config.get(name, {})
        for key, value in told.items():
            fixed = name == "world" and key == "engine" and stage.name == "evaluate"
            if key in here and _plain(here[key]) != _plain(value) and not fixed:
                yield f"{name}.{key}", _driver(artifact, f"{name}.{key}") or value_text(value)
    if config.get("seed", settings.seed) != settings.seed:
        yield "seed", str(config["seed"])


def _driver(artifact: Artifact, key: str) -> str:
    """The controller that recorded, of whom settings say only that it was one."""
    named = [one.id for one in artifact.manifest.parents if one.kind == "control"]
    return named[0] if key == "rollout.policy" and named else ""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _machines(seen: Seen) -> Element:
    """What the newest artifact of every kind was made with; what they share is told once."""
    newest = [one for stage in STAGES if (one := seen.newest(stage.writes))]
    alike: dict[tuple[str | int | None, ...], list[str]] = {}
    for one in newest:
        alike.setdefault(tuple(_machine(one.manifest.provenance)), []).append(one.id)
    rows = [(", ".join(names), *told) for told, names in alike.items()]
    columns = ("artifacts", "processor", "cores", "threads", "device", "system", "Python")
    return tag(
        "div",
        tag("h3", "Machine"),
        markup.table(columns, rows),
        tag("h3", "Versions"),
        _versions(newest),
    )


def _machine(told: Mapping[str, Any]) -> list[str | int | None]:
    names = ("processor", "cores", "threads", "device", "platform", "python")
    values = [told.get(name) for name in names]
    return [value if type(value) in (str, int) else None for value in values]


def _versions(artifacts: Sequence[Artifact]) -> Element:
    found: dict[str, dict[str, None]] = {}
    for one in artifacts:
        packages = one.manifest.provenance.get("packages")
        for name, version in packages.items() if isinstance(packages, Mapping) else ():
            found.setdefault(str(name), {})[str(version)] = None
    return markup.facts((name, ", ".join(versions)) for name, versions in sorted(found.items()))
