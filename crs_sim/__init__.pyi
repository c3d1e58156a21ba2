"""The public names, imported when first used."""

from .bandplots import (
    plot_left_out as plot_left_out,
    plot_population_bands as plot_population_bands,
    plot_population_grades as plot_population_grades,
    plot_predictions as plot_predictions,
)
from .comparisonplots import plot_comparison as plot_comparison
from .dosing import (
    Change as Change,
    Condition as Condition,
    Dose as Dose,
    Entry as Entry,
    Hold as Hold,
    Ledger as Ledger,
    Scenario as Scenario,
    Schedule as Schedule,
    Trigger as Trigger,
)
from .errors import RESEARCH_ONLY as RESEARCH_ONLY, CrsSimError as CrsSimError
from .exchange import Exported as Exported, LeftOut as LeftOut, export_petab as export_petab
from .fitplots import (
    plot_estimates as plot_estimates,
    plot_profiles as plot_profiles,
    plot_residuals as plot_residuals,
    plot_starts as plot_starts,
)
from .fitting import (
    Fit as Fit,
    FitProblem as FitProblem,
    Free as Free,
    GradeScale as GradeScale,
    Noise as Noise,
    Population as Population,
    Run as Run,
    Spread as Spread,
    drop_one as drop_one,
    fit as fit,
    fit_warnings as fit_warnings,
    influences as influences,
    judge as judge,
    judged_table as judged_table,
    load_fit as load_fit,
    load_population as load_population,
    load_problem as load_problem,
    load_run as load_run,
    patient_problem as patient_problem,
    save_run as save_run,
)
from .model import (
    Drug as Drug,
    Model as Model,
    Parameter as Parameter,
    Quantity as Quantity,
    State as State,
    check_model as check_model,
    listing as listing,
    load_model as load_model,
    read_model as read_model,
    sbml as sbml,
)
from .patients import (
    Observation as Observation,
    Observations as Observations,
    Patient as Patient,
    Study as Study,
    check_against as check_against,
    load_patient as load_patient,
    new_patient as new_patient,
    read_nonmem as read_nonmem,
)
from .plots import plot_case as plot_case, plot_simulation as plot_simulation
from .population import (
    Covariate as Covariate,
    Design as Design,
    Filter as Filter,
    PopulationFit as PopulationFit,
    PopulationStudy as PopulationStudy,
    Results as Results,
    Roles as Roles,
    Summary as Summary,
    VirtualPopulation as VirtualPopulation,
    fit_all as fit_all,
    load_results as load_results,
    load_study as load_study,
    run_population as run_population,
    save_population as save_population,
    synthetic_patient as synthetic_patient,
)
from .posteriorplots import (
    plot_corner as plot_corner,
    plot_predictive as plot_predictive,
    plot_predictive_grades as plot_predictive_grades,
    plot_trace as plot_trace,
)
from .report import report_text as report_text, write_report as write_report
from .scenarios import (
    Comparison as Comparison,
    Questions as Questions,
    Search as Search,
    SearchQuestion as SearchQuestion,
    Sensitivity as Sensitivity,
    SensitivityPlan as SensitivityPlan,
    compare as compare,
    load_scenarios as load_scenarios,
    load_search as load_search,
    search as search,
    sensitivity as sensitivity,
)
from .sensitivityplots import (
    plot_front as plot_front,
    plot_sensitivity as plot_sensitivity,
    plot_tornado as plot_tornado,
)
from .simulation import (
    NO_TREATMENT as NO_TREATMENT,
    Endpoint as Endpoint,
    Ensemble as Ensemble,
    Failure as Failure,
    Sampling as Sampling,
    Simulation as Simulation,
    auc as auc,
    day_of_peak as day_of_peak,
    days_above as days_above,
    endpoint as endpoint,
    level_on as level_on,
    peak as peak,
    simulate as simulate,
    simulate_batches as simulate_batches,
    simulate_many as simulate_many,
    vasopressor_days as vasopressor_days,
    worst_grade as worst_grade,
)
from .solver import resolve_triggers as resolve_triggers
from .summaries import write_population as write_population, write_posterior as write_posterior
from .uncertainty import (
    Draws as Draws,
    HeldOut as HeldOut,
    Omission as Omission,
    Posterior as Posterior,
    PosteriorMode as PosteriorMode,
    Predicted as Predicted,
    Predictions as Predictions,
    Profile as Profile,
    SamplePlan as SamplePlan,
    compare_fits as compare_fits,
    laplace_draws as laplace_draws,
    leave_out as leave_out,
    load_posterior as load_posterior,
    predict as predict,
    predict_prior as predict_prior,
    predictive as predictive,
    profile as profile,
    sample as sample,
    weighted_draws as weighted_draws,
)

__version__: str
