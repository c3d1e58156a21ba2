"""Paths of the shipped models, patient data and fits: in a checkout, or inside the wheel.

Names such as ``crs`` or ``ruemmele2025`` are looked up here when they are not a path.
"""

from __future__ import annotations

from pathlib import Path

from .errors import InputError, unknown_name

KINDS = {
    "models": "model", "fits": "problem", "fits/data": "patient", "fits/priors": "prior",
    "fits/populations": "population",
}  # fmt: skip
PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The folder that holds ``models/`` and ``fits/``."""
    inside_wheel = PACKAGE / "_shipped"
    return inside_wheel if inside_wheel.is_dir() else PACKAGE.parent


def results_folder(path: Path) -> Path:
    """The folder for results about a path: itself, or for one in the wheel, its relative path.

    >>> results_folder(Path("p7/runs")).as_posix()
    'p7/runs'
    """
    wheel = PACKAGE / "_shipped"
    resolved = path.resolve()
    return resolved.relative_to(wheel) if resolved.is_relative_to(wheel) else path


def locate(name: str | Path, folder: str, marker: str) -> Path:
    """Resolve a path (to a folder or its marker file) or a shipped name to the folder.

    Parameters
    ----------
    name : a path, or a shipped name such as "crs"
    folder : where shipped names live under `root`, e.g. "models"
    marker : the file that such a folder must contain, e.g. "model.ant"

    Raises
    ------
    InputError, UnknownNameError
        If the folder exists without its marker, or nothing of that name exists.
    """
    path = Path(name)
    if path.is_file():
        return path.parent if path.name == marker else path
    if (path / marker).is_file():
        return path
    shipped = root() / folder
    if (shipped / path / marker).is_file() and len(path.parts) == 1:
        return shipped / path
    if path.is_dir():
        raise InputError(f"{path}  has no {marker}; is it the right folder?")
    known = [p.parent.name for p in shipped.glob(f"*/{marker}")]
    raise unknown_name(f"{KINDS[folder]} (no such folder or shipped name)", str(name), known)
