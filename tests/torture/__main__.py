"""`python -m torture [SLICE ...]`: run slices, add to the results, print the table."""

import os

# Before numpy loads: it starts no thread, so that processes can be forked.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import importlib
import itertools
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from command_line import ROOT

from torture import lanes, ledger
from torture.processes import warm
from torture.scenes import Scene

# Minutes of each when nobody says otherwise: together less than an hour.
SLICES = {"kills": 17, "selfkills": 9, "calls": 14, "disk": 6, "stops": 4, "bits": 8}
RESULTS = ROOT / "data" / "torture" / "results.jsonl"
SAY_EVERY = 10.0  # seconds
NOTE_EVERY = 60.0  # seconds between additions to the results: little is lost with the torturer


def main(words: list[str] | None = None) -> int:
    """Run what the words ask for; 1 when something was lost, 130 after Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(words)
    if unknown := set(options.slices) - {*SLICES, "soak"}:
        parser.error(f"no such slice: {', '.join(sorted(unknown))}")
    if options.table:
        _print_table(ledger.read(options.results))
        return 0
    if "soak" in options.slices:
        from torture.soak import soak

        return soak(options.minutes or 20.0)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    here, interrupted = ledger.Book(), False
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    scene = Scene(folder, seed=options.seed, quick=options.quick, given=options.micro)
    try:
        warm()
        for name in options.slices or SLICES:
            _run_slice(name, scene, options, here)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\nThis run, seed {options.seed}:", flush=True)
    _print_table(here)
    if here.num_lost:
        return 1
    return 130 if interrupted else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    choices = [*SLICES, "soak"]
    parser.add_argument("slices", nargs="*", metavar="SLICE", help=f"of {', '.join(choices)}")
    parser.add_argument("--minutes", type=float, help="of each slice, instead of its own share")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all moments")
    parser.add_argument("--case", type=int, help="only the case with this index")
    parser.add_argument("--after", type=int, default=-1, help="only cases of a higher index")
    parser.add_argument("--quick", action="store_true", help="a few cases of each slice")
    parser.add_argument("--micro", type=Path, help="a micro workspace that exists already")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table of all results")
    return parser


def _run_slice(name: str, scene: Scene, options: argparse.Namespace, here: ledger.Book) -> None:
    one = importlib.import_module(f"torture.{name}")
    minutes = options.minutes or SLICES[name]
    print(f"{name}: preparing", flush=True)
    one.prepare(scene)
    begun = time.monotonic()
    progress = _Progress(name, options)

    def cases() -> Iterator[Any]:
        return _chosen(one, scene, options)

    try:
        end = begun + 60 * minutes
        keep = options.results.parent / "lost"
        for found in lanes.run(one, scene, cases, end=end, keep=keep):
            progress.take(found)
            here.add(name, found.tally)
    finally:
        progress.finish()
        here.seconds[name] += time.monotonic() - begun
    _say_complete(one, cases, progress)


def _chosen(one: Any, scene: Scene, options: argparse.Namespace) -> Iterator[Any]:
    """All cases, the one that was asked for, or a few."""
    found = (case for case in one.cases(scene) if case.index > options.after)
    if options.case is not None:
        return itertools.islice((case for case in found if case.index >= options.case), 1)
    if not options.quick:
        return found
    if not one.ENUMERATED:
        return itertools.islice(found, one.NUM_QUICK)
    every = list(found)
    return iter(every[:: max(1, len(every) // one.NUM_QUICK)])


def _say_complete(one: Any, cases: Any, progress: "_Progress") -> None:
    if not one.ENUMERATED:
        return
    total = sum(1 for _ in cases())
    if progress.num_cases < total:
        last = min(progress.last.values(), default=-1)  # of the lane that is least far
        again = f"go on with --seed {progress.options.seed} --after {last}"
        print(f"{progress.name}: time was up after {progress.num_cases} of {total} cases; {again}")


class _Progress:
    """Lines while a slice runs, and its additions to the results."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.num_cases = 0
        self.last: dict[int, int] = {}  # index of the last case of each lane
        self._total, self._fresh = ledger.Book(), ledger.Book()
        self._begun = self._said = self._noted = time.monotonic()

    def take(self, found: lanes.Found) -> None:
        """Count one case; what was lost is told at once."""
        self.num_cases += 1
        self.last[found.lane] = found.index
        self._total.add(self.name, found.tally)
        self._fresh.add(self.name, found.tally)
        if found.tally["lost"]:
            self._tell_lost(found)
        now = time.monotonic()
        if now - self._said > SAY_EVERY:
            self._said = now
            self._say(found.case)
        if now - self._noted > NOTE_EVERY:
            self._note()

    def finish(self) -> None:
        """The rest goes into the results."""
        self._say("")
        self._note()

    def _say(self, latest: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        total = self._total
        print(
            f"{self.name} {minutes}:{seconds:02d}  {self.num_cases} cases, "
            f"{total.num_faults} faults, {total.num_lost} lost  {latest}",
            flush=True,
        )

    def _note(self) -> None:
        now = time.monotonic()
        if self._fresh.num_faults:
            seconds = now - self._noted
            record = self._fresh.record(self.name, seconds=seconds, seed=self.options.seed)
            ledger.append(self.options.results, record)
        self._fresh, self._noted = ledger.Book(), now

    def _tell_lost(self, found: lanes.Found) -> None:
        again = f"python -m torture {self.name} --seed {self.options.seed} --case {found.index}"
        print(f"LOST in {found.case}\n  {found.tally['lost']}", flush=True)
        print(f"  kept: {found.kept}\n  again: {again}", flush=True)
        lost = {"lost": found.tally["lost"], "case": found.case, "kept": found.kept, "again": again}
        ledger.append(self.options.results, {"slice": self.name, **lost})


def _print_table(book: ledger.Book) -> None:
    for line in itertools.chain(book.table(), [""], book.remarks()):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
