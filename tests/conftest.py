"""What holds for all tests."""

from __future__ import annotations

import signal

# some tests press Ctrl-C; who starts them in the background of a shell has it ignored, and so
# would every process they start
signal.signal(signal.SIGINT, signal.default_int_handler)
