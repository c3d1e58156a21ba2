"""Benchmarks of crs_sim: each time with its accuracy, the machine, and other tools.

``make bench`` measures everything here and writes `benchmarks/results/`. In reading order:

===============  =================================================================================
machine.py       the machine: processor, cores, memory, versions, date
timing.py        repeated timing of a job; timing of a whole process
case.py          the shipped case, its reference by Radau, and the error measure
stops.py         the same doses for other tools, as stop times
roadrunner.py    libRoadRunner on our exported SBML, at its fastest
copasi.py        COPASI on our exported SBML, doses as events
precision.py     work-precision curves: error against time for every tool
patients.py      virtual patients, run on two threads
slopes.py        one gradient, and its accuracy
fitted.py        the fit of the case, in its own process
processes.py     whole commands: first run, cached run, help, the fit
targets.py       the table of targets
chain.py         a synthetic chain of states
growth.py        time against patients, doses and states
results.py       writes the tables
figure.py        draws the figure
__main__.py      python -m benchmarks
===============  =================================================================================
"""
