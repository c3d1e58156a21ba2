"""A synthetic chain of states, to time models of any size; it has no biological meaning.

Each state is produced from the one before it and lost at a first-order rate, every third at a
saturable rate.
"""

from __future__ import annotations

HEAD = """function hill(x, K, n)
  x^n/(K^n + x^n)
end

model chain

  unit per_day = 1 / 86400 second;
  unit mg = 1e-3 gram;
  unit mg_per_day = 1e-3 gram / 86400 second;
  k = 4 per_day;  k is "Rate of passing on";  k description "assumption: synthetic";
  vmax = 20 mg_per_day;  vmax is "Largest rate";  vmax description "assumption: synthetic";
  km = 3 mg;  km is "Amount of half the rate";  km description "assumption: synthetic";
"""


def chain(states: int) -> str:
    """The model text of a chain."""
    lines = [HEAD]
    for i in range(states):
        lines.append(f'  X{i} = 0;  X{i} has mg;  X{i} is "State {i} of a synthetic chain";')
        lines.append(f'  X{i} description "assumption: synthetic";')
    for i in range(states):
        made = passed(i - 1) if i else ""
        lines.append(f"  X{i}' = {made + ' ' if made else ''}- {passed(i)};")
    return "\n".join([*lines, "end", ""])


def passed(i: int) -> str:
    """The rate out of a state, per day."""
    return f"vmax*hill(X{i}, km, 1)" if i % 3 == 2 else f"k*X{i}"
