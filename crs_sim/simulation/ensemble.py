"""Many runs: their members, which samples to keep, the curves by member, and the failed runs.

The runs are made by `crs_sim.simulation.batches`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dosing import Ledger, Scenario
from ..errors import InputError, unknown_name
from ..model import Array, Model
from .endpoints import Endpoint
from .simulation import check_rtol, sample_days

if TYPE_CHECKING:
    import pandas as pd


EVERY_HOURS = 6.0
"""Default sampling interval where curves become bands, peaks and durations."""


@dataclass(frozen=True)
class Sampling:
    """Sampling of many runs: days, outputs kept, and accuracy.

    Parameters
    ----------
    until : float, last day
    every_hours : float, hours between samples
    days : ascending days to sample instead of ``until`` and ``every_hours``
    outputs : names of states and quantities to keep; None keeps all
    endpoints : computed from the whole course of each run, not from its samples
    rtol : float, relative tolerance; absolute tolerances follow from each state's size

    Examples
    --------
    >>> Sampling(until=2).sample_days.tolist()
    [0.0, 1.0, 2.0]
    """

    until: float = 40.0
    every_hours: float = 24.0
    days: Sequence[float] | None = None
    outputs: Sequence[str] | None = None
    endpoints: Sequence[Endpoint] = ()
    rtol: float = 1e-4

    def __post_init__(self) -> None:
        check_rtol(self.rtol)
        if isinstance(self.outputs, str):
            object.__setattr__(self, "outputs", (self.outputs,))
        object.__setattr__(self, "endpoints", tuple(self.endpoints))
        for name in ("days", "outputs"):
            given = getattr(self, name)
            object.__setattr__(self, name, None if given is None else tuple(given))

    @cached_property
    def sample_days(self) -> Array:
        """The days to sample, (n_days,)."""
        if self.days is None:
            return sample_days(self.until, self.every_hours)
        return np.array(self.days, dtype=float)

    @cached_property
    def solved_days(self) -> Array:
        """The days on which a step ends: those to sample, and those of `level_on`, (n,)."""
        read = [e.day for e in self.endpoints if e.day is not None]
        inside = [day for day in read if 0.0 <= day <= self.sample_days[-1]]
        return np.union1d(self.sample_days, inside) if inside else self.sample_days


@dataclass(frozen=True)
class Failure:
    """A run that did not reach the end.

    Parameters
    ----------
    member : the member's id
    scenario : str, name of the scenario
    day : float, day reached
    reason : str, the whole message: day, segment, worst states, the solver's message
    """

    member: Hashable
    scenario: str
    day: float
    reason: str

    def __str__(self) -> str:
        """One line."""
        return f"member {self.member!r} under {self.scenario!r}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Many runs on the same days: the same members under every scenario.

    Parameters
    ----------
    model : Model
    scenarios : tuple of Scenario
    days : (n_days,) float, day after infusion, ascending
    outputs : names of the states and quantities kept
    members : ids of the members that finished under every scenario, in the order of the table
    courses : (n_outputs, n_scenarios, n_members, n_days), all finite
    endpoints : name to (n_scenarios, n_members), all finite
    failures : tuple of Failure; a member with a failure is left out under every scenario
    ledgers : scenario name to (member to `Ledger`), for scenarios with triggers or holds: the
        doses given to each member, and those held
    """

    model: Model
    scenarios: tuple[Scenario, ...]
    days: Array = field(repr=False)
    outputs: tuple[str, ...]
    members: tuple[Hashable, ...]
    courses: Array = field(repr=False)
    endpoints: Mapping[str, Array] = field(default_factory=dict, repr=False)
    failures: tuple[Failure, ...] = ()
    ledgers: Mapping[str, Mapping[Hashable, Ledger]] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Array:
        """All courses of an output, (n_scenarios, n_members, n_days).

        Raises
        ------
        UnknownNameError
            With the closest match.
        """
        if name not in self.outputs:
            raise unknown_name("output of the ensemble", name, self.outputs)
        return np.asarray(self.courses[self.outputs.index(name)])

    def course(self, name: str, scenario: str = "") -> Array:
        """The courses of an output under one scenario, (n_members, n_days).

        The scenario need not be named if there is only one.

        Raises
        ------
        UnknownNameError, InputError
        """
        return np.asarray(self[name][self._place(f"course of {name}", scenario)])

    def endpoint(self, name: str, scenario: str = "") -> Array:
        """An endpoint of `Sampling.endpoints` under one scenario, (n_members,).

        Raises
        ------
        UnknownNameError, InputError
            As `course`.
        """
        if name not in self.endpoints:
            raise unknown_name("endpoint of the ensemble", name, self.endpoints)
        return np.asarray(self.endpoints[name][self._place(name, scenario)])

    def _place(self, wanted: str, scenario: str) -> int:
        """The index of a scenario, which need not be named if there is only one."""
        names = [s.name for s in self.scenarios]
        if not scenario and len(names) > 1:
            raise InputError(f"{wanted}: name one of the scenarios {', '.join(names)}")
        selected = scenario or names[0]
        if selected not in names:
            raise unknown_name("scenario", selected, names)
        return names.index(selected)

    @property
    def units(self) -> dict[str, str]:
        """Unit of each output, by name."""
        return {name: self.model[name].unit for name in self.outputs}

    def quantiles(self, name: str, levels: Sequence[float] = (0.05, 0.5, 0.95)) -> Array:
        """Quantiles of an output over the members, (n_levels, n_scenarios, n_days).

        Raises
        ------
        UnknownNameError, InputError
            If no member finished, or a level is not between 0 and 1.
        """
        courses, probabilities = self[name], np.asarray(levels, dtype=float)
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise InputError(f"quantiles of {name}: levels must lie between 0 and 1, not {levels}")
        if not self.members:
            raise InputError(f"quantiles of {name}: no member finished")
        return np.asarray(np.quantile(courses, probabilities, axis=1))

    def table(self) -> pd.DataFrame:
        """One row for each scenario, member and day; a column for each output."""
        import pandas as pd  # slow to load, and often not needed

        names = [s.name for s in self.scenarios]
        index = pd.MultiIndex.from_product(
            [names, list(self.members), self.days], names=["scenario", "member", "day"]
        )
        columns = self.courses.reshape(len(self.outputs), -1)
        named = dict(zip(self.outputs, columns, strict=True))
        return pd.DataFrame(named, index=index).reset_index()

    def __repr__(self) -> str:
        """One line: model, scenarios, members finished, and days."""
        failed = len({failure.member for failure in self.failures})
        return (
            f"Ensemble({self.model.name!r}: {len(self.scenarios)} scenarios, "
            f"{len(self.members)} of {len(self.members) + failed} members, {len(self.days)} days "
            f"{self.days[0]:g} to {self.days[-1]:g}, {len(self.outputs)} outputs)"
        )


def member_columns(model: Model, values: Any) -> tuple[Sequence[Hashable], dict[str, Array]]:
    """The members' ids, and the values of each parameter."""
    names = [str(name) for name in values]
    for name in names:
        if name not in model.values:
            raise unknown_name("parameter", name, model.values, f"{model.path}  values:".strip())
        if names.count(name) > 1:
            raise InputError(f"values: column {name} appears twice; keep one")
    columns = {name: _numbers(name, values[name]) for name in names}
    if hasattr(values, "columns"):
        members: Sequence[Hashable] = tuple(values.index)
    elif columns:
        members = range(len(next(iter(columns.values()))))
    else:
        raise InputError("values: give at least one parameter, or a DataFrame with an index")
    for name, column in columns.items():
        if len(column) != len(members):
            raise InputError(
                f"values: {name} has {len(column)} values, {names[0]} has {len(members)}; "
                "give one for each member"
            )
        bad = np.flatnonzero(~np.isfinite(column))
        if len(bad):
            where, value = members[bad[0]], column[bad[0]]
            raise InputError(f"values: {name} of member {where!r} is {value}; give a number")
    _check_distinct(members)
    return members, columns


def _numbers(name: str, column: Any) -> Array:
    try:
        numbers = np.asarray(column, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"values: {name} contains a value that is not a number: {error}") from None
    if numbers.ndim != 1:
        raise InputError(f"values: {name} must be one-dimensional, one number for each member")
    return numbers


def _check_distinct(members: Sequence[Hashable]) -> None:
    seen = set[Hashable]()
    for member in members:
        if member in seen:
            raise InputError(f"values: member {member!r} appears twice; give each row its own id")
        seen.add(member)
