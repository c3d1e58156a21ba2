"""Models small enough to have closed forms, shared by the tests of the engine."""

from __future__ import annotations

from crs_sim.model.model import Drug, Model, Parameter, Quantity, State


def small(
    name: str,
    states: dict[str, tuple[str, str]],
    values: dict[str, float],
    quantities: dict[str, str] | None = None,
    drugs: tuple[Drug, ...] = (),
) -> Model:
    """A model without units or labels: states as (initial, rate), parameter values, quantities."""
    return Model(
        name,
        tuple(State(k, first, rate, "mg", "", "") for k, (first, rate) in states.items()),
        tuple(Parameter(k, value, "", "", "") for k, value in values.items()),
        tuple(Quantity(k, text, "mg", "", "") for k, text in (quantities or {}).items()),
        drugs=drugs,
    )


ONE = small("one", {"A": ("0", "-k*A"), "Out": ("0", "k*A")}, {"k": 0.7})
TWO = small(
    "two",
    {"A": ("0", "-(k + k12)*A + k21*B"), "B": ("0", "k12*A - k21*B")},
    {"k": 0.9, "k12": 1.7, "k21": 0.6},
)
SATURABLE = small("saturable", {"C": ("0", "-vmax*C/(km + C)")}, {"vmax": 3.0, "km": 2.0})
EXPLODING = small("exploding", {"calm": ("1", "-calm"), "wild": ("1", "wild^2")}, {})
WITH_DRUG = small(
    "with_drug",
    {"A": ("a0", "-k*A + base")},
    {"k": 1.0, "base": 0.0, "a0": 0.0, "F": 0.5, "weight": 70.0},
    drugs=(Drug("pill", "A", "mg", 2.0, "F"),),
)
LOOP = small(
    "loop",
    {
        "E": ("e0", "E*(r*hill(A, K, n)*(1 - E/e_max) - beta)"),
        "A": ("0", "k_a*signal*(1 - A) - gamma*A"),
        "I": ("0", "k_i*A^m - d*I*E_free"),
        "S": ("0", "-k_s*S"),
    },
    {
        "e0": 1.0,
        "r": 3.0,
        "K": 0.3,
        "n": 2.5,
        "e_max": 1e4,
        "beta": 0.3,
        "k_a": 2.0,
        "gamma": 0.5,
        "k_i": 300.0,
        "m": 1.5,
        "d": 8.0,
        "N": 0.4,
        "K_i": 50.0,
        "k_s": 1.1,
    },
    {
        "N2": "N*2",
        "drive": "hill(E, N2*100, 1) + hill(S, K, n)",
        "signal": "drive + 0.5*hill(I, K_i, n)",
        "E_free": "1/(1 + S/K)",
        "E_log": "ln(1 + E)",
        "grade": "reached(I, 10) + reached(I, 100)",
    },
)
