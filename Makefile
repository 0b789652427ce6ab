# make demo: environment, synthetic photographs, pre-training, probe. make test: environment, lint, tests.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo

.PHONY: install demo test lint format bench clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[test]'
	touch $@

demo: install
	PATH="$(abspath $(BIN)):$$PATH" bash benchmarks/demo.sh $(DEMO)

test: lint
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python benchmarks/step.py

clean:
	rm -rf $(VENV) runs
