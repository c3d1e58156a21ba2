from .comparison import (
    LEVEL as LEVEL,
    RESOLUTION as RESOLUTION,
    Comparison as Comparison,
    compare as compare,
    scenarios_text as scenarios_text,
)
from .indices import prior_draws as prior_draws
from .scenario_file import (
    SCENARIOS as SCENARIOS,
    Questions as Questions,
    load_scenarios as load_scenarios,
)
from .search_space import (
    SEARCH as SEARCH,
    SearchQuestion as SearchQuestion,
    load_search as load_search,
)
from .searching import (
    Search as Search,
    compare_trials as compare_trials,
    search as search,
    thin_front as thin_front,
)
from .sensitivities import (
    TAIL as TAIL,
    Sensitivity as Sensitivity,
    SensitivityPlan as SensitivityPlan,
    sensitivity as sensitivity,
)
