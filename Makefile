# Needs make and Python 3.11 or newer; everything else is fetched. `make help` lists the targets.

ORDERS =
SPEED =
SEED =
AGAINST =
DAY =
FAULTS =
N = 100
ROUNDS =
MINUTES = 10
JOBS = 3
BUDGET =
ARGS =
PYTHON =
DABBAWALA_DIR ?= .dabbawala
export DABBAWALA_DIR
# Without bytecode every process would compile all that it imports, and most targets start many.
export PYTHONDONTWRITEBYTECODE =

BIN = .venv/bin
TYPED = $(wildcard exactly_once streams topics processors simulators oracle examples benchmarks tests tools verification)

# The first Python that is new enough. Without one, install.py runs with python3, or with PYTHON, and explains the failure.
INSTALL = python=$(or $(PYTHON),python3); \
	for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if ! command -v $$python >/dev/null; then \
		echo 'Dabbawala needs Python 3.11 or newer: install one, or name it, as in `make PYTHON=/opt/python/bin/python3.11`.' >&2; \
		exit 1; \
	fi; \
	$$python requirements/install.py

.PHONY: help demo worker kafka kafka-stop test lint format verify fuzz kills flow-kills chaos planted simulate bench docs lock lock-kafka clean

help: ## list the targets
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-13s %s\n", $$1, $$2 }'

demo: .venv/installed-embedded ## run everything on one screen until Ctrl-C; ORDERS=20 ends after 20; SPEED=, SEED=, DAY=11:00, FAULTS=pos:silent
	@$(BIN)/python -m streams.demo.__main__ $(if $(ORDERS),--orders $(ORDERS)) $(if $(SPEED),--speed $(SPEED)) \
		$(if $(SEED),--seed $(SEED)) $(if $(DAY),--day $(DAY)) $(if $(FAULTS),--faults $(FAULTS)) $(ARGS)

worker: .venv/installed-embedded ## run a worker until Ctrl-C, and start Kafka if needed; run it again for a second worker; Kafka keeps running
	@$(BIN)/faust -A streams.app worker -l info $(ARGS)

kafka: .venv/installed-embedded ## start the embedded Kafka and leave it running
	@$(BIN)/python -m streams.local start

kafka-stop: .venv/installed-embedded ## stop the embedded Kafka; its data stays
	@$(BIN)/python -m streams.local stop

test: lint ## lint, then run all tests; ARGS='-k name' picks tests, JOBS=3 run in parallel, BUDGET=1800 as in docs/testing.md
	@$(BIN)/python -m pytest -n $(JOBS) $(if $(BUDGET),--budget $(BUDGET)) $(ARGS)

lint: .venv/installed-dev ## check style, format, types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(TYPED)
	@$(BIN)/lint-imports --no-logo

format: .venv/installed-dev ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: .venv/installed-dev ## write the generated pages of docs/ (state machines, topics, HTTP API, CLI, settings, metrics) and deploy/
	@$(BIN)/python -m tools.docs
	@$(BIN)/python -m tools.monitoring

verify: .venv/installed-dev ## build the image's files, then run the six targets below; stop at the first failure; N= ORDERS= MINUTES= SEED=
	@$(BIN)/python -m verification --kills $(N) --orders $(or $(ORDERS),2000) --minutes $(MINUTES) --seed $(or $(SEED),1) $(ARGS)

fuzz: .venv/installed-dev ## send N=100 random requests to each route of a worker; no answer may differ from its document; SEED=
	@$(BIN)/python -m verification.fuzz $(N) $(SEED)

kills: .venv/installed-dev ## kill the worker N=100 times at seeded moments and compare the results; SEED=
	@$(BIN)/python -m verification.kills.engine $(N) $(SEED)

flow-kills: .venv/installed-dev ## kill the worker N=100 times, each in a run of 100 orders, and compare all ledgers; SEED=, WORKERS=2
	@$(BIN)/python -m verification.kills.flow $(N) 100 $(or $(SEED),1) $(or $(WORKERS),1)

simulate: .venv/installed-dev ## simulate worlds with new seeds on two cores for MINUTES=10; the first failing seed is shrunk
	@$(BIN)/python -m verification.simulation --minutes $(MINUTES) $(ARGS)

planted: .venv/installed-dev ## plant known bugs; the oracle must catch each of them; ARGS=timer-lost picks one
	@$(BIN)/python -m verification.planted $(ARGS)

chaos: .venv/installed-dev ## inject every fault into one run of orders, which the oracle judges; SEED=1 ORDERS=2000
	@$(BIN)/python -m verification.chaos $(or $(SEED),1) $(or $(ORDERS),2000)

bench: .venv/installed-dev ## measure everything (half an hour, alone on the machine) into benchmarks/RESULTS.md; ROUNDS=5, AGAINST=another checkout
	@$(BIN)/python -m benchmarks $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(AGAINST),--against $(AGAINST)) $(ARGS)

lock: .venv/installed-dev ## resolve pyproject.toml's dependencies into requirements/*.txt
	@for lock in 'run' 'embedded --extra embedded' 'dev --extra embedded --group dev'; do \
		set -- $$lock; name=$$1; shift; \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
			pyproject.toml --group build "$$@" --output-file requirements/$$name.txt || exit 1; \
	done
	@echo uv | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		- --output-file requirements/uv.txt

lock-kafka: .venv/installed-dev ## resolve streams/local/kafka/pom.xml into kafka.lock (needs Maven)
	@$(BIN)/python -m streams.local.kafka.download

clean: ## stop every process of .dabbawala, remove it with the downloaded Kafka, and the caches of the tools; .venv stays
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m streams.local clean; else rm -rf .dabbawala; fi
	@rm -rf count-data .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
	@$(if $(TYPED),find $(TYPED) -name __pycache__ -prune -exec rm -rf {} +)

.venv/installed-embedded: requirements/embedded.txt requirements/uv.txt requirements/install.py
	@$(INSTALL) embedded

.venv/installed-dev: requirements/dev.txt requirements/uv.txt requirements/install.py
	@$(INSTALL) dev
