# `make demo` and `make test` are all there is to know; both set up .venv first.
PYTHON ?= python3
RUN := outputs/emoji

.PHONY: demo test test-all lint clean
.DELETE_ON_ERROR:

demo: .venv/installed
	.venv/bin/typecast run emoji --out $(RUN)
	@echo "open $(CURDIR)/$(RUN)/report.html"

test: lint
	.venv/bin/pytest -m "not slow" -n 2

test-all: lint
	.venv/bin/pytest -n 2

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# constraints.txt holds the versions that are known to work together
.venv/installed: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv/bin/pip install --quiet --constraint constraints.txt --group test --editable .
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build *.egg-info
