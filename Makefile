# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CLAIMS := mspd_gain mspd_informed mspd_cost working_size protect_folder

.PHONY: demo test test-slow lint types docs benchmarks clean

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[demo]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[demo,dev]"
	touch $@

demo: $(VENV)/.demo          ## arm and verify five real photos, and draw them before and after
	$(BIN)/python examples/demo.py demo

test: $(VENV)/.dev           ## the test suite without the slow ones
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.dev      ## the slow tests: kills and resumes, whole trainings, hostile files in bulk
	$(BIN)/python -m pytest -m slow --timeout 1800

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev           ## the README's commands exist and its numbers are those of benchmarks/results
	$(BIN)/python -m pytest tests/house/test_docs.py

benchmarks: $(VENV)/.dev     ## every claim, about two hours on two cores
	for claim in $(CLAIMS); do $(BIN)/python benchmarks/$$claim.py || exit 1; done
	$(BIN)/python benchmarks/tables.py --write

clean:
	rm -rf $(VENV) demo build dist
