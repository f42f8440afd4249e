# The two commands of the README: `make demo` and `make test`. Each sets up .venv first, by way of `make install`.
# `make test-long` tries every case where `make test` takes a sample.

PYTHON ?= python3
BIN := .venv/bin
SURVEY := data/demo/survey
SHARDS := data/demo/shards
# On the CPU even where there are GPUs: the demo shows the way, not the speed.
ON_CPU := ACCELERATE_USE_CPU=true $(BIN)/lens-hpc

.PHONY: install demo docs test test-long clean
.DELETE_ON_ERROR:

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'lens_hpc needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 2; }
	@echo '1 of 3: a virtual environment, .venv'
	@$(PYTHON) -m venv .venv
	@echo '2 of 3: its pip'
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	@echo '3 of 3: lens_hpc and its packages: about 7 GB, most of it PyTorch; a few minutes ...'
	@PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@
	@echo 'Installed; source .venv/bin/activate puts lens-hpc on the path.'

$(SURVEY)/recipe.yaml: | install
	$(BIN)/lens-hpc simulate $(SURVEY) objects=4000 seed=0

$(SHARDS)/manifest.json: $(SURVEY)/recipe.yaml
	$(BIN)/lens-hpc pack $(SURVEY)/recipe.yaml source=$(SURVEY) output=$(SHARDS)
	$(BIN)/lens-hpc audit $(SHARDS)

# Fusion, and the ablation that an honest paper shows beside it.
demo: $(SHARDS)/manifest.json
	$(ON_CPU) train configs/train/demo.yaml model.inputs=features run=runs/demo-features processes=2
	$(ON_CPU) evaluate runs/demo-features processes=2
	$(ON_CPU) train configs/train/demo.yaml model.inputs=image run=runs/demo-image processes=2
	$(ON_CPU) evaluate runs/demo-image processes=2
	$(ON_CPU) train configs/train/demo.yaml processes=2
	$(ON_CPU) evaluate runs/demo compare=[runs/demo-image,runs/demo-features] processes=2

# The generated pages of the reference, and the site, without a network: read site/index.html.
docs: install
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# A process of the tests that dies fails its test, and the others end: pytest-xdist 3.8 would start another one, and wait
# for ever for what it was given.
test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --durations=30

test-long: export LENS_HPC_LONG := 1
test-long: export LENS_HPC_KILLS := 20
test-long: test

clean:
	rm -rf .venv data/demo runs/demo runs/demo-features runs/demo-image
