"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

# the same examples each time: what a run says must not hang on which it drew
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

# some tests press Ctrl-C; who starts them in the background of a shell has it ignored, and so
# would every process they start
signal.signal(signal.SIGINT, signal.default_int_handler)
