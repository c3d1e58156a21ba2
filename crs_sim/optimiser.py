"""Multi-objective optimisation: propose generations of schedules, by grid or by NSGA-II.

Only this file imports optuna. Of the libraries with two objectives, optuna 5.0 was chosen (MIT,
widely used, pure Python, six dependencies) over pymoo 0.6 (also NSGA-II; eleven dependencies, some
compiled; late to support numpy 2) and scipy (no multi-objective optimiser). A whole generation of
NSGA-II (Deb 2002, https://doi.org/10.1109/4235.996017) is requested at once and its results are
reported in order, so the same seed gives the same schedules on any number of workers. To resume a
search, the stored results are reported again, and the optimiser continues from the same state.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Generator, Sequence
from typing import Any

from .searchspace import SearchPlan, SearchQuestion, Variable

Point = tuple[float, ...]
Values = tuple[float, float]
Results = Sequence[Values | None]
"""The two objectives of each point, both to be minimised; None for a failed run."""
DIGITS = 9


def proposals(question: SearchQuestion) -> Generator[list[Point], Results, None]:
    """Generator of generations of points; send it the results of the last generation.

    Parameters
    ----------
    question : SearchQuestion, with the method and number of trials
    """
    if question.plan.method == "grid":
        yield from _grid(question)
    else:
        yield from _nsga2(question)


def _grid(question: SearchQuestion) -> Generator[list[Point], Results, None]:
    """Every grid point once, the last variable varying fastest."""
    points = itertools.product(*(v.levels() for v in question.variables))
    while generation := list(itertools.islice(points, question.plan.generation)):
        yield generation


def _nsga2(question: SearchQuestion) -> Generator[list[Point], Results, None]:
    import optuna

    plan = question.plan
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {str(k): _distribution(v) for k, v in enumerate(question.variables)}
    study = optuna.create_study(directions=["minimize"] * 2, sampler=_sampler(plan))
    for first in range(0, plan.trials, plan.generation):
        size = min(plan.generation, plan.trials - first)
        trials = [study.ask(space) for _ in range(size)]
        results = yield [tuple(round(float(t.params[k]), DIGITS) for k in space) for t in trials]
        for trial, values in zip(trials, results, strict=True):
            if values is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, values)


def _sampler(plan: SearchPlan) -> Any:
    """NSGA-II with the crossover and mutation of its publication.

    On three test functions with known fronts they were better than optuna's default, for the same
    number of trials.
    """
    import optuna
    from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover

    with warnings.catch_warnings():  # optuna calls both experimental: their arguments may change
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.NSGAIISampler(
            population_size=plan.generation, seed=plan.seed, crossover=SBXCrossover(),
            mutation=PolynomialMutation(),
        )  # fmt: skip


def _distribution(variable: Variable) -> object:
    from optuna.distributions import FloatDistribution

    high = variable.high if variable.step is None else variable.level(variable.n_levels - 1)
    return FloatDistribution(variable.low, high, step=variable.step)
