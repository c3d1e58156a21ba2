"""Figures: units on every axis, no text over another, every observation drawn; and the report."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny_case import write_case
from visible import outside, overlapping, texts

import crs_sim
from crs_sim.errors import InputError, UnknownNameError
from crs_sim.figures.panels import dose_ribbon, grade_ribbon
from crs_sim.figures.plots import figure_file, plot_case, plot_simulation
from crs_sim.fitting.diagnostics import judge
from crs_sim.fitting.fitting import Fit, fit
from crs_sim.fitting.noise import Noise, Spread
from crs_sim.fitting.problem import load_problem
from crs_sim.model.model_file import load_model
from crs_sim.patients.patient import Patient, load_patient
from crs_sim.patients.patient_checks import check_against
from crs_sim.reports.fit_report import acceptance_criteria, figures, report_text, summary
from crs_sim.simulation.simulation import Simulation, simulate

Case = tuple[Patient, Simulation]
SPREADS = Noise({n: Spread(0.2) for n in ("vcn", "ifng", "crp", "ferritin", "psa", "sil2r")})


@pytest.fixture(scope="module")
def case() -> Case:
    model = load_model("crs")
    patient = check_against(load_patient("ruemmele2025"), model)
    return patient, simulate(model, patient.scenario)


@pytest.fixture(scope="module")
def case_figure(case) -> Figure:
    return plot_case(*case, noise=SPREADS)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Fit:
    folder = write_case(tmp_path_factory.mktemp("tiny"))
    return fit(load_problem(folder / "fit"), workers=1)


def drawn(figure: Figure) -> set[str]:
    gids = (artist.get_gid() for artist in figure.findobj())
    return {gid.removeprefix("observed-") for gid in gids if gid and gid.startswith("observed-")}


# --- the case figure ------------------------------------------------------------------------------


def test_every_observation_is_drawn(case, case_figure):
    assert drawn(case_figure) == set(case[0].observations.ids)


def test_no_text_lies_over_another_or_off_the_page(case_figure):
    assert overlapping(case_figure) == []
    assert outside(case_figure) == []


def test_every_course_has_its_unit_and_one_axis_of_days(case, case_figure):
    ribbon, grades, *courses = case_figure.axes
    units = [ax.get_ylabel().splitlines()[1] for ax in courses]
    assert units[:4] == ["copies/µg", "pg/mL", "pg/mL", "pg/mL"]
    assert all(units)
    assert courses[-1].get_xlabel() == "day after infusion"
    assert {ax.get_xlim() for ax in case_figure.axes} == {courses[0].get_xlim()}
    assert courses[0].get_xlim()[1] == 37
    assert [t.get_text() for t in ribbon.get_yticklabels()] == list(case[0].scenario.doses.drugs)
    assert [t.get_text() for t in grades.get_yticklabels()] == ["model", "observed"]


def test_case_figure_says_what_it_is_for(case_figure):
    assert "Research use only" in " ".join(t.get_text() for t in texts(case_figure))


def test_every_dose_has_its_tick(case):
    patient, run = case
    ax = dose_ribbon(Figure().add_subplot(), run.inputs, run.model)
    ticks = sum(len(lines.get_segments()) for lines in ax.collections
                if hasattr(lines, "get_segments"))  # fmt: skip
    assert ticks == len(patient.scenario.doses)


def test_limits_point_away_from_what_they_exclude(case, case_figure):
    marks = {line.get_gid(): line for line in case_figure.findobj() if line.get_gid()}
    up, down = marks["observed-ferritin_d21"], marks["observed-ifng_d0"]
    assert up.get_marker().vertices[:, 1].max() > 0
    assert down.get_marker().vertices[:, 1].min() < 0
    assert (up.get_xdata()[0], up.get_ydata()[0]) == (21, 4000)


def test_a_ratio_starts_at_the_run(case, case_figure):
    _, run = case
    marks = {line.get_gid(): line for line in case_figure.findobj() if line.get_gid()}
    fall = marks["observed-cxcl10_fall"]
    assert fall.get_ydata()[0] == pytest.approx(0.5 * run.at(24)["cxcl10"][0])


def test_fitted_grades_fill_the_run(case):
    _, run = case
    ax = grade_ribbon(Figure().add_subplot(), run)
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(40)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["model"]


# --- runs -----------------------------------------------------------------------------------------


def test_simulation_by_names(case):
    figure = plot_simulation(case[1], ["c_tocilizumab", "ifng", "CAR"])
    labels = [ax.get_ylabel() for ax in figure.axes[2:]]
    assert labels == ["c_tocilizumab\nµg/mL", "IFN-γ\npg/mL", "CAR\ncopies/µg"]
    assert overlapping(figure) == []
    with pytest.raises(UnknownNameError, match="did you mean 'ifng'"):
        plot_simulation(case[1], ["ifn"])


def test_simulation_of_a_model_without_the_usual_names():
    from small_models import LOOP

    run = simulate(LOOP, until=2)
    figure = plot_simulation(run)
    assert [ax.get_ylabel().splitlines()[1] for ax in figure.axes] == ["mg"] * len(figure.axes)
    assert outside(figure) == []


def test_course_that_is_zero_throughout_can_be_drawn(case):
    model = load_model("crs")
    figure = plot_simulation(simulate(model, until=2), ["c_emapalumab", "vcn"])
    assert all(math.isfinite(x) for ax in figure.axes for x in ax.get_ylim())


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_file_is_the_same_each_time(fitted, suffix):
    one, two = (figure_file(figures(fitted)["estimates"], f"a{suffix}") for _ in range(2))
    assert one == two


def test_png_has_150_dots_per_inch(fitted):
    figure = figures(fitted)["starts"]
    content = figure_file(figure, "a.png")
    assert content[:4] == b"\x89PNG"
    assert int.from_bytes(content[16:20]) == round(150 * figure.get_figwidth())


def test_other_formats_are_refused():
    with pytest.raises(InputError, match=r"name it a.png"):
        figure_file(Figure(), "a.bmp")


def test_nothing_of_matplotlib_is_left_changed(case_figure):
    import matplotlib

    assert matplotlib.rcParams["axes.spines.top"] is True


# --- fits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["case", "estimates", "starts", "residuals"])
def test_figures_of_a_fit(fitted, name):
    figure = figures(fitted)[name]
    assert overlapping(figure) == []
    assert outside(figure) == []
    assert figure.axes[-1].get_xlabel()
    assert figure._repr_png_()[:4] == b"\x89PNG"
    if name == "case":
        assert drawn(figure) == set(fitted.problem.patient.observations.ids)


def test_estimates_and_residuals_have_a_row_each(fitted):
    made = figures(fitted)
    rows = [label.get_text() for label in made["estimates"].axes[0].get_yticklabels()]
    assert rows == list(fitted.problem.names)
    rows = [label.get_text() for label in made["residuals"].axes[0].get_yticklabels()]
    assert sorted(rows) == sorted(fitted.problem.patient.observations.ids)


def test_report_names_what_was_missed_and_why(fitted):
    rows = judge(fitted)
    missed = [row.id for row in acceptance_criteria(rows) if row.verdict == "miss"]
    assert missed
    assert summary(rows) == (
        f"{9 - len(missed)} of 9 acceptance criteria met; missed: {', '.join(missed)}"
    )
    text = report_text(fitted, crs_sim.drop_one(fitted, workers=1))
    assert summary(rows) in text
    shift = next(e.shift for e in fitted.estimates if e.parameter == "k")
    assert shift < -2
    assert f"k is {shift:+.1f} prior standard deviations" in text
    for number in ("| < 0.9 mg |", "| × 0.6 |", "| ≥ × 0.5 |"):
        assert number in text
    assert np.all([f"({name}.png)" in text for name in ("case", "estimates", "starts")])
