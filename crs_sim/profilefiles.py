"""Profiles, and observations left out, on disk: a line for each that is finished, as it comes.

Each line says of which fit it is, so that a folder may hold those of one fit only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .descents import Start
from .errors import StorageError
from .fitting import Fit
from .leaveout import Foretold, Omission
from .profiles import Profile
from .runlog import append, read

FILE = "profiles.jsonl"
SAME_FIT = 1e-6
"""Relative: both costs were computed by the same code, which a stored fit's need not have been."""


def append_profile(path: Path, profile: Profile) -> None:
    """Add one finished profile to a file.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    values = {f.name: getattr(profile, f.name) for f in fields(profile)}
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}
    append(path, [plain])


def read_profiles(path: Path, result: Fit) -> tuple[Profile, ...]:
    """The finished profiles of a file, in its order; () if there is no file.

    Of a parameter that is there twice the last counts.

    Raises
    ------
    StorageError
        If they are profiles of another fit, or the file is damaged.
    """
    found = read(path, _profile)
    for one in found:
        _check_fit(f"{path}  holds profiles of", one.fit_cost, one.names, result)
    return tuple({one.parameter: one for one in found}.values())


def append_omission(path: Path, omission: Omission, whole: Fit) -> None:
    """Add one finished fit without some observations of a ``whole`` fit to a file.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    fit = omission.fit
    append(path, [{
        "fit_cost": whole.cost,
        "names": list(whole.problem.names),
        "ids": list(omission.ids),
        "foretold": [asdict(one) for one in omission.foretold],
        "parameter": omission.parameter,
        "shift": omission.shift,
        "agreeing": omission.agreeing,
        "values": dict(fit.values),
        "covariance": fit.covariance.tolist(),
        "residuals": fit.residuals.tolist(),
        "starts": [asdict(start) for start in (*fit.starts, fit.polish)],
        "seed": fit.seed,
        "options": dict(fit.options),
        "singular": bool(fit.singular),
    }])  # fmt: skip


def read_omissions(path: Path, whole: Fit) -> tuple[Omission, ...]:
    """The finished ones of a file, in its order; () if there is no file.

    Raises
    ------
    StorageError
        If they belong to another fit, or the file is damaged.
    """
    said = f"{path}  holds what was left out of"
    found = read(path, partial(_omission, whole=whole, said=said))
    return tuple({one.ids: one for one in found}.values())


def _profile(stored: Mapping[str, Any]) -> Profile:
    arrays = {name: np.array(stored[name], dtype=float) for name in ("points", "costs", "slopes")}
    return Profile(**{**stored, **arrays, "names": tuple(stored["names"])})


def _omission(stored: Mapping[str, Any], *, whole: Fit, said: str) -> Omission:
    _check_fit(said, stored["fit_cost"], stored["names"], whole)
    ids = tuple(stored["ids"])
    *starts, last = (Start(**start) for start in stored["starts"])
    fit = Fit(
        whole.problem.leaving_out(*ids), stored["values"], np.array(stored["covariance"]),
        np.array(stored["residuals"]), tuple(starts), last, stored["seed"], stored["options"],
        stored["singular"],
    )  # fmt: skip
    foretold = tuple(Foretold(**one) for one in stored["foretold"])
    return Omission(ids, fit, foretold, stored["parameter"], stored["shift"], stored["agreeing"])


def _check_fit(said: str, cost: float, names: Sequence[str], result: Fit) -> None:
    near = abs(cost - result.cost) <= SAME_FIT * max(1.0, result.cost)
    if not near or tuple(names) != result.problem.names:
        raise StorageError(
            f"{said} another fit (cost {cost:.6g}, this one's is {result.cost:.6g}); delete the "
            "file, or choose another folder"
        )
