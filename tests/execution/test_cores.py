"""Counting cores: affinity and quotas, never the machine's count."""

import os
import subprocess
import sys

import pytest

from stages.errors import UsageError
from stages.execution.cores import available_cores, cgroup_quota, resolve_workers


def test_no_more_than_the_affinity_allows():
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


def test_a_process_bound_to_one_core_counts_one():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from stages.execution.cores import available_cores; print(available_cores())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"


@pytest.mark.parametrize(
    "files, cores",
    [
        ({"cpu.max": "250000 100000"}, 2.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_quotas_of_both_versions(files, cores, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(content + "\n")
    assert cgroup_quota(tmp_path) == cores


def test_workers():
    assert resolve_workers(None) == available_cores()
    assert resolve_workers(8) == 8
    for number in (0, -2):
        with pytest.raises(UsageError, match=f" {number}"):
            resolve_workers(number)
