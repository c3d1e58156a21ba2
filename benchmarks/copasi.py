"""COPASI's deterministic method (LSODA) on our exported SBML, doses as events.

Events are native to COPASI: one call runs the whole schedule, where stopping would set up its task
a hundred times. Doses on day 0 are added to the initial states, since an event at the first instant
stops its root finder; so day 0 itself is not compared. Samples are taken 1e-9 days before the daily
time, so before the doses of that day. The task is set up once; the timing covers its run and
reading the columns needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import COPASI
import libsbml
import numpy as np

from .case import Array, Case, Reference
from .stops import Stop, exported, inflow_id, infused, stops

JUST_BEFORE = 1e-9
MOST_STEPS = 100_000
FRACTIONS = (1e-3, 1e-6)
"""Absolute tolerances tried, as fractions of rtol; COPASI takes one number and scales it."""


def with_events(case: Case) -> str:
    """The case's SBML with an event for each stop after day 0."""
    first, *later = stops(case)
    document = libsbml.readSBMLFromString(exported(case, first.given))
    model = document.getModel()
    for name, rate in first.inflow.items():
        model.getParameter(name).setValue(rate)
    for i in infused(case):
        model.getParameter(inflow_id(case.model.state_ids[i])).setConstant(False)
    for number, stop in enumerate(later):
        if stop.restart:
            add_event(model, stop, number)
    return str(libsbml.writeSBMLToString(document))


def add_event(model: Any, stop: Stop, number: int) -> None:
    """Add a stop as an SBML event."""
    event = model.createEvent()
    event.setId(f"stop_{number}")
    event.setUseValuesFromTriggerTime(True)
    trigger = event.createTrigger()
    trigger.setInitialValue(False)
    trigger.setPersistent(True)
    trigger.setMath(libsbml.parseL3Formula(f"time >= {stop.day!r}"))
    texts = {name: f"{name} + {amount!r}" for name, amount in stop.given.items()}
    for name, text in (texts | {n: repr(r) for n, r in stop.inflow.items()}).items():
        assignment = event.createEventAssignment()
        assignment.setVariable(name)
        assignment.setMath(libsbml.parseL3Formula(text))


@dataclass(frozen=True)
class Copasi:
    """The case in COPASI."""

    case: Case
    reference: Reference

    @cached_property
    def data(self) -> Any:
        """The imported model."""
        data = COPASI.CRootContainer.addDatamodel()
        if not data.importSBMLFromString(with_events(self.case)):
            raise RuntimeError(COPASI.CCopasiMessage.getAllMessageText())
        return data

    @cached_property
    def task(self) -> Any:
        """The time course, set up once."""
        task = self.data.getTask("Time-Course")
        task.setMethodType(COPASI.CTaskEnum.Method_deterministic)
        task.getMethod().getParameter("Max Internal Steps").setIntValue(MOST_STEPS)
        problem, days = task.getProblem(), self.case.days
        problem.setDuration(float(days[-1]))
        problem.setOutputEvent(False)
        problem.setTimeSeriesRequested(True)
        problem.setOutputStartTime(0.0)
        problem.setValues(" ".join(repr(float(d)) for d in np.maximum(days - JUST_BEFORE, 0.0)))
        problem.setUseValues(True)
        return task

    def tolerate(self, rtol: float, fraction: float) -> None:
        """Set both tolerances."""
        method = self.task.getMethod()
        method.getParameter("Relative Tolerance").setDblValue(rtol)
        method.getParameter("Absolute Tolerance").setDblValue(rtol * fraction)

    def run(self) -> Array:
        """All curves at the daily times, (n_days, n_names); day 0 is copied from the reference."""
        task = self.task
        if not (task.initializeRaw(COPASI.CCopasiTask.OUTPUT_UI) and task.processRaw(True)):
            raise RuntimeError(COPASI.CCopasiMessage.getAllMessageText()[-300:])
        series = task.getTimeSeries()
        ids = [series.getSBMLId(i, self.data) for i in range(series.getNumVariables())]
        columns = [ids.index(name) for name in self.case.names]
        rows = [[series.getData(i, j) for j in columns] for i in range(1, len(self.case.days))]
        return np.vstack([self.reference.curves[:1], rows])
