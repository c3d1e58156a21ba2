from .fit_report import (
    acceptance_criteria as acceptance_criteria,
    add_profiles as add_profiles,
    better_optima as better_optima,
    course_warnings as course_warnings,
    estimate_words as estimate_words,
    fitted_words as fitted_words,
    grades_by_day as grades_by_day,
    observed_words as observed_words,
    profile_words as profile_words,
    report_text as report_text,
    summary as summary,
    when_words as when_words,
    write_report as write_report,
)
from .summaries import (
    CHOSEN as CHOSEN,
    COLUMNS as COLUMNS,
    files_of_search as files_of_search,
    patient_counts as patient_counts,
    summary_words as summary_words,
    write_population as write_population,
    write_posterior as write_posterior,
)
