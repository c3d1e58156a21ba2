"""What the commission of the model asks for besides published figures, as rows of the same table.

T1  days of CRS without any drug at a product's medians
T3  parameters of the model, fitted or not, whose change by 5 % either way flips the fitted case's
    worst grade, or moves its days on a vasopressor by a third (at least a quarter of a day)
T4  draws of the prior that do not return to rest when no CAR-T cell is there, whatever the state
    they start from
T6  virtual patients whose run failed, if any did
Q4  the whole mix of grades (chi-squared over 0, 1, 2, 3 or more)
Q20 cell dose against burden, each threefold
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chisquare

from crs_sim import CrsSimError, Model, Parameter, Population, Sampling, Scenario, load_fit
from crs_sim.fitting import Fit
from crs_sim.model import GRADE
from crs_sim.simulation import endpoint, simulate_many

from .design import (
    AS_CASE,
    BURDEN,
    CASE,
    CELL_STATES,
    NO_DRUG,
    SEED,
    TREATED,
    Product,
    population,
)
from .rows import Row
from .virtual import Virtual, simulate_cohort

Array = NDArray[np.float64]
COMMISSION = "this project: the commission of the model"
STEP, THIRD, LEAST_MOVE = 0.05, 1.0 / 3.0, 0.25
REST_DRAWS, REST_UNTIL, REST_FACTOR = 1000, 180.0, 1.5
"""Draws, last day, and how near its own rest IFN-g and IL-6 must be then, as a factor."""
FACTOR, LONGEST = 3.0, 160
LEAST_BURDEN, MOST_DOSE = 0.3, 0.5
"""A threefold burden must move the mean worst grade by so much; dose by at most so much of that."""


def check(
    id: str, panel: str, quantity: str, wanted: tuple[float, float], unit: str, product: str,
    found: Callable[[], tuple[float, str]],
) -> Row:  # fmt: skip
    """A row of a value that must lie in an interval; ``found`` gives it, and what else to say."""
    value, more, (low, high) = math.nan, "", wanted
    try:
        value, more = found()
    except CrsSimError as error:
        more = str(error).splitlines()[0][:LONGEST]
    passed = low <= value <= high
    source = COMMISSION if id.startswith("T") else "as the rows of the same number"
    return Row(id, product, panel, quantity, unit, high if low == high else math.nan, low, high,
               "interval", value, math.nan, math.nan, 1, passed, more, source)  # fmt: skip


def median_days(name: str, product: Product) -> Row:
    """T1 of a product."""

    def days() -> tuple[float, str]:
        people = population(product)
        medians = {k: np.array([v]) for k, v in people.medians.items()}
        run = simulate_cohort(product, NO_DRUG, 1, people=people, fixed=medians)
        grade = run.column("worst")[0]
        return float(run.column("crs_days")[0]), f"worst grade {grade:g}"

    quantity = f"days of CRS, no drug, medians ({name})"
    return check(f"T1.{name}", "days", quantity, (4.0, 12.0), "day", name, days)


def robustness(product: Product, load: Callable[[str], Fit] = load_fit) -> Row:
    """T3: what 5 % does to the latest stored fit of the case."""

    def count() -> tuple[float, str]:
        best = load(CASE)
        if best.problem.model.hash != population(product).model.hash:
            raise_failed("the stored fit of the case is of another model")
        edgy, asked = moved_by(best), len(changeable(best))
        fitted = sum(name in best.values for name in edgy)
        return float(len(edgy)), f"of {asked}, {fitted} of them fitted: {', '.join(edgy)}"

    return check("T3", "counts", "parameters whose 5 % flips the case", (0.0, 0.0), "count",
                 "bpx601", count)  # fmt: skip


def moved_by(best: Fit) -> list[str]:
    """The parameters whose change by `STEP` either way flips or moves the case."""
    names, model = changeable(best), best.model
    table = {name: [model.values[name]] * (1 + 2 * len(names)) for name in names}
    for k, name in enumerate(names):
        most = model.bounds[name][1]
        table[name][1 + 2 * k] *= 1.0 - STEP
        table[name][2 + 2 * k] = min(table[name][2 + 2 * k] * (1.0 + STEP), most)
    ends = [endpoint(model, name) for name in ("worst_grade", "vasopressor_days")]
    scenario = replace(best.problem.patient.scenario, name=AS_CASE)
    run = simulate_many(model, scenario, table, sampling=Sampling(
        until=45.0, outputs=[GRADE], endpoints=ends, rtol=1e-6))  # fmt: skip
    place = {member: k for k, member in enumerate(run.members)}
    grade, days = run.endpoint("worst_grade"), run.endpoint("vasopressor_days")
    if 0 not in place:
        raise_failed(run.failures[0].reason)
    found = []
    for k, name in enumerate(names):
        for member in (1 + 2 * k, 2 + 2 * k):
            here, fitted = place.get(member), place[0]
            if here is None or grade[here] != grade[fitted] or _far(days[here], days[fitted]):
                found.append(name)
                break
    return found


def changeable(best: Fit) -> list[str]:
    """The model's parameters, but for those at 0, of residual errors and of the patient."""
    own = {*best.problem.patient.scenario.values, *best.problem.noise.estimated}
    return [name for name, value in best.model.values.items() if value != 0 and name not in own]


def _far(days: float, fitted: float) -> bool:
    return abs(days - fitted) > max(THIRD * fitted, LEAST_MOVE)


def raise_failed(reason: str) -> None:
    """Raise the reason of a failed run."""
    raise CrsSimError(reason)


def rest(name: str, product: Product, reached: Virtual, draws: int = REST_DRAWS) -> Row:
    """T4: starts from states that the cohort ``reached``, without any CAR-T cell."""

    def count() -> tuple[float, str]:
        lost, failed = restless(population(product), reached, draws)
        return float(lost + failed), f"of {draws} draws; {failed} failed"

    quantity = f"draws that do not return to rest ({name})"
    return check(f"T4.{name}", "counts", quantity, (0.0, 0.0), "count", name, count)


def restless(people: Population, reached: Virtual, draws: int) -> tuple[int, int]:
    """How many draws of a prior do not return to rest, and how many runs failed.

    Each state but the cells starts anywhere between 0 and the highest that a cohort without drugs
    ``reached``, the lower the likelier. A draw returns if on the last day its grade is 0, and IFN-g
    and IL-6 are at most `REST_FACTOR` times its own level on day 0 of a life without cells.
    """
    model, starts = with_starts(people.model)
    drawn = people.sample(draws, np.random.default_rng(SEED))
    tops, rng = highest_states(people, reached), np.random.default_rng([SEED, 4])
    moved = {parameter: tops[state] * rng.random(draws) ** 2 for state, parameter in starts.items()}
    nothing, watched = Scenario("no cells"), ["ifng", "il6"]
    ends = Sampling(days=[0.0, REST_UNTIL], outputs=[*watched, GRADE])
    run = simulate_many(model, nothing, drawn | moved, sampling=ends)
    calm = simulate_many(people.model, nothing, drawn,
                         sampling=Sampling(days=[0.0, 1.0], outputs=watched))  # fmt: skip
    rows = [calm.members.index(member) for member in run.members]
    away = run.course(GRADE)[:, -1] >= 1
    for name in watched:
        away |= run.course(name)[:, -1] > REST_FACTOR * calm.course(name)[rows, 0]
    return int(away.sum()), len(run.failures)


def is_cell(state: str) -> bool:
    """Whether a state holds CAR-T cells."""
    return state in CELL_STATES or state.startswith("CAR_")


def with_starts(model: Model) -> tuple[Model, dict[str, str]]:
    """The model with the start of each state a parameter, but for cells, which start at 0.

    Also the parameter of each such state.
    """
    chosen = {s.id: f"start_of_{s.id}" for s in model.states if not is_cell(s.id)}
    more = tuple(Parameter(chosen[s.id], 0.0, s.unit, f"Start of {s.id}", COMMISSION)
                 for s in model.states if s.id in chosen)  # fmt: skip
    states = tuple(replace(s, initial=chosen.get(s.id, "0")) for s in model.states)
    return replace(model, states=states, parameters=(*model.parameters, *more)), chosen


def highest_states(people: Population, reached: Virtual) -> dict[str, float]:
    """The highest level of each state in nine of ten of a cohort's patients (0: of a drug's)."""
    model, drawn = people.model, people.sample(200, np.random.default_rng(SEED))
    run = simulate_many(model, reached.run.scenarios[0], drawn, sampling=Sampling(
        outputs=model.state_ids))  # fmt: skip
    return {s: float(np.quantile(run.course(s).max(axis=1), 0.9)) for s in model.state_ids}


def grade_mix(cohort: Virtual, counts: tuple[int, ...] = (7, 21, 19, 10, 2)) -> Row:
    """Q4: the chance of a mix of grades as far from the model's as the published one is."""

    def chance() -> tuple[float, str]:
        worst = np.minimum(cohort.column("worst"), 3)
        shares = np.array([np.mean(worst == g) for g in range(4)])
        seen = np.array([*counts[:3], sum(counts[3:])], dtype=float)
        smoothed = (shares * len(worst) + 0.5) / (len(worst) + 2.0)
        found = chisquare(seen, smoothed / smoothed.sum() * seen.sum()).pvalue
        return float(found), f"shares of the model {', '.join(f'{100 * s:.0f}' for s in shares)} %"

    return check("Q4", "chance", "chance of the whole mix of grades (CD22)", (0.05, 1.0), "1",
                 "cd22", chance)  # fmt: skip


def dose_and_burden(name: str, base: Virtual, patients: int) -> list[Row]:
    """Q20: a threefold burden moves CRS, a threefold dose of cells hardly does."""
    product = base.product
    burden = next((b for b in BURDEN if b in base.model.values), None)
    changed = {}
    if burden is not None:
        people = population(product)
        value = people.sample(patients, np.random.default_rng(SEED)).get(
            burden, np.full(patients, base.model.values[burden]))  # fmt: skip
        more = {burden: FACTOR * value}
        changed["burden"] = _moved(simulate_cohort(product, TREATED, patients, fixed=more), base)
    dosed = simulate_cohort(product, TREATED, patients, dose=FACTOR * product.dose)
    changed["dose"] = _moved(dosed, base)

    def by_burden() -> tuple[float, str]:
        if burden is None:
            raise_failed("not in the model: no parameter of burden")
        return changed["burden"], f"mean worst grade, {burden} times {FACTOR:g}"

    def by_dose() -> tuple[float, str]:
        return abs(changed["dose"]), f"mean worst grade, cells times {FACTOR:g}"

    most = MOST_DOSE * max(changed.get("burden", 0.0), LEAST_BURDEN)
    return [
        check("Q20a", "effect", "threefold burden raises the mean worst grade",
              (LEAST_BURDEN, 4.0), "grade", name, by_burden),
        check("Q20b", "effect", "threefold dose moves it at most half as much", (0.0, most),
              "grade", name, by_dose),
    ]  # fmt: skip


def _moved(changed: Virtual, base: Virtual) -> float:
    return float(changed.column("worst").mean() - base.column("worst").mean())


def failures(name: str, cohort: Virtual) -> Row:
    """T6 of a product: virtual patients whose run failed; they are left out of all rows."""
    quantity = f"runs that failed ({name}, {cohort.arm})"

    def count() -> tuple[float, str]:
        first = f": {cohort.run.failures[0].reason}" if cohort.run.failures else ""
        failed = len(cohort.run.failures)
        return float(failed), f"of {len(cohort) + failed}{first}"

    return check(f"T6.{name}", "counts", quantity, (0.0, 0.0), "count", name, count)


def all_checks(
    products: Mapping[str, Product], cohorts: Callable[[str, str], Virtual], patients: int
) -> list[Row]:
    """All rows of this file; ``cohorts`` gives the cohort of a product and arm."""
    rows = [median_days(name, product) for name, product in products.items()]
    rows += [robustness(products["bpx601"])]
    rows += [rest(name, product, cohorts(name, NO_DRUG)) for name, product in products.items()]
    for name, product in products.items():
        made = cohorts(name, AS_CASE if product.case else TREATED)
        rows += [failures(name, made)] if made.run.failures else []
    rows += [grade_mix(cohorts("cd22", TREATED))]
    return rows + dose_and_burden("cd19", cohorts("cd19", TREATED), patients)
