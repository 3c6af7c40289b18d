# `make` prints the targets. PRESET, RECIPE, WORKERS, SEED, WORKSPACE and PYTHON can be set; for torture
# also SLICE and MINUTES.
PYTHON    ?= python3
RECIPE    ?= carracing
PRESET    ?= quick
WORKSPACE ?= data/workspaces/$(RECIPE)-$(PRESET)
WORKERS   ?=
SEED      ?=
SLICE     ?=
MINUTES   ?=

VENV := .venv
BIN  := $(VENV)/bin
WM   := $(BIN)/wm
OPTIONS = -w $(WORKSPACE) --recipe $(RECIPE) --preset $(PRESET) \
	$(if $(WORKERS),--workers $(WORKERS)) $(if $(SEED),--seed $(SEED))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_CONSTRAINT := constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help all test setup setup-dev rollout train-vision train-vae sample-latents train-memory \
	train-control evaluate report status verify doctor bench lint types contracts quicktest format torture soak

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

all: $(VENV)/.ready ## set up, then run the whole pipeline and report it (PRESET=debug|quick|hour|paper|dream)
	$(WM) run $(OPTIONS)
	$(WM) report -w $(WORKSPACE)

test: lint types contracts ## set up, then lint, check types and contracts, and run all tests
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

setup: $(VENV)/.ready ## create the virtual environment and install wm into it

setup-dev: $(VENV)/.ready-dev ## the same with the tools that the tests need

rollout train-vision train-vae sample-latents train-memory train-control evaluate: $(VENV)/.ready
	$(WM) $@ $(OPTIONS)

# One line each for `make help`; the rule is above.
rollout: ## record episodes
train-vision: ## train V on them
train-vae: ## the same as train-vision
sample-latents: ## encode them with V
train-memory: ## train M on the latents
train-control: ## search C in the world, or in the dream
evaluate: ## score the agent on held-out episodes

report: $(VENV)/.ready ## write report.html into the workspace: one page that shows all of it
	$(WM) report -w $(WORKSPACE)

status: $(VENV)/.ready ## show the workspace
	$(WM) status -w $(WORKSPACE)

verify: $(VENV)/.ready ## check every digest of the workspace
	$(WM) verify -w $(WORKSPACE)

doctor: $(VENV)/.ready ## say what this machine lacks
	$(WM) doctor -w $(WORKSPACE)

bench: $(VENV)/.ready ## time every stage on this machine, beside its ceiling and the plain way
	$(WM) bench $(if $(WORKERS),--workers $(WORKERS))

lint: $(VENV)/.ready-dev ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready-dev ## mypy, strict, on wm_cli and stages
	$(BIN)/mypy

contracts: $(VENV)/.ready-dev ## the directions in which rooms may import
	$(BIN)/lint-imports

torture: $(VENV)/.ready-dev ## an hour of faults: SLICE=kills|selfkills|calls|disk|stops|bits MINUTES=20 SEED=1
	cd tests && ../$(BIN)/python -m torture $(SLICE) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

soak: $(VENV)/.ready-dev ## 20 minutes of rollout with 4 workers: is memory flat? (MINUTES=20)
	cd tests && ../$(BIN)/python -m torture soak $(if $(MINUTES),--minutes $(MINUTES))

quicktest: $(VENV)/.ready-dev ## the tests without whole pipelines
	$(BIN)/python -m pytest -m "not pipeline"

format: $(VENV)/.ready-dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "wm needs Python 3.11 to 3.13; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 all")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[fast,video,doom]'
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet -e '.[fast,video,doom,minari,tensorboard,dev]'
	@touch $@
