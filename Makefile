# `make` alone lists what can be done. Everything happens in .venv; nothing else on the machine is touched.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export FILE ?=
# the tests wait about as much as they work, so two cores hold three processes
JOBS   ?= 3
TESTS  ?= tests/faults/test_short_chaos.py tests/integration tests/unit
# the ways in and out beside the main job: a target of their own keeps `make test` under five minutes
MORE    = tests/console $(addprefix tests/integration/,cli webhooks) $(addprefix tests/integration/test_,client.py demo.py \
	digests.py direct.py equal_files.py inspections.py member_memory.py members.py quotas.py quotas_resumable.py \
	redirects.py rough_streams.py sessions.py slow_clients.py upload_places.py tus_clients.py tus_delete.py tus_head.py \
	tus_interrupted.py tus_killed.py tus_options.py tus_patch.py tus_post.py upload_memory.py webhooks_live.py)
# and what stands beside the core: a module's own tests
RECORDINGS = tests/console/recordings tests/integration/calls $(addprefix tests/integration/test_,calls_retention.py \
	fetching.py mail_failures.py mail_large.py mail_logins.py mail_servers.py mailboxes.py mango.py recordings.py \
	recordings_killed.py recordings_renumbered.py)
PYTEST  = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
# what a broker could make a difference to; the rest of the tests do without one, or are about Redis itself
ON_ANY_BROKER = $(addprefix tests/integration/test_,whole_way.py failures.py control.py workers_lost.py) \
	$(addprefix tests/faults/test_,rabbitmq.py recovery.py steps.py failpoints.py deploy.py beats.py short_chaos.py)

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

demo: $(VENV)/embedded ## the whole way of a file, live in the terminal (FILE=path for one of yours)
	@$(BIN)/millrace demo $${FILE:+"$$FILE"}

up: $(VENV)/embedded ## everything on this machine, until Ctrl-C
	@exec $(BIN)/millrace up

test: $(VENV)/dev ## the tests of the main job and its engine, on embedded stacks of their own
	$(PYTEST) $(TESTS) $(if $(filter file,$(origin TESTS)),$(addprefix --ignore=,$(MORE) $(RECORDINGS)))

test-more: $(VENV)/dev ## those of resumable uploads, limits, webhooks, the client, the command line and the console
	$(PYTEST) $(MORE) $(addprefix --ignore=,$(RECORDINGS))

test-recordings: $(VENV)/dev ## those of mailboxes, recordings and calls, on real mail servers
	$(PYTEST) $(RECORDINGS)

test-faults: $(VENV)/dev ## the engine under fire: kills, hangs, restarts of every process and server (some minutes)
	$(BIN)/python -m pytest tests/faults --ignore tests/faults/test_rabbitmq.py

lint: $(VENV)/dev ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-rabbitmq: $(VENV)/dev ## the same and the fault tests with RabbitMQ as the broker (Debian's rabbitmq-server)
	@test -x /usr/lib/rabbitmq/bin/rabbitmq-server || { echo "make test-rabbitmq needs Debian's rabbitmq-server: apt-get install rabbitmq-server"; exit 1; }
	MILLRACE_TEST_BROKER=rabbitmq $(BIN)/python -m pytest $(ON_ANY_BROKER)

test-hosts: $(VENV)/dev ## two worker hosts and an API host that lose each other (needs root and iproute2)
	@test "$$(id -u)" = 0 && command -v ip >/dev/null || { echo "make test-hosts needs root and iproute2: apt-get install iproute2, then as root"; exit 1; }
	$(BIN)/python -m pytest tests/hosts

chaos: $(VENV)/dev ## 1,000 deaths under load: no job lost, no effect twice (half an hour, more on a busy machine)
	$(BIN)/python -m tests.faults.chaos --kills 1000 --seed 1

kills-recordings: $(VENV)/dev ## a hundred deaths of the worker that fetches recordings: each kept once, none missing
	RECORDINGS_KILLS=100 $(BIN)/python -m pytest tests/integration/test_recordings_killed.py --timeout 2400

bench: $(VENV)/dev ## ours against the baselines, as ratios (takes some minutes)
	$(BIN)/python -m benchmarks

constraints: ## resolve the newest versions anew into constraints.txt
	rm -rf $(VENV)/resolve && $(PYTHON) -m venv $(VENV)/resolve
	$(VENV)/resolve/bin/pip install -q '.[embedded,dev]'
	$(VENV)/resolve/bin/pip freeze --exclude millrace | grep -E '^[A-Za-z0-9._-]+==' > constraints.txt

clean: ## remove .venv and everything tools left; data in .millrace stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info build

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Millrace needs Python 3.11 or newer; say make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/embedded: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[embedded]'
	@touch $@

$(VENV)/dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[embedded,dev]'
	@touch $@ $(VENV)/embedded

.PHONY: help demo up test test-more test-recordings test-faults test-rabbitmq test-hosts lint format chaos kills-recordings bench constraints clean
