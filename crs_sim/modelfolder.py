"""Load a model folder: `crs_sim.modelfile` parses it once, and the `Model` is cached on disk.

It is parsed again when its text or the parsing code changes.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from .codecache import cached_bytes, fingerprint, read_cached, source_fingerprint
from .errors import InputError
from .model import Model
from .shipped import locate

if TYPE_CHECKING:
    pass

READERS = ("dialect", "formula", "model", "modelfile", "primitives", "units")
"""The modules whose source determines how a model file is parsed."""


def load_model(name_or_path: str | Path = "crs") -> Model:
    """Load the model of a folder (``model.ant`` and optionally ``drugs.toml``), or a shipped one.

    Parameters
    ----------
    name_or_path : a folder, a ``.ant`` file, or the name of a shipped model

    Raises
    ------
    ModelError, InputError, UnitError, UnknownNameError
        If a file cannot be read, or holds something outside the dialect; with file and line.
    """
    home = locate(name_or_path, "models", "model.ant")
    path = home / "model.ant" if home.is_dir() else home
    drugs_path = path.with_name("drugs.toml")
    drugs = _text(drugs_path) if drugs_path.is_file() else ""
    texts = (_text(path), _display(path), drugs, _display(drugs_path))
    readers = source_fingerprint(READERS, ("antimony", "python-libsbml"))
    name = f"{path.parent.name}_{fingerprint(*texts, readers)}.model"
    cached = cached_bytes(name, lambda: pickle.dumps(_read(*texts)))
    model: Model = pickle.loads(read_cached(cached))
    return model


def _read(text: str, path: str, drugs: str, drugs_path: str) -> Model:
    from .modelfile import read_drugs, read_model, with_drugs

    return with_drugs(read_model(text, path), read_drugs(drugs, drugs_path), drugs_path)


def _display(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{_display(path)}:{line}  is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{_display(path)}  cannot be read: {error.strerror}") from None
