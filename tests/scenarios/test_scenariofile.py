"""scenarios.toml: what it says is what is run; what is wrong is refused by name and place."""

from __future__ import annotations

import math
import re

import pytest
from paths import ROOT
from tiny_case import write_case

from crs_sim.errors import CrsSimError
from crs_sim.fitting.problem import load_problem
from crs_sim.scenarios.comparison import scenarios_text
from crs_sim.scenarios.scenario_file import load_scenarios

HEAD = 'until = 12\nendpoints = ["peak_amount", "worst_grade"]\n'


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return load_problem(write_case(tmp_path_factory.mktemp("tiny")) / "fit")


def read(problem, tmp_path, text, head=HEAD):
    path = tmp_path / "scenarios.toml"
    path.write_text(head + text, encoding="utf-8")
    return load_scenarios(path, problem.patient.scenario, problem.model)


def test_every_edit_in_its_order(problem, tmp_path):
    asked = read(problem, tmp_path, """
[[scenario]]
name = "all"
remove = [{ drug = "pill", day = 0 }]
scale = [{ drug = "pill", day = 2, factor = 2 }]
resize = [{ drug = "pill", day = 3, amount = 7, unit = "mg" }]
move = [{ drug = "pill", day = 5, by = 0.5 }]
add = [{ day = 9, drug = "pill", amount = 3, unit = "mg", hours = 1 }]
change = [{ parameter = "k", first = 3, last = 5, factor = 0 }]
values = { weight = 80 }
[[scenario.replace]]
drug = "pill"
day = 4
by = { drug = "pill", amount = 1, unit = "mg", every = 12, doses = 2 }
""")  # fmt: skip
    (all_of_it,) = asked.scenarios
    assert [(d.day, d.amount, d.unit) for d in all_of_it.doses] == [
        (2.0, 0.1, "mg/kg"), (3.0, 7.0, "mg"), (5.5, 0.05, "mg/kg"), (4.0, 1.0, "mg"),
        (4.5, 1.0, "mg"), (9.0, 3.0, "mg"),
    ]  # fmt: skip
    assert all_of_it.changes[0].describe() == "k x 0 from day 3 to 5"
    assert all_of_it.values["weight"] == 80
    assert [e.name for e in asked.endpoints] == ["peak_amount", "worst_grade"]


def test_triggers_and_holds(problem, tmp_path):
    (scenario,) = read(problem, tmp_path, """
[[scenario]]
name = "rescue"
hold = [{ drug = "pill", when = "amount > 3000" }]
[[scenario.trigger]]
name = "more"
when = "crs_grade >= 2"
give = { drug = "pill", amount = 8, unit = "mg" }
at_most = 4
hours_apart = 8
every_hours = 12
""").scenarios  # fmt: skip
    (trigger,) = scenario.triggers
    assert (trigger.at_most, trigger.hours_apart, trigger.every_hours) == (4, 8, 12)
    assert math.isinf(trigger.last) and trigger.dose.amount == 8
    assert str(scenario.holds[0]) == "no pill while amount > 3000"
    assert not scenario.decided


def test_a_trigger_of_several_conditions_and_a_course(problem, tmp_path):
    text = """[[scenario]]
name = "course"
hold = [{ drug = "pill", when = "amount > 3000 and shock > 2" }]
[[scenario.trigger]]
name = "more"
when = "crs_grade >= 2 and amount > 500"
give = { drug = "pill", amount = 8, unit = "mg", every = 12, doses = 4 }
at_most = 2
hours_apart = 24
"""
    (scenario,) = read(problem, tmp_path, text).scenarios
    (trigger,) = scenario.triggers
    assert str(trigger.when) == "crs_grade >= 2 and amount > 500" and trigger.course == (4, 12.0)
    assert [dose.day for dose in trigger.doses] == [0.0, 0.5, 1.0, 1.5]
    given = problem.patient.scenario
    written = scenarios_text([scenario], given, endpoints=["worst_grade"], until=12)
    (again,) = read(problem, tmp_path, written, head="").scenarios
    assert (again.triggers, again.holds) == (scenario.triggers, scenario.holds)


ONE = '[[scenario]]\nname = "one"\n'
TRIGGER = (
    ONE
    + """[[scenario.trigger]]
name = "more"
when = "{when}"
give = {{ drug = "pill", amount = 8, unit = "mg" }}
at_most = {most}
{apart}
{window}
"""
)


def trigger(when="amount >= 2", most=4, apart="hours_apart = 8", window=""):
    return TRIGGER.format(when=when, most=most, apart=apart, window=window)


@pytest.mark.parametrize(("text", "words"), [
    (ONE + 'remove = [{ drug = "pill", day = 1 }]',
     ("scenario 'one', remove 1", "there is no dose of pill on day 1", "it is given on day 0, 2")),
    (ONE + 'remove = [{ drug = "pil" }]', ("scenario 'one', remove 1", "did you mean 'pill'")),
    (ONE + 'add = [{ day = 1, drug = "pilll", amount = 1 }]',
     ("scenario 'one', add, replace", "did you mean 'pill'")),
    (ONE + 'change = [{ parameter = "k", first = 1, last = 5, factor = 0 }, '
           '{ parameter = "k", first = 4, last = 6, value = 1 }]',
     ("change 2", "k = 1 from day 4 to 6 overlaps with k x 0 from day 1 to 5")),
    (ONE + 'change = [{ parameter = "k", first = 5, last = 4, factor = 0 }]',
     ("change 1", "ends (day 4) before it starts (day 5)")),
    (ONE + 'change = [{ parameter = "kk", factor = 0 }]', ("change 1", "did you mean 'k'")),
    (ONE + 'remove = [{ drug = "pill", first = 4, last = 2 }]',
     ("the window ends (day 2) before it begins (day 4)",)),
    (trigger(when="amuont >= 2"), ("trigger 'more'", "did you mean 'amount'")),
    (trigger(when="amount is 2"), ("trigger 'more'", "is not a condition", "crs_grade >= 2")),
    (trigger(when="amount > 2 and amuont < 9"), ("trigger 'more'", "did you mean 'amount'")),
    (trigger(when="amount > 2 or amount < 1"), ("trigger 'more'", "joined by 'and' only")),
    (trigger().replace('"mg"', '"mg", every = 6'), ("'every' (hours) and 'doses' belong",)),
    (trigger(apart=""), ("hours_apart", "would fire for ever")),
    (trigger(apart="hours_apart = 0"), ("trigger 'more'", "would fire for ever")),
    (trigger(most=0), ("at_most is 0",)),
    (trigger(window="first = 5\nlast = 4"), ("from day 5 to day 4",)),
    (ONE + ONE, ("two are named 'one'",)),
    (ONE + 'add = [{ day = 13, drug = "pill", amount = 1 }]',
     ("scenario 'one', add 1", "pill would be given on day 13, after the last day of the runs")),
    (ONE + 'move = [{ drug = "pill", to = 20 }]', ("move 1", "given on day 20, after the last")),
    (ONE + 'change = [{ parameter = "k", first = 12, factor = 0 }]',
     ("change 1", "k x 0 from day 12 to inf: the runs last from day 0 to 12")),
    (ONE + 'add = [{ day = 1, drug = "pill", amount = 1, unit = "mL" }]',
     ("scenario 'one', doses", "'mL' cannot be converted into 'mg'")),
    (trigger(window="first = 13"), ("one: trigger 'more'", "first evaluated on day 13")),
    (ONE.replace("one", "as given"),
     ("'as given' is the name of the treatment as given", "another name")),
    (ONE + "remvoe = []", ("remvoe",)),
    ("", ("scenario",)),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(problem, tmp_path, text, words):
    with pytest.raises(CrsSimError) as caught:
        read(problem, tmp_path, text)
    said = str(caught.value)
    assert "scenarios.toml" in said
    for word in words:
        assert word in said


def test_endpoints_are_checked_too(problem, tmp_path):
    with pytest.raises(CrsSimError, match="did you mean 'peak_amount'"):
        read(problem, tmp_path, ONE, head='endpoints = ["peek_amount"]\n')
    with pytest.raises(CrsSimError, match="of endpoint peak_amonut"):
        read(problem, tmp_path, ONE, head='endpoints = ["peak_amonut"]\n')


@pytest.mark.parametrize(("head", "words"), [
    (HEAD.replace("12", "1e9"), "key until"),
    (HEAD.replace("worst_grade", "peak_amount"), "'peak_amount' is listed twice"),
    (HEAD.replace("worst_grade", "amount_d13"),
     "endpoints: amount_d13 is after the end of the runs on day 12"),
])  # fmt: skip
def test_what_the_runs_cannot_answer_is_refused(problem, tmp_path, head, words):
    with pytest.raises(CrsSimError, match=f"scenarios.toml, {words}" if "key" in words else words):
        read(problem, tmp_path, ONE, head=head)


def test_doses_that_go_on_after_the_last_day_are_no_mistake(problem, tmp_path):
    text = ONE + 'add = [{ day = 11.5, drug = "pill", amount = 1, every = 12, doses = 4 }]'
    (scenario,) = read(problem, tmp_path, text).scenarios
    assert max(dose.day for dose in scenario.doses) == 13


def test_the_example_of_the_readme_can_be_asked(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[[scenario]]" in b)
    (tmp_path / "scenarios.toml").write_text(block, encoding="utf-8")
    case = load_problem("ruemmele2025")
    edited, ruled = load_scenarios(tmp_path, case.patient.scenario, case.model).scenarios
    assert edited.doses.only("emapalumab").doses[0].day == 19
    assert [d.amount for d in edited.doses.only("rimiducid")] == [0.4, 0.2]
    assert ruled.triggers[0].every_hours == 12 and ruled.holds[0].drug == "rimiducid"
