# `make demo` and `make test` each set up everything they need in .venv, on a fresh machine too.
# `make help` prints these lines:
#
#   make help         what can be made
#   make demo         a file reaches every member [FILE= MEMBERS=16 PROCESSES=4 PROTOCOL=delaunay]
#   make test         lint, then every test
#   make test-deep    the tests that take minutes, and long searches by hypothesis
#   make lint         ruff, mypy, import contracts, house rules, the wheel's top level
#   make bench        every benchmark with its peers [QUICK=1 OUT=FILE]
#   make peers        what the benchmarks measure beside ours, as far as PyPI has it
#   make docs         the documentation, in docs/_build/html
#   make venv         everything a developer needs, and nothing run
#   make constraints  the newest versions that Python 3.11 has, pinned
#   make clean        what these targets made, .venv included

# The first Python that is new enough; name another with PYTHON=.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

VENV := .venv
BIN := $(VENV)/bin
# A demonstration needs the base only, so it has its own stamp: it installs no test tools.
BASE := $(VENV)/.base
DEV := $(VENV)/.dev
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: venv help demo test test-deep lint bench peers docs constraints clean
.DELETE_ON_ERROR:

venv: $(DEV)

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

$(VENV)/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "opus-socket needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(BASE): pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(INSTALL) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(INSTALL) -e '.[dev]'
	@touch $(BASE) $@

demo: $(BASE)
	@$(BIN)/opus-socket demo \
		$(if $(MEMBERS),--members $(MEMBERS)) \
		$(if $(PROCESSES),--processes $(PROCESSES)) \
		$(if $(PROTOCOL),--protocol $(PROTOCOL)) \
		$(if $(FILE),'$(FILE)')

test: lint
	$(BIN)/python -m pytest -n auto --ignore=tests/house

test-deep: $(DEV)
	HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest -n auto -m 'deep or not deep' -o faulthandler_timeout=3600

lint: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet tests/house

bench: $(DEV)
	@$(BIN)/python benchmarks/all.py $(if $(QUICK),--quick) $(if $(OUT),--out '$(OUT)')

# py-libp2p brings a hundred packages, some of which patch others: it stands alone.
peers: $(DEV)
	$(INSTALL) -e '.[peers]'
	$(PYTHON) -m venv $(VENV)/libp2p
	$(VENV)/libp2p/bin/python -m pip install --quiet --disable-pip-version-check libp2p
	@echo "from Debian, where they are missing: apt install nats-server iperf3"

docs: $(DEV)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

constraints:
	fresh=$$(mktemp -d) && $(PYTHON) -m venv $$fresh \
		&& $$fresh/bin/python -m pip install --quiet -e '.[dev]' \
		&& { grep '^#' constraints.txt; $$fresh/bin/python -m pip freeze --exclude-editable \
			| tr '[:upper:]' '[:lower:]' | LC_ALL=C sort; } > $$fresh/constraints.txt \
		&& cp $$fresh/constraints.txt constraints.txt && rm -r $$fresh

clean:
	rm -rf $(VENV) build dist docs/_build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
