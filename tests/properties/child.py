"""Gives hostile examples to every reader, in a process that may crash, hang or swell.

Arguments: a folder to work in, a factor for the number of examples, a seed (0: the same examples
every time), and names of targets, or none for all. Writes `announced.json` before every example,
and `results.json` after every target.
"""

import base64
import json
import os
import random
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

MEMORY = 2**30  # bytes that all readers may add to what the process has when they begin
SECONDS = 10.0  # for one example


def main(folder: Path, factor: float, seed: int, names: list[str]) -> None:
    from targets import targets

    warnings.simplefilter("ignore")
    found = targets(folder)
    _preload()
    _bound_memory()
    before = _peak()
    results: dict[str, dict[str, object]] = {}
    for name in names or list(found):
        started = time.monotonic()
        results[name] = _tried(name, found[name], folder, factor, seed)
        results[name]["seconds"] = round(time.monotonic() - started, 2)
        results[name] |= {"peak_before": before, "peak": _peak()}
        (folder / "results.json").write_text(json.dumps(results))


def _peak() -> int:
    """Bytes of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _preload() -> None:
    """What readers import later would count as theirs."""
    import wm_cli.render  # noqa: F401


def _bound_memory() -> None:
    """Address space, so that memory which is asked for and never touched counts, too."""
    status = Path("/proc/self/status").read_text()
    now = int(status.partition("VmSize:")[2].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _tried(name: str, target, folder: Path, factor: float, seed: int) -> dict[str, object]:
    from hypothesis import HealthCheck, Phase, given, settings
    from targets import outcome

    counts: dict[str, int] = {}
    fault: list[str] = []
    announcement = os.open(folder / "announced.json", os.O_RDWR | os.O_CREAT, 0o600)

    def announce(example: object) -> None:
        shown = base64.b64encode(_bytes_of(example)).decode()
        text = json.dumps({"target": name, "example": repr(example)[:2000], "bytes": shown})
        os.ftruncate(announcement, 0)
        os.pwrite(announcement, text.encode(), 0)

    @settings(
        max_examples=max(1, int(target.examples * factor)),
        derandomize=seed == 0,
        database=None,
        deadline=None,
        phases=(Phase.generate,),  # the smallest file with a fault tells no more
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(target.strategy)
    def everything_ends_well(example: object) -> None:
        announce(example)
        started = time.monotonic()
        try:
            how = outcome(target, example)
            assert time.monotonic() - started < SECONDS, "slow"
        except Exception:
            fault.append(f"{traceback.format_exc()}\nexample: {example!r:.2000}")
            raise
        counts[how] = counts.get(how, 0) + 1

    random.seed(seed)
    if seed:
        from hypothesis import seed as seeded

        everything_ends_well = seeded(seed)(everything_ends_well)
    try:
        everything_ends_well()
    except Exception:
        if not fault:  # of the strategy, not of the reader
            raise
    return {"fault": fault[-1] if fault else "", "counts": counts}


def _bytes_of(example: object) -> bytes:
    if isinstance(example, tuple):
        return _bytes_of(example[-1])
    return example if isinstance(example, bytes) else repr(example).encode()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
