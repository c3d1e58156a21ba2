from .checks import check_model as check_model, no_value as no_value
from .codegen import (
    Array as Array,
    Code as Code,
    Indices as Indices,
    code_key as code_key,
    compile_model as compile_model,
)
from .formula import evaluate as evaluate, names as names, replaced as replaced
from .model import (
    GRADE as GRADE,
    Drug as Drug,
    Model as Model,
    Parameter as Parameter,
    Quantity as Quantity,
    State as State,
    days_in as days_in,
    declared_units as declared_units,
    listing as listing,
    named_unit as named_unit,
    plain_number as plain_number,
    readable_unit as readable_unit,
)
from .model_file import load_model as load_model, read_model as read_model, sbml as sbml
from .source_code import (
    ConstantHoisting as ConstantHoisting,
    Elimination as Elimination,
    Function as Function,
    elimination as elimination,
    factor_lines as factor_lines,
    jacobian_lines as jacobian_lines,
    refuse_steps as refuse_steps,
    solve_lines as solve_lines,
    written as written,
)
from .symbolic import (
    RESERVED as RESERVED,
    Equations as Equations,
    Expression as Expression,
    Line as Line,
    equations as equations,
)
from .units import (
    COMMON_UNITS as COMMON_UNITS,
    conversion_factor as conversion_factor,
    convert as convert,
    dimension_of as dimension_of,
    pretty as pretty,
    read_unit as read_unit,
    same as same,
    show as show,
)
from .usual import Usual as Usual, UsualValues as UsualValues
