from .datasets import (
    failure_message as failure_message,
    run_description as run_description,
    simulate_data_set as simulate_data_set,
    study_files as study_files,
    subject_problem as subject_problem,
    subjects_with_observations as subjects_with_observations,
    summary as summary,
    write_problem as write_problem,
)
from .diagnostics import (
    GRADE_RULE as GRADE_RULE,
    SAME_OPTIMUM as SAME_OPTIMUM,
    SURE as SURE,
    Judged as Judged,
    Verdict as Verdict,
    agreeing as agreeing,
    agreement_text as agreement_text,
    condition_text as condition_text,
    fit_warnings as fit_warnings,
    judge as judge,
    judge_course as judge_course,
    judged_table as judged_table,
    residual_slices as residual_slices,
    signed_norm as signed_norm,
    verdict as verdict,
    when as when,
)
from .fitting import (
    DRAWS as DRAWS,
    Dropped as Dropped,
    Estimate as Estimate,
    Fit as Fit,
    assemble_fit as assemble_fit,
    drop_one as drop_one,
    estimates_table as estimates_table,
    fit as fit,
)
from .grades import GradeScale as GradeScale
from .local_optimisation import (
    MAX_STEPS as MAX_STEPS,
    ROUGH_TOLERANCE as ROUGH_TOLERANCE,
    Start as Start,
    check_reachable as check_reachable,
    informed as informed,
    minimize as minimize,
    optimise as optimise,
    polish as polish,
    start_points as start_points,
)
from .noise import (
    EXACT_KINDS as EXACT_KINDS,
    NORMAL_95 as NORMAL_95,
    Noise as Noise,
    Spread as Spread,
    days_needed as days_needed,
    grades_given_others as grades_given_others,
    predicted as predicted,
    residual_vector as residual_vector,
    residuals as residuals,
)
from .objective import (
    FAILED as FAILED,
    METHOD as METHOD,
    ROUGH_RTOL as ROUGH_RTOL,
    RTOL as RTOL,
    Courses as Courses,
    Objective as Objective,
    curves as curves,
    level_at as level_at,
    levels_within as levels_within,
    noise_record as noise_record,
    point_of as point_of,
    prior_vectors as prior_vectors,
    values_by_name as values_by_name,
)
from .priors import (
    Free as Free,
    Population as Population,
    from_scale as from_scale,
    load_population as load_population,
    to_scale as to_scale,
)
from .problem import (
    FitProblem as FitProblem,
    load_problem as load_problem,
    patient_problem as patient_problem,
)
from .storage import (
    RESULT as RESULT,
    SAME_COST as SAME_COST,
    Run as Run,
    address_of as address_of,
    load_fit as load_fit,
    load_run as load_run,
    problem_of as problem_of,
    save_run as save_run,
)
