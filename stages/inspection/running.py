"""Who works in a workspace now and how far it is. Takes no lock and writes nothing."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages import stage_writing
from stages.artifacts.lock import KILLED, RUNNING, Note
from stages.artifacts.workspace import KINDS, Workspace
from stages.events import Scalar, Table

_QUIET = 5.0  # seconds without a word that are worth a remark
_LETTERS = 300  # of a text, whatever a note claims


@dataclass(frozen=True)
class Running:
    """A stage that runs, or one that left its note: killed here, or silent on another machine."""

    stage: str
    state: str  # RUNNING | KILLED | SILENT
    process: int
    host: str
    since: str  # ISO 8601
    silent_seconds: float | None  # since it last told; None where it tells nothing
    doing: str | None  # besides what is counted
    done: int | None
    total: int | None
    unit: str | None
    per_second: float | None
    left_seconds: float | None
    latest: str | None  # loss or score
    memory_bytes: int | None
    workers: int | None

    @property
    def count(self) -> str | None:
        """`12/100 generations`."""
        if self.done is None or self.total is None:
            return None
        return f"{self.done}/{self.total} {self.unit or ''}".rstrip()


def running(workspace: Workspace) -> list[Running]:
    """The stages that run, in the pipeline's order, and those that ended or fell silent so.

    A note that tells no progress, as an earlier version's, says nothing of a stage that ended.
    """
    now = time.time()
    found = ((kind, workspace.lock(kind).note()) for kind in KINDS)
    seen = [_running(kind, note, now) for kind, note in found if note is not None]
    return [one for one in seen if one.state == RUNNING or one.silent_seconds is not None]


def running_table(found: list[Running]) -> Table:
    """A row per stage, for a report."""
    columns = ("stage", "state", "progress", "left_seconds", "memory_bytes", "workers", "because")
    rows = [
        (
            one.stage,
            one.state,
            one.count,
            one.left_seconds,
            one.memory_bytes,
            one.workers,
            ", ".join(filter(None, (one.latest, one.doing))) or None,
        )
        for one in found
    ]
    return Table("Running", columns, rows)


def remark(one: Running) -> str:
    """What is odd about it; empty when nothing is."""
    if one.state == KILLED:
        return "killed; the same command goes on"
    silent = one.silent_seconds
    return f"not heard of for {silent:.0f} s" if silent is not None and silent > _QUIET else ""


def _running(kind: str, note: Note, now: float) -> Running:
    told = note.told
    part, of_parts = _count(told, "parts"), _count(told, "of_parts")
    doing = _text(told, "doing")
    if doing and part is not None and of_parts:
        doing = f"{doing} {part}/{of_parts}"
    return Running(
        stage=stage_writing(kind).name,
        state=note.state(now),
        process=note.process,
        host=note.host[:_LETTERS],
        since=note.since[:_LETTERS],
        silent_seconds=max(0.0, now - note.told_at) if told and note.told_at > 0 else None,
        doing=doing,
        done=_count(told, "done"),
        total=_count(told, "total"),
        unit=_text(told, "unit"),
        per_second=_number(told, "per_second"),
        left_seconds=_number(told, "left_seconds"),
        latest=_text(told, "latest"),
        memory_bytes=_count(told, "memory_bytes"),
        workers=_count(told, "workers"),
    )


def _text(told: Mapping[str, Any], name: str) -> str | None:
    value = told.get(name)
    return value[:_LETTERS] if isinstance(value, str) and value else None


def _count(told: Mapping[str, Any], name: str) -> int | None:
    value = told.get(name)
    return value if type(value) is int and 0 <= value < 2**63 else None


def _number(told: Mapping[str, Any], name: str) -> float | None:
    value: Scalar = told.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e12 else None  # neither is NaN, nor what no float holds
