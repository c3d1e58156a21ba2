"""A disk that is full from some byte on, for rows that are added to a file."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path


def fill_disk(monkeypatch, name: str, room: int) -> None:
    """A file of this name takes so many bytes; of what goes over them, only its beginning."""
    plain = Path.open

    class Full(io.FileIO):
        def write(self, data):
            left = max(0, room - self.tell())
            super().write(data[:left])
            if left < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return left

    def opened(self, mode="r", *rest, **options):
        if self.name == name and mode == "ab":
            return Full(self, mode)
        return plain(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", opened)
