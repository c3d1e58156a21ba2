"""Population distributions: median and between-patient variability of the parameters that differ.

A `Population` is a prior.toml with its model. It is the distribution of virtual patients, the prior
of a patient's fit, and the result of fitting several patients.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri

from .arrays import Array
from .errors import InputError
from .model import Model
from .noise import NORMAL_95, Noise
from .problem import Free, free_of
from .problemfiles import noise_of, prior_of, read_prior

if TYPE_CHECKING:
    import pandas as pd


NO_SOURCE = "not given"


@dataclass(frozen=True)
class Population:
    """Parameters that differ between patients, log-normal and independent of each other.

    Parameters
    ----------
    name : str
    model : Model, whose values apply to all other parameters
    free : tuple of Free: medians, standard deviations on the log scale, bounds and sources
    noise : Noise, of the measurements
    patients : float, its weight as a prior, in patients, when others are fitted

    Examples
    --------
    >>> from crs_sim import load_model
    >>> crs = load_population(load_model("crs"))
    >>> values = crs.sample(3, np.random.default_rng(1))
    >>> values["k_crp"].shape
    (3,)
    """

    name: str
    model: Model
    free: tuple[Free, ...]
    noise: Noise
    patients: float = 1.0

    @property
    def medians(self) -> dict[str, float]:
        """Median of each parameter, in its unit."""
        return {free.name: free.median for free in self.free}

    @property
    def sds(self) -> dict[str, float]:
        """Standard deviation of the natural logarithm of each parameter."""
        return {free.name: free.sd for free in self.free}

    def sample(self, n: int, rng: Generator) -> dict[str, Array]:
        """Draw parameters of virtual patients, each (n,), between their bounds.

        Raises
        ------
        InputError
            If n is below 1.
        """
        if n < 1:
            raise InputError(f"sample of {self.name}: {n} patients; give 1 or more")
        chances = rng.random((n, len(self.free)))
        return {f.name: _drawn(f, chances[:, k]) for k, f in enumerate(self.free)}

    def table(self) -> pd.DataFrame:
        """One row per parameter: label, unit, median, 95 % interval of patients, source."""
        import pandas as pd

        return pd.DataFrame([
            {
                "parameter": f.name,
                "label": self.model[f.name].label,
                "unit": self.model[f.name].unit,
                "median": f.median,
                "sd": f.sd,
                "low": f.median * math.exp(-NORMAL_95 * f.sd),
                "high": f.median * math.exp(NORMAL_95 * f.sd),
                "source": f.source,
            }
            for f in self.free
        ])  # fmt: skip

    def toml(self, note: str = "") -> str:
        """The population as text of a prior.toml; ``note`` is a comment at its top."""
        lines = [f"# {line}".rstrip() for line in note.splitlines()]
        lines += ["", f"name = {_text(self.name)}", f"patients = {self.patients:.15g}"]
        for f in self.free:
            lines += ["", f"[free.{f.name}]", f"prior = {f.median!r}", f"sd = {f.sd!r}",
                      f"lower = {f.lower!r}", f"upper = {f.upper!r}",
                      f"source = {_text(f.source)}"]  # fmt: skip
        for name, spread in self.noise.spreads.items():
            lines += ["", f"[noise.{name}]", f"sd = {spread.sd!r}",
                      f"source = {_text(spread.source)}"]  # fmt: skip
        if self.noise.grade is not None:
            grade = self.noise.grade
            lines += ["", "[grade]", f"latent = {_text(grade.latent)}",
                      f"cuts = [{', '.join(map(_text, grade.cuts))}]", f"sd = {grade.sd!r}",
                      f"source = {_text(grade.source)}"]  # fmt: skip
        return "\n".join(lines).lstrip("\n") + "\n"


def load_population(model: Model, name: str | Path | None = None) -> Population:
    """Load the population of a model: from the prior of that name, or the model's own.

    Raises
    ------
    FileError, InputError, UnknownNameError
        Naming file and key, and the closest match of a misspelt name.
    """
    prior = prior_of(model) if name is None else read_prior(name)
    free, table = free_of(model, prior), prior.says
    return Population(table.name, model, free, noise_of(table), table.patients)


def _drawn(free: Free, chances: Array) -> Array:
    low, high = (ndtr(math.log(x / free.median) / free.sd) for x in (free.lower, free.upper))
    logs = math.log(free.median) + free.sd * ndtri(low + chances * (high - low))
    return np.asarray(np.exp(logs))


def _text(text: str) -> str:
    return json.dumps(text or NO_SOURCE, ensure_ascii=False)
