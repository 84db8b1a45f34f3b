# Everything a person runs. Each target installs what it needs first; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
SYSTEM_PACKAGES := openvswitch-switch iproute2 iputils-ping procps python3-venv mmdebstrap wireguard-go wireguard-tools nftables tshark
PYTHON ?= python3
unexport PYTHONDONTWRITEBYTECODE  # each of many processes would compile everything anew

.PHONY: help root install install-bench demo test recheck test-kernel test-guests test-debian13 test-monitoring test-web unit chaos check format docs test-docs bench bench-scale deb release lock clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed  ## Debian's packages and the virtual environment, from the lock file

$(VENV)/.installed: requirements/dev.lock pyproject.toml packaging/install-system.sh
	@packaging/install-system.sh $(SYSTEM_PACKAGES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "vnet: $(PYTHON) is older than 3.11: take another with 'make PYTHON=python3.11 ...'" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

install-bench: install  ## the peers that benchmarks measure against
	@packaging/install-system.sh ovn-central ovn-host
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bench.lock

# A lab makes network namespaces, and so do the demo and the tests.
root:
	$(if $(filter 0,$(shell id -u)),,$(error not root: run 'sudo make $(MAKECMDGOALS)'))

bench: root install-bench  ## every benchmark, shortened; docs/benchmarks.md says how to run each for a claim
	@set -e; for b in ovsdb_sync ovsdb_update flow_encode flow_bundle flow_latency flow_diff; do $(BIN)/python -m benchmarks.$$b; done
	@$(BIN)/python -m benchmarks.plug --sizes 6 --plugs 5
	@$(BIN)/python -m benchmarks.migration --times 2
	@$(BIN)/python -m benchmarks.pause --times 2
	@$(BIN)/python -m benchmarks.evacuation --vms 5
	@$(BIN)/python -m benchmarks.restart --vifs 1000 --runs 2
	@$(BIN)/python -m benchmarks.throughput --short
	@$(BIN)/python -m benchmarks.policy_scale --short
	@$(BIN)/python -m benchmarks.broadcast --vifs 100
	@$(BIN)/python -m benchmarks.topology

demo: root install  ## a three-host pool on this machine: reach, migrate, repair
	@$(BIN)/vnet lab demo topologies/quickstart.vnet.yaml

test: root install  ## the whole suite, on real Open vSwitch
	@$(BIN)/python -m pytest -n 3 --dist worksteal

# At most RECHECKED tests: a machine that is full of other work fails few, each once; a fault fails here too, or fails many.
RECHECKED := 4

recheck: root install  ## the tests that the last 'make test' failed, alone: fails again if one does, or if they are more than four
	@$(BIN)/python -m tests.recheck $(RECHECKED)

# User Mode Linux is the kernel; of its tracker's modules one option is missing, so those are built once.
KERNEL_PACKAGES := user-mode-linux kmod gcc make flex bison bc xz-utils libssl-dev
KERNEL_MODULES := $${XDG_CACHE_HOME:-$$HOME/.cache}/vnet/uml

test-kernel: root install  ## tests on Open vSwitch's kernel datapath, in a virtual machine: TESTS=tests/vnet/packets/test_policy.py
	@packaging/install-system.sh $(KERNEL_PACKAGES)
	@tests/kernel/build_modules.sh "$(KERNEL_MODULES)"
	@$(BIN)/python -m tests.kernel $(TESTS)

# libvirt's daemon without the package that would start it, give it a network and a user.
GUEST_PACKAGES := qemu-system-x86 libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
GUEST_IMAGE := $${XDG_CACHE_HOME:-$$HOME/.cache}/vnet/guest

test-guests: root install  ## real guests of QEMU that real libvirts start and migrate, without KVM
	@RECOMMENDS=no packaging/install-system.sh $(GUEST_PACKAGES)
	@tests/guests/build_image.sh "$(GUEST_IMAGE)"
	@VNET_TEST_GUESTS="$(GUEST_IMAGE)" $(BIN)/python -m pytest -n 0 -s $(or $(TESTS),tests/guests)

test-debian13: root install  ## the packages on a machine of Debian 13, as the suite has them on this machine's release
	@packaging/install-system.sh $(SYSTEM_PACKAGES)
	@VNET_TEST_DEBIAN=13 $(BIN)/python -m pytest -n 1 tests/debian/test_packages.py -k test_the_packages

PROMETHEUS := $${XDG_CACHE_HOME:-$$HOME/.cache}/vnet/prometheus

test-monitoring: root install  ## alert rules by promtool, Debian's Prometheus on a real agent and controller, nfdump and pmacct on real switches; unpacked, not installed (25 MB)
	@tests/monitoring/fetch.sh "$(PROMETHEUS)"
	@VNET_PROMETHEUS="$(PROMETHEUS)" $(BIN)/python -m pytest tests/monitoring

test-web: root install  ## the web page in Debian's Chromium: what it shows, accessibility, 1,000 VIFs; makes the pictures of docs/web.md
	@RECOMMENDS=no packaging/install-system.sh chromium fonts-dejavu-core
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/web.lock
	@VNET_TEST_WEB=1 $(BIN)/python -m pytest -n 0 $(or $(TESTS),tests/web)

UNIT_MARKS := not ovs and not netns

unit: install  ## the tests that need no root and start no daemon
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "$(UNIT_MARKS)"

chaos: install  ## faults at random for long: ROUNDS=200 SEED=7, of which the seed is picked if none is given
	@$(BIN)/python -m tests.chaos "$${ROUNDS:-200}" $${SEED:+"$$SEED"}

check: install  ## format, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install  ## rewrite to the one format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

install-docs: install
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/docs.lock

docs: install-docs  ## the book: docs/ with the generated references as a site in dist/book, to be read without a network
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@$(BIN)/python packaging/book/offline.py dist/book

test-docs: docs  ## the book's search in Debian's Chromium, from a disk and without a network
	@RECOMMENDS=no packaging/install-system.sh chromium
	@packaging/book/search.sh dist/book rollback

bench-scale: install-bench  ## what grows with the pool, and what does not (minutes)
	@for b in cold_start apply many_agents; do $(BIN)/python -m benchmarks.$$b --runs 1; done

deb: install  ## Debian packages for 12 and 13, in dist/
	@$(BIN)/python packaging/build_deb.py

release: install  ## wheel, Debian packages, notes and checksums of this version, in dist/VERSION
	@$(BIN)/python packaging/release.py

lock:  ## refresh the lock files
	@$(BIN)/python -m pip install --quiet uv
	@for g in dev bench; do $(BIN)/uv pip compile -q pyproject.toml --extra all --group $$g --generate-hashes --no-header -o requirements/$$g.lock; done
	@$(BIN)/uv pip compile -q pyproject.toml --extra all --group docs -c requirements/dev.lock --generate-hashes --no-header -o requirements/docs.lock
	@$(BIN)/uv pip compile -q pyproject.toml --extra all --generate-hashes --no-header -o requirements/run.lock
	@$(BIN)/uv pip compile -q --group web --generate-hashes --no-header -c requirements/dev.lock -o requirements/web.lock

clean:  ## what the targets made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
