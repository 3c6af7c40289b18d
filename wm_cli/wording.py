"""How numbers, sizes and foreign text are written for people."""

import math

from stages.events import Scalar, number_text

_SIZES = ("B", "kB", "MB", "GB", "TB")


def duration(seconds: float) -> str:
    """`30 ms`, `1.5 s`, `12 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 0.995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def rate(per_second: float) -> str:
    """`1,200/s`, `3.2/s`, and of slow work `12 s each`."""
    if per_second >= 1:
        return f"{per_second:,.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"
    return f"{duration(1 / per_second)} each"


def size(num_bytes: float) -> str:
    """`512 B`, `1.5 kB`, `12 MB`; a kB is 1000 bytes."""
    unit = 0
    while num_bytes >= 999.5 and unit < len(_SIZES) - 1:
        num_bytes, unit = num_bytes / 1000, unit + 1
    return f"{num_bytes:.0f} {_SIZES[unit]}" if unit == 0 else f"{num_bytes:.3g} {_SIZES[unit]}"


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
