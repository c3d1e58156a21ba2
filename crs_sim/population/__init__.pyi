from .cohort import (
    Outcome as Outcome,
    PatientFailure as PatientFailure,
    PopulationFit as PopulationFit,
    Roles as Roles,
)
from .cohortfiles import (
    IterationFiles as IterationFiles,
    check_new as check_new,
    population_fit_warnings as population_fit_warnings,
    save_population as save_population,
)
from .populationfile import (
    PopulationStudy as PopulationStudy,
    load_study as load_study,
    with_number as with_number,
)
from .populationparts import (
    FAILED as FAILED,
    GRADES as GRADES,
    KEPT as KEPT,
    RELEVANT_CHANGE as RELEVANT_CHANGE,
    Results as Results,
    SEVERE as SEVERE,
    Summary as Summary,
    load_results as load_results,
)
from .populationrun import run_population as run_population
from .rounds import fit_all as fit_all
from .virtual import (
    Covariate as Covariate,
    Design as Design,
    Filter as Filter,
    VirtualPopulation as VirtualPopulation,
    synthetic_patient as synthetic_patient,
)
