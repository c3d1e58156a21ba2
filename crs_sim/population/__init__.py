"""Several patients fitted at once, and virtual patients.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

======================  =========================================================================
importance_sampling.py  a patient's likelihood integrated over the population, and its slopes
two_stage.py            the population behind several patients, from what their data say
patient_steps.py        one patient given the population: fitted, or integrated
fit_files.py            the result, and such a fit on disk as it runs and when it is done
population_fit.py       fit_all: patients given the population, the population given the patients
virtual_patients.py     virtual patients drawn, synthetic patients measured
study_file.py           population.toml: virtual patients under scenarios
results.py              parts on disk, and summary tables
virtual_run.py          run_population: chunk by chunk, resumed after a stop
======================  =========================================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
