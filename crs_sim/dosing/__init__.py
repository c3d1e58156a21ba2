"""What is done to a patient, and when, exactly; the model's equations are not needed here.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

==============  =========================================================================
doses.py        Dose, Schedule, and their expansion into single inputs
scenario.py     Scenario: doses, edits of them, changes of parameters, triggers and holds
event_times.py  when doses arrive, lags, resets, steady states; the clock of a run
decisions.py    what triggers and holds decide, from given levels
ledger.py       every dose given or held, and why; the rules in full
timeline.py     a scenario split into segments that no solver steps across
==============  =========================================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
