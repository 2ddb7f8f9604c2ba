# Needs make and Python 3.11 or newer; everything else is fetched. `make help` tells what there is.

ORDERS =
SPEED =
SEED =
DAY =
FAULTS =
N = 100
ROUNDS =
MINUTES = 10
JOBS = 3
ARGS =
PYTHON =
DABBAWALA_DIR ?= .dabbawala
export DABBAWALA_DIR

BIN = .venv/bin
TYPED = $(wildcard streams topics processors simulators oracle examples benchmarks tests)

# The first Python that is new enough; where there is none, install.py tells python3 (or the one named) why it will not do.
INSTALL = python=$(or $(PYTHON),python3); \
	for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if ! command -v $$python >/dev/null; then \
		echo 'Dabbawala needs Python 3.11 or newer: install one, or name it, as in `make PYTHON=/opt/python/bin/python3.11`.' >&2; \
		exit 1; \
	fi; \
	$$python requirements/install.py

.PHONY: help demo worker kafka kafka-stop test lint format kills flow-kills chaos planted simulate bench lock lock-kafka clean

help: ## this list
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-13s %s\n", $$1, $$2 }'

demo: .venv/installed-embedded ## everything, live on one screen, until Ctrl-C; ORDERS=20 ends by itself; SPEED=, SEED=, DAY=11:00, FAULTS=pos:silent
	@$(BIN)/python -m streams.embedded.demo $(if $(ORDERS),--orders $(ORDERS)) $(if $(SPEED),--speed $(SPEED)) \
		$(if $(SEED),--seed $(SEED)) $(if $(DAY),--day $(DAY)) $(if $(FAULTS),--faults $(FAULTS)) $(ARGS)

worker: .venv/installed-embedded ## a worker; again in another terminal: one more; the embedded Kafka stays when they end
	@$(BIN)/faust -A streams.app worker -l info $(ARGS)

kafka: .venv/installed-embedded ## start the embedded Kafka and leave it running
	@$(BIN)/python -m streams.embedded start

kafka-stop: .venv/installed-embedded ## stop the embedded Kafka; what it holds stays
	@$(BIN)/python -m streams.embedded stop

test: lint ## lint, then all tests; ARGS='-k name' picks some, JOBS=3 run at once
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: .venv/installed-dev ## style, format, strict types, who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(TYPED)
	@$(BIN)/lint-imports --no-logo

format: .venv/installed-dev ## bring the code into its format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

kills: .venv/installed-dev ## kill the worker N=100 times at seeded moments and compare; SEED=
	@$(BIN)/python -m tests.integration.kills $(N) $(SEED)

flow-kills: .venv/installed-dev ## kill the worker N=100 times, each in a run of 100 orders, and compare all books; SEED=, WORKERS=2
	@$(BIN)/python -m tests.flow.kills $(N) 100 $(or $(SEED),1) $(or $(WORKERS),1)

simulate: .venv/installed-dev ## simulated worlds on two cores for MINUTES=10, each of another seed; the first that is not sound is shortened
	@$(BIN)/python -m tests.simulation --minutes $(MINUTES) $(ARGS)

planted: .venv/installed-dev ## plant known bugs, each has to be caught by the oracle; ARGS=timer-lost picks one
	@$(BIN)/python -m tests.planted $(ARGS)

chaos: .venv/installed-dev ## everything that can go wrong does, in one run of orders, and the oracle judges; SEED=1 ORDERS=2000
	@$(BIN)/python -m tests.chaos $(or $(SEED),1) $(or $(ORDERS),2000)

bench: .venv/installed-dev ## measure everything (half an hour, alone on the machine) into benchmarks/RESULTS.md; ROUNDS=5
	@$(BIN)/python -m benchmarks $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

lock: .venv/installed-dev ## resolve pyproject.toml's dependencies anew into requirements/*.txt
	@for lock in 'run' 'embedded --extra embedded' 'dev --extra embedded --group dev'; do \
		set -- $$lock; name=$$1; shift; \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
			pyproject.toml --group build "$$@" --output-file requirements/$$name.txt || exit 1; \
	done
	@echo uv | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		- --output-file requirements/uv.txt

lock-kafka: .venv/installed-dev ## resolve streams/embedded/pom.xml anew into kafka.lock (needs Maven)
	@$(BIN)/python -m streams.embedded.download

clean: ## stop what runs from .dabbawala and remove it, and what the tools left; .venv stays
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m streams.embedded clean; else rm -rf .dabbawala; fi
	@rm -rf count-data .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
	@$(if $(TYPED),find $(TYPED) -name __pycache__ -prune -exec rm -rf {} +)

.venv/installed-embedded: requirements/embedded.txt requirements/uv.txt requirements/install.py
	@$(INSTALL) embedded

.venv/installed-dev: requirements/dev.txt requirements/uv.txt requirements/install.py
	@$(INSTALL) dev
