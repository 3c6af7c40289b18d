"""What was done and what became of it: counts that add up over runs, and the table of them."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from command_line import ROOT, STAGES

ELSEWHERE = "workspace"  # a fault that belongs to no stage
PLACES = (*STAGES, ELSEWHERE)


@dataclass
class Tally:
    """What one case did: faults by kind and place, remarks about them, and what was lost."""

    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    lost: str = ""

    def inject(self, kind: str, where: str) -> None:
        self.faults[kind, where] += 1

    def note(self, text: str) -> None:
        self.notes[text] += 1

    def packed(self) -> dict[str, Any]:
        """As plain JSON."""
        faults = [[*key, count] for key, count in self.faults.items()]
        return {"faults": faults, "notes": dict(self.notes), "lost": self.lost}


@dataclass
class Count:
    """Faults of one kind at one place."""

    injected: int = 0
    lost: int = 0


class Book:
    """Counts of faults by slice, kind and place, and of remarks by slice."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str, str], Count] = {}
        self.notes: Counter[tuple[str, str]] = Counter()
        self.seconds: Counter[str] = Counter()
        self.codes: set[str] = set()

    def add(self, slice_name: str, packed: dict[str, Any]) -> None:
        """Add the tally of one case, or a record of many."""
        for kind, where, injected, *lost in packed["faults"]:
            count = self.counts.setdefault((slice_name, kind, where), Count())
            count.injected += injected
            count.lost += lost[0] if lost else (injected if packed["lost"] else 0)
        for text, number in packed["notes"].items():
            self.notes[slice_name, text] += number
        self.seconds[slice_name] += packed.get("seconds", 0.0)
        self.codes |= {packed["code"]} if "code" in packed else set()

    def record(self, slice_name: str, *, seconds: float, seed: int) -> dict[str, Any]:
        """Everything about one slice as a line for the results."""
        rows = [
            [kind, where, count.injected, count.lost]
            for (name, kind, where), count in self.counts.items()
            if name == slice_name
        ]
        notes = {text: number for (name, text), number in self.notes.items() if name == slice_name}
        return {
            "slice": slice_name,
            "when": time.strftime("%Y-%m-%d %H:%M"),
            "code": code_digest(),
            "seconds": round(seconds, 1),
            "seed": seed,
            "faults": rows,
            "notes": notes,
        }

    @property
    def num_faults(self) -> int:
        return sum(count.injected for count in self.counts.values())

    @property
    def num_lost(self) -> int:
        return sum(count.lost for count in self.counts.values())

    def table(self) -> Iterator[str]:
        """Markdown: a row per kind of fault, a column per stage, then what became of them."""
        names = (*PLACES, "injected", "survived", "lost")
        yield f"| fault | {' | '.join(names)} |"
        yield f"|---|{'---:|' * len(names)}"
        rows: dict[tuple[str, str], dict[str, Count]] = {}
        for (name, kind, where), count in self.counts.items():
            rows.setdefault((name, kind), {})[where] = count
        for (name, kind), places in rows.items():
            shown = [str(places[p].injected) if p in places else "" for p in PLACES]
            yield f"| {name}: {kind} | {' | '.join(shown)} | {_sums(places.values())} |"
        yield f"| **all** | {'| ' * len(PLACES)}{_sums(self.counts.values())} |"

    def remarks(self) -> Iterator[str]:
        """A line per slice: what else was counted, and what a fault cost."""
        for name in dict.fromkeys(key[0] for key in self.counts):
            notes = [f"{n:,} {text}" for (of, text), n in sorted(self.notes.items()) if of == name]
            total = sum(c.injected for key, c in self.counts.items() if key[0] == name)
            each = f"{self.seconds[name] / max(1, total):.2f} s per fault"
            yield f"- {name}: {'; '.join([*notes, each])}"
        if len(self.codes) > 1:
            yield f"- Counted over {len(self.codes)} states of the code."


def _sums(counts: Iterable[Count]) -> str:
    found = list(counts)
    injected, lost = sum(c.injected for c in found), sum(c.lost for c in found)
    return f"{injected:,} | {injected - lost:,} | {lost:,}"


def code_digest() -> str:
    """Names the state of the code that was tortured."""
    digest = hashlib.sha256()
    for path in sorted([*ROOT.glob("stages/**/*.py"), *ROOT.glob("wm_cli/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a line to the results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def read(path: Path) -> Book:
    """All that was ever counted; an empty book where there are no results."""
    book = Book()
    for line in path.read_text().splitlines() if path.exists() else ():
        record = json.loads(line)
        if "faults" in record:
            book.add(record["slice"], {"lost": "", **record})
    return book
