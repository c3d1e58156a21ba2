"""Interpret one record of a data set for a model: time, drug, observation.

Nothing is guessed: a compartment that two drugs enter, a DV without an observable or a date without
a time zone is an error with its location.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..errors import (
    CrsSimError,
    FileError,
    UnitError,
    error_location,
    with_location,
)
from ..model import Drug, Model, convert, named_unit, pretty, readable_unit
from ..store import EXAMPLE_TIME, number, number_or_text, place
from .nonmem_columns import OBSERVATION, STANDARD, DataRow, DataSet, ObservableEntry
from .patient import Observation

MODELLED: dict[int, Literal["rate", "duration"]] = {-1: "rate", -2: "duration"}
"""What RATE leaves to the model."""
ORDINARY = ("RACE", "DATA", "STATE", "RATIO", "CENT", "CRATE", "DAMT", "NAMT", "LATE", "EVENT")
"""Common columns of other meaning that look like a standard name misspelt."""
Rows = Sequence[tuple[int, DataRow, Mapping[str, str]]]
"""Row, record, and cells by the names in the file."""


class NotPositiveError(FileError):
    """An observation that cannot be fitted, since it has no logarithm."""


def unused_columns(data: DataSet, _: Model) -> Iterator[str]:
    """Say which columns are not used; a name that is misspelt is kept with the mistakes."""
    head, unused = data.unused
    for col in unused:
        with data.mistakes.kept():
            _refuse_misspelt(data, head, col)
        yield f"column {col} is not used"


def _refuse_misspelt(data: DataSet, head: int, col: str) -> None:
    """Raise an error for an unused column with a misspelt standard name or unsupported meaning."""
    if col.upper() == "PCMT":
        raise FileError(
            f"{place(data.path, head, col)}: ignore it; every state is predicted anyway"
        )
    free = [name for name in STANDARD if name not in data.named and len(name) > 2]
    close = get_close_matches(col.upper(), free, n=1, cutoff=0.75)
    if close and col.upper() not in ORDINARY:
        raise FileError(
            f"{place(data.path, head)}: unknown column {col!r}: did you mean {close[0]!r}? If not, "
            f'write ignore = ["{col}"] in the map'
        )


def read_time(data: DataSet, row: int, record: DataRow) -> float | datetime:
    """TIME as a number of hours or days or, with a date, as a date-time in UTC."""
    where, text = data.where(row, "TIME"), record.TIME
    if ":" not in text and not record.DATE:
        try:
            return number(text)
        except ValueError as error:
            raise FileError(f"{where}: {error}") from None
    if not record.DATE and "-" not in text:
        raise FileError(f"{where}: {text!r} is a time of day; it needs a DATE (2024-03-11)")
    if record.DATE:
        hour, _, minute = text.partition(":")
        text = f"{record.DATE}T{hour.zfill(2)}:{minute or '00'}"
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise FileError(f"{where}: {text!r} is not a date and time; write {EXAMPLE_TIME}") from None
    return _zoned(time, text, data.map.time_zone, where).astimezone(UTC)


def _zoned(time: datetime, text: str, zone: str, where: str) -> datetime:
    if time.tzinfo is not None:
        return time
    if not zone:
        raise FileError(
            f"{where}: {text!r} has no time zone; write it as {EXAMPLE_TIME}, or "
            'time_zone = "Europe/Vienna" in the map'
        )
    try:
        return time.replace(tzinfo=ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError):
        raise FileError(f"{where}: time_zone {zone!r} of the map is unknown") from None


def covariate_rows(data: DataSet, model: Model, rows: Rows) -> list[dict[str, float]]:
    """The covariates of each record of a subject, by parameter; empty cells are filled.

    An empty cell has the value of the record above it; where the map carries covariates backward,
    that of the next record which has one.

    Raises
    ------
    FileError
        For a cell that is not a number, a subject without any value, or, carried forward, without
        one on its first record.
    """
    filled: list[dict[str, float]] = [{} for _ in rows]
    id = rows[0][1].ID
    backward = data.map.covariates_between == "backward"
    for parameter, col in data.covariates.items():
        own = [(n, row, cells[col]) for n, (row, _, cells) in enumerate(rows) if col in cells]
        if not own:
            raise FileError(
                f"{data.where(rows[-1][0], col)}: subject {id} has no {parameter}; "
                "fill it in on its first record, or leave the column out"
            )
        if own[0][0] and not backward:
            raise FileError(
                f"{data.where(own[0][1], col)}: is the first value of {parameter} for subject "
                f"{id}; give one on the subject's first record, to be carried forward"
            )
        factor, _ = covariate_unit(data, model, parameter)
        values = {n: factor * _covariate(data, row, col, cell) for n, row, cell in own}
        for n, row, _ in own:
            model.refuse_outside({parameter: values[n]}, f"{data.where(row, col)}:")
        value = values[own[-1][0] if backward else 0]
        for n in range(len(rows))[:: -1 if backward else 1]:
            value = values.get(n, value)
            filled[n][parameter] = value
    return filled


def covariate_unit(data: DataSet, model: Model, parameter: str) -> tuple[float, str]:
    """Factor from a covariate's column into the model's unit; and in words how it is read.

    The unit is that of the map. Else a lag, a duration or a rate of a drug is in the time unit of
    the map (a column of another name than the parameter's: of TIME); all others are in the model's.

    Raises
    ------
    UnitError
        If the units cannot be converted.
    """
    entry, target = data.map.covariates.get(parameter), model[parameter].unit
    col, hours = data.covariates[parameter], data.map.time_unit or "hours"
    unit = "" if entry is None or isinstance(entry, str) else entry.unit
    times = {name for drug in model.drugs for name in (drug.lag, drug.duration) if name}
    rates = {drug.rate: drug for drug in model.drugs if drug.rate}
    follows = data.map.time_unit or col != parameter
    if not unit and follows and parameter in times:
        unit = hours
    elif not unit and follows and parameter in rates:
        amount = data.map.amount_unit or readable_unit(model, rates[parameter].unit)
        unit = f"{amount}/{hours}"
    if not unit:
        return 1.0, "" if named_unit(target) is None and not target else f"{col} ({pretty(target)})"
    with error_location(f"{data.where(0, col)} ({parameter})"):
        return convert(1.0, unit, readable_unit(model, target)), f"{col} ({unit})"


def covariate_units(data: DataSet, model: Model) -> Iterator[str]:
    """Say in which unit each covariate is read."""
    said = [covariate_unit(data, model, parameter)[1] for parameter in data.covariates]
    if any(said):
        yield (
            f"units of covariates: {', '.join(filter(None, said))}; another is stated as "
            'parameter = { column = "...", unit = "..." } under [covariates] in the map'
        )


def _covariate(data: DataSet, row: int, col: str, cell: str) -> float:
    try:
        return number(cell)
    except ValueError as error:
        raise FileError(f"{data.where(row, col)}: {error}") from None


def read_drug(data: DataSet, model: Model, row: int, record: DataRow) -> tuple[Drug, str]:
    """The drug of a dose record, and the unit of its amount.

    It is the drug mapped to CMT; else the one that enters the compartment of that number; else the
    one of that name.
    """
    key, where = _key(record.CMT), data.where(row, "CMT")
    name = data.map.drugs.get(key or "0", "")
    if not name:
        name = _only_drug(data, model, where) if key in ("", "0") else _entering(model, key, where)
    try:
        drug = model.drug(name)
    except CrsSimError as error:
        raise with_location(where, error) from None
    which = "" if record.TINF else MODELLED.get(int(record.RATE), "")
    if which and not getattr(drug, which):
        raise FileError(
            f"{data.where(row, 'RATE')}: RATE = {record.RATE:g} takes the {which} from the model, "
            f'but {name} has none; write {which} = "a parameter" in drugs.toml'
        )
    unit = record.AMTUNIT or data.map.amount_unit
    _check_amount(data, model, row, drug, unit)
    return drug, unit


def infusion_hours(record: DataRow, unit: float) -> float | None:
    """Infusion time of a dose record, if not from RATE or the model; ``unit`` is hours of TINF."""
    if record.RATE > 0:
        return None
    return record.TINF * unit if record.TINF or record.RATE == 0 else None


def _only_drug(data: DataSet, model: Model, where: str) -> str:
    """The drug if CMT is not given."""
    drugs = [d.name for d in model.drugs]
    if data.map.drug or len(drugs) == 1:
        return data.map.drug or drugs[0]
    raise FileError(
        f'{where}: no drug given; write drug = "{drugs[0] if drugs else "..."}" in the '
        "map, or fill in CMT"
    )


def _entering(model: Model, key: str, where: str) -> str:
    """The one drug that enters the compartment of that number; or the name itself."""
    if key.startswith("-"):
        raise FileError(f"{where}: {key} turns a compartment off, which is not supported")
    if not key.isdigit():
        return key
    states = model.state_ids
    if int(key) > len(states):
        raise FileError(f"{where}: {key}, but the model has {len(states)} compartments")
    state = states[int(key) - 1]
    drugs = [d.name for d in model.drugs if d.into == state]
    if len(drugs) > 1:
        raise FileError(
            f"{where}: {key} is {state}, which {' and '.join(drugs)} enter; write {key} = "
            f'"{drugs[0]}" under [drugs] in the map'
        )
    return drugs[0] if drugs else state


def _check_amount(data: DataSet, model: Model, row: int, drug: Drug, unit: str) -> None:
    where = data.where(row, "AMTUNIT" if "AMTUNIT" in data.named else "AMT")
    try:
        _, power = drug.conversion(unit, target=readable_unit(model, drug.unit))
    except UnitError as error:
        raise with_location(where, error) from None
    if power and "weight" not in model.values:
        raise FileError(f"{where}: {unit} needs a body weight, and the model has none")


def observable_of(data: DataSet, model: Model, row: int, record: DataRow) -> tuple[str, str]:
    """The observable of a record, and its unit in the map ("": the model's).

    It is the one mapped to DVID, or to CMT if there is no DVID; else the name given there itself;
    else, without a DVID, the map's ``observable`` or the model's only quantity.
    """
    column = "DVID" if record.DVID else "CMT"
    key, where = _key(getattr(record, column)), data.where(row, column)
    entry = data.map.observables.get(key, "")
    if isinstance(entry, str):
        entry = ObservableEntry(name=entry)
    by_name = "" if key.lstrip("-").isdigit() else key
    only = "" if record.DVID else _only_observable(data, model)
    name = entry.name or by_name or only
    if not name:
        raise FileError(f"{where}: DV without an observable; {_advice(data, model, column, key)}")
    known = (*model.quantity_ids, *model.state_ids)
    name = model.usual.understood("level", name, known)
    if name not in known:
        raise with_location(where, model.usual.refuse("level", name, known))
    return name, entry.unit


def _advice(data: DataSet, model: Model, column: str, key: str) -> str:
    """What to write in the map for a DV without an observable."""
    taken = {e if isinstance(e, str) else e.name for e in data.map.observables.values()}
    free = [name for name in model.quantity_ids if name not in taken]
    example = free[0] if free else "..."
    if not key:
        return f'write observable = "{example}" in the map, or fill in {column}'
    leave = f'leave_out = ["{key}"] at the top of the map leaves the rows of {column} {key} out'
    if not free and taken:
        return f"{column} {key} is not in the map: {leave}"
    observed = (r for _, r, _ in data.rows if r.event == OBSERVATION and not r.MDV)
    if len({_key(getattr(record, column)) for record in observed}) > 1:  # which is it?
        which = f'write {key} = "..." under [observables] in the map if it is one of'
        return f"{which} {', '.join(free)}; {leave}"
    return f'write {key} = "{example}" under [observables] in the map, or {leave}'


def is_left_out(data: DataSet, record: DataRow) -> bool:
    """Whether the map leaves the DV of a record out."""
    key = _key(record.DVID or record.CMT)
    return bool(key) and key in {_key(str(left)) for left in data.map.leave_out}


def _only_observable(data: DataSet, model: Model) -> str:
    """The default observable, if there is only one; else ""."""
    return data.map.observable or (model.quantity_ids[0] if len(model.quantities) == 1 else "")


def observables_by_default(data: DataSet, model: Model) -> Iterator[str]:
    """Report the compartment whose observations are assigned to the default observable.

    Raises
    ------
    FileError
        If there is a second number in CMT: it may be another observable.
    """
    name = _only_observable(data, model)
    for col in data.map.ignore if name else ():
        if col.upper() in ("DVID", "YTYPE"):
            yield f"column {col} is ignored, so that every DV is taken as {name}"
    first: tuple[str, int] | None = None
    for row, record, _ in data.rows if name else ():
        key = _key(record.CMT)
        if record.event != OBSERVATION or record.MDV or record.DVID or is_left_out(data, record):
            continue
        if key in ("", "0", *data.map.observables) or not key.isdigit():
            continue
        if first is None:
            first = key, row
            yield f"observations of CMT {key} are taken as {name}; the map can override this"
        elif key != first[0]:
            raise FileError(
                f"{data.where(row, 'CMT')}: is {key}, and {first[0]} in row {first[1]}; it is "
                f'ambiguous whether both are {name}; write {first[0]} = "{name}" and {key} = "..." '
                "under [observables] in the map"
            )


def read_observation(
    data: DataSet, model: Model, row: int, record: DataRow, day: float
) -> Observation | str:
    """The observation of a record; only the name of its observable if DV is empty."""
    name, unit = observable_of(data, model, row, record)
    kind, value = _level(data, row, record)
    if value is None:
        return name
    if value <= 0:
        raise NotPositiveError(
            f"{data.where(row, 'DV')}: {value:g} has no logarithm; mark it as below the limit "
            "(CENS = 1, and the limit in DV), or as missing (MDV = 1)"
        )
    model_unit = model[name].unit
    where = data.where(row, "DVUNIT" if "DVUNIT" in data.named else "DV")
    try:
        value = convert(
            value, record.DVUNIT or unit or model_unit, readable_unit(model, model_unit),
            molar_mass=model.molar_mass(name),
        )  # fmt: skip
    except UnitError as error:
        raise with_location(where, error) from None
    assay = data.map.assays.get(_key(record.DVID or record.CMT), "")
    return Observation(f"{name}_{row}", name, kind, day, day, math.nan, value, model_unit, row=row,
                       assay=assay)  # fmt: skip


def _level(data: DataSet, row: int, record: DataRow) -> tuple[str, float | None]:
    """The kind of DV, a value or a censoring limit, and the number."""
    value, limit = record.DV, record.LLOQ
    if record.CENS:
        return "below" if record.CENS == 1 else "above", limit if value is None else value
    if record.BLQ:
        return "below", limit
    if value is not None and limit is not None and value < limit:
        if "BLQ" in data.named:
            raise FileError(
                f"{data.where(row, 'DV')}: {value:g} is below LLOQ {limit:g}, but BLQ is 0"
            )
        return "below", limit
    return "value", value


def _key(text: str) -> str:
    """A CMT or DVID as written in the map: 2.0 as 2."""
    value = number_or_text(text)
    return str(int(value)) if isinstance(value, float) and value == int(value) else text
