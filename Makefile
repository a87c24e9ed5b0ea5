PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types check-sheet benchmarks clean

help:  ## Show what each target does.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: $(VENV)/.installed  ## Make .venv with pinned versions and this project in it.

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,ray]'
	touch $@

demo: setup  ## Run two demo rows on the embedded data (minutes on a CPU): masks of blocks, and a model that is cut.
	$(BIN)/python scripts/run_from_sheet.py --exp-id 2 100

lint: setup  ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy finds packages by folders, so it sees them as they are installed: callbacks, hparams and scripts below splora.
types: setup  ## Check types.
	rm -rf build/types && mkdir -p build/types/splora
	ln -s $(CURDIR)/splora/* $(CURDIR)/callbacks $(CURDIR)/hparams $(CURDIR)/scripts build/types/splora/
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache

test: setup lint types  ## Run everything CI runs.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check-sheet: setup  ## Check every cell of the workbook.
	$(BIN)/python scripts/run_from_sheet.py --check

benchmarks: setup  ## Measure the figures of docs/ (hours; those of pruning need ../shared).
	for script in $(filter-out benchmarks/stat%.py benchmarks/gptq.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$script || exit 1; done

clean:  ## Remove caches and build products (keeps runs/).
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
