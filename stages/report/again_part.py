"""How to do it again: the commands, exactly, and with what it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from shlex import join
from typing import Any
from xml.etree.ElementTree import Element

from stages import IMPORT, STAGES
from stages.artifacts.artifact import Artifact
from stages.inspection.remaking import Again, again, import_words
from stages.report import markup
from stages.report.gathering import Seen
from stages.report.markup import code, section, tag
from stages.settings.recipes import available

TITLE = "Do it again"
ELSEWHERE = "DIR"  # a new folder
VISION = "train-vision"  # all that films are for


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
        code(whole_commands(seen)),
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


def whole_commands(seen: Seen) -> list[str]:
    """The commands that do all of it with the workspace's settings: an import comes first."""
    stored = seen.workspace.settings() or {}
    chosen: list[str] = []
    if stored:
        chosen += ["--recipe", stored["recipe"]["name"]]
        chosen += ["--preset", stored["preset"]] if stored.get("preset") else []
        chosen += ["--seed", str(stored["seed"])]
        chosen += [word for one in stored["overrides"] for word in ("--set", one)]
    imports = [one for one in seen.artifacts["rollouts"] if one.manifest.stage == IMPORT.name]
    if not imports:
        return [join(["wm", "run", "-w", ELSEWHERE, *chosen])]
    lines = []
    for one in imports:
        if _made_by(seen, one).command:
            lines.append(join(import_words(seen.workspace, one.manifest, ELSEWHERE, chosen)))
            chosen = []  # the workspace keeps them
    films = all(_is_film(one) for one in imports)
    return [*lines, join(["wm", VISION if films else "run", "-w", ELSEWHERE, *chosen])]


def _is_film(recording: Artifact) -> bool:
    actions = recording.manifest.summary.get("actions")
    return isinstance(actions, Mapping) and actions.get("kind") == "none"


def commands(seen: Seen) -> list[str]:
    """A command per artifact, rounds one after the other, each with its inputs and its settings.

    What has to be said of one stands above it, as a comment.
    """
    made = [
        (seen.rounds.get(one.id, 0), place, one.number, one)
        for place, stage in enumerate(STAGES)
        for one in seen.artifacts[stage.writes]
    ]
    lines = []
    for _, _, _, one in sorted(made, key=lambda row: row[:3]):
        found = _made_by(seen, one)
        remark = " ".join(found.remark.split())  # on one line, whatever a data set is called
        lines += [f"# {one.id}: {remark}"] if remark else []
        lines += [found.command] if found.command else []
    return lines


def _made_by(seen: Seen, artifact: Artifact) -> Again:
    """The command that made it: unlike one that makes it again, it replaces nothing."""
    found = again(seen.workspace, artifact)
    return replace(found, command=found.command.removesuffix(" --force"))


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
