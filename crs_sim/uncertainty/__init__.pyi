from .cross_validation import (
    HeldOut as HeldOut,
    Omission as Omission,
    compare_fits as compare_fits,
    leave_out as leave_out,
    leave_out_table as leave_out_table,
)
from .draws import (
    ESS_NEEDED as ESS_NEEDED,
    RHAT_LIMIT as RHAT_LIMIT,
    WALKERS_LIMIT as WALKERS_LIMIT,
    Draws as Draws,
    laplace_draws as laplace_draws,
    weighted_draws as weighted_draws,
)
from .posterior import (
    ABOUT as ABOUT,
    CHAIN as CHAIN,
    DRAWS_FILE as DRAWS_FILE,
    Posterior as Posterior,
    SamplePlan as SamplePlan,
    load_posterior as load_posterior,
    problem_hash as problem_hash,
    read_draws as read_draws,
    run_header as run_header,
)
from .predictions import (
    DRAWS as DRAWS,
    Band as Band,
    Predictions as Predictions,
    observables as observables,
    predict as predict,
    predict_prior as predict_prior,
)
from .predictive_check import (
    Predicted as Predicted,
    influence_table as influence_table,
    influences as influences,
    outside_interval_text as outside_interval_text,
    predictive as predictive,
)
from .profiles import (
    FILE as FILE,
    PROFILE_LEVELS as PROFILE_LEVELS,
    VERDICT_EXPLANATION as VERDICT_EXPLANATION,
    Interval as Interval,
    Profile as Profile,
    append_omission as append_omission,
    append_profile as append_profile,
    limit as limit,
    profiles_table as profiles_table,
    read_omissions as read_omissions,
    read_profiles as read_profiles,
)
from .profiling import profile as profile
from .sampler import (
    PosteriorMode as PosteriorMode,
    posterior_draws as posterior_draws,
    posterior_mode as posterior_mode,
    sample as sample,
)
