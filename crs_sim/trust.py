"""Whether the numbers of a fit can be believed: starts that agree, bounds, what is told by nothing.

What is wrong comes first in every report (`concerns`); what a reader should know comes with it
(`agreement_words`, `condition_words`).
"""

from __future__ import annotations

from .fitting import Fit

SAME_OPTIMUM, NEAR = 0.1, 1.0
"""Costs above the best at which a start has reached it, and has come near."""
ILL_CONDITIONED = 1000.0
"""Condition number of the correlations that pharmacometrics takes for severe."""


def agreeing(result: Fit, within: float = NEAR) -> int:
    """How many starts ended at most ``within`` above the best cost."""
    return sum(start.cost - result.cost <= within for start in result.starts)


def concerns(result: Fit) -> tuple[str, ...]:
    """What speaks against believing the estimates, the worst first; empty if nothing does.

    Examples
    --------
    ``concerns(best)`` is ``()``, or for instance
    ``("at a bound: d_psa (upper); its interval is not to be believed, widen the bound or say "
    "why it stands",)``
    """
    said = (_poor(result), _unfinished(result), _untold(result), _bounds(result))
    return tuple(text for text in said if text)


def agreement_words(result: Fit) -> str:
    """How many starts reached the best cost."""
    return (
        f"{agreeing(result, SAME_OPTIMUM)} of {len(result.starts)} starts end within "
        f"{SAME_OPTIMUM:g} of the best cost, {agreeing(result)} within {NEAR:g}"
    )


def condition_words(result: Fit) -> str:
    """The condition number of the correlations, and what it means if it is large."""
    if result.singular:
        return "the covariance is singular"
    text = f"condition number of the correlations {result.condition:.3g}"
    if result.condition > ILL_CONDITIONED:
        text += f" (above {ILL_CONDITIONED:g}: some parameters can hardly be told apart)"
    return text


def _poor(result: Fit) -> str:
    if len(result.starts) == 1:
        return (
            "only one start was made, so nothing says that this is the best optimum; fit again "
            "with more (--starts 8)"
        )
    count = agreeing(result)
    if count >= 2:
        return ""
    reached = "none" if count == 0 else "only one"
    return (
        f"{reached} of the {len(result.starts)} starts came within {NEAR:g} of the best cost, so "
        f"there may be a better optimum; fit again with more (--starts {4 * len(result.starts)})"
    )


def _unfinished(result: Fit) -> str:
    if result.polish.converged:
        return ""
    return f"the last descent stopped before it had converged: {result.polish.status}"


def _untold(result: Fit) -> str:
    if not result.singular:
        return ""
    loose = [e.parameter for e in result.estimates if e.carried_by_prior]
    names = f" ({', '.join(loose)})" if loose else ""
    return (
        "the covariance is singular: neither observations nor priors tell some parameters"
        f"{names}; give them a narrower prior, or fix them"
    )


def _bounds(result: Fit) -> str:
    where = {f.name: f for f in result.problem.free}
    at = [
        f"{e.parameter} ({'upper' if e.estimate**2 > f.lower * f.upper else 'lower'})"
        for e in result.estimates
        if e.at_bound and (f := where[e.parameter])
    ]
    if not at:
        return ""
    return (
        f"at a bound: {', '.join(at)}; the standard errors hold only beside it: widen the bound, "
        "or say why it stands"
    )
