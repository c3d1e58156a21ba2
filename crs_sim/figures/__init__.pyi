from .comparison_plots import plot_comparison as plot_comparison
from .fit_plots import (
    FAR as FAR,
    plot_estimates as plot_estimates,
    plot_profiles as plot_profiles,
    plot_residuals as plot_residuals,
    plot_starts as plot_starts,
)
from .panels import format_number as format_number, unit_text as unit_text
from .plots import (
    check_format as check_format,
    figure_file as figure_file,
    figure_files as figure_files,
    plot_case as plot_case,
    plot_simulation as plot_simulation,
)
from .posterior_plots import (
    plot_corner as plot_corner,
    plot_predictive as plot_predictive,
    plot_predictive_grades as plot_predictive_grades,
    plot_trace as plot_trace,
)
from .prediction_plots import (
    figures_of as figures_of,
    plot_left_out as plot_left_out,
    plot_population_bands as plot_population_bands,
    plot_population_grades as plot_population_grades,
    plot_predictions as plot_predictions,
)
from .sensitivity_plots import (
    plot_front as plot_front,
    plot_sensitivity as plot_sensitivity,
    plot_tornado as plot_tornado,
)
