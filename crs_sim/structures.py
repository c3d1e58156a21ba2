"""Model comparison: AIC, BIC and cross-validated deviance of several fits.

Each prior counts as one more observation, as it does in the fit. Only differences are meaningful,
and only between fits of identical observations: others are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from .errors import InputError
from .fitting import Fit
from .leaveout import Omission, density_constant
from .patient import Observation
from .verdict import agreeing


def compare_fits(
    fits: Mapping[str, Fit], left_out: Mapping[str, Sequence[Omission]] | None = None
) -> pd.DataFrame:
    """One row per fit, the best AIC first.

    ==================  =======================================================================
    minus_2_ln_l        -2 ln likelihood of the observations (densities of the log readings)
    prior_penalty       sum of the squared shifts from the priors
    free, effective     free parameters, and the effective number the observations determine
    aic                 minus_2_ln_l + prior_penalty + 2 free
    bic                 minus_2_ln_l + prior_penalty + free ln(observations)
    aic_effective       minus_2_ln_l + 2 effective: without the part of the priors (as DIC)
    held_out            sum of the cross-validated -2 ln density of each reading
    agreeing            starts that ended within 1 of the best cost
    delta_...           above the lowest of the column
    ==================  =======================================================================

    Parameters
    ----------
    fits : name to Fit; two or more
    left_out : name to the result of `leave_out` for that fit, each observation in turn

    Raises
    ------
    InputError
        If there is only one fit, the observations differ, or an observation was not left out.
    """
    if len(fits) < 2:
        raise InputError("compare_fits: give two fits or more")
    first, *others = fits
    for name in others:
        _check_same_observations(first, fits[first], name, fits[name])
    rows = [_row(name, fit, (left_out or {}).get(name)) for name, fit in fits.items()]
    table = pd.DataFrame(rows).sort_values("aic", kind="stable", ignore_index=True)
    for column in ("aic", "bic", "aic_effective", "held_out"):
        table[f"delta_{column}"] = table[column] - table[column].min()
    return table


def minus_2_ln_likelihood(result: Fit) -> float:
    """-2 ln likelihood with all constants, so that fits with other noise can be compared."""
    problem = result.problem
    constants = (density_constant(o, problem.noise) for o in problem.patient.observations)
    return result.deviance + sum(constants)


def _row(name: str, result: Fit, omissions: Sequence[Omission] | None) -> dict[str, object]:
    problem, n_free = result.problem, len(result.problem.free)
    n_observations = len(problem.patient.observations)
    likelihood, penalty = minus_2_ln_likelihood(result), result.prior_penalty
    return {
        "fit": name,
        "model": problem.model.name,
        "observations": n_observations,
        "free": n_free,
        "effective": result.effective_parameters,
        "minus_2_ln_l": likelihood,
        "prior_penalty": penalty,
        "aic": likelihood + penalty + 2 * n_free,
        "bic": likelihood + penalty + n_free * math.log(n_observations),
        "aic_effective": likelihood + 2.0 * result.effective_parameters,
        "held_out": math.nan if omissions is None else _held_out(name, result, omissions),
        "agreeing": agreeing(result),
    }


def _held_out(name: str, result: Fit, omissions: Sequence[Omission]) -> float:
    """Cross-validated deviance: the sum over all observations, each left out on its own."""
    single = {o.ids[0]: o.held_out[0].deviance for o in omissions if len(o.ids) == 1}
    missing = [id for id in result.problem.patient.observations.ids if id not in single]
    if missing:
        raise InputError(f"compare_fits: {name}: {missing[0]} was not left out; leave out each "
                         "observation in turn (leave_out without groups)")  # fmt: skip
    return sum(single[id] for id in result.problem.patient.observations.ids)


def _check_same_observations(first: str, one: Fit, name: str, other: Fit) -> None:
    mine, theirs = (
        {_content(o): o.id for o in fit.problem.patient.observations} for fit in (one, other)
    )
    if differing := [*(mine.keys() ^ theirs.keys())]:
        ids = sorted({mine.get(key) or theirs[key] for key in differing})
        raise InputError(
            f"compare_fits: {first} and {name} are fits of different observations "
            f"({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''}); fit the same ones"
        )


def _content(o: Observation) -> tuple[object, ...]:
    """The content of an observation, without its notes; as text, so that nan equals itself."""
    return (o.id, o.observable, o.kind, *(repr(v) for v in (o.day, o.until, o.reference, o.value)),
            o.unit)  # fmt: skip
