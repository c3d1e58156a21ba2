from .comparison import Comparison as Comparison, LEVEL as LEVEL, compare as compare
from .indices import prior_draws as prior_draws
from .scenariofile import (
    Questions as Questions,
    SCENARIOS as SCENARIOS,
    load_scenarios as load_scenarios,
)
from .searchfiles import CHOSEN as CHOSEN, search_files as search_files
from .searching import (
    Search as Search,
    compare_trials as compare_trials,
    search as search,
    thin_front as thin_front,
)
from .searchspace import (
    SEARCH as SEARCH,
    SearchQuestion as SearchQuestion,
    load_search as load_search,
)
from .sensitivities import (
    Sensitivity as Sensitivity,
    SensitivityPlan as SensitivityPlan,
    TAIL as TAIL,
    sensitivity as sensitivity,
)
