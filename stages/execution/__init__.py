"""Many pure tasks on many workers: in this process, or in local processes under a supervisor."""
