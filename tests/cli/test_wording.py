"""Cells of tables: what a number is written like follows from its column."""

import pytest

from wm_cli.wording import cell


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
