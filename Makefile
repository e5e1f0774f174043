# Two commands from a bare clone: `make course` and `make test`. Each makes its own virtual environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COURSE := $(VENV)/.course
READY := $(VENV)/.ready
# The portraits that `make data` paints, for each set; the data sets they stand in for have 30,000, 760 and 1,000.
COUNT ?= 2000

.DEFAULT_GOAL := help
.PHONY: help course test test-slow lab data site slides clean

help:
	@echo "make course     install, run the whole course on the tiny model, write one HTML page (15 minutes on two cores)"
	@echo "make test       install, lint, types, unit tests, notebooks"
	@echo "make test-slow  the tests that take minutes"
	@echo "make lab        JupyterLab on your own copies of the notebooks, in runs/student; what you did in them stays"
	@echo "make data       paint $(COUNT) portraits of each set under runs/data"
	@echo "make site       the course as static pages, in build/site"
	@echo "make slides     a deck to teach from, in build/slides; PLAN=half-day (one-day, two-days) or NOTEBOOKS=\"00 02\""
	@echo "make clean      remove caches and build products, not what was trained or painted"

# What notebooks need. torch first and by itself: with its version fixed nothing after it can pull in another build.
$(COURSE): pyproject.toml constraints.txt
	$(PYTHON) .ci/check_machine.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[course]" -c constraints.txt
	touch $@

# What the demo, the site and the tests need besides.
$(READY): $(COURSE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[course,app,site,dev]" -c constraints.txt
	touch $@

course: $(READY)
	$(BIN)/python docs/run_tour.py

# One pytest over unit tests and notebooks; each file, and so each notebook's kernel, stays with one worker.
test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile --nbval -m "not slow" tests notebooks

test-slow: $(READY)
	$(BIN)/pytest -q -m slow tests

lab: $(COURSE)
	$(BIN)/mogle notebooks student --out runs/student
	$(BIN)/jupyter lab runs/student

data: $(READY)
	for set in portraits female balanced; do \
		$(BIN)/mogle data paint --set $$set --count $(COUNT) --out runs/data/$$set || exit; \
	done

# Warnings are errors: a link that leads nowhere is one of them.
site: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q -b html -c docs/site . build/site
	@echo "build/site/index.html"

slides: $(READY)
	$(BIN)/python docs/slides.py $(if $(PLAN),--plan $(PLAN)) $(NOTEBOOKS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find mogle tests notebooks -name __pycache__ -prune -exec rm -rf {} +
