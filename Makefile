# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CLAIMS := mspd_gain mspd_informed mspd_table mspd_cost mspd_plus mspd_ablation mspd_reversion mspd_purifiers mspd_lemmas working_size protect_folder ray_driver masking_verdict audit_resume default_release gcm_table together purifiers challenge_ingredients mid_mnist mid_cifar10 mid_adaptive mid_ablation mid_theory survival service_load
# These need other libraries beside ours; their docstrings say which.
RIVALS := pgd_speed autoattack_speed autoattack_parity hostile_requests ray_identical ray_overhead

.PHONY: demo test test-slow test-page test-ray wheel test-wheel man lint types docs benchmarks rivals clean

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

test-page: $(VENV)/.dev      ## the service's web page in a real Chromium (on the PATH)
	$(BIN)/pip install --quiet --constraint constraints.txt playwright
	$(BIN)/python -m pytest tests/service/test_page.py

test-ray: $(VENV)/.dev       ## a Ray cluster of two nodes on this machine, of which a worker and a node are killed; an S3 server
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[ray,cloud]" "moto[server]"
	$(BIN)/python -m pytest tests/engines

wheel: $(VENV)/.dev          ## dist/: the sdist, and the wheel that is built from it
	$(BIN)/pip install --quiet --constraint constraints.txt build
	rm -rf dist && $(BIN)/python -m build --outdir dist .
	@test $$(cat dist/*.whl | wc -c) -lt 40000000 || { echo "the wheel has more than 40 MB"; exit 1; }

test-wheel: $(VENV)/.dev     ## the wheel in a venv of its own, used outside the checkout; the Dockerfile
	$(BIN)/python -m pytest tests/packaging

man: $(VENV)/.dev            ## docs/forearm.1, from the commands' own help
	$(BIN)/python docs/make_man.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev           ## the README's commands exist and its numbers are those of benchmarks/results
	$(BIN)/python -m pytest tests/house/test_docs.py

benchmarks: $(VENV)/.dev     ## every claim; most of a day on two cores
	for claim in $(CLAIMS); do $(BIN)/python benchmarks/$$claim.py || exit 1; done
	$(BIN)/python benchmarks/tables.py --write

rivals: $(VENV)/.dev         ## the claims that are measured beside other libraries
	$(BIN)/pip install --quiet --constraint constraints.txt foolbox pyautoattack schemathesis --editable ".[ray,cloud]"
	$(BIN)/pip install --quiet --no-deps torchattacks
	for claim in $(RIVALS); do $(BIN)/python benchmarks/$$claim.py || exit 1; done
	$(BIN)/python benchmarks/tables.py --write

clean:
	rm -rf $(VENV) demo build dist
