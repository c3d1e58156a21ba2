"""One run, many runs, and endpoints; on one core, all cores or a cluster.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

=============  ===========================================================================
endpoints.py   courses between samples, and one number each: peaks, areas, worst grade
simulation.py  simulate: a Simulation, and its files
workers.py     the same work on many items, in processes or threads
cluster.py     the same work on a Dask cluster; the only door to dask.distributed
ensemble.py    courses of the same members under every scenario
batches.py     simulate_many: a table of parameter values under scenarios
=============  ===========================================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
