# make demo: what few-step sampling does to a real trained model.  make test: everything that must hold.
PYTHON ?= python3
VENV := .venv
BENCH := .venv-bench
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check bench docs clean

demo: $(VENV)/.installed
	$(VENV)/bin/longstride compare fashion --nfe 4,6,8,10 --out report

test: check
	$(VENV)/bin/python -m pytest -n 2 tests

check: $(VENV)/.tested
	$(VENV)/bin/ruff check src tests benchmarks docs
	$(VENV)/bin/ruff format --check src tests benchmarks docs
	$(VENV)/bin/mypy

docs: $(VENV)/.installed
	$(VENV)/bin/python docs/generate.py
	$(VENV)/bin/python docs/samplers.py

bench: $(BENCH)/.installed
	$(BENCH)/bin/python benchmarks/agreement.py
	$(BENCH)/bin/python benchmarks/overhead.py
	$(BENCH)/bin/python benchmarks/endpoint.py

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(PIP) -e ".[test]"
	touch $@

$(BENCH)/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt benchmarks/requirements-bare.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet -c constraints.txt torch==2.13.0
	$(BENCH)/bin/pip install --quiet -c constraints.txt -r benchmarks/requirements.txt
	$(BENCH)/bin/pip install --quiet --no-deps -r benchmarks/requirements-bare.txt
	$(BENCH)/bin/pip install --quiet -c constraints.txt -e ".[train]"
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) report
