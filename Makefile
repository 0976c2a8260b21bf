# One set of verbs for people and for both pipelines. Needs make and Python 3.11 or newer; the rest is made in .venv.
# Works on paths with spaces: every path below is relative.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help up reset test check format docs bench lock migration migrate rollback roundtrip import

RUN := .venv/bin/python

# Which Python makes .venv: PYTHON, else the first of these that is new enough (a name on the PATH may be a dead shim).
define choose_python
for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.11 python3.12 python3.13 python3.14); do \
  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; python=; done; \
if [ -z "$$python" ]; then \
  echo "BookStore needs Python 3.11 or newer, and $(if $(PYTHON),$(PYTHON) is not one,none is on this PATH):" \
       "install it (Debian, Ubuntu: apt install python3 python3-venv), or name one: make up PYTHON=/path/to/python3.12" >&2; \
  exit 1; fi
endef
install = @$(choose_python); "$$python" -P bookstore/up/install.py

help: ## List every target with its sentence
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done

up: ## Bring up PostgreSQL, Redis, the supervisor and the API here (PORT=8000 SUPERVISOR_PORT=8081 RELOAD=1)
	$(install) runtime embedded
	@exec $(RUN) -m bookstore up $(if $(filter-out 0 no false,$(RELOAD)),--reload)

reset: ## Forget the embedded databases and secrets in .data, after asking (YES=1 does not ask)
	$(install) runtime embedded
	@exec $(RUN) -m bookstore reset $(if $(filter-out 0 no false,$(YES)),--yes)

import: ## Import FILE into the database (ARGS="--preset goodbooks --set stock=10"), the running one unless DATABASE_URL is set
	$(install) runtime embedded
	@[ -n "$$FILE" ] || { echo 'Which file? make import FILE=books.csv ARGS="--preset bookstore"' >&2; exit 2; }
	@exec $(RUN) -m bookstore import "$$FILE" $(ARGS)

# Half as many again as there are cores: many tests wait for processes (tests/up on 2 cores: 104 s with 2, 84 s with 3).
test_processes = $$(( ($$(getconf _NPROCESSORS_ONLN) * 3 + 1) / 2 ))

test: ## Run every test on servers of its own, with coverage (ARGS="tests/up -k ports" for some, without the gate)
	$(install) runtime embedded dev
	@mkdir -p reports; rm -f .coverage .coverage.*
	@$(RUN) -m coverage run -m pytest -n $(test_processes) --dist worksteal --junitxml=reports/junit.xml $(ARGS)
	@$(RUN) -m coverage combine -q
	@$(RUN) -m coverage xml -q -o reports/coverage.xml --fail-under=0
	@$(RUN) -m coverage report $(if $(ARGS),--fail-under=0)

check: ## Lint, format, types, import directions, migrations
	$(install) runtime embedded dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()' --no-cache
	$(RUN) -m tests.lint_migrations
	.venv/bin/squawk $$(ls migrations/*.sql | grep -v '\.rollback\.sql$$')

format: ## Put every file into the shape that `make check` asks for
	$(install) runtime embedded dev
	$(RUN) -m ruff check --fix-only --quiet .
	$(RUN) -m ruff format .

docs: ## Write the README's table of settings anew, from .env.example and both programs
	$(install) runtime embedded
	@$(RUN) docs/settings_table.py

bench: ## Measure beside bare aiohttp, FastAPI and a raw COPY; one table
	$(install) runtime embedded dev bench
	@exec $(RUN) -m tests.benchmarks $(ARGS)

lock: ## Compile requirements/*.in to *.txt with hashes, each layer within the one before (ARGS=--upgrade)
	$(install) runtime embedded dev
	$(call compile,runtime)
	$(call compile,embedded,-c requirements/runtime.txt)
	$(call compile,dev,-c requirements/runtime.txt -c requirements/embedded.txt)
	$(call compile,bench,-c requirements/runtime.txt -c requirements/embedded.txt -c requirements/dev.txt)

compile = UV_CUSTOM_COMPILE_COMMAND="make lock" .venv/bin/uv pip compile -q --universal --python-version 3.11.2 \
	--generate-hashes --no-annotate $(2) $(ARGS) requirements/$(1).in -o requirements/$(1).txt

migration: ## Start a new migration and its rollback (NAME=add-reviews)
	@echo "$$NAME" | grep -qE '^[a-z0-9]+(-[a-z0-9]+)*$$' || { echo 'What does it do? make migration NAME=add-reviews' >&2; exit 2; }
	@next=$$(printf '%04d' $$(( $$(ls migrations | grep -c '\.rollback\.sql$$') + 1 ))); for kind in '' .rollback; do \
	  file="migrations/$$next.$$NAME$$kind.sql"; printf -- '-- Why: \n' >"$$file"; echo "$$file"; done

migrate: ## Apply every migration to DATABASE_URL with plain yoyo (a pod's supervisor does it by itself)
	$(install) runtime embedded dev
	@$(needs_database)
	$(RUN) -m yoyo apply --batch --no-config-file --database "$$DATABASE_URL" migrations

rollback: ## Roll every migration on DATABASE_URL back: takes all data with it
	$(install) runtime embedded dev
	@$(needs_database)
	$(RUN) -m yoyo rollback --batch --all --no-config-file --database "$$DATABASE_URL" migrations

roundtrip: ## Apply, roll back and apply again every migration on DATABASE_URL, an empty one
	@for step in migrate rollback migrate; do $(MAKE) --no-print-directory $$step || exit 1; done

needs_database = [ -n "$$DATABASE_URL" ] || { echo 'On which database? DATABASE_URL=postgresql://… make $@' >&2; exit 2; }

export NAME FILE
