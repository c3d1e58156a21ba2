"""What a PEtab v2 folder says, worked out by petab and libRoadRunner alone: nothing of ours.

Follows "Initialization and parameter application" and "Detailed semantics" of the specification:
parameters and the first period's changes are applied before the model is initialised; later
periods' formulas are all evaluated, then all assigned, then observables are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import libsbml
import pandas as pd
import roadrunner
import sympy
from petab.v2 import Problem
from petab.v2.calculate import calculate_llh

FINE = (1e-9, 1e-10)
"""Relative and absolute tolerance of CVODE."""


def minus_two_log_likelihood(
    folder: Path, values: Mapping[str, float], tolerances: tuple[float, float] = FINE
) -> float:
    """-2 ln L of the folder's measurements at these values of its parameters."""
    problem = Problem.from_yaml(folder / "problem.yaml")
    simulated = predictions(problem, values, tolerances)
    llh = calculate_llh(
        problem.measurement_df, simulated, problem.observable_df, problem.parameter_df
    )
    return -2.0 * llh


def predictions(
    problem: Problem, values: Mapping[str, float], tolerances: tuple[float, float] = FINE
) -> pd.DataFrame:
    """The simulation table: one row a measurement, in its order."""
    table = problem.measurement_df.drop(columns="measurement")
    table["simulation"] = math.nan
    for experiment in problem.experiments:
        rows = [k for k, m in enumerate(problem.measurements) if m.experiment_id == experiment.id]
        runner = _initialised(problem, experiment.sorted_periods[0], values)
        integrator = runner.integrator
        integrator.relative_tolerance, integrator.absolute_tolerance = tolerances
        for row, value in _experiment(problem, experiment, runner, rows).items():
            table.loc[row, "simulation"] = value
    assert table["simulation"].notna().all()
    return table


def _experiment(problem, experiment, runner, rows) -> dict[int, float]:
    first, *later = experiment.sorted_periods
    times = {problem.measurements[row].time for row in rows}
    now, found = first.time, {}
    for time in sorted(times | {p.time for p in later if p.time <= max(times)}):
        if time > now:
            runner.simulate(now, time, 2)
            now = time
        changes = [c for p in later if p.time == time for c in problem.get_changes_for_period(p)]
        new = {c.target_id: _value(c.target_value, runner) for c in changes}
        for target, value in new.items():
            runner[target] = value
        for row in rows:
            measured = problem.measurements[row]
            if measured.time == time:
                found[row] = _value(problem[measured.observable_id].formula, runner)
    return found


def _initialised(problem, period, values) -> roadrunner.RoadRunner:
    document = libsbml.readSBMLFromString(problem.model.to_sbml_str())
    model = document.getModel()
    settings = {p.id: values.get(p.id, p.nominal_value) for p in problem.parameters}
    for change in problem.get_changes_for_period(period):
        at = {s: settings[str(s)] for s in change.target_value.free_symbols}
        settings[change.target_id] = float(change.target_value.subs(at))
    for name, value in settings.items():
        assert model.getParameter(name).setValue(float(value)) == libsbml.LIBSBML_OPERATION_SUCCESS
        model.removeInitialAssignment(name)
    return roadrunner.RoadRunner(libsbml.writeSBMLToString(document))


def _value(formula: sympy.Basic, runner: roadrunner.RoadRunner) -> float:
    return float(formula.subs({s: runner[str(s)] for s in formula.free_symbols}))
