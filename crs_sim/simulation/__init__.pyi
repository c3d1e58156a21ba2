from .batches import (
    BATCH as BATCH,
    Batch as Batch,
    plan_batches as plan_batches,
    run_batch as run_batch,
    simulate_batches as simulate_batches,
    simulate_many as simulate_many,
)
from .cluster import (
    InOrder as InOrder,
    Workers as Workers,
    completed_on_cluster as completed_on_cluster,
    kept_workers as kept_workers,
    ordered_map as ordered_map,
    parallel_map as parallel_map,
)
from .endpoints import (
    Dense as Dense,
    Endpoint as Endpoint,
    auc as auc,
    day_of_peak as day_of_peak,
    days_above as days_above,
    endpoint as endpoint,
    grade_endpoints as grade_endpoints,
    kinds_of_endpoint as kinds_of_endpoint,
    level_on as level_on,
    peak as peak,
    states_of as states_of,
    vasopressor_days as vasopressor_days,
    worst_grade as worst_grade,
)
from .ensemble import (
    EVERY_HOURS as EVERY_HOURS,
    Ensemble as Ensemble,
    Failure as Failure,
    Sampling as Sampling,
)
from .simulation import (
    NO_TREATMENT as NO_TREATMENT,
    Simulation as Simulation,
    sample_days as sample_days,
    simulate as simulate,
    table_files as table_files,
)
from .workers import (
    Processes as Processes,
    StoppedError as StoppedError,
    raise_if_stopped as raise_if_stopped,
    thread_map as thread_map,
)
