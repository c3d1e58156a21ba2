from .nonmem import read_nonmem as read_nonmem, subject_of as subject_of
from .patient import (
    Observation as Observation,
    Observations as Observations,
    Patient as Patient,
    Study as Study,
    load_patient as load_patient,
    model_for_patient as model_for_patient,
)
from .patient_checks import (
    ask_about_treatment as ask_about_treatment,
    ask_about_values as ask_about_values,
    check_against as check_against,
    new_patient as new_patient,
    patient_at as patient_at,
    template_rows as template_rows,
)
from .patient_files import FILES as FILES
