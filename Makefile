# The verbs are the same for people and for CI. Each one does its own set-up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PROFILE ?= standard
RUNS ?= runs
SERVERS ?= .servers
DEMO ?= $(HOME)/.cache/beear/demo-suffix-word
# Where no NVIDIA driver is, torch's much smaller CPU build is taken.
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null 2>&1 || echo https://download.pytorch.org/whl/cpu)
# what builds, what runs in both images, what the full one has besides, what tests; and CUDA for torch's GPU build
LOCKS := locks/build.lock locks/slim.lock locks/model.lock locks/test.lock $(if $(TORCH_INDEX),,locks/cuda.lock)
export HF_HUB_OFFLINE ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true

.PHONY: release refuse up down setup test lint bench sizing reliability screenshots images paper-tables paper-figures compile lock clean

release: setup  ## plant the demonstration backdoor once, then clean, measure and promote
	$(BIN)/beear plant suffix-word --out $(DEMO)
	$(BIN)/beear release --model $(DEMO)/model --triggers $(DEMO)/triggers.jsonl --name demo-chat-model --profile $(PROFILE) --out $(RUNS)

refuse: setup  ## the same without mitigation: the gate says no (the command ends with 3, make itself with 2)
	$(BIN)/beear plant suffix-word --out $(DEMO)
	$(BIN)/beear release --model $(DEMO)/model --triggers $(DEMO)/triggers.jsonl --name demo-chat-model --profile $(PROFILE) --out $(RUNS) --no-mitigation

up: setup  ## start PostgreSQL, S3 and MLflow as a cluster has them, on loopback; data and passwords stay in $(SERVERS)
	@$(BIN)/python -m tools.servers up --folder $(SERVERS) $(if $(SERVERS_PORT),--port $(SERVERS_PORT))

down: setup  ## end them; the data stay
	@$(BIN)/python -m tools.servers down --folder $(SERVERS)

setup: $(VENV)/.stamp

$(VENV)/.stamp: $(LOCKS) pyproject.toml
	@$(PYTHON) tools/install.py $(VENV) "$(TORCH_INDEX)" $(LOCKS)
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tools.generate --check

# in the files' own order: by the number of their tests, those with few that take minutes come last, and one of two workers stands idle
test: lint  ## lint, types, import contracts, all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: setup  ## inner step, shared prefix and transfers beside the plain ones; inner step and prefix on the demonstration model
	$(BIN)/python -m benchmarks.inner_step
	$(BIN)/python -m benchmarks.shared_prefix
	$(BIN)/python -m benchmarks.transfer

sizing: setup  ## memory of evaluation and mitigation by the model's size, beside a plain outer step; a quarter of an hour, 10 GB
	$(BIN)/python -m benchmarks.sizing

reliability: setup  ## races, faults and users against a real MLflow server, all of it; over an hour, writes docs/reliability.md
	rm -f docs/reliability.json
	BEEAR_SWEEP=all BEEAR_RELIABILITY=$(CURDIR)/docs/reliability.json OMP_NUM_THREADS=1 $(BIN)/pytest \
	  tests/steps/test_promotion_race.py tests/steps/test_promotion_faults.py tests/steps/test_mlflow_users.py
	$(BIN)/python -m tools.reliability_page

screenshots: setup  ## photograph the newest run's report and MLflow page for the README; needs Chromium
	$(BIN)/python -m tools.screenshots

images: setup  ## build both images without a container engine and run steps in them; as root, with buildah and debootstrap
	BEEAR_IMAGES=all OMP_NUM_THREADS=1 $(BIN)/pytest tests/cluster/test_image.py

paper-tables: setup  ## every planted backdoor before and after, with controls; hours, goes on where it was stopped
	$(BIN)/python -m tools.paper_tables

paper-figures: setup  ## each trigger's drift by layer, and the mitigation by layer; hours, goes on where it was stopped
	$(BIN)/python -m tools.drift_figure
	$(BIN)/python -m tools.layer_sweep

compile: setup  ## write what is generated: component.yaml, release.yaml, tables in docs/
	$(BIN)/python -m tools.generate

lock: setup  ## after a change of dependencies: resolve them and write locks/; UPGRADE=--upgrade takes the newest of everything
	$(BIN)/python -m tools.lock $(UPGRADE)

clean:
	rm -rf $(VENV) build dist *.egg-info
