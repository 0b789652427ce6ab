# make demo: environment, synthetic photographs, pre-training, probe. make test: environment, lint, tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
# Streaming picks a name for its shared memory and takes it in two steps: two processes that begin together may pick the
# same. So the tests that use it are one process, all others are another beside it.
STREAMING := tests/data_prep tests/data tests/docs tests/training tests/sweep tests/drill \
  $(addprefix tests/benchmarks/,test_benchmarks.py test_growth.py test_trainer.py) \
  tests/evaluation/protocols/test_zero_shot.py tests/test_initial_weights.py

.PHONY: install demo test test-streaming test-others lint audit format drill soak bench bench-loader docs clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[test]'
	touch $@

demo: data/demo/.prepared
	rm -rf $(DEMO)
	$(BIN)/composer train.py yamls/demo.yaml output=$(DEMO)
	$(BIN)/composer evaluate.py yamls/evaluate.yaml checkpoints.untrained=random:$(DEMO)/maskedclip \
	  checkpoints.pretrained=$(DEMO)/maskedclip tasks=[data/demo/downstream] protocols=[linear_probe,knn] \
	  fractions=[0.25,1.0] workers=1 output=$(DEMO) run_name=evaluation
	@printf '\nCheckpoint: %s\nEncoder:    %s\nDashboard:  $(DEMO)/maskedclip/dashboard.html\nReport:     $(DEMO)/evaluation/report/report.html\nMLflow:     %s\n' \
	  $(DEMO)/maskedclip/checkpoints/latest-rank0.pt $(DEMO)/maskedclip/encoder.safetensors \
	  '$(BIN)/mlflow ui --backend-store-uri sqlite:///$(DEMO)/mlflow.db'

data/demo/.prepared: $(VENV)/.installed
	rm -rf data/demo
	$(BIN)/python -m data_prep synthetic --out data/demo/photographs --paired 400 --unpaired 800 --downstream 400 --size 128
	for set in paired reports unpaired downstream; do \
	  $(BIN)/python -m data_prep manifest --csv data/demo/photographs/$$set.csv --images data/demo/photographs \
	    --separator '|' --size 128 --out data/demo/$$set || exit 1; \
	done
	$(BIN)/python -m data_prep text-tower --shards data/demo/paired/train data/demo/reports/train --out data/demo/text
	touch $@

test: lint
	rm -f .coverage .coverage.*
	$(MAKE) -j2 --output-sync=line test-streaming test-others
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered --fail-under=90

test-streaming test-others: install
test-streaming:
	COVERAGE_FILE=.coverage.streaming $(BIN)/python -m pytest $(STREAMING) --cov --cov-report=
test-others:
	COVERAGE_FILE=.coverage.others $(BIN)/python -m pytest $(addprefix --ignore=,$(STREAMING)) --cov --cov-report=

lint: install docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/hadolint Dockerfile
	@$(BIN)/python tests/audit.py $(VENV)/audit || :  # told, and no failure: it depends on the day, not on the commit

# Known vulnerabilities of what is installed. Fails where one is not listed in pyproject.toml, or none could be asked for.
audit: install
	$(BIN)/python tests/audit.py $(VENV)/audit

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every fault that docs/reliability.md promises something about: a table. ARGS="words of a fault's name" for some.
drill: install
	$(BIN)/python -m tests.drill $(ARGS)

# Some thousand steps of the debug recipe: whether memory, files or step times grow.
soak: data/demo/.prepared
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py yamls/debug.yaml --tasks data/demo/downstream $(ARGS)

# All are run, whichever fails: counts first, and what load on the machine disturbs most last.
bench: install
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pytest -m benchmark tests/benchmarks
	failed=; for name in gates step growth evaluation loader; do \
	  OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$name.py || failed="$$failed $$name.py"; \
	done; [ -z "$$failed" ] || { echo "make bench: these failed:$$failed" >&2; exit 1; }

# How many loader processes: ARGS="CONFIG.yaml --target 900" or ARGS="--shards DIR"; without, of drawn photographs.
bench-loader: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/workers.py $(ARGS)

# The site, in build/docs: open build/docs/index.html; its search wants `python -m http.server -d build/docs`. Strict: a
# dead link, a dead anchor or a page that no menu reaches is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # not --quiet: it would hide what --strict counts

clean:
	rm -rf $(VENV) runs
