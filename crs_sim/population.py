"""What is assumed, or was found, of patients: medians and spreads of the parameters that differ.

A `Population` is what a prior.toml says, joined to a model: to draw virtual patients from, to fit a
patient with, and the outcome of fitting several.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from .errors import InputError
from .model import Model
from .noise import NORMAL_95, Noise
from .problem import Free, free_of
from .problemfiles import noise_of, prior_of, read_prior

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

NO_SOURCE = "not given"


@dataclass(frozen=True)
class Population:
    """Parameters that differ between patients, log-normal and independent of each other.

    Parameters
    ----------
    name : str
    model : Model, its values hold for all other parameters
    free : tuple of Free: medians, spreads on the log scale, bounds and sources
    noise : Noise, of what is measured in them
    patients : float, how many patients it counts as beside others that are fitted

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
        """Of each parameter, in its unit."""
        return {free.name: free.median for free in self.free}

    @property
    def sds(self) -> dict[str, float]:
        """Standard deviation of the natural logarithm of each parameter."""
        return {free.name: free.sd for free in self.free}

    def sample(self, n: int, rng: Generator) -> dict[str, Array]:
        """Parameters of virtual patients, each (n,), between their bounds.

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
        """One row a parameter: label, unit, median, the middle 95 % of patients, source."""
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
        """The text of a prior.toml that says the same; ``note`` stands above it as a comment."""
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
    """A model's population: from the prior of that name, or the model's own.

    Raises
    ------
    FileError, InputError, UnknownNameError
        Naming file and key, and the closest match for what is misspelt.
    """
    known = prior_of(model) if name is None else read_prior(name)
    free, says = free_of(model, known), known.says
    return Population(says.name, model, free, noise_of(says), says.patients)


def _drawn(free: Free, chances: Array) -> Array:
    low, high = (ndtr(math.log(x / free.median) / free.sd) for x in (free.lower, free.upper))
    logs = math.log(free.median) + free.sd * ndtri(low + chances * (high - low))
    return np.asarray(np.exp(logs))


def _text(text: str) -> str:
    return json.dumps(text or NO_SOURCE, ensure_ascii=False)
