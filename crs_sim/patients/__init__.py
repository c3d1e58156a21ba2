"""Who was treated with what, and what was seen: patient folders, NONMEM and Monolix data sets.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

=================  =================================================================
patient_files.py   the columns of a patient's files
patient.py         Observation, Patient, Study, load_patient
patient_checks.py  a patient checked against a model; templates for a new one
nonmem_columns.py  the columns of a data set, and the map to a model
nonmem_records.py  what one record means for a model
nonmem.py          a data set as patients, in NONMEM's meaning
=================  =================================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
