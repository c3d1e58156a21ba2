"""crs_sim: a mechanistic simulator of cytokine release syndrome. Research use only.

>>> import crs_sim
>>> model, case = crs_sim.load_model("crs"), crs_sim.load_patient("ruemmele2025")
>>> run = crs_sim.simulate(model, case.scenario, until=1)
>>> run.table().columns[0]
'day'

The files in reading order, which is import order: each imports only files above it.

=================  ================================================================================
errors.py          what can go wrong, and how it is said
shipped.py         where models, the case and its fit live: a checkout, or the wheel
primitives.py      the scalar functions generated code calls, safe at zero
formula.py         a formula as text: parsed, named, evaluated
units.py           units as people write them; the only door to pint
model.py           State, Parameter, Quantity, Drug, Model: names, units, sources; immutable
dosing.py          Dose, Schedule, and their exact expansion
edits.py           doses of a schedule taken out, moved, scaled, replaced
triggers.py        Condition, Trigger, Hold: what is decided as a patient goes
scenario.py        Change, Scenario: what is done to a patient
workbook.py        an Excel workbook as rows of text; the only door to openpyxl
tables.py          CSV and TOML into checked records; the only door to pydantic
patientfiles.py    the columns of a patient's files, and what each may hold
patient.py         Observation, Patient: who was treated with what, and what was seen
nonmemcolumns.py   the columns of a NONMEM or Monolix data set, and the map to a model
output.py          files written whole or not at all
codecache.py       generated code, and what was read, on disk
newpatient.py      what a new patient starts from: files that explain themselves
dialect.py         which line of a model file is which, and what is refused
modelfile.py       model.ant to Model, Model to SBML; the only door to antimony and libsbml
modelfolder.py     a model's folder read, and kept on disk
symbolic.py        formulas as symbols, and their derivatives; the only door to sympy
sourcecode.py      a model's equations, and its sparse LU, written out as Python
codegen.py         a model made runnable: its generated functions, cached on disk
unitcheck.py       what unit a formula comes out in
checks.py          what may be wrong with a model; its listing
arrivals.py        what arrives of the doses: lags, resets, what led to a steady state
clock.py           the days of a run, and the time that steady states take
decisions.py       what triggers and holds decide, given levels
ledger.py          Ledger: every dose given or held, and why
nonmemrecord.py    what one record of such a data set says of a model
nonmem.py          a data set as patients, in NONMEM's meaning
timeline.py        a scenario cut wherever something happens
rosenbrock.py      the step loop of a Rosenbrock method, four parameter sets at a time
walk.py            the segments of a run in order, repeated to a steady state
machinecode.py     straight-line Python recorded as vector instructions, compiled, kept on disk
lanes.py           a model's equations written for speed, as such straight lines
steploop.py        the step loop as machine code; the only door to numba
kernel.py          the step loop compiled and joined to a model
odesolver.py       the kernel as a method of solve_ivp; the only door to scipy.integrate
integrate.py       one run, cut wherever something happens
settling.py        triggers and holds settled: runs until there is nothing more to decide
gradients.py       derivatives of a run by its parameters
simulation.py      simulate: a model under a scenario gives a Simulation
workers.py         the same work on many items, in processes or threads
cluster.py         the same work on a Dask cluster; the only door to dask.distributed
ensemble.py        what came of many runs: courses of the same members under every scenario
batches.py         simulate_many: a table of parameter values under scenarios, on all cores
endpoints.py       courses to one number each: peaks, areas, worst grade
noise.py           what a measurement says of a curve: residuals
synthetic.py       patients made by the model itself, to try a fit on
problemfiles.py    problem.toml, and prior.toml: what is known of patients before one's data
problem.py         Free, FitProblem: the question asked of data
objective.py       the vector that a fit makes small
curvature.py       the curvature that least squares leaves out, learnt from step to step
descents.py        one descent to an optimum; the only door to lmfit
fitting.py         fit: the answer, with standard errors
trust.py           whether a fit can be believed: what its report says first
profiles.py        Profile: how much worse a fit gets as one parameter is moved
profiling.py       profiles computed, by fits of all other parameters
verdict.py         each reported level beside the fitted one, and whether that will do
population.py      Population: medians and spreads between patients, to draw from or to fit with
twostage.py        the population behind several patients, from what the data of each say
cohort.py          several patients fitted at once: how, and what came out
rounds.py          fit_all: patients given the population, the population given the patients
draws.py           parameter values drawn around an estimate (Laplace approximation)
predictions.py     predict: bands of every observable, under any scenario, or of a prior
scenariofile.py    scenarios.toml: what might have been done, as edits of what was
comparison.py      compare: endpoints under scenarios, and paired differences
scenariotext.py    scenarios written as a scenarios.toml
searchspace.py     Variable, SearchQuestion: what a search may choose
searchfile.py      search.toml: which schedules to look through, and what is weighed
optimiser.py       which schedules to try next; the only door to optuna
influence.py       how much each observation pulls on a fit
leaveout.py        fits without some observations, and what they foretell of them
structures.py      fits of the same observations by different models, compared
storage.py         a fit on disk and back
simulationfiles.py  a simulation as a table
runlog.py          rows of a long job on disk, so that it goes on where it was killed
profilefiles.py    profiles, and observations left out, on disk as each is finished
study.py           a whole data set run, one row a record
subjects.py        a subject of a data set as a problem of its own
cohortfiles.py     a fit of several patients on disk, as it goes and when it is done
chains.py          draws of a sampler on disk, part by part
convergence.py     R-hat and effective draws; the only door to arviz-stats
posterior.py       Posterior: draws of the parameters, and whether they can be trusted
ranges.py          how far each free parameter may lie from its estimate
indices.py         Sobol's and Morris's indices; the only door to SALib
sensitivities.py   sensitivity: which parameters drive an endpoint, and a tornado
searching.py       search: schedules tried, the front between two endpoints
searchfiles.py     a search on disk: trials, front, the chosen schedule
sampler.py         sample: walkers that wander through the posterior; the only door to emcee
predictivecheck.py  what a posterior says of each observation
parquet.py         tables as Parquet files with a header; the only door to pyarrow
virtual.py         VirtualPopulation: what is drawn of virtual patients, and who is plausible
populationfile.py  population.toml: virtual patients under scenarios
populationparts.py  what a folder with a virtual population holds
populationrun.py   run_population: chunk by chunk onto disk, gone on with after a stop
populationtables.py  grades, endpoints, paired differences and subgroups of virtual patients
panels.py          one panel: doses, grades, a course and what was measured of it
diagnostics.py     one panel on a fit: estimates, starts, residuals
plots.py           whole figures
profileplots.py    figures of profiles, and of observations left out
bandplots.py       figures of prediction bands
comparisonplots.py  the figure of a comparison
sensitivityplots.py  figures of what drives an endpoint
searchplots.py     the figure of a search: every schedule, the front, what was done
populationplots.py  figures of virtual patients: bands of courses, grades as bars
report.py          a fit in words and figures
posteriorplots.py   pairs of parameters, and the way of the walkers
predictiveplots.py  readings predicted beside those observed
posteriorreport.py  what was sampled in words and figures
populationreport.py  a virtual population in words, tables and figures
experiments.py     a scenario as PEtab has it: periods, and changes of the model
export.py          a problem as a PEtab v2 folder: SBML, tables, what they cannot say
options.py         what a person writes after an option
progress.py        what a command shows: how far it is, tables, what was written
cli_options.py     options that several commands share, and what they name
cli_models.py      check, show, new, export
cli_population.py  fit-all, population
cli_sample.py      sample
cli_profile.py     profile, leave-one-out
cli_predict.py     predict, compare, compare-fits
cli_fit.py         fit, replay
cli_sensitivity.py  sensitivity
cli_search.py      search
cli.py             the command line: simulate, fit, and the commands above
__main__.py        python -m crs_sim
=================  ================================================================================

panels.py to posteriorreport.py are the only doors to matplotlib; cli.py, cli_*.py and progress.py
to click; cli.py and progress.py to rich.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bandplots import plot_population_bands, plot_population_grades, plot_predictions
    from .batches import simulate_batches, simulate_many
    from .checks import check_model
    from .cohort import PopulationFit, Roles
    from .cohortfiles import save_population
    from .comparison import Comparison, compare
    from .comparisonplots import plot_comparison
    from .dosing import Dose, Schedule
    from .draws import Draws, laplace_draws, weighted_draws
    from .endpoints import (
        Endpoint,
        auc,
        day_of_peak,
        days_above,
        endpoint,
        level_on,
        peak,
        vasopressor_days,
        worst_grade,
    )
    from .ensemble import Ensemble, Failure, Sampling
    from .errors import CrsSimError
    from .export import Exported, LeftOut, export_petab
    from .fitplots import plot_left_out, plot_profiles
    from .fitting import Fit, drop_one, fit
    from .leaveout import HeldOut, Omission, compare_fits, leave_out
    from .ledger import Entry, Ledger
    from .model import Drug, Model, Parameter, Quantity, State, listing
    from .modelfile import load_model, read_model, sbml
    from .noise import GradeScale, Noise, Spread
    from .nonmem import Study, read_nonmem
    from .patient import Observation, Observations, Patient, check_against, load_patient
    from .patientfiles import new_patient
    from .plots import plot_case, plot_estimates, plot_residuals, plot_simulation, plot_starts
    from .populationfile import PopulationStudy, load_study
    from .populationparts import Results, Summary, load_results
    from .populationrun import run_population
    from .posterior import Posterior, SamplePlan, load_posterior
    from .posteriorplots import plot_corner, plot_predictive, plot_predictive_grades, plot_trace
    from .predictions import Predictions, predict, predict_prior
    from .predictivecheck import Predicted, predictive
    from .priors import Free, Population, load_population
    from .problem import FitProblem, load_problem, patient_problem
    from .profiles import Profile
    from .profiling import profile
    from .report import report_text, write_report
    from .rounds import fit_all
    from .sampler import PosteriorMode, sample
    from .scenario import Change, Condition, Hold, Scenario, Trigger
    from .scenariofile import Questions, load_scenarios
    from .searching import Search, search
    from .searchspace import SearchQuestion, load_search
    from .sensitivities import Sensitivity, SensitivityPlan, sensitivity
    from .sensitivityplots import plot_front, plot_sensitivity, plot_tornado
    from .settling import resolve_triggers
    from .simulation import NO_TREATMENT, Simulation, simulate
    from .storage import Run, load_fit, load_run, save_run
    from .summaries import write_population, write_posterior
    from .verdict import fit_warnings, influences, judge, judged_table
    from .virtual import Covariate, Design, Filter, VirtualPopulation, synthetic_patient

RESEARCH_ONLY = "Research use only: not for decisions about any patient."

_HOMES = {
    "bandplots": "plot_predictions",
    "batches": "simulate_batches simulate_many",
    "checks": "check_model listing",
    "cohort": "PopulationFit Roles",
    "cohortfiles": "save_population",
    "comparison": "Comparison compare",
    "comparisonplots": "plot_comparison",
    "dosing": "Dose Schedule",
    "draws": "Draws laplace_draws weighted_draws",
    "endpoints": "Endpoint auc day_of_peak days_above endpoint level_on peak vasopressor_days "
    "worst_grade",
    "ensemble": "Ensemble Failure Sampling",
    "errors": "CrsSimError",
    "export": "Exported LeftOut export_petab",
    "fitting": "Fit drop_one fit",
    "influence": "influences",
    "leaveout": "HeldOut Omission leave_out",
    "ledger": "Entry Ledger",
    "model": "Drug Model Parameter Quantity State",
    "modelfile": "read_model sbml",
    "modelfolder": "load_model",
    "newpatient": "new_patient",
    "noise": "GradeScale Noise Spread",
    "nonmem": "Study read_nonmem",
    "patient": "Observation Observations Patient check_against load_patient",
    "plots": "plot_case plot_estimates plot_residuals plot_simulation plot_starts",
    "population": "Population load_population",
    "populationfile": "PopulationStudy load_study",
    "populationparts": "Results load_results",
    "populationplots": "plot_population_bands plot_population_grades",
    "populationreport": "write_population",
    "populationrun": "run_population",
    "populationtables": "Summary",
    "problem": "FitProblem Free patient_problem load_problem",
    "rounds": "fit_all",
    "posterior": "Posterior SamplePlan load_posterior",
    "posteriorplots": "plot_corner plot_trace",
    "posteriorreport": "write_posterior",
    "predictivecheck": "Predicted predictive",
    "predictiveplots": "plot_predictive plot_predictive_grades",
    "predictions": "Predictions predict predict_prior",
    "profileplots": "plot_left_out plot_profiles",
    "profiles": "Profile",
    "profiling": "profile",
    "report": "report_text write_report",
    "sampler": "PosteriorMode sample",
    "scenario": "Change Scenario",
    "scenariofile": "Questions load_scenarios",
    "settling": "resolve_triggers",
    "searchfile": "load_search",
    "searching": "Search search",
    "searchplots": "plot_front",
    "searchspace": "SearchQuestion",
    "sensitivities": "Sensitivity SensitivityPlan sensitivity",
    "sensitivityplots": "plot_sensitivity plot_tornado",
    "simulation": "NO_TREATMENT Simulation simulate",
    "storage": "Run load_fit load_run save_run",
    "synthetic": "Design synthetic_patient",
    "structures": "compare_fits",
    "triggers": "Condition Hold Trigger",
    "trust": "fit_warnings",
    "verdict": "judge judged_table",
    "virtual": "Covariate Filter VirtualPopulation",
}
_HOME = {name: file for file, names in _HOMES.items() for name in names.split()}

__all__ = [
    "NO_TREATMENT",
    "RESEARCH_ONLY",
    "Change",
    "Comparison",
    "Condition",
    "Covariate",
    "CrsSimError",
    "Design",
    "Dose",
    "Draws",
    "Drug",
    "Endpoint",
    "Ensemble",
    "Entry",
    "Exported",
    "Failure",
    "Filter",
    "Fit",
    "FitProblem",
    "Free",
    "GradeScale",
    "HeldOut",
    "Hold",
    "Ledger",
    "LeftOut",
    "Model",
    "Noise",
    "Observation",
    "Observations",
    "Omission",
    "Parameter",
    "Patient",
    "Population",
    "PopulationFit",
    "PopulationStudy",
    "Posterior",
    "PosteriorMode",
    "Predicted",
    "Predictions",
    "Profile",
    "Quantity",
    "Questions",
    "Results",
    "Roles",
    "Run",
    "SamplePlan",
    "Sampling",
    "Scenario",
    "Schedule",
    "Search",
    "SearchQuestion",
    "Sensitivity",
    "SensitivityPlan",
    "Simulation",
    "Spread",
    "State",
    "Study",
    "Summary",
    "Trigger",
    "VirtualPopulation",
    "auc",
    "check_against",
    "check_model",
    "compare",
    "compare_fits",
    "day_of_peak",
    "days_above",
    "drop_one",
    "endpoint",
    "export_petab",
    "fit",
    "fit_all",
    "fit_warnings",
    "influences",
    "judge",
    "judged_table",
    "laplace_draws",
    "leave_out",
    "level_on",
    "listing",
    "load_fit",
    "load_model",
    "load_patient",
    "load_population",
    "load_posterior",
    "load_problem",
    "load_results",
    "load_run",
    "load_scenarios",
    "load_search",
    "load_study",
    "new_patient",
    "patient_problem",
    "peak",
    "plot_case",
    "plot_comparison",
    "plot_corner",
    "plot_estimates",
    "plot_front",
    "plot_left_out",
    "plot_population_bands",
    "plot_population_grades",
    "plot_predictions",
    "plot_predictive",
    "plot_predictive_grades",
    "plot_profiles",
    "plot_residuals",
    "plot_sensitivity",
    "plot_simulation",
    "plot_starts",
    "plot_tornado",
    "plot_trace",
    "predict",
    "predict_prior",
    "predictive",
    "profile",
    "read_model",
    "read_nonmem",
    "report_text",
    "resolve_triggers",
    "run_population",
    "sample",
    "save_population",
    "save_run",
    "sbml",
    "search",
    "sensitivity",
    "simulate",
    "simulate_batches",
    "simulate_many",
    "synthetic_patient",
    "vasopressor_days",
    "weighted_draws",
    "worst_grade",
    "write_population",
    "write_posterior",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """A public name, imported when first asked for."""
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'crs_sim' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("crs-sim")
    except PackageNotFoundError:  # a folder that was never installed
        return "0+unknown"
