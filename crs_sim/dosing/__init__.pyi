from .decisions import (
    PLANNED as PLANNED,
    DecisionLog as DecisionLog,
    MonitoredLevels as MonitoredLevels,
    Order as Order,
    Rules as Rules,
    check_rules as check_rules,
    distinct as distinct,
)
from .doses import (
    HOURS_PER_DAY as HOURS_PER_DAY,
    Dose as Dose,
    DoseSelection as DoseSelection,
    Input as Input,
    Schedule as Schedule,
    ask_about_dose as ask_about_dose,
    expand as expand,
)
from .event_times import (
    APART as APART,
    CYCLE as CYCLE,
    JOIN as JOIN,
    ONWARD as ONWARD,
    RESET as RESET,
    SAME_TIME as SAME_TIME,
    just_after as just_after,
    parameters_by_day as parameters_by_day,
)
from .ledger import (
    COLUMNS as COLUMNS,
    Entry as Entry,
    Ledger as Ledger,
    ledger_of as ledger_of,
    ledgers_of as ledgers_of,
    timed_by_parameters as timed_by_parameters,
)
from .scenario import (
    AS_GIVEN as AS_GIVEN,
    Change as Change,
    Condition as Condition,
    Hold as Hold,
    Scenario as Scenario,
    Trigger as Trigger,
    check_overlap as check_overlap,
    edited as edited,
    moved as moved,
    only_drugs as only_drugs,
    removed as removed,
    replaced as replaced,
    resized as resized,
    scaled as scaled,
)
from .timeline import (
    InputTables as InputTables,
    Timeline as Timeline,
    amounts as amounts,
    build_timeline as build_timeline,
    check_days as check_days,
    empty_timeline as empty_timeline,
    input_tables as input_tables,
    parameter_versions as parameter_versions,
    parameters_at_samples as parameters_at_samples,
)
