"""The command line `wm`: words, colours, flags and exit codes. No learning, no files."""

import os

# CMA-ES logs its fitness and replays it on resume, which is bit for bit only when BLAS runs on one
# thread. OpenBLAS reads this once, when numpy is first imported: so it stands before every import.
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # whatever the shell says
# Math threads that spin while they wait halve the speed of training on a machine that others use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
