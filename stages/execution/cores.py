"""How many cores this process may really use: affinity and the quota of its control group."""

import os
from pathlib import Path

from stages.errors import UsageError

CGROUP_ROOT = Path("/sys/fs/cgroup")  # where Linux mounts control groups
OWN_CGROUP = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Cores that this process may run on, at least 1; never the machine's count."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS has no affinity
        cores = os.cpu_count() or 1
    quotas = [quota for folder in _cgroup_folders() if (quota := cgroup_quota(folder)) is not None]
    return max(1, int(min([float(cores), *quotas])))


def resolve_workers(num_workers: int | None) -> int:
    """The number of worker processes: None means one per available core."""
    if num_workers is None:
        return available_cores()
    if num_workers < 1:
        raise UsageError(
            f"The number of workers cannot be {num_workers}.",
            fix="Give a positive number, or leave it out for one per core.",
        )
    return num_workers


def cgroup_quota(folder: Path) -> float | None:
    """Cores granted by one control group's folder (version 2 or 1); None when unlimited."""
    version2 = _words(folder / "cpu.max")
    if len(version2) == 2:
        return _ratio(version2[0], version2[1])
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    return _ratio(quota[0], period[0]) if quota and period else None


def _ratio(quota: str, period: str) -> float | None:
    """`max` (version 2) and -1 (version 1) mean unlimited."""
    if not (quota.isdigit() and period.isdigit() and int(period) > 0):
        return None
    return int(quota) / int(period)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # not Linux, another version, or hidden in a container
        return []


def _cgroup_folders() -> list[Path]:
    """This process's own group and all above it: each one's quota binds."""
    folders = [CGROUP_ROOT, CGROUP_ROOT / "cpu"]
    for line in _words(OWN_CGROUP):
        _, _, inner = line.partition("::/")
        parts = Path(inner).parts
        folders += [CGROUP_ROOT.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    return folders
