"""JSON Lines files of profiles and of leave-one-out fits: one line for each, as it finishes.

Each line identifies the fit it belongs to, so that a file holds the results of one fit only.
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
from .leaveout import HeldOut, Omission
from .profiles import Profile
from .runlog import append_rows, read_rows

FILE = "profiles.jsonl"
SAME_FIT = 1e-6
"""Relative difference of the costs, which the same code computed (a stored fit's may be older)."""


def append_profile(path: Path, profile: Profile) -> None:
    """Append one finished profile to a file.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    values = {f.name: getattr(profile, f.name) for f in fields(profile)}
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}
    append_rows(path, [plain])


def read_profiles(path: Path, result: Fit) -> tuple[Profile, ...]:
    """Read the finished profiles of a file, in its order; () if there is no file.

    If a parameter occurs twice, the last profile counts.

    Raises
    ------
    StorageError
        If they are profiles of another fit, or the file is damaged.
    """
    found = read_rows(path, _profile)
    for one in found:
        _check_fit(f"{path}  holds profiles of", one.fit_cost, one.names, result)
    return tuple({one.parameter: one for one in found}.values())


def append_omission(path: Path, omission: Omission, whole: Fit) -> None:
    """Append one finished refit, without some observations of the ``whole`` fit, to a file.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    fit = omission.fit
    append_rows(path, [{
        "fit_cost": whole.cost,
        "names": list(whole.problem.names),
        "ids": list(omission.ids),
        "held_out": [asdict(one) for one in omission.held_out],
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
    """Read the finished refits of a file, in its order; () if there is no file.

    Raises
    ------
    StorageError
        If they belong to another fit, or the file is damaged.
    """
    prefix = f"{path}  holds leave-one-out results of"
    found = read_rows(path, partial(_omission, whole=whole, prefix=prefix))
    return tuple({one.ids: one for one in found}.values())


def _profile(stored: Mapping[str, Any]) -> Profile:
    arrays = {name: np.array(stored[name], dtype=float) for name in ("points", "costs", "slopes")}
    return Profile(**{**stored, **arrays, "names": tuple(stored["names"])})


def _omission(stored: Mapping[str, Any], *, whole: Fit, prefix: str) -> Omission:
    _check_fit(prefix, stored["fit_cost"], stored["names"], whole)
    ids = tuple(stored["ids"])
    *starts, last = (Start(**start) for start in stored["starts"])
    fit = Fit(
        whole.problem.leaving_out(*ids), stored["values"], np.array(stored["covariance"]),
        np.array(stored["residuals"]), tuple(starts), last, stored["seed"], stored["options"],
        stored["singular"],
    )  # fmt: skip
    held_out = tuple(HeldOut(**one) for one in stored["held_out"])
    return Omission(ids, fit, held_out, stored["parameter"], stored["shift"], stored["agreeing"])


def _check_fit(prefix: str, cost: float, names: Sequence[str], result: Fit) -> None:
    near = abs(cost - result.cost) <= SAME_FIT * max(1.0, result.cost)
    if not near or tuple(names) != result.problem.names:
        raise StorageError(
            f"{prefix} another fit (cost {cost:.6g}, this one's is {result.cost:.6g}); delete the "
            "file, or choose another folder"
        )
