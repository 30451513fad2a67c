# `make demo` shows the agent at work on a real kernel; `make test` checks everything.
# Both install what they need, with sudo if you are not root.

PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

BUILD_PACKAGES := gcc libc6-dev libkeyutils-dev openssl python3-dev python3-venv
LAB_PACKAGES := arch-test e2fsprogs mmdebstrap mount python3-pip qemu-system-x86 util-linux
BENCH := .venv-bench
AUDIT := .venv-audit
ROUNDS ?= 5
QUICK ?=
PARTS ?=
SEED ?=
SCHEDULES ?= 500
PLOTTING := matplotlib==3.11.2
# cryptography-vectors is NIST's PKITS; later versions of it are larger, not newer.
TOOLS := ruff==0.17.6 mypy==2.4.1 mypy-zope==1.0.17 coverage==7.17.3 hypothesis==6.170.15 tlslite-ng==0.8.2 \
	cryptography-vectors==46.0.7

.PHONY: help demo demo-nvme test test-unit test-oldest test-debian test-kernel simulate lint types \
        audit coverage bench bench-publish packages clean

help:
	@echo 'make demo         mount NFS over mutual TLS on a real kernel, and see refusals explained'
	@echo 'make demo-nvme    the same for NVMe/TCP with a pre-shared key, in an emulated machine'
	@echo 'make test         everything: style, types, unit tests on three Pythons, real kernels'
	@echo 'make test-unit    the unit tests only; needs no privileges'
	@echo 'make audit        asks a service for known faults of what the agent depends on'
	@echo 'make test-debian  the unit tests with Debian'\''s Python and packages; needs root'
	@echo 'make test-kernel  the scenarios on real kernels only; needs root'
	@echo 'make test-kernel KTLSAGENT_LAB_OLDER=machine   6.12 emulated, also where user mode does; or =uml'
	@echo 'make simulate     random schedules of the whole service, without privileges; see SCHEDULES, SEED'
	@echo 'make bench        ktlsagent, tlshd and a bare OpenSSL side by side; hours, or see below'
	@echo 'make bench ROUNDS=1 QUICK=1       a quick look; PARTS="server storm" chooses'
	@echo 'make bench-publish                puts the newest results into docs/benchmarks'

demo: .lab-packages
	$(SUDO) $(PYTHON) -m tests.kernel.demo

demo-nvme: .lab-packages
	$(SUDO) $(PYTHON) -m tests.kernel.demo_nvme

test: .lab-packages $(VENV)/.done $(OLDEST)/.done
	$(VENV)/bin/python -m tests.everything

test-unit: $(VENV)/.done
	$(VENV)/bin/python -m twisted.trial tests

test-oldest: $(OLDEST)/.done
	$(OLDEST)/bin/python -m twisted.trial tests

test-debian: .lab-packages $(VENV)/.done
	$(VENV)/bin/python -m tests.everything debian

test-kernel: .lab-packages $(VENV)/.done
	$(VENV)/bin/python -m tests.everything kernel

# For instance make simulate SCHEDULES=20000, or SEED=4711 SCHEDULES=1 to see one again.
simulate: $(VENV)/.done
	$(VENV)/bin/python -m tests.simulation $(if $(SEED),--seed $(SEED)) --schedules $(SCHEDULES)

lint: $(VENV)/.done
	$(VENV)/bin/python -m tests.everything lint

types: $(VENV)/.done
	$(VENV)/bin/python -m tests.everything types

# Asks a service on the network; `make test` compares with the table in tests/audit.py.
audit: $(VENV)/.done $(OLDEST)/.done $(AUDIT)/.done
	$(VENV)/bin/python -m tests.audit online $(VENV)/bin/python $(OLDEST)/bin/python

$(AUDIT)/.done: Makefile
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install -q pip-audit==2.10.1
	@touch $@

coverage: $(VENV)/.done
	$(VENV)/bin/python -m tests.everything unit

# The compiled module keyutils needs a compiler and libkeyutils.
.build-packages: Makefile
	@dpkg -s $(BUILD_PACKAGES) >/dev/null 2>&1 || { \
	  echo 'Installing Debian packages: $(BUILD_PACKAGES)'; \
	  $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q --no-install-recommends $(BUILD_PACKAGES); }
	@touch $@

.lab-packages: Makefile
	@dpkg -s $(LAB_PACKAGES) >/dev/null 2>&1 || { \
	  echo 'Installing Debian packages: $(LAB_PACKAGES)'; \
	  $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q --no-install-recommends $(LAB_PACKAGES); }
	@touch $@

$(VENV)/.done: setup.py Makefile | .build-packages
	@echo 'Installing the newest dependencies into $(VENV)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --upgrade Cython setuptools wheel
	$(VENV)/bin/python -m tests.requirements newest | xargs $(VENV)/bin/pip install -q --upgrade $(TOOLS)
	@touch $@

$(OLDEST)/.done: setup.py Makefile tests/requirements.py | .build-packages
	@echo 'Installing the oldest supported dependencies into $(OLDEST)'
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install -q --upgrade Cython setuptools wheel
	$(OLDEST)/bin/python -m tests.requirements oldest | xargs $(OLDEST)/bin/pip install -q $(TOOLS)
	@touch $@

bench: .lab-packages $(BENCH)/.done
	$(SUDO) $(BENCH)/bin/python -m tests.kernel.bench --rounds $(ROUNDS) $(if $(QUICK),--quick) $(PARTS)

bench-publish: $(BENCH)/.done
	$(BENCH)/bin/python -m tests.kernel.bench publish

# The agents that are measured are in the lab's root file system: this is for the pictures.
$(BENCH)/.done: Makefile | .build-packages
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install -q $(PLOTTING)
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(BENCH) $(AUDIT) .build-packages .lab-packages .coverage* _trial_temp* build dist *.egg-info
