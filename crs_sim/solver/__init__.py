"""How equations are followed: a compiled Rosenbrock method, and `solve_ivp` beside it.

In reading order, which is import order; other rooms import what ``__init__.pyi`` names.

=====================  ============================================================================
rosenbrock.py          the step loop of Rodas5P, four parameter sets side by side
segment_loop.py        from segment to segment, repeated until a steady state
machine_code.py        straight-line Python recorded as vector instructions, compiled, kept on disk
simd_code.py           a model's equations written for SIMD lanes
step_loop.py           the loops as machine code; the only door to numba
kernel.py              the compiled loops joined to a model: run, replay, gradient
ode_solver.py          the kernel as a method of solve_ivp; the only door to scipy.integrate
integration.py         one run: compiled, or segment by segment with a plain method
trigger_resolution.py  runs repeated until triggers and holds have no more to decide
=====================  ============================================================================
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
