"""Values that make no sense for a parameter are refused wherever a scenario brings them in."""

from __future__ import annotations

import pytest

from crs_sim import simulate
from crs_sim.dosing import Change, Dose, Scenario, Schedule
from crs_sim.errors import ModelError
from crs_sim.model import Drug, Model, Parameter, State


def model_of(*parameters: Parameter, rate: str = "-cl/v*A*(1 - imax*hill(A, v, 1))") -> Model:
    """One state with a drug whose doses F scales."""
    known = (
        Parameter("cl", 2.0, "L_per_day", "Clearance", ""),
        Parameter("v", 30.0, "litre", "Volume", ""),
        Parameter("imax", 0.5, "dimensionless", "Largest inhibition", ""),
        Parameter("F", 0.9, "dimensionless", "Scale of a dose", ""),
    )
    given = {p.id: p for p in parameters}
    return Model(
        "m", (State("A", "1", rate, "mg", "", ""),),
        (*(given.pop(p.id, p) for p in known), *given.values()),
        drugs=(Drug("pill", "A", "mg", bioavailability="F"),),
    )  # fmt: skip


def labelled(label: str, value: float = 0.5, unit: str = "dimensionless") -> Parameter:
    return Parameter("x", value, unit, label, "")


@pytest.mark.parametrize(
    ("parameter", "bounds"),
    [
        (labelled("Rate", unit="per_day"), (0, float("inf"))),
        (labelled("Rate", -1.0, "per_day"), (-float("inf"), float("inf"))),
        (labelled("Rate (-5 to 5)", unit="per_day"), (-5, 5)),
        (labelled("Rate (3 L/h)", unit="per_day"), (0, float("inf"))),
        (labelled("Signal (0-1)"), (0, 1)),
        (labelled("Signal (1e-3 to inf)"), (1e-3, float("inf"))),
        (labelled("Share of the dose"), (0, 1)),
        (labelled("Fraction absorbed"), (0, 1)),
        (labelled("Oral bioavailability"), (0, 1)),
        (labelled("Share of the dose", 1.5), (-float("inf"), float("inf"))),
        (labelled("Exponent of age"), (-float("inf"), float("inf"))),
        (labelled("Shareholders"), (-float("inf"), float("inf"))),
    ],
)
def test_bounds_follow_from_range_unit_and_label(parameter, bounds):
    assert model_of(parameter).bounds["x"] == bounds


def test_bounds_follow_from_the_equations():
    bounds = model_of().bounds
    assert bounds["imax"] == (0, 1)
    assert bounds["F"] == (0, float("inf"))
    assert model_of(rate="-A*(1 - imax)").bounds["imax"] == (0, 1)
    assert model_of(rate="-A*(2 - imax)").bounds["imax"] == (-float("inf"), float("inf"))


PILL = Schedule((Dose(0.5, "pill", 10.0),))
NONSENSE = {"v": -5.0, "cl": -1e-3, "imax": 1.5, "F": -0.1}


@pytest.mark.parametrize("name", NONSENSE)
@pytest.mark.parametrize("method", ["Rosenbrock", "LSODA"])
def test_a_scenario_that_leaves_them_is_refused(name, method):
    model, value = model_of(), NONSENSE[name]
    factor = value / model.values[name]
    for scenario in (
        Scenario("s", PILL, values={name: value}),
        Scenario("s", PILL, (Change(name, first=0.2, value=value),)),
        Scenario("s", PILL, (Change(name, first=0.2, last=0.4, factor=factor),)),
    ):
        with pytest.raises(ModelError, match=rf"^s: .*{name} = {value:g} is outside 0 to"):
            simulate(model, scenario, until=1, method=method)


def test_values_inside_them_run_and_a_change_starts_from_the_patients_own():
    own = Scenario("s", PILL, (Change("imax", first=0.2, factor=4.0),), values={"imax": 0.2})
    assert simulate(model_of(), own, until=1)["A"][-1] > 0
    with pytest.raises(ModelError, match=r"imax = 2 is outside 0 to 1"):
        simulate(model_of(), Scenario("s", PILL, own.changes), until=1)
