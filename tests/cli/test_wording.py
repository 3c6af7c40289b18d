"""Numbers, sizes and times as people write them."""

import pytest

from wm_cli.wording import cell, duration, size


@pytest.mark.parametrize(
    ("value", "column", "text"),
    [
        (1234567, "frames", "1,234,567"),
        (12345.678, "frames", "12,346"),
        (-1234.5, "mean", "-1,234"),
        (999.94, "mean", "999.9"),
        (0.00421, "kl", "0.00421"),
        (112098154, "seed", "112098154"),
        (1310000000, "bytes", "1.31 GB"),
        (99, "bytes", "99 B"),
        (392.4, "took_seconds", "6 min 32 s"),
        (float("nan"), "mean", "nan"),
        (float("-inf"), "mean", "-inf"),
        (True, "bias", "yes"),
        (None, "fix", "-"),
        ("a\x1bb", "what", r"a\x1bb"),
    ],
)
def test_a_cell(value, column, text):
    assert cell(value, column=column) == text


def test_units_change_where_the_number_would_be_long():
    assert [duration(s) for s in (0.0301, 1.52, 59.4, 59.6, 3599, 12000)] == [
        "30.1 ms",
        "1.5 s",
        "59 s",
        "1 min 0 s",
        "59 min 59 s",
        "3 h 20 min",
    ]
    assert [size(n) for n in (999, 1000, 999_499, 999_500, 12_345_678)] == [
        "999 B",
        "1 kB",
        "999 kB",
        "1 MB",
        "12.3 MB",
    ]
