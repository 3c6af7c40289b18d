"""Torture: faults of every kind at every stage, many thousands of them, and what they cost.

`make torture` runs it. One module per slice: kills, selfkills, calls, disk, stops, bits; soak
beside them. A slice has `cases`, an `attempt` that does the harm and looks at what is left, and
`LANES`, how many of them run at once. The oracle is the same everywhere (`scenes`): what was there
stays whole, nothing half-made looks whole, and the same command ends with what an undisturbed run
made, byte for byte.
"""
