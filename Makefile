# SPDX-License-Identifier: Apache-2.0
# deploy/build.py makes the environment and builds; .venv/bin/dnn_dist-env runs things in it.

PYTHON ?= python3
RUN := .venv/bin/dnn_dist-env
# Not the command pytest, which may be the system's and run the system's Python.
PYTEST := $(RUN) python -m pytest

# DDS stays on this machine.
test check demo: export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST

.PHONY: build test check demo figures pictures docs arm64 bench clean

build:
	@$(PYTHON) deploy/build.py

# First what colcon installed with symlinks, then everything on the plain build. Tests with real nodes wait more than they
# compute and have a domain each, so that some run side by side.
test: build
	@$(PYTHON) deploy/build.py --symlink-install
	DNN_DIST_PREFIX=$(CURDIR)/build/symlink/install/dnn_dist $(PYTEST) -m install
	$(PYTEST) --numprocesses 3 --dist worksteal

check: build
	$(RUN) ruff check .
	$(RUN) python -m mypy
	@$(MAKE) --no-print-directory test

# make demo FRAMES=60 KILL=1
demo: build
	$(RUN) dnn_dist demo $(if $(FRAMES),--frames $(FRAMES)) $(if $(filter-out 0,$(KILL)),--kill)

# The papers' figures with ours beside them, into build/figures; doc/reproduction.md explains them.
# make figures ONLY="deepthings_latency cdc_coverage"
figures: build
	@$(PYTHON) deploy/extra.py figures
	$(RUN) python bench/figures/all.py $(ONLY)

# The pages of doc/ as HTML, into build/docs. A warning is an error.
docs: build
	@$(PYTHON) deploy/extra.py docs
	$(RUN) python doc/generate.py
	$(RUN) python -m sphinx -b html -W --keep-going -q doc build/docs

# The pictures of doc/concepts.md, and the Gantt chart.
pictures: build
	@$(PYTHON) deploy/extra.py figures
	$(RUN) python doc/pictures.py

# The core's laws on arm64, under emulation; needs qemu-user-static. deploy/arm64.py explains.
arm64: build
	@$(PYTHON) deploy/arm64.py

# The headline bench: needs root, the full-size networks (bench/make_full_models.py) and hours; bench/README.md explains.
# make bench MODELS=build/models ONLY="--network yolov2_front --robots 1 6"
MODELS ?= build/models
BENCH := --measure real latency throughput idle slow kill --repeat 5 --quiet --resume
bench: build
	@$(PYTHON) deploy/extra.py figures
	$(RUN) python bench/headline.py --models $(MODELS) $(BENCH) --out build/bench/headline.json \
		--picture build/bench/headline.png $(ONLY)

clean:
	rm -rf .venv build install log out
