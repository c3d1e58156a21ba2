"""What a new patient starts from: files that explain themselves, with made-up rows."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .errors import StorageError
from .patientfiles import new_files, new_sheets
from .workbook import is_workbook, workbook


def new_patient(place: str | Path) -> Path:
    """A folder with three files for a new patient; or an Excel workbook, if it ends in .xlsx.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> made = new_patient(Path(mkdtemp()) / "patient7")
    >>> sorted(path.name for path in made.iterdir())
    ['doses.csv', 'observations.csv', 'patient.toml']

    Raises
    ------
    StorageError
        If one of the files is there already, or cannot be written; then none is.
    """
    place = Path(place)
    if is_workbook(place):
        files = {place.name: workbook(new_sheets(place.stem))}
        _write(place.parent, files)
    else:
        texts = new_files(place.resolve().name or "patient")
        _write(place, {name: text.encode() for name, text in texts.items()})
    return place


def _write(folder: Path, files: dict[str, bytes]) -> None:
    present = [name for name in files if (folder / name).exists()]
    if present:
        held = f"{folder}  has a {present[0]} already"
        raise StorageError(f"{held}; nothing was written; choose a new name")
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / f".{name}.part").write_bytes(content)
        for name in files:
            (folder / f".{name}.part").rename(folder / name)
    except OSError as error:
        _clear(folder, files, made)
        raise StorageError(f"{folder}  cannot be written: {error.strerror}") from None


def _clear(folder: Path, files: Iterable[str], made: bool) -> None:
    """Take back what a failed `_write` left behind."""
    with suppress(OSError):
        for name in files:
            (folder / name).unlink(missing_ok=True)
            (folder / f".{name}.part").unlink(missing_ok=True)
        if made:
            folder.rmdir()
