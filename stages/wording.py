"""How times and sizes are written for people."""

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


def size(num_bytes: float) -> str:
    """`512 B`, `1.5 kB`, `12 MB`; a kB is 1000 bytes."""
    unit = 0
    while num_bytes >= 999.5 and unit < len(_SIZES) - 1:
        num_bytes, unit = num_bytes / 1000, unit + 1
    return f"{num_bytes:.0f} {_SIZES[unit]}" if unit == 0 else f"{num_bytes:.3g} {_SIZES[unit]}"
