.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Create the environment and install everything, Apache Kafka included

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[cpu,train,tracing,local,samples,dev]'
	$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib shared functions || true  # half of a cold start otherwise; uv does not
	$(BIN)/python -m mlaas.local.kafka_server install
	$(BIN)/python -m mlaas.testing.mongo_server install
	touch $@

demo: $(READY) ## Run the main job on real Kafka and write demo-result.json
	$(BIN)/mlaas demo

test: $(READY) check ## Run every test that needs no cluster, and the checks
	$(BIN)/python -m pytest

test-faults: $(READY) ## Kill, cut, fill up and corrupt in the middle of work; writes docs/reliability.md
	$(BIN)/python -m pytest tests/faults --fault-table docs/reliability.md

test-cluster: $(READY) ## Run the whole chain on the Kubernetes with Knative that KUBECONFIG names; writes docs/cluster-results.md
	@test -n "$$KUBECONFIG" || { echo "KUBECONFIG must name a cluster: see docs/deploy.md"; exit 2; }
	$(BIN)/python -m pytest tests/cluster --cluster-table docs/cluster-results.md

check: $(READY) ## Lint, types, the directions of imports, and the manifests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m mlaas.testing.manifest_check eventing

images: ## Build the container images with docker, podman or buildah: docs/images.md
	$(PYTHON) images/build.py $(ARGS)

images-archive: ## The same, and write them to build/images for a cluster without a registry
	$(PYTHON) images/build.py --archive $(ARGS)

base-image: ## Make a base for them from Debian's packages, without a registry; as root, with mmdebstrap
	sh images/base.sh

docs: $(READY) ## Write docs/reference from the contract and the settings
	$(BIN)/python -m mlaas.reference docs/reference

bench: $(READY) ## Measure side by side what the platform is compared with, about two hours; needs a C++ compiler; writes bench/results.md
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python bench $(ARGS)

clean: ## Remove the environment and everything built
	rm -rf $(VENV) build

.PHONY: help setup demo test test-faults test-cluster images images-archive base-image check docs bench clean
