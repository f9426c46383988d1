# `make help` says what there is. Everything happens in .venv, .cache (downloads) and .bellbuoy (data).
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
BELLBUOY := $(VENV)/bin/bellbuoy
ROUNDS ?= 6
SEED ?= 1
BENCHES := scoring padding pii pipeline gateway loop query
PACKAGES := schemas core adapters streams services bellbuoy
SOURCES := $(PACKAGES) tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup run test check bench chaos stories stop clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  make run ARGS="--seed 7"        options of `bellbuoy demo`'
	@echo '  make bench BENCH="pipeline --seconds 60"'
	@echo '  make chaos ROUNDS=12 SEED=3'
	@echo '  make clean ALL=1                drops the downloads and .venv too'
	@echo '  make setup PYTHON=python3.12    another Python (3.11 or newer)'

setup: $(VENV)/.ready ## the virtual environment, Kafka's jars, the embedding table
	@$(BELLBUOY) setup

run: setup ## start everything, play the live story, serve the status page until Ctrl-C
	@exec $(BELLBUOY) demo $(ARGS)

test: $(VENV)/.ready-dev ## what the machine lacks, then check, then all tests
	@$(PY) -m tests.lacks
	@$(MAKE) --no-print-directory check
	@$(BELLBUOY) setup
ifdef ARGS
	@$(PY) -m pytest $(ARGS)
else
	@$(PY) -m pytest $(PACKAGES) tests/unit tests/contract
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/integration
	@$(PY) -m pytest tests/chaos tests/browser
endif

check: $(VENV)/.ready-dev ## ruff, mypy --strict, import-linter, JSON Schemas, .env.example
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m schemas.jsonschema --check
	$(PY) -m bellbuoy.env_example --check
	$(PY) -m bellbuoy.rules_schema --check

bench: $(VENV)/.ready-dev ## measure; prints JSON lines
	@$(BELLBUOY) setup >&2
ifdef BENCH
	@$(PY) -m benchmarks.$(BENCH)
else
	@for name in $(BENCHES); do $(PY) -m benchmarks.$$name || exit 1; done
endif

chaos: $(VENV)/.ready-dev ## kill -9 of every process under traffic
	@$(BELLBUOY) setup
	@$(PY) -m tests.chaos.run --rounds $(ROUNDS) --seed $(SEED)

stories: setup ## the demo's story with each part withheld alone: what was withheld causes nothing
	@for part in --no-shift --no-bad-version --no-feedback "--no-shift --no-bad-version --no-feedback"; do \
	  echo "== bellbuoy demo $$part"; $(BELLBUOY) demo --json --exit --seed $(SEED) $$part || exit 1; done

stop: ## stop the stack that runs on .bellbuoy
	@if [ -x $(BELLBUOY) ]; then $(BELLBUOY) down; else echo "nothing is installed here, so nothing runs"; fi

clean: stop ## drop the data and what tools left (keeps downloads; ALL=1 drops them and .venv)
	rm -rf .bellbuoy .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
ifdef ALL
	rm -rf .cache $(VENV)
endif

$(PY):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; Python 3.11 or newer is needed (make setup PYTHON=/path/to/python3)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$$($(PYTHON) --version) is too old; Python 3.11 or newer is needed (make setup PYTHON=python3.11)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "the venv module does not work; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

# The packages are this folder itself: a path file and a small program, so that nothing has to be built.
define LINK
	@$(PY) -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_paths()["purelib"], "bellbuoy.pth").write_text(str(pathlib.Path.cwd()) + "\n")'
	@printf '#!%s\nfrom bellbuoy.cli.main import main\n\nmain()\n' "$(CURDIR)/$(PY)" > $(BELLBUOY)
	@chmod +x $(BELLBUOY)
endef

$(VENV)/.ready: requirements.lock | $(PY)
	@echo "installing what requirements.lock names into $(VENV) (about 0.9 GB to download; a few minutes)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(LINK)
	@touch $@

$(VENV)/.ready-dev: requirements-dev.lock requirements.lock | $(PY)
	@echo "installing what requirements-dev.lock names into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(LINK)
	@touch $@ $(VENV)/.ready
