# All commands of the project; `make help` lists them and their variables.
#
# The first command that needs Python makes .venv from requirements.lock. In the NGC Merlin container
# (see NGC below), the packages of the container are used instead.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.ONESHELL:
.SUFFIXES:

RECIPE ?= movielens-100k
RECIPE_IS_OF := $(origin RECIPE)
RUN ?=
DEVICE ?= auto
SET ?=
TO ?=
PYTEST ?=
PYTHON ?=
PYTHON310 ?= python3.10
UPGRADE ?=
DOCKER ?= docker
DOCKER_ARGS ?=
IMAGE ?= two-tower
MERLIN_TAG ?= 23.06

export TF_CPP_MIN_LOG_LEVEL ?= 2

# ── which Python ────────────────────────────────────────────────────────────────────────
VENV := .venv
UV_VERSION := 0.13.9

# The container is recognised by its entry point *and* by a python3 that finds Merlin and TensorFlow
# outside any virtual environment: other images of NVIDIA have only the entry point. With PYTHON=...
# only the second condition is checked. NGC=1 and NGC=0 set the result by hand.
OWNS_MERLIN := import sys; from importlib.util import find_spec as f; \
  sys.exit(sys.prefix != sys.base_prefix \
           or not (f("nvtabular") and f("merlin.models") and f("tensorflow")))
owns_merlin = $(shell $(1) -c '$(OWNS_MERLIN)' 2>/dev/null && echo 1)
ifeq ($(origin NGC),undefined)
  ifneq ($(PYTHON),)
    NGC := $(call owns_merlin,$(PYTHON))
  else ifneq ($(wildcard /opt/nvidia/nvidia_entrypoint.sh),)
    NGC := $(call owns_merlin,python3)
  endif
endif
override NGC := $(filter-out 0 no false,$(NGC))

ifneq ($(NGC),)
PY := $(or $(PYTHON),python3)
READY := .ngc/.ok
else
PY := $(VENV)/bin/python
READY := $(VENV)/.ok
endif

# ── the pipeline ────────────────────────────────────────────────────────────────────────
VERBS := fetch etl train tune evaluate export index recommend serve load triton report doctor
# a run has its recipe, so with RUN=... the recipe is passed only if it was given as well
ARGS = $(if $(and $(RUN),$(filter file,$(RECIPE_IS_OF))),,--recipe '$(RECIPE)' )
ARGS += $(if $(RUN),--run '$(RUN)' )--device $(DEVICE)
ARGS += $(foreach setting,$(SET),--set '$(setting)')

.PHONY: $(VERBS)
fetch: ## download the raw data, unless it exists
etl: fetch ## turn raw data into encoded splits, vocabularies and tables
train: ## fit the model
tune: ## search hyper-parameters on the validation part
evaluate: ## measure the model and baselines (popularity, ALS, EASE, ...) with intervals
export: evaluate ## write towers, embeddings and tables, and check them in a new process
index: ## build a search index of the items; measure its recall and latency
recommend: ## write the ten best items of every user
serve: ## answer over HTTP, with a web page at http://127.0.0.1:8000/
load: ## load the items into a vector database: TO=milvus or TO=opensearch
triton: ## write a model repository for Triton into TO=folder
triton load: ARGS += $(if $(TO),--to '$(TO)')
report: ## write an HTML report and a model card of the run
doctor: ## print versions, the device, and faults of the installation
$(VERBS): $(READY)
	$(strip $(PY) -m workflows $@ $(ARGS))

.PHONY: notebooks
notebooks: $(READY) ## execute the notebooks into runs/notebooks/
	@mkdir -p runs/notebooks
	for notebook in notebooks/*.ipynb; do
	  $(PY) -m papermill --cwd . -r recipe '$(RECIPE)' -r run '$(RUN)' -r device '$(DEVICE)' \
	    -y 'overrides: [$(foreach setting,$(SET),"$(setting)",)]' "$$notebook" "runs/$$notebook"
	done

.PHONY: schema
schema: $(READY) ## write the JSON Schema of recipes to recipes/schema.json, for editors
	$(PY) -m workflows schema > recipes/schema.json.new
	mv recipes/schema.json.new recipes/schema.json

# ── checks ──────────────────────────────────────────────────────────────────────────────
.PHONY: test test-quality lint types contracts pytest
ifeq ($(NGC),)
test: lint types contracts
endif
test: pytest ## run lint, types, contracts and pytest; in the container only pytest
test-quality: override PYTEST += -m quality
test-quality: pytest ## check what models learn, and other long tests (5 min)
lint: $(READY) ## check the style with ruff
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
types: $(READY) ## check the types with mypy
	$(PY) -m mypy models samples workflows
contracts: $(READY) ## check which modules import which, with import-linter
	$(VENV)/bin/lint-imports --no-cache
ifneq ($(NGC),)
pytest: .ngc/.tests
	$(PY) -m pytest $(PYTEST)
else
pytest: $(READY) ## run the tests; PYTEST='-k name' selects some
	$(PY) -m pytest -n 2 --dist worksteal $(PYTEST)
endif

# An environment with the Python of the container and the versions nearest to its packages.
ifneq ($(filter test-ngc,$(MAKECMDGOALS)),)
HAS_PYTHON310 := $(shell $(PYTHON310) -c 'import sys, venv, ensurepip; \
  sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null && echo 1)
endif
.PHONY: test-ngc
ifneq ($(HAS_PYTHON310),)
test-ngc: .venv-ngc/.ok
	.venv-ngc/bin/python -m pytest -n 2 --dist worksteal $(PYTEST)
else
test-ngc: ## run the tests on versions like the container's; PYTHON310=path
	@echo "test-ngc: skipped. It needs Python 3.10, as the NGC container has, and" \
	  "'$(PYTHON310)' is not one: make test-ngc PYTHON310=/path/to/python3.10"
endif

.PHONY: docs
docs: $(READY) .venv-docs/.ok ## build the documentation into site/, and check its links
	@PYTHONPATH=docs $(PY) -m reference_pages
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	if grep -rE '<(script|link|img)[^>]+(src|href)="?https?:' site --include='*.html'; then
	  echo "error: these pages load something from another server" >&2; exit 1
	fi
	echo site/index.html

# ── benchmarks ──────────────────────────────────────────────────────────────────────────
.PHONY: bench
bench: $(READY) .venv-bench-tfrs/.ok .venv-bench-torch/.ok ## compare training with Merlin, TFRS and PyTorch (1 h)
	$(PY) benchmarks/training.py --batches 4096
	$(PY) benchmarks/training.py --batches 1024 16384 --items 20000 --repetitions 1
	for claim in step memory retrieval time_to_recall scaling; do
	  $(PY) benchmarks/$$claim.py
	done

.PHONY: bench-serve
bench-serve: $(READY) .venv-bench-tfrs/.ok ## compare serving with TFRS (10 min)
	$(PY) benchmarks/serving.py

.PHONY: bench-etl
bench-etl: $(READY) .venv-bench-polars/.ok ## compare etl with NVTabular and polars (1 h)
	$(PY) benchmarks/etl.py
	$(PY) benchmarks/etl_scale.py

.PHONY: bench-scale
bench-scale: $(READY) ## time and memory by rows, users and items, for docs/scale.md (2 h)
	$(PY) benchmarks/etl_scale.py
	$(PY) benchmarks/memory.py
	$(PY) benchmarks/scaling.py
	$(PY) benchmarks/users_scale.py
	$(PY) benchmarks/exact_scale.py
	$(PY) benchmarks/ann.py --sizes 100000 1000000 --kinds ivf ivf_sq ivf_pq --worlds trained

.PHONY: bench-peers
bench-peers: $(READY) .venv-bench-rectools/.ok ## compare quality with RecTools (hours); DATA=folder for all data sets
	$(PY) benchmarks/published.py $(if $(DATA),--data "$(DATA)",--datasets ml-100k)

.PHONY: torture
torture: $(READY) ## test kills, full disks, power losses, damaged and hostile files (40 min)
	$(PY) benchmarks/torture/run.py

# ── environments ────────────────────────────────────────────────────────────────────────
# Settings of the machine may choose the package index, but not what is installed, nor where.
unexport CONDA_PREFIX PYTHONHOME VIRTUAL_ENV PIP_PREFIX PIP_REQUIRE_HASHES PIP_TARGET
unexport UV_BUILD_CONSTRAINT UV_CONSTRAINT UV_EXCLUDE UV_EXCLUDE_NEWER UV_FORK_STRATEGY
unexport UV_NO_BUILD_ISOLATION UV_NO_CONFIG UV_NO_EDITABLE UV_NO_VERIFY_HASHES UV_OVERRIDE
unexport UV_PRERELEASE UV_PROJECT UV_PYTHON UV_RESOLUTION UV_SYSTEM_PYTHON UV_WORKING_DIR

# uv does not read the settings of pip. If only pip has an index or a certificate, uv gets them.
define ASK_PIP
pips() {
  $(1) -m pip config list 2>/dev/null \
    | sed -nE "s/^(:env:|global|install)\.$$1='(.*)'$$/\2/p" | head -n 1 || true
}
configs=("$${XDG_CONFIG_HOME:-$${HOME:-}/.config}/uv/uv.toml" /etc/xdg/uv/uv.toml /etc/uv/uv.toml)
if [ -z "$${UV_DEFAULT_INDEX:-}$${UV_INDEX:-}$${UV_INDEX_URL:-}$${UV_CONFIG_FILE:-}" ] \
    && ! grep -qs index "$${configs[@]}"; then
  index=$$(pips index-url)
  if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi
fi
if [ -z "$${SSL_CERT_FILE:-}" ]; then
  certificate=$$(pips cert)
  if [ -n "$$certificate" ]; then export SSL_CERT_FILE="$$certificate"; fi
fi
endef
PIP_INSTALL := -m pip --disable-pip-version-check install --quiet
# Without byte code, imports take 20 s longer. So it is compiled, even with PYTHONDONTWRITEBYTECODE.
UV_SYNC := UV_COMPILE_BYTECODE=1 $(VENV)/bin/uv pip sync --require-hashes
UV_INSTALL := $(VENV)/bin/uv pip install
EDITABLE := --no-deps --config-settings editable_mode=compat --editable .

PYTHONS := $(or $(PYTHON),python3.11 python3.10 python3)
FITS := import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))
define NO_PYTHON
error: found no Python 3.10 or 3.11 that can make virtual environments. Tried: $(PYTHONS).
$(if $(PYTHON),,uv did not find one either. )TensorFlow 2.12 and Merlin need one of these versions. Install one, for
example with `apt install python3.11 python3.11-venv` (Debian 12), `apt install python3.10
python3.10-venv` (Ubuntu 22.04), `dnf install python3.11` (Fedora, RHEL), `uv python install 3.11` or
`pyenv install 3.11`; then run make again, or name it: make PYTHON=/path/to/python3.11 ...
endef
define NO_PLATFORM
error: TensorFlow 2.12 and Merlin need Linux on x86_64, but this is another system. Use the
image: `make image-cpu DOCKER_ARGS="--platform linux/amd64"`.
endef
export NO_PYTHON NO_PLATFORM

# An environment is made again if it is incomplete, was moved, has lost its Python, or has another
# Python than PYTHON.
IS_SOUND = [ ! -e $(1)/.unfinished ] && [ -x $(1)/bin/python ] \
  && [ -x $(1)/bin/pip ] && grep -qsF '$(CURDIR)/$(1)' $(1)/bin/activate \
  $(if $(2),&& [ "$$($(2) -V 2>&1)" = "$$($(1)/bin/python -V)" ])
redo_if = $(if $(shell $(1) && echo 1),,REDO)
.PHONY: REDO

.venv/.ok: requirements.lock setup.cfg pyproject.toml $(call redo_if,$(call IS_SOUND,.venv,$(PYTHON)))
	@if [ "$$(uname -sm)" != "Linux x86_64" ]; then echo "$$NO_PLATFORM" >&2; exit 1; fi
	if ! { $(call IS_SOUND,.venv,$(PYTHON)); }; then
	  python=$$(for name in $(PYTHONS); do
	    if "$$name" -c '$(FITS)' 2>/dev/null; then echo "$$name"; break; fi
	  done)
	  if [ -z "$$python" ] && [ -n '$(PYTHON)' ]; then echo "$$NO_PYTHON" >&2; exit 1; fi
	  rm -rf .venv .venv-uv
	  mkdir .venv
	  touch .venv/.unfinished
	  if [ -n "$$python" ]; then
	    echo ".venv: made with $$python"
	    "$$python" -m venv .venv
	  elif python3 -m venv .venv-uv 2>/dev/null \
	      && PIP_USER=0 .venv-uv/bin/python $(PIP_INSTALL) uv==$(UV_VERSION) >&2; then
	    echo ".venv: found no Python 3.10 or 3.11; using the 3.11 of uv"
	    $(call ASK_PIP,.venv-uv/bin/python)
	    .venv-uv/bin/uv venv --allow-existing --seed --python 3.11 .venv \
	      || { rm -rf .venv .venv-uv; echo "$$NO_PYTHON" >&2; exit 1; }
	    rm -rf .venv-uv
	  else
	    rm -rf .venv .venv-uv
	    echo "$$NO_PYTHON" >&2
	    exit 1
	  fi
	fi
	touch .venv/.unfinished
	echo ".venv: installing requirements.lock (2 GB; minutes the first time)"
	PIP_USER=0 .venv/bin/python $(PIP_INSTALL) uv==$(UV_VERSION)
	$(call ASK_PIP,.venv/bin/python)
	$(UV_SYNC) --quiet --python .venv/bin/python requirements.lock
	$(UV_INSTALL) --quiet --python .venv/bin/python --no-build-isolation $(EDITABLE)
	rm .venv/.unfinished
	touch $@

.venv-ngc/.ok: docker/ngc-like.lock setup.cfg pyproject.toml .venv/.ok \
    $(call redo_if,$(call IS_SOUND,.venv-ngc,$(PYTHON310)))
	@if ! { $(call IS_SOUND,.venv-ngc,$(PYTHON310)); }; then
	  rm -rf .venv-ngc
	  $(PYTHON310) -m venv .venv-ngc
	fi
	touch .venv-ngc/.unfinished
	$(call ASK_PIP,.venv/bin/python)
	$(UV_SYNC) --quiet --python .venv-ngc/bin/python docker/ngc-like.lock
	$(UV_INSTALL) --quiet --python .venv-ngc/bin/python --no-build-isolation $(EDITABLE)
	rm .venv-ngc/.unfinished
	touch $@

# Each peer of the benchmarks has its own environment, and so has what builds the documentation.
define MAKE_ENVIRONMENT
rm -rf $(@D)
$(call ASK_PIP,.venv/bin/python)
$(VENV)/bin/uv venv --quiet --python .venv/bin/python $(@D)
$(UV_SYNC) --quiet --python $(@D)/bin/python $<
touch $@
endef
.venv-bench-%/.ok: benchmarks/peers/%.lock .venv/.ok
	@$(MAKE_ENVIRONMENT)
.venv-docs/.ok: docs/mkdocs.lock .venv/.ok
	@$(MAKE_ENVIRONMENT)

# In the container, only packages that it lacks are installed. The folder may be mounted into another
# container later, so the stamp is valid only if these packages are found.
.ngc/.ok: docker/requirements-ngc.txt setup.cfg pyproject.toml \
    $(if $(NGC),$(call redo_if,$(PY) -c 'import msgspec; import typer' 2>/dev/null))
	$(PY) -m pip install --no-deps --requirement docker/requirements-ngc.txt
	$(PY) -m pip install $(EDITABLE)
	mkdir -p $(@D) && touch $@
.ngc/.tests: docker/requirements-ngc-tests.txt .ngc/.ok \
    $(if $(NGC),$(call redo_if,$(PY) -c 'import hypothesis; import pytest' 2>/dev/null))
	$(PY) -m pip install --no-deps --requirement docker/requirements-ngc-tests.txt
	touch $@

EXTRAS := cpu serving index serve milvus tracking baselines tuning report notebooks dev
COMPILE := UV_PYTHON_DOWNLOADS=never $(VENV)/bin/uv pip compile --quiet --generate-hashes \
  --no-header --no-annotate --python-version 3.10 $(if $(UPGRADE),--upgrade)
.PHONY: lock
lock: $(READY) ## compile the lock files again; UPGRADE=1 takes newer versions
	@$(call ASK_PIP,$(PY))
	$(COMPILE) --universal $(addprefix --extra ,$(EXTRAS)) pyproject.toml \
	  --output-file requirements.lock
	# in an empty folder: the pins of pyproject.toml are not for the container, nor for the peers
	folder=$$(mktemp -d)
	trap 'rm -r "$$folder"' EXIT
	$(COMPILE) --directory "$$folder" --python-platform x86_64-manylinux_2_28 \
	  --override '$(CURDIR)/docker/ngc-like.overrides' \
	  --build-constraints '$(CURDIR)/docker/ngc-like.in' '$(CURDIR)/docker/ngc-like.in' \
	  --output-file '$(CURDIR)/docker/ngc-like.lock'
	$(COMPILE) --directory "$$folder" --universal '$(CURDIR)/docs/mkdocs.in' \
	  --output-file '$(CURDIR)/docs/mkdocs.lock'
	for peer in tfrs torch polars rectools minilm audit; do
	  $(COMPILE) --directory "$$folder" --universal "$(CURDIR)/benchmarks/peers/$$peer.in" \
	    --output-file "$(CURDIR)/benchmarks/peers/$$peer.lock"
	done

# Both read only the lock. pip-audit must reach a database of advisories over the network.
.PHONY: audit sbom
audit: .venv-bench-audit/.ok ## list known advisories of the locked packages, except accepted ones
	$(<D)/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip \
	  $$(sed -nE 's/^([A-Z]+-[^ ]+) .*/--ignore-vuln \1/p' docs/accepted-advisories.txt)
sbom: .venv-bench-audit/.ok ## write all locked packages as CycloneDX to runs/sbom.json
	@mkdir -p runs
	$(<D)/bin/cyclonedx-py requirements requirements.lock --output-file runs/sbom.json
	@echo runs/sbom.json

.PHONY: image image-cpu image-gpu
image: image-cpu image-gpu ## build both docker images
image-cpu image-gpu: export DOCKER_BUILDKIT = 1
image-cpu: ## build the docker image for CPUs, IMAGE:cpu
	$(DOCKER) build --file docker/Dockerfile.cpu --tag $(IMAGE):cpu $(DOCKER_ARGS) .
image-gpu: ## build the docker image on NGC Merlin MERLIN_TAG, IMAGE:gpu
	$(DOCKER) build --file docker/Dockerfile.gpu --tag $(IMAGE):gpu \
	  --build-arg MERLIN_TAG=$(MERLIN_TAG) $(DOCKER_ARGS) .

.PHONY: clean help
clean: ## remove environments, builds and caches, but not data/ and runs/
	rm -rf .venv .venv-ngc .venv-uv .venv-bench-* .venv-docs .ngc build dist site *.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## print this list
	@echo "make TARGET ... [RECIPE=name-or-path] [RUN=name] [DEVICE=auto|cpu|gpu] [SET='a.b=1 c.d=2']"
	echo
	sed -nE "s/^([a-z0-9-]+):.*## (.*)/  \1\t\2/p" Makefile | expand -t 16
	echo
	echo "PYTHON=path      a Python to make .venv with, or one that has Merlin"
	echo "NGC=1 | NGC=0    use the Merlin of python3 | make .venv (default: found out)"
	echo "Now: RECIPE=$(RECIPE) DEVICE=$(DEVICE), Python from $(if $(NGC),$(PY),.venv)"
