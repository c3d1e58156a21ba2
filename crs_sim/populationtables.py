"""What a virtual population came to, as tables: grades, endpoints, paired differences, subgroups.

A share of n patients is uncertain by chance as any share is; of 10,000 by one point in a hundred at
most. What the assumptions leave open is far more.
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
NOTABLE = 0.01
"""Of an endpoint: far above what the solver leaves open, and nothing a patient would notice."""
QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
TERTILES = ("low", "middle", "high")


@dataclass(frozen=True, eq=False)
class Summary:
    """The tables of a population; each is worked out when it is first asked for.

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
        """The patients that were kept, by member."""
        return self.members[self.members[KEPT]].set_index("member")

    @cached_property
    def by_scenario(self) -> dict[str, pd.DataFrame]:
        """Scenario to the endpoints of each patient kept, by member; the same members in each."""
        table = self.results.endpoints()
        return {
            name: table[table["scenario"] == name].set_index("member").drop(columns="scenario")
            for name in self.results.scenarios
        }

    @property
    def graded(self) -> bool:
        """Whether worst grades were asked for."""
        return GRADE in self.results.header["endpoints"]

    def rejected(self) -> pd.DataFrame:
        """One row a filter: how many of those that ran it rejects, and how many no other does."""
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
        """One row a scenario: patients, the share at each worst grade, and at `SEVERE` or more."""
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
            {"scenario": name, **self._says(end), **_quantiles(table[end]),
             "mean": _mean(table[end])}
            for name, table in self.by_scenario.items() for end in table.columns
        ])  # fmt: skip

    def differences(self) -> pd.DataFrame:
        """One row for each other scenario and endpoint: it less what is given, within patients.

        Lower and higher are those in whom it is by more than `NOTABLE` of what it was.
        """
        given, *others = self.results.scenarios
        return pd.DataFrame([
            {"scenario": name, **self._says(end), **_quantiles(off), "mean": _mean(off),
             "share_lower": _share(off < -least), "share_higher": _share(off > least)}
            for name in others for end in self.by_scenario[name].columns
            for base in [self.by_scenario[given][end]]
            for off, least in [(self.by_scenario[name][end] - base, NOTABLE * base.abs())]
        ])  # fmt: skip

    def subgroups(self) -> pd.DataFrame:
        """One row for each covariate's tertile, scenario and endpoint.

        ``severe`` is the share of its patients at `SEVERE` or more, where grades were asked for.
        """
        return pd.DataFrame([
            {**group, "scenario": name, "severe": severe, **self._says(end),
             **_quantiles(mine[end])}
            for group, members in self._tertiles()
            for name, table in self.by_scenario.items()
            for mine in [table.loc[members]]
            for severe in [_share(mine[GRADE] >= SEVERE) if self.graded else np.nan]
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
                mine = found[name]
                mine.columns = list(QUANTILES)
                mine = mine.reset_index()
                mine.insert(0, "course", name)
                mine.insert(0, "scenario", scenario)
                parts.append(mine)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def _says(self, end: str) -> dict[str, Any]:
        return {"endpoint": end, **self.results.header["endpoints"][end]}

    def _tertiles(self) -> Iterator[tuple[dict[str, Any], Any]]:
        """Thirds of the patients by each covariate, and their members."""
        for name, says in self.results.header["covariates"].items():
            values = self.kept[name]
            if not len(values):
                continue
            cuts = np.quantile(values, [0.0, 1 / 3, 2 / 3, 1.0])
            place = np.searchsorted(cuts[1:3], values.to_numpy(), side="left")
            for k, third in enumerate(TERTILES):
                members = values.index[place == k]
                group = {"covariate": name, "unit_of_covariate": says["unit"], "third": third,
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
