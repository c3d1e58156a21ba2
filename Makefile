# The two commands most people want: `make case` and `make test`. Both set up .venv first.
# `make bench` measures every speed claim, beside two peers; it takes some minutes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: case test slow lint lock bench recovery calibration grades nmtests published ancestors qualification methods sensitivity population clean

case: $(VENV)/.installed
	mkdir -p build/case
	$(BIN)/crs-sim simulate ruemmele2025 --out build/case/as_given.csv --plot build/case/as_given.png
	$(BIN)/crs-sim fit ruemmele2025 --out build/case

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

# What takes minutes: everything compiled anew, and the calibration of the sampler.
slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 -m slow

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Writes anew what every install of a checkout is pinned to, for all Pythons and systems at once;
# the ranges in pyproject.toml are for those who install the package.
lock: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --upgrade \
		--no-annotate --no-emit-index-url --custom-compile-command 'make lock' \
		pyproject.toml --output-file constraints.txt

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks

# 200 synthetic patients fitted, with the residual errors known, then estimated: do estimates and
# intervals recover the truth? Three quarters of an hour on two cores; resumes where it was stopped.
recovery: $(VENV)/.installed
	$(BIN)/python -m studies.recovery
	$(BIN)/python -m studies.recovery --noise estimated

# Is the posterior right? 200 synthetic patients, truths ranked among the draws; with
# the residual errors known, then estimated; a quarter of an hour on two cores.
calibration: $(VENV)/.installed
	$(BIN)/python -m studies.calibration
	$(BIN)/python -m studies.calibration --noise estimated

# Grades whose errors persist, fitted as independent and as what they are; a minute or two.
grades: $(VENV)/.installed
	$(BIN)/python -m studies.grades

# NONMEM's own answers to public dosing scenarios; the suites are read from a folder, see
# studies/nmtests/design.py: make nmtests NMTESTS=folder
NMTESTS ?= ../shared/data/nmtests
nmtests: $(VENV)/.installed
	$(BIN)/python -m studies.nmtests $(NMTESTS)

# Populations with published estimates, estimated again; the data are read from a folder, see
# studies/published/design.py: make published DATA=folder. Some five minutes on two cores.
published: $(VENV)/.installed
	$(BIN)/python -m studies.published $(DATA)

# A published model beside ours, on the same patients, who are read from a folder, see
# studies/ancestors/design.py: make ancestors DATA=folder. A minute on two cores.
ancestors: $(VENV)/.installed
	$(BIN)/python -m studies.ancestors $(DATA)

# The model beside published cohorts and real patients, row by row; the patients' data are read from a
# folder, see studies/qualification/cohort.py: make qualification DATA=folder
qualification: $(VENV)/.installed
	$(BIN)/python -m studies.qualification $(DATA)

# How far each method of `simulate` is from a much stricter reference; a quarter of an hour.
methods: $(VENV)/.installed
	$(BIN)/python -m studies.methods

# What drives the case's endpoints, over the priors; a minute or two on two cores, resumes where
# it was stopped. The runs themselves are not kept.
SENSITIVITY := fits/ruemmele2025/sensitivity
sensitivity: $(VENV)/.installed
	$(BIN)/crs-sim sensitivity ruemmele2025 --endpoint vasopressor_days --endpoint peak_ifng \
		--endpoint peak_ferritin --endpoint auc_vcn --endpoint psa_d30 \
		--samples 1024 --resume --out $(SENSITIVITY)
	rm -f $(SENSITIVITY)/runs.jsonl

# The shipped virtual population: 11,500 patients drawn, ten scenarios; some minutes on two cores.
# What is in studies/population/parts already is kept.
population: $(VENV)/.installed
	$(BIN)/crs-sim population crs --out studies/population $(if $(wildcard studies/population/run.json),--resume)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist
