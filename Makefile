# make reproduce   everything, from nothing to the table of results
# make paper       the same at the size of the 2017 report (docs/paper.md)
# make test        lint, types, import contracts, all tests
# make coverage    the same, and how much of the package the tests run: slower, and with a floor
# make torture     damaged and hostile inputs, full disks, kills, load; make test runs a few of each
# make quick       the same without the tests that need a whole pipeline or a server
# make bench       what it costs, on this machine, against what you would write yourself (docs/benchmarks.md)
PYTHON ?= python3
VENV := .venv
# TensorFlow for a CPU, or for a GPU: make reproduce TENSORFLOW=gpu
TENSORFLOW ?= cpu
# Files of tests in three processes on two cores, because some wait for servers and for SLURM, in the
# order of tests/conftest.py: those that take minutes come first.
SPREAD := --numprocesses 3 --dist loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help reproduce paper test coverage torture quick check ui clean bench docs schema constraints platforms

help: ## say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

reproduce: $(VENV)/run ## install, run the pipeline, log to MLflow, print the results
	vgg16-transfer check
	dvc repro
	vgg16-transfer publish --if-new
	vgg16-transfer results

paper: ## the whole 2017 study: network, data/urban_tribes.tar, and a GPU if you can get one
	cp profiles/paper.yaml params.yaml
	$(MAKE) reproduce

test: check ## lint, types, import contracts and all tests
	pytest $(SPREAD)

coverage: check ## what make test does, and the share of the package that it runs
	pytest $(SPREAD) --cov

torture: $(VENV)/dev ## 20,000 hostile inputs, full disks, 65 kills in all stages, servers under load
	TORTURE=1 pytest --numprocesses 2 tests/torture/test_generated_inputs.py
	TORTURE=1 pytest $(SPREAD) tests/torture tests/team/test_serving.py tests/team/test_pictures_over_http.py \
	  tests/pipeline/test_repro.py --deselect tests/torture/test_generated_inputs.py

quick: check ## lint, types, import contracts and the tests that need no pipeline and no server
	pytest $(SPREAD) -m "not pipeline and not server"

check: $(VENV)/dev ## lint, types and import contracts
	ruff format --check
	ruff check
	mypy
	lint-imports

ui: $(VENV)/run ## open the MLflow UI on loopback
	vgg16-transfer ui

clean: ## remove what can be made again, and the runs; DVC's cache stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.*
	rm -rf mlflow.db .mlflow.db.lock mlartifacts site
	find data models reports results -name '.??????????????????????.tmp' -type f -delete

bench: $(VENV)/dev ## measure this machine for twenty minutes: every table of docs/benchmarks.md (PICTURES=archive)
	python -c 'import torch' 2>/dev/null || pip install --quiet 'torch>=2.8'  # one of the peers
	python benchmarks/bench.py $(if $(PICTURES),--pictures '$(PICTURES)')

docs: $(VENV)/dev ## build the site of the documentation in site/
	sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs . site

schema: $(VENV)/run ## write the JSON schema of params.yaml that editors read
	python tools/params_schema.py

constraints: $(VENV)/dev ## write what is installed to constraints.txt, and to pyproject.toml for uv
	python tools/constraints.py

platforms: $(VENV)/dev ## ask the package registry what can be installed on other systems
	python tools/platforms.py

$(VENV)/run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	python tools/install.py --constraint constraints.txt --editable '.[$(TENSORFLOW),offline]'
	@touch $@

$(VENV)/dev: $(VENV)/run
	python tools/install.py --constraint constraints.txt --editable '.[$(TENSORFLOW),offline,export,ncnn,openvino,jax,ray,team,dev]'
	@touch $@
