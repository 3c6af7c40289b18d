"""`wm play`: windows, terminals, films, keys and words. What is played is in `stages.playing`."""

import os

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # read when pygame is first imported
