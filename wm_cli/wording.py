"""How numbers and foreign text are written for people, in tables and on lines."""

import math

from stages.events import Scalar, number_text
from stages.wording import duration, size

__all__ = ["cell", "duration", "is_bytes", "is_seconds", "printable", "rate", "size"]

SLOWEST = 1e-9  # per second: one in thirty years


def rate(per_second: float) -> str:
    """`1,200/s`, `3.2/s`, of slow work `12 s each`, and `0/s` of work that never ends."""
    if per_second < SLOWEST:
        return "0/s"
    if per_second >= 1:
        return f"{per_second:,.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"
    return f"{duration(1 / per_second)} each"


def printable(text: str) -> str:
    r"""The text with everything that could move a cursor written out, e.g. `\x1b`."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def cell(value: Scalar, *, column: str = "") -> str:
    """A value of a table or a summary; columns named bytes and ..._seconds hold such."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(value, column)
    return printable(value)


def _number(value: float, column: str) -> str:
    if is_bytes(column):
        return size(value)
    if is_seconds(column):
        return duration(value)
    if column == "seed":  # a name, to be typed again
        return str(value)
    return number_text(value) if math.isfinite(value) else str(value)


def is_bytes(column: str) -> bool:
    """Whether a column or a summary's key counts bytes."""
    return column == "bytes" or column.endswith("_bytes")


def is_seconds(column: str) -> bool:
    """Whether a column or a summary's key counts seconds."""
    return column.endswith("_seconds")
