"""Result tables of a virtual population: grades, endpoints, paired differences, subgroups.

The sampling error of a share of 10,000 patients is at most one percentage point; the uncertainty
of the model's assumptions is far larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .populationparts import FAILED, KEPT, Results

GRADE = "worst_grade"
GRADES = range(5)
SEVERE = 3
RELEVANT_CHANGE = 0.01
"""Relative change of an endpoint: far above the solver's error, but not clinically relevant."""
QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
TERTILES = ("low", "middle", "high")


@dataclass(frozen=True, eq=False)
class Summary:
    """The result tables of a population; the data are read on first use.

    Parameters
    ----------
    results : Results
    """

    results: Results = field(repr=False)

    @cached_property
    def members(self) -> pd.DataFrame:
        """Every patient drawn."""
        return self.results.members()

    @cached_property
    def kept(self) -> pd.DataFrame:
        """The patients kept, indexed by member."""
        return self.members[self.members[KEPT]].set_index("member")

    @cached_property
    def by_scenario(self) -> dict[str, pd.DataFrame]:
        """Scenario to the endpoints of the patients kept, indexed by member, the same in each."""
        table = self.results.endpoints()
        return {
            name: table[table["scenario"] == name].set_index("member").drop(columns="scenario")
            for name in self.results.scenarios
        }

    @property
    def graded(self) -> bool:
        """Whether the worst grade is one of the endpoints."""
        return GRADE in self.results.header["endpoints"]

    def rejected(self) -> pd.DataFrame:
        """One row per filter: how many patients it rejects, and how many it alone rejects."""
        ran = self.members[self.members[FAILED] == ""]
        filters = self.results.header["settings"]["filters"]
        fails = {when: ~ran[f"passes {when}"].to_numpy() for when, _ in filters}
        several = sum(fails.values(), np.zeros(len(ran), dtype=int))
        columns = ["filter", "rejected", "of", "share", "rejected_by_it_alone", "source"]
        rows = [
            (when, int(fails[when].sum()), len(ran), _share(fails[when]),
             int((fails[when] & (several == 1)).sum()), source)
            for when, source in filters
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def grades(self) -> pd.DataFrame:
        """One row per scenario: patients, the share at each worst grade, at `SEVERE` or above."""
        rows = []
        for name, table in self.by_scenario.items():
            worst = table[GRADE].to_numpy()
            shares = {f"grade_{g}": _share(worst == g) for g in GRADES}
            rows.append({"scenario": name, "patients": len(worst), **shares,
                         f"grade_{SEVERE}_or_more": _share(worst >= SEVERE)})  # fmt: skip
        return pd.DataFrame(rows)

    def endpoints(self) -> pd.DataFrame:
        """One row for each scenario and endpoint: quantiles over the patients, and the mean."""
        return pd.DataFrame([
            {"scenario": name, **self._about(end), **_quantiles(table[end]),
             "mean": _mean(table[end])}
            for name, table in self.by_scenario.items() for end in table.columns
        ])  # fmt: skip

    def differences(self) -> pd.DataFrame:
        """One row for each alternative scenario and endpoint: paired difference from as given.

        ``share_lower`` and ``share_higher`` count relative changes above `RELEVANT_CHANGE`.
        """
        given, *others = self.results.scenarios
        return pd.DataFrame([
            {"scenario": name, **self._about(end), **_quantiles(change), "mean": _mean(change),
             "share_lower": _share(change < -least), "share_higher": _share(change > least)}
            for name in others for end in self.by_scenario[name].columns
            for base in [self.by_scenario[given][end]]
            for change in [self.by_scenario[name][end] - base]
            for least in [RELEVANT_CHANGE * base.abs()]
        ])  # fmt: skip

    def subgroups(self) -> pd.DataFrame:
        """One row for each covariate's tertile, scenario and endpoint.

        ``severe`` is the share of its patients at `SEVERE` or above, if grades are an endpoint.
        """
        return pd.DataFrame([
            {**group, "scenario": name, "severe": severe, **self._about(end),
             **_quantiles(part[end])}
            for group, members in self._tertiles()
            for name, table in self.by_scenario.items()
            for part in [table.loc[members]]
            for severe in [_share(part[GRADE] >= SEVERE) if self.graded else np.nan]
            for end in table.columns
        ])  # fmt: skip

    def bands(self) -> pd.DataFrame:
        """One row for each scenario, course and day: quantiles over the patients."""
        names = list(self.results.header["courses"])
        parts = []
        for scenario in self.results.scenarios if names else ():
            days = self.results.courses(scenario).groupby("day")[names]
            found = days.quantile(list(QUANTILES.values())).unstack()
            for name in names:
                part = found[name]
                part.columns = list(QUANTILES)
                part = part.reset_index()
                part.insert(0, "course", name)
                part.insert(0, "scenario", scenario)
                parts.append(part)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def _about(self, end: str) -> dict[str, Any]:
        return {"endpoint": end, **self.results.header["endpoints"][end]}

    def _tertiles(self) -> Iterator[tuple[dict[str, Any], Any]]:
        """Thirds of the patients by each covariate, and their members."""
        for name, about in self.results.header["covariates"].items():
            values = self.kept[name]
            if not len(values):
                continue
            cuts = np.quantile(values, [0.0, 1 / 3, 2 / 3, 1.0])
            place = np.searchsorted(cuts[1:3], values.to_numpy(), side="left")
            for k, third in enumerate(TERTILES):
                members = values.index[place == k]
                group = {"covariate": name, "unit_of_covariate": about["unit"], "third": third,
                         "from": cuts[k], "to": cuts[k + 1], "patients": len(members)}  # fmt: skip
                yield group, members


def _quantiles(values: Any) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(QUANTILES, float("nan"))
    return dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())), strict=True))


def _share(hits: Any) -> float:
    return float(np.mean(hits)) if len(hits) else float("nan")


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
