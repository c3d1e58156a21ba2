from .integration import (
    Counts as Counts,
    check_method as check_method,
    explain as explain,
    integrate_timeline as integrate_timeline,
)
from .kernel import (
    LOG_STEP as LOG_STEP,
    compile_kernel as compile_kernel,
    side_by_side as side_by_side,
)
from .ode_solver import (
    NODES as NODES,
    Course as Course,
    Pieces as Pieces,
    cuts as cuts,
    roots as roots,
    values_at as values_at,
)
from .rosenbrock import DONE as DONE, LANES as LANES
from .segment_loop import Runs as Runs
from .trigger_resolution import (
    resolve_members as resolve_members,
    resolve_triggers as resolve_triggers,
)
