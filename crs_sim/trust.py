"""Diagnostics of a fit: agreement of the starts, convergence, identifiability, bounds.

Warnings (`fit_warnings`) come first in every report, together with `agreement_text` and
`condition_text`.
"""

from __future__ import annotations

from .fitting import Fit

SAME_OPTIMUM, NEAR = 0.1, 1.0
"""Cost above the best within which a start has reached the optimum, and is near it."""
ILL_CONDITIONED = 1000.0
"""Condition number of the correlations regarded as severe in pharmacometrics."""


def agreeing(result: Fit, within: float = NEAR) -> int:
    """Number of starts that ended at most ``within`` above the best cost."""
    return sum(start.cost - result.cost <= within for start in result.starts)


def fit_warnings(result: Fit) -> tuple[str, ...]:
    """Warnings about the reliability of the estimates, the most serious first; may be empty.

    Examples
    --------
    ``concerns(best)`` is ``()``, or for instance
    ``("at a bound: d_psa (upper); standard errors are valid only away from bounds: widen the "
    "bound, or state why it is right",)``
    """
    checks = (_few_agreeing_starts, _not_converged, _not_identified, _at_bounds)
    return tuple(text for check in checks if (text := check(result)))


def agreement_text(result: Fit) -> str:
    """A sentence on how many starts reached the best cost."""
    return (
        f"{agreeing(result, SAME_OPTIMUM)} of {len(result.starts)} starts end within "
        f"{SAME_OPTIMUM:g} of the best cost, {agreeing(result)} within {NEAR:g}"
    )


def condition_text(result: Fit) -> str:
    """A sentence on the condition number of the correlations."""
    if result.singular:
        return "the covariance is singular"
    text = f"condition number of the correlations {result.condition:.3g}"
    if result.condition > ILL_CONDITIONED:
        text += f" (above {ILL_CONDITIONED:g}: some parameters can hardly be told apart)"
    return text


def _few_agreeing_starts(result: Fit) -> str:
    if len(result.starts) == 1:
        return (
            "only one start was made, so this may be a local optimum; fit again with more "
            "(--starts 8)"
        )
    count = agreeing(result)
    if count >= 2:
        return ""
    reached = "none" if count == 0 else "only one"
    return (
        f"{reached} of the {len(result.starts)} starts came within {NEAR:g} of the best cost, so "
        f"there may be a better optimum; fit again with more (--starts {4 * len(result.starts)})"
    )


def _not_converged(result: Fit) -> str:
    if result.polish.converged:
        return ""
    return f"the final optimisation stopped before it had converged: {result.polish.status}"


def _not_identified(result: Fit) -> str:
    if not result.singular:
        return ""
    loose = [e.parameter for e in result.estimates if e.carried_by_prior]
    names = f" ({', '.join(loose)})" if loose else ""
    return (
        "the covariance is singular: neither observations nor priors identify some parameters"
        f"{names}; give them a narrower prior, or fix them"
    )


def _at_bounds(result: Fit) -> str:
    where = {f.name: f for f in result.problem.free}
    at = [
        f"{e.parameter} ({'upper' if e.estimate**2 > f.lower * f.upper else 'lower'})"
        for e in result.estimates
        if e.at_bound and (f := where[e.parameter])
    ]
    if not at:
        return ""
    return (
        f"at a bound: {', '.join(at)}; standard errors are valid only away from bounds: widen "
        "the bound, or state why it is right"
    )
