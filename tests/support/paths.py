"""Where things lie, from whatever folder a test is in and whatever folder pytest is started in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = next(folder for folder in SUPPORT.parents if (folder / "pyproject.toml").is_file())
SHIPPED_RUN = ROOT / "fits" / "ruemmele2025" / "runs" / "2026-11-22_095fd9c6"
"""The committed fit of the case; a user's own runs may lie beside it, and be newer."""


def child_environment(**more: str) -> dict[str, str]:
    """Ours as it is now, for a process that imports this checkout and these helpers."""
    before = [path] if (path := os.environ.get("PYTHONPATH")) else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT), *before]), **more}


def tracked(pattern: str) -> list[Path]:
    """Files of the checkout that are the project's, not a user's; without git, all there are."""
    asked = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", "--", f":(glob){pattern}"],
                           capture_output=True, text=True, check=False)  # fmt: skip
    names = [name for name in asked.stdout.split("\0") if name]
    return sorted(ROOT / name for name in names) if names else sorted(ROOT.glob(pattern))
