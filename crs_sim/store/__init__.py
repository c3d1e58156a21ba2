"""Files, logs and tables: whatever is read from or written to disk goes through here.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

===========  =========================================================================
files.py     written atomically, found among the shipped ones, cached for this machine
records.py   results of long jobs: JSON lines that survive a kill, Parquet tables
workbook.py  rows of text, of a CSV file or of a sheet; the only door to openpyxl
tables.py    CSV and TOML into checked records; the only door to pydantic
===========  =========================================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
