"""`wm run`: everything that is missing or stale, in the family's order, round after round."""

from collections.abc import Sequence
from dataclasses import replace

from stages import Stage
from stages.agents import action_spec
from stages.artifacts.fitting import check_actions_known
from stages.artifacts.producing import Plan
from stages.contracts import NO_WORLD
from stages.control.config import check_place
from stages.errors import InputMissing, InputsMismatch, UsageError
from stages.events import Monitor, Noted, Report, Table
from stages.pipeline import Prepared, family_stages, unbound_on_refusal, verb
from stages.rounds import CHOICE, SECTION, Made, check, config_in, inputs_in, rounds_table
from stages.worlds.making import check_world_known, is_own


def run_all(prepared: Prepared, *, progress: Monitor) -> Report:
    """Run every stage whose artifact is missing or stale, in the family's order."""
    made: list[dict[str, str]] = []
    reports: list[Report] = []
    with unbound_on_refusal(prepared):
        _check_asked(prepared)
        while not made or goes_on(prepared, made):
            made.append({})
            for stage in family_stages(prepared):
                progress.emit(Noted(f"{_which(prepared, made)}{stage.name}: {stage.line}"))
                told = told_in(prepared, stage, made)
                report = verb(stage).run(
                    told.workspace, told.config(stage), told.job, progress=progress
                )
                made[-1][stage.writes] = report.artifact or ""
                reports.append(report)
                if stage.writes == "rollouts":  # films: what comes after V would be refused
                    check_actions_known([told.workspace.get(made[-1][stage.writes])])
    return _summed_up(prepared, reports, made)


def _check_asked(prepared: Prepared) -> None:
    """Refuse what `wm run` does not do, before any work.

    Raises:
        UsageError: --force, --from, or settings that cannot do what they say.
    """
    if prepared.job.force or prepared.job.parents:
        raise UsageError(
            "`wm run` makes what is missing; it takes neither --force nor --from.",
            fix="Give them to one stage, e.g. `wm train-vision --force`.",
        )
    if _wanted(prepared) > 1:
        check_world_known(prepared.job.world.env, "wm run with more than one round")
        check(prepared.settings.sections)
    check_place(prepared.settings.sections["control"])
    world = prepared.job.world
    if is_own(world.env) and not prepared.workspace.scan("rollouts")[0]:
        from stages.control.controllers import squashes

        squashes(action_spec(world, world.engine), prepared.settings.sections["control"].squash)


def told_in(prepared: Prepared, stage: Stage, made: Made) -> Prepared:
    """What holds for a stage in the round whose earlier stages made `made[-1]`."""
    config = config_in(stage, prepared.settings.sections, made)
    sections = {**prepared.settings.sections, stage.section: config}
    job = replace(prepared.job, parents=inputs_in(stage, made))
    return replace(prepared, settings=replace(prepared.settings, sections=sections), job=job)


def plan_in(prepared: Prepared, stage: Stage, made: Made) -> Plan:
    """What a stage would make in that round; no work is done."""
    told = told_in(prepared, stage, made)
    return verb(stage).plan(told.workspace, told.config(stage), told.job)


def goes_on(prepared: Prepared, made: Made) -> bool:
    """Whether another round follows those that are made: the settings say so, or it was begun."""
    wanted = _wanted(prepared)
    return len(made) < wanted if wanted else _was_begun(prepared, [*made, {}])


def _wanted(prepared: Prepared) -> int:
    """How many rounds the settings ask for; 0: those that were begun."""
    return int(prepared.settings.sections[SECTION].num_rounds)


def _was_begun(prepared: Prepared, made: Made) -> bool:
    """Whether there is work, finished or not, of the first stage of a round."""
    workspace, first = prepared.workspace, family_stages(prepared)[0]
    if prepared.job.world.env == NO_WORLD:
        return False
    try:
        check(prepared.settings.sections)
        fingerprint = plan_in(prepared, first, made).fingerprint
    except (UsageError, InputsMismatch, InputMissing):
        return False
    return workspace.begun(first.writes, fingerprint)


def _which(prepared: Prepared, made: Made) -> str:
    """The round, in words, where there is more than one."""
    number, wanted = len(made), _wanted(prepared)
    if max(number, wanted) < 2:
        return ""
    return f"Round {number} of {wanted}, " if wanted else f"Round {number}, "


def _summed_up(prepared: Prepared, reports: Sequence[Report], made: Made) -> Report:
    """What was done, stage by stage, and where there are rounds what each of them came to."""
    last, several = reports[-1], len(made) > 1
    num_stages = len(reports) // len(made)
    rows = [
        (r.command, *([1 + n // num_stages] if several else []), _state(r), r.artifact)
        for n, r in enumerate(reports)
    ]
    columns = ("stage", *(["round"] if several else []), "state", "artifact")
    rounds = [rounds_table(prepared.workspace, made)] if several else []
    return Report(
        command="run",
        artifact=last.artifact,
        path=str(prepared.workspace.root),
        up_to_date=all(report.up_to_date for report in reports),
        summary=last.summary,
        tables=(Table("Pipeline", columns, rows), *last.tables, *rounds),
        notes=(*last.notes, *([CHOICE] if several else []), *_left_out(prepared)),
    )


def _left_out(prepared: Prepared) -> list[str]:
    """What is not made without an environment."""
    if prepared.job.world.env != NO_WORLD:
        return []
    return ["Nothing was driven in a world: there is none (--set world.env=module:EnvId)."]


def _state(report: Report) -> str:
    return "up to date" if report.up_to_date else "made"
