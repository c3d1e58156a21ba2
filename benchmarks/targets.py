"""The table of performance targets: what, target, measured, met, and accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from crs_sim.solver.kernel import compile_kernel, gradient

from . import patients, processes, slopes
from .case import GOOD, Array, Case, Reference
from .precision import COPASI, OURS, PLAIN, ROADRUNNER, Point, chosen, roadrunner_tight
from .timing import timed, words

ONE_RUN, MANY_RUNS, GRADIENT, ENDPOINTS = 0.15, 0.01, 10.0, 1.3
FIT_STARTS, FIT_SECONDS = 20, 20.0
FIRST_SECONDS, CACHED_SECONDS, HELP_SECONDS = 15.0, 2.0, 0.3
PATIENTS, MEGABYTES = 1000, 300.0


@dataclass(frozen=True)
class Row:
    """One row of the table; ``met`` is empty for a row without a target."""

    what: str
    target: str
    measured: str
    met: str
    accuracy: str


def met(holds: bool) -> str:
    """The word for a target that is met or not."""
    return "met" if holds else "NOT MET"


def by_tool(points: list[Point]) -> dict[str, Point]:
    """The fastest sufficiently accurate point of each tool."""
    tools = dict.fromkeys(p.tool for p in points)
    return {tool: chosen(p for p in points if p.tool == tool) for tool in tools}


def rows(
    case: Case, reference: Reference, points: list[Point], starts: int = FIT_STARTS
) -> Iterator[Row]:
    """Yield each row as soon as it is measured."""
    best = by_tool(points)
    yield one_patient(best)
    yield from comparisons(best)
    yield from many_patients(case, best)
    yield exact_endpoints(case, best[OURS].rtol)
    yield one_gradient(case, reference.largest)
    yield the_fit(starts)
    yield first_ever()
    yield cached()
    yield shown_help()


def one_patient(best: dict[str, Point]) -> Row:
    """`simulate` and its table against libRoadRunner."""
    ours, peer = best[OURS], best[ROADRUNNER]
    ratio = ours.timing.minimum / peer.timing.minimum
    return Row(
        "one patient, 40 days, through simulate and its table, one core",
        f"at most {ONE_RUN:g} x libRoadRunner",
        f"{ratio:.3f} x: {ours.timing} against {words(peer.timing.minimum)}",
        met(ratio <= ONE_RUN),
        f"{ours.error:.1e} at rtol {ours.rtol:g}",
    )


def comparisons(best: dict[str, Point]) -> Iterator[Row]:
    """The other tools, for comparison."""
    for tool in (ROADRUNNER, COPASI, PLAIN):
        if tool in best:
            point = best[tool]
            settings = f"{point.error:.1e} at rtol {point.rtol:g}, {point.setting}"
            yield Row(f"the same by {tool}", "", str(point.timing), "", settings)


def many_patients(case: Case, best: dict[str, Point]) -> Iterator[Row]:
    """A thousand virtual patients on two cores, at two tolerances; their memory.

    The target is judged at the tolerance at which every checked patient is accurate. Some are at
    the edge of ignition, where every tool needs a tighter tolerance than for the case; so
    libRoadRunner runs the most demanding of them, to the same accuracy. The time at the case's
    tolerance is given for comparison.
    """
    values = patients.drawn(case, PATIENTS)
    few = {name: column[: patients.CHECKED] for name, column in values.items()}
    references = patients.references_of(case, few)
    hardest = int(np.argmax(patients.errors(case, few, references, best[OURS].rtol)))
    peer = chosen(roadrunner_tight(patients.alone(case, few, hardest), references[hardest]))
    what = f"{PATIENTS} patients, two cores, per patient"
    strict = patients.loosest(case, few, references)
    ratio, row = per_patient(case, values, strict, peer.timing.minimum)
    yield Row(what, f"at most {MANY_RUNS:g} x libRoadRunner's", row, met(ratio <= MANY_RUNS),
              accuracy_of(case, few, references, strict))  # fmt: skip
    yield Row("the most demanding patient checked, by libRoadRunner", "", str(peer.timing), "",
              f"{peer.error:.1e} at rtol {peer.rtol:g}, {peer.setting}")  # fmt: skip
    _, row = per_patient(case, values, best[OURS].rtol, best[ROADRUNNER].timing.minimum)
    yield Row(f"{what}, both at the case's tolerances", "", row, "",
              accuracy_of(case, few, references, best[OURS].rtol))  # fmt: skip
    more = processes.memory(PATIENTS, best[OURS].rtol)
    yield Row(f"{PATIENTS} patients, peak memory above import", f"under {MEGABYTES:g} MB",
              f"{more:.0f} MB", met(more < MEGABYTES), "all curves in memory")  # fmt: skip


def exact_endpoints(case: Case, rtol: float) -> Row:
    """Endpoints from the solver's steps, against the same runs sampled every 6 hours."""
    values = patients.drawn(case, PATIENTS)
    grid, exact = (
        timed(partial(patients.endpoints, case, values, rtol, exact=exact), 5).minimum / PATIENTS
        for exact in (False, True)
    )
    return Row(
        f"{len(patients.ENDPOINTS)} endpoints of {PATIENTS} patients, one core, per patient",
        f"at most {ENDPOINTS:g} x the same runs sampled every 6 hours",
        f"{exact / grid:.2f} x: {words(exact)} against {words(grid)}",
        met(exact / grid <= ENDPOINTS), "independent of the samples",
    )  # fmt: skip


def per_patient(case: Case, values: patients.Values, rtol: float, peer: float) -> tuple[float, str]:
    """The time per patient relative to ``peer`` seconds, as a ratio and as text."""
    timing = timed(lambda: patients.courses(case, values, rtol), 3)
    each = timing.minimum / PATIENTS
    text = f"{each / peer:.4f} x: {words(each)} against {words(peer)} (all in {timing})"
    return each / peer, text


def accuracy_of(case: Case, few: patients.Values, references: list[Reference], rtol: float) -> str:
    """The errors of the checked patients, as text."""
    errors = patients.errors(case, few, references, rtol)
    return (
        f"median {np.median(errors):.1e}, worst {errors.max():.1e} of {len(errors)} patients "
        f"checked, at rtol {rtol:g}"
    )


def one_gradient(case: Case, largest: Array) -> Row:
    """Time of a gradient relative to a run, at the loosest tolerance with accurate derivatives."""
    kernel, free = compile_kernel(case.model), slopes.free_columns(case)
    line, values = case.line, case.values
    exact = slopes.extrapolated(kernel, case, free)
    rtol, error = slopes.loosest(kernel, case, free, exact, largest)
    alone = timed(lambda: kernel.run(line, values[None], rtol=rtol), 15)
    whole = timed(lambda: gradient(kernel, line, values, free, rtol=rtol), 10)
    ratio = whole.minimum / alone.minimum
    return Row(
        f"one gradient by {len(free)} parameters, one core",
        f"at most {GRADIENT:g} x one run",
        f"{ratio:.1f} x: {whole} against {words(alone.minimum)}",
        met(ratio <= GRADIENT and error <= GOOD),
        f"{error:.1e} of the largest derivative at rtol {rtol:g}, against Richardson extrapolation",
    )


def the_fit(starts: int = FIT_STARTS) -> Row:
    """The case's fit; the target can be met only with all starts."""
    outcome = processes.fitted(starts)
    what, target = f"the case's fit, {starts} starts, two cores", f"under {FIT_SECONDS:g} s"
    if outcome is None:
        return Row(what, target, f"more than {processes.LONGEST_FIT:g} s", met(False), "stopped")
    return Row(
        what, target, f"{words(outcome['seconds'])} ({outcome['runs']:.0f} runs)",
        met(starts >= FIT_STARTS and outcome["seconds"] < FIT_SECONDS),
        f"cost {outcome['cost']:.6g}",
    )  # fmt: skip


def first_ever() -> Row:
    """The first run, with everything compiled and a message meanwhile."""
    done = processes.first_ever()
    shown = "compiling" in done.errors
    message = "with a message" if shown else "without a message"
    return Row("first run ever, compilation included, whole process",
               f"under {FIRST_SECONDS:g} s, with a message", f"{words(done.seconds)}, {message}",
               met(shown and done.seconds < FIRST_SECONDS), "as simulate, rtol 1e-6")  # fmt: skip


def cached() -> Row:
    """The simulate command with a filled cache."""
    timing = processes.cached()
    return Row("crs-sim simulate ruemmele2025 --out x.csv, cached, whole process",
               f"under {CACHED_SECONDS:g} s", str(timing),
               met(timing.median < CACHED_SECONDS), "as simulate, rtol 1e-6")  # fmt: skip


def shown_help() -> Row:
    """The help command."""
    timing = processes.shown_help()
    return Row("crs-sim --help, whole process", f"under {HELP_SECONDS:g} s", str(timing),
               met(timing.median < HELP_SECONDS), "no numbers")  # fmt: skip
