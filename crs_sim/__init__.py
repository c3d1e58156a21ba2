"""crs_sim: a mechanistic simulator of cytokine release syndrome. Research use only.

>>> import crs_sim
>>> model, case = crs_sim.load_model("crs"), crs_sim.load_patient("ruemmele2025")
>>> run = crs_sim.simulate(model, case.scenario, until=1)
>>> run.table().columns[0]
'day'

The rooms of the package, from the ground up: each imports only from rooms above it, and only what
their doors (``__init__.pyi``) name; import-linter holds both rules. The ``__init__.py`` of a room
says what it is for and in which order to read its files.

=============  ====================================================================================
errors.py      what can go wrong, and how it is reported
store          files written whole or not at all, logs of long jobs, tables, workbooks, the cache
model          what the equations are: Model, its dialect, units, symbols, checks, SBML
dosing         what is done to a patient: doses, schedules, scenarios, triggers, the dose ledger
solver         how equations are followed: the compiled Rosenbrock method and solve_ivp
simulation     one run, many runs, endpoints; cores and clusters
patients       who was treated and what was seen: patient folders, NONMEM and Monolix data sets
fitting        the question, the observation model, the fit, how it is stored and judged
uncertainty    profiles, posterior, predictions, cross-validation, model comparison
scenarios      alternative scenarios: comparison, search, sensitivity
population     several patients fitted at once, and virtual patients
exchange       PEtab
figures        matplotlib
reports        the words around figures
cli            the command line
=============  ====================================================================================
"""

from typing import Any

from lazy_loader import attach_stub

_public, _, __all__ = attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        from .store import package_version

        return package_version()
    return _public(name)


def __dir__() -> list[str]:
    return sorted(__all__)
