from .fit_files import (
    IterationFiles as IterationFiles,
    PopulationFit as PopulationFit,
    check_new as check_new,
    how_estimated as how_estimated,
    population_fit_warnings as population_fit_warnings,
    save_population as save_population,
)
from .patient_steps import (
    Outcome as Outcome,
    PatientFailure as PatientFailure,
    PatientFit as PatientFit,
    Roles as Roles,
)
from .population_fit import DRAWS as DRAWS, fit_all as fit_all
from .results import (
    FAILED as FAILED,
    GRADES as GRADES,
    KEPT as KEPT,
    RELEVANT_CHANGE as RELEVANT_CHANGE,
    SEVERE as SEVERE,
    Results as Results,
    Summary as Summary,
    load_results as load_results,
)
from .study_file import (
    PopulationStudy as PopulationStudy,
    load_study as load_study,
    with_number as with_number,
)
from .virtual_patients import (
    Covariate as Covariate,
    Design as Design,
    Filter as Filter,
    VirtualPopulation as VirtualPopulation,
    synthetic_patient as synthetic_patient,
)
from .virtual_run import run_population as run_population
