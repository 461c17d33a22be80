# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Test processes. Each computes with one thread: together faster than one process with as many.
WORKERS ?= 2

.PHONY: demo test check format bench bench-train bench-learn bench-recipes bench-gate bench-monitoring bench-feedback clean

demo: $(READY)  ## the whole loop on a sample project, in ./demo
	$(BIN)/lyra-nli demo

test: $(READY)  ## unit, integration and end-to-end tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: $(READY)  ## lint, format, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## time, memory and effect of the loop, side by side with its peers
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/serving.py

bench-train: $(READY)  ## time, memory and accuracy of training, beside transformers' Trainer
	$(BIN)/python benchmarks/training.py

bench-learn: $(READY)  ## what the learning recipe is worth, and each of its parts
	$(BIN)/python benchmarks/learning.py
	$(BIN)/python benchmarks/verdicts.py

bench-recipes: $(READY)  ## the default recipe beside its neighbours, on several domains (hours)
	$(BIN)/python benchmarks/recipes.py

bench-gate: $(READY)  ## how often the gate is wrong, on candidates of known worth
	$(BIN)/python benchmarks/gate.py
	$(BIN)/python benchmarks/search.py

bench-monitoring: $(READY)  ## is a worse version found, an equal one left alone; pages and log at a million answers
	$(BIN)/python benchmarks/monitoring.py
	$(BIN)/python benchmarks/calibration.py
	$(BIN)/python benchmarks/dashboard.py
	$(BIN)/python benchmarks/predictions.py

bench-feedback: $(READY)  ## writers, queue and files: a million edges, a million rows
	$(BIN)/python benchmarks/feedback_writers.py
	$(BIN)/python benchmarks/feedback.py
	$(BIN)/python benchmarks/feedback_files.py

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml requirements-ml.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@
