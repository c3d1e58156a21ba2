"""Which schedules to try next, given what came of those before. Only door to optuna.

Of the libraries that search with two objectives, optuna 5.0 was chosen (MIT, much used, pure
Python, six packages besides) over pymoo 0.6 (NSGA-II as well, eleven packages besides, some of
them compiled; it took its time to run with numpy 2) and scipy (no optimiser with two objectives).
Its NSGA-II (Deb 2002, https://doi.org/10.1109/4235.996017) is asked for a whole generation at
once and told in order, so the same seed gives the same schedules on any number of workers; a
search that was stopped is told again what came of its first trials, and goes on as if it had not
been.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Generator, Sequence
from typing import Any

from .searchspace import SearchPlan, SearchQuestion, Variable

Point = tuple[float, ...]
Values = tuple[float, float]
Told = Sequence[Values | None]
"""The two objectives, both to be made small; None for a run that failed."""
DIGITS = 9


def proposals(question: SearchQuestion) -> Generator[list[Point], Told, None]:
    """Generations of points; each is told what came of the last one.

    Parameters
    ----------
    question : SearchQuestion, its method and number of trials
    """
    if question.plan.method == "grid":
        yield from _grid(question)
    else:
        yield from _nsga2(question)


def _grid(question: SearchQuestion) -> Generator[list[Point], Told, None]:
    """Every point once, the last variable running fastest."""
    points = itertools.product(*(v.levels() for v in question.variables))
    while generation := list(itertools.islice(points, question.plan.generation)):
        yield generation


def _nsga2(question: SearchQuestion) -> Generator[list[Point], Told, None]:
    import optuna

    asked = question.plan
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {str(k): _distribution(v) for k, v in enumerate(question.variables)}
    study = optuna.create_study(directions=["minimize"] * 2, sampler=_sampler(asked))
    for first in range(0, asked.trials, asked.generation):
        size = min(asked.generation, asked.trials - first)
        trials = [study.ask(space) for _ in range(size)]
        told = yield [tuple(round(float(t.params[k]), DIGITS) for k in space) for t in trials]
        for trial, values in zip(trials, told, strict=True):
            if values is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, values)


def _sampler(asked: SearchPlan) -> Any:
    """NSGA-II with the crossover and mutation it was published with.

    On three functions with known fronts they left optuna's own default behind, at equal trials.
    """
    import optuna
    from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover

    with warnings.catch_warnings():  # optuna calls both experimental: their arguments may change
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.NSGAIISampler(
            population_size=asked.generation, seed=asked.seed, crossover=SBXCrossover(),
            mutation=PolynomialMutation(),
        )  # fmt: skip


def _distribution(variable: Variable) -> object:
    from optuna.distributions import FloatDistribution

    high = variable.high if variable.step is None else variable.level(variable.n_levels - 1)
    return FloatDistribution(variable.low, high, step=variable.step)
