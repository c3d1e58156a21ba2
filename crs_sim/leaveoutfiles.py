"""Observations left out, on disk: one JSON line for each fit without some, written as it comes.

What is left of a killed run is good: the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .descents import Start
from .errors import StorageError
from .fitting import Fit
from .leaveout import Foretold, Omission
from .profilefiles import SAME_COST, append_line, read_lines


def append_omission(path: Path, omission: Omission, whole: Fit) -> None:
    """Add one finished fit without some observations of a ``whole`` fit to a file.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    fit = omission.fit
    append_line(path, {
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
    })  # fmt: skip


def read_omissions(path: Path, whole: Fit) -> tuple[Omission, ...]:
    """The finished ones of a file, in its order; () if there is no file.

    Raises
    ------
    StorageError
        If they belong to another fit.
    """
    found = dict[tuple[str, ...], Omission]()
    for stored in read_lines(path):
        if not {"fit_cost", "names", "ids", "singular"} <= stored.keys():
            continue
        near = abs(stored["fit_cost"] - whole.cost) <= SAME_COST * max(1.0, whole.cost)
        if not near or tuple(stored["names"]) != whole.problem.names:
            raise StorageError(
                f"{path}  holds what was left out of another fit (cost {stored['fit_cost']:.6g}, "
                f"this one's is {whole.cost:.6g}); delete the file, or choose another folder"
            )
        omission = _omission(stored, whole)
        found[omission.ids] = omission
    return tuple(found.values())


def _omission(stored: Mapping[str, Any], whole: Fit) -> Omission:
    ids = tuple(stored["ids"])
    *starts, last = (Start(**start) for start in stored["starts"])
    fit = Fit(
        whole.problem.leaving_out(*ids), stored["values"], np.array(stored["covariance"]),
        np.array(stored["residuals"]), tuple(starts), last, stored["seed"], stored["options"],
        stored["singular"],
    )  # fmt: skip
    foretold = tuple(Foretold(**one) for one in stored["foretold"])
    return Omission(ids, fit, foretold, stored["parameter"], stored["shift"], stored["agreeing"])
