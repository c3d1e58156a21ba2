"""The same doses for other tools: the exported model with an inflow for each infused state.

Other tools cannot read crs_sim schedules. Each is stopped at every event, given the amounts and
inflows computed by the crs_sim timeline, and restarted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crs_sim import Parameter, sbml

from .case import Case


@dataclass(frozen=True)
class Stop:
    """One stop time: amounts given, inflow changes, sample, and time to the next stop.

    Parameters
    ----------
    day : float
    row : sample taken here, before anything is given; -1 if none
    given : amount by state id
    inflow : amount per day by parameter id, where it changes
    longer : days to the next stop, 0 at the last
    """

    day: float
    row: int
    given: dict[str, float]
    inflow: dict[str, float]
    longer: float

    @property
    def restart(self) -> bool:
        """Whether a solver must restart here."""
        return bool(self.given or self.inflow)


def inflow_id(state: str) -> str:
    """Id of the parameter that holds the infusion rate into a state."""
    return f"inflow_{state}"


def infused(case: Case) -> list[int]:
    """Indices of the states that receive an infusion."""
    return [int(i) for i in np.flatnonzero(case.tables.inflow.any(axis=0))]


def exported(case: Case, start: dict[str, float] | None = None) -> str:
    """The case's model as SBML, with inflows.

    Parameters
    ----------
    start : added to the initial states
    """
    chosen, more = infused(case), start or {}
    states = []
    for i, state in enumerate(case.model.states):
        rate = f"{state.rate} + {inflow_id(state.id)}" if i in chosen else state.rate
        extra = f" + {more[state.id]!r}" if state.id in more else ""
        states.append(replace(state, rate=rate, initial=f"{state.initial}{extra}"))
    inflows = [Parameter(inflow_id(case.model.state_ids[i]), 0.0, "dimensionless", "", "")
               for i in chosen]  # fmt: skip
    parameters = (*case.model.parameters, *inflows)
    return sbml(replace(case.model, states=tuple(states), parameters=parameters))


def stops(case: Case) -> list[Stop]:
    """All segment edges and sample times of the case, in order."""
    line, ids = case.line, case.model.state_ids
    days = np.union1d(line.edges, line.days)
    flowing = np.zeros(len(ids))
    found = []
    for day, following in zip(days, [*days[1:], days[-1]], strict=True):
        edge, row = np.searchsorted(line.edges, day), np.searchsorted(line.days, day)
        given: dict[str, float] = {}
        inflow: dict[str, float] = {}
        if edge < line.n_segments and line.edges[edge] == day:
            bolus, flow = case.tables.bolus[edge], case.tables.inflow[edge]
            given = {ids[i]: float(bolus[i]) for i in np.flatnonzero(bolus)}
            changed = np.flatnonzero(flow != flowing)
            inflow = {inflow_id(ids[i]): float(flow[i]) for i in changed}
            flowing = flow
        sampled = row < len(line.days) and line.days[row] == day
        found.append(
            Stop(float(day), int(row) if sampled else -1, given, inflow, float(following - day))
        )
    return found
