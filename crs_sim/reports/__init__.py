"""The words around figures.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

=============  ===========================================
fit_report.py  a fit: text, tables, figures
summaries.py   a posterior; a virtual population; a search
=============  ===========================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
