# `make demo` and `make test` need Python 3.11 or newer with venv and pip, and nothing else.
PYTHON ?= python3
BIN = .venv/bin
DEMO = demo
NETWORK = --network demo --atlas $(DEMO)/derivatives/planted/tpl-MNI152NLin2009cAsym/anat/tpl-MNI152NLin2009cAsym_atlas-planted_dseg.nii.gz
OUT = $(DEMO)/derivatives/bidsdnn

.PHONY: demo test slow lint check docs clean

# Each file stands for what was installed, so that a second call installs nothing.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

demo: .venv/installed
	rm -rf $(DEMO)
	$(BIN)/bidsdnn-demo $(DEMO)
	$(BIN)/bidsdnn $(DEMO) $(OUT) dnn $(NETWORK)
	$(BIN)/bidsdnn $(DEMO) $(OUT) participant $(NETWORK)
	$(BIN)/bidsdnn $(DEMO) $(OUT) group $(NETWORK)
	@echo
	@echo "The reports, for a browser:"
	@ls $(CURDIR)/$(OUT)/*.html

test: .venv/installed-test
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

slow: .venv/installed-test
	$(BIN)/python -m pytest -m slow

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

docs: .venv/installed
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv $(DEMO) .coverage* .pytest_cache .mypy_cache .ruff_cache *.egg-info
