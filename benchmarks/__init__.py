"""What crs_sim costs, each figure beside its accuracy, its machine and its peers.

``make bench`` measures everything here and writes `benchmarks/results/`. In reading order:

===============  =================================================================================
machine.py       what it ran on: processor, cores, memory, versions, date
timing.py        a job timed several times; a whole process timed
case.py          the shipped case, its reference by Radau, and the measure of error
stops.py         the same doses for other tools, as stops
roadrunner.py    libRoadRunner on our exported SBML, at its fastest
copasi.py        COPASI on our exported SBML, doses as events
precision.py     error against time for every tool: the work-precision curves
patients.py      virtual patients, run on two threads
slopes.py        one gradient, and its accuracy
fitted.py        the fit of the case, as a process
processes.py     what a user waits for at a prompt: first run, cached run, help, the fit
targets.py       the table of targets
chain.py         a synthetic chain of states
growth.py        cost as the work grows
results.py       tables written
figure.py        the figure
__main__.py      python -m benchmarks
===============  =================================================================================
"""
