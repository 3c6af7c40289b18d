"""`wm play` from its options to its report: what is played, by whom, in front of whom."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.artifact import Artifact
from stages.artifacts.workspace import Workspace
from stages.contracts import Job
from stages.errors import EnvironmentLacks, InputMissing, Interrupted, StageError, UsageError
from stages.events import Advanced, Monitor, Noted, Report, Silent, Table
from stages.inspection.overview import look
from stages.pipeline import Prepared, prepare, with_agent
from stages.playing.casting import Cast, cast, open_dream, open_recorded, open_world
from stages.playing.recording import Recording, Site, recover
from stages.playing.scene import AGENT, KEYBOARD, RANDOM, Scene
from stages.playing.session import ASK, REST_SECONDS, Played, Session, Terms
from stages.worlds.making import choice_names, frames_per_second
from wm_cli.playing.film import FilmClock, Nobody, check_target, has_encoder
from wm_cli.playing.keys import Steering
from wm_cli.playing.options import PlayOptions
from wm_cli.playing.player import Front, Player, RealClock

if TYPE_CHECKING:
    from wm_cli.playing.terminal import Terminal
    from wm_cli.playing.window import Window

WORLD, DREAM = "world", "dream"
IN_TERMINAL = "Playing in the terminal; --record FILE.mp4 makes a film instead."
FILM = "--record FILE.mp4"


def play(what: str, options: PlayOptions, monitor: Monitor) -> Report:
    """Play until somebody leaves, or the episodes of a film are over.

    Raises:
        StageError: it cannot be played, in words for people; Interrupted: a signal ended it.
    """
    _check(what, options)
    with ExitStack() as stack:
        front = _front(options, monitor)  # before an engine tells SDL to stay invisible
        request = with_agent(options.workspace, options.request(), monitor)
        prepared = look(options.workspace, request, progress=monitor)
        _recover(prepared.workspace, monitor)
        company = _cast(what, prepared, options, monitor)
        scene, site = _opened(what, prepared, company)
        stack.callback(scene.close)  # again, where the session does not come to it
        terms = _terms(scene, company, prepared, options, monitor)

        def open_recording() -> Recording:
            made = prepare(options.workspace, request, progress=Silent())
            assert site is not None, "what is recorded already is not recorded again"
            return Recording(made.workspace, _job_of(what, made, site), site)

        session = Session(scene, terms, open_recording=open_recording)
        player = _player(session, front, prepared, options)
        session.on_moment.append(lambda _: _tell(session, options, monitor))
        try:
            with front, session:
                if options.record is not None:
                    player.reel.start()
                player.run(monitor.poll)
        except Interrupted as stop:
            kept = _kept(session, player.films)
            told = f"Kept: {', '.join(kept)}." if kept else "Nothing was to be kept."
            if options.record is not None:
                told += f" {options.record} was not written: a film is whole or absent."
            raise type(stop)(f"{stop.what.partition(';')[0]}.", why=told) from stop
    if options.record is not None:
        player.films.append(player.reel.finish(options.record))
    return _report(session, player.films)


def _check(what: str, options: PlayOptions) -> None:
    """Refuse options that say nothing together, and what cannot be played."""
    if what not in {WORLD, DREAM} and "/" not in what:
        raise UsageError(
            f"{what!r} cannot be played.",
            fix=f"Choose {WORLD}, {DREAM}, or the id of recorded episodes such as rollouts/0001.",
        )
    if options.record is not None:
        check_target(options.record, force=options.force)
        if options.driver == KEYBOARD:
            raise UsageError(
                "Nobody presses keys while a film is made.",
                fix=f"Choose --driver {AGENT} or --driver {RANDOM}, or leave out --record.",
            )
        if options.save == ASK:
            raise UsageError(
                "Nobody can be asked while a film is made.",
                fix="Keep all episodes with --save all, or leave out --record.",
            )
    elif options.force:
        raise UsageError("--force replaces a film, and none is made.", fix=f"Add {FILM}.")
    if what not in {WORLD, DREAM} and (options.driver or options.save):
        raise UsageError(
            f"{what} has been played: nobody drives it, and it is kept already.",
            fix="Leave out --driver and --save, or play `world` or `dream`.",
        )


def _front(options: PlayOptions, monitor: Monitor) -> "Nobody | Window | Terminal":
    """Who looks: nobody, a window, or where nobody would see it, the terminal.

    Raises:
        EnvironmentLacks: there is neither a display nor a terminal.
    """
    if options.record is not None:
        return Nobody()
    from wm_cli.playing.terminal import Terminal, why_no_terminal
    from wm_cli.playing.window import Window, why_no_window

    no_window = "" if options.terminal else why_no_window()
    if not options.terminal and not no_window:
        return Window("wm play")
    no_terminal = why_no_terminal()
    if no_terminal:
        raise EnvironmentLacks(
            "There is nowhere to play.",
            why=" ".join(filter(None, (no_window, no_terminal))),
            fix=f"Make a film instead, which needs neither: wm play {FILM}",
        )
    if no_window:
        monitor.emit(Noted(f"{no_window} {IN_TERMINAL}"))
    return Terminal()


def _recover(workspace: Workspace, monitor: Monitor) -> None:
    """What a killed play had recorded becomes an artifact; where that fails, it is told."""
    try:
        for artifact in recover(workspace):
            number = artifact.manifest.summary["episodes"]
            told = f"Kept by a play that was killed: {number} episodes, now {artifact.id}."
            monitor.emit(Noted(told))
    except StageError as error:
        monitor.emit(Noted(f"What a killed play left stays as it is: {error}", warning=True))


def _cast(what: str, prepared: Prepared, options: PlayOptions, monitor: Monitor) -> Cast:
    """Who plays, and what is told of them."""
    by_agent = options.driver == AGENT or (options.record is not None and options.driver is None)
    company = cast(prepared.workspace, prepared.job, by_agent=by_agent)
    notes = list(company.notes)
    if what == WORLD and company.files is None:
        notes.append("There is no V yet (wm train-vision): the world is shown, and no more.")
    elif what == WORLD and company.files is not None and company.files.memory is None:
        notes.append("There is no M of this V yet (wm train-memory): nobody foresees anything.")
    for note in notes:
        monitor.emit(Noted(note))
    return company


def _opened(what: str, prepared: Prepared, company: Cast) -> tuple[Scene, Site | None]:
    if what == WORLD:
        return open_world(prepared.job, company)
    if what == DREAM:
        control = prepared.settings.sections["control"]
        return open_dream(prepared.workspace, prepared.job, company, control)
    return open_recorded(prepared.workspace, what, company), None


def _terms(
    scene: Scene, company: Cast, prepared: Prepared, options: PlayOptions, monitor: Monitor
) -> Terms:
    """How it goes, by the options and by who is there."""
    film = options.record is not None
    driver = options.driver or (AGENT if film and scene.drivers else KEYBOARD)
    if scene.drivers and driver not in scene.drivers:
        if options.driver == AGENT:
            raise _no_agent(company, prepared.workspace)
        monitor.emit(Noted("There is no controller yet (wm train-control): chance drives."))
        driver = RANDOM
    num_episodes = options.episodes or (1 if film else 0)
    rest = 0.0 if film else REST_SECONDS
    return Terms(driver, num_episodes=num_episodes, keep=options.save or "", rest=rest)


def _no_agent(company: Cast, workspace: Workspace) -> InputMissing:
    return InputMissing(
        "There is no controller that could drive.",
        why=" ".join(company.notes) or f"{workspace.root / 'control'} is empty.",
        fix="Run `wm train-control` first, or let chance drive: --driver random",
    )


def _job_of(what: str, prepared: Prepared, site: Site) -> Job:
    """The job as a recording tells it: a world's engine is the one that was played on."""
    from dataclasses import replace

    job = prepared.job
    if what == DREAM:
        return job
    return replace(job, world=replace(job.world, engine=site.engine))


def _player(session: Session, front: Any, prepared: Prepared, options: PlayOptions) -> Player:
    world = prepared.job.world
    spec = session.scene.action_spec
    names = choice_names(world.env) if spec is not None and spec.kind == "choice" else ()
    shown: Front = front
    return Player(
        session,
        shown,
        env=world.env,
        steering=Steering(world.env, spec, names) if spec is not None else None,
        steps_per_second=frames_per_second(world.env) / world.repeat,
        films=partial(_film_path, prepared.workspace) if has_encoder() else None,
        clock=FilmClock() if options.record is not None else RealClock(),
    )


def _film_path(workspace: Workspace, artifact: Artifact | None) -> Path:
    """Where a film of `,` goes: named like what was recorded with it, else numbered."""
    folder = workspace.videos()
    if artifact is not None:
        return folder / f"{artifact.id.replace('/', '-')}.mp4"
    number = 1
    while (path := folder / f"play-{number:04d}.mp4").exists():
        number += 1
    return path


def _tell(session: Session, options: PlayOptions, monitor: Monitor) -> None:
    """How far a film is."""
    if options.record is not None:
        moment, total = session.moment, session.terms.num_episodes
        latest = f"step {moment.num_steps}"
        monitor.emit(Advanced(min(len(session.played), total), total, "episodes", latest))


def _kept(session: Session, films: Sequence[Path]) -> list[str]:
    return [*(one.id for one in session.artifacts), *map(str, films)]


def _report(session: Session, films: Sequence[Path]) -> Report:
    """What was played, and what is left of it."""
    rows = [_row(one) for one in session.played]
    columns = ("seed", "driver", "steps", "return", "end", "kept")
    made = session.artifacts[-1] if session.artifacts else None
    others = [f"Recorded: {one.id}" for one in session.artifacts[:-1]]
    used = [f"`wm train-vision --from {made.id}` reads it."] if made and _real(made) else []
    return Report(
        command="play",
        artifact=made.id if made is not None else None,
        path=str(made.path if made else films[-1] if films else ""),
        summary={"what": session.scene.name, "episodes": len(rows)},
        tables=(Table("Episodes", columns, rows),) if rows else (),
        notes=(*others, *used, *(f"Film: {path}" for path in films)),
    )


def _real(artifact: Artifact) -> bool:
    return DREAM not in artifact.manifest.summary["engines"]


def _row(one: Played) -> tuple[Any, ...]:
    total = None if one.total is None else round(one.total, 2)
    return one.seed, one.drivers or None, one.num_steps, total, one.ended or "left", one.kept
