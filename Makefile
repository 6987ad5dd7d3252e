# Everything runs in the virtual environment .venv; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := data/demo
DEMO_TRAINING := --recipe quick --optimizer adamw --lr 0.001 --schedule step:at=0.8 --log-every 20
SINGLE := $(DEMO)/runs/single/checkpoints/0000160.pt
SIAMESE := $(DEMO)/runs/siamese/checkpoints/0000100.pt

.DEFAULT_GOAL := help
.PHONY: help install demo test heavy coverage lint docs check-python clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## make .venv with the tested versions of all dependencies

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: export LRFR_DATA := $(DEMO)
demo: install  ## generate faces, build shards, train two networks, compare them: under 5 minutes on 2 cores
	$(BIN)/python cli.py demo-data
	$(BIN)/python cli.py build-shards
	$(BIN)/python cli.py verify --full
	$(BIN)/python cli.py inspect --out $(DEMO)/report/contact-sheet.png
	$(BIN)/python cli.py train $(DEMO_TRAINING) --views 128 --batch-size 48 --steps 160 --out $(DEMO)/runs/single
	$(BIN)/python cli.py train $(DEMO_TRAINING) --views 128,8,16 --batch-size 16 --steps 100 --from $(SINGLE) --out $(DEMO)/runs/siamese
	$(BIN)/python cli.py bench all --report $(DEMO)/report --name single --network $(SINGLE) --name siamese --network $(SIAMESE)
	$(BIN)/python cli.py bench compare $(DEMO)/report/lfw.json

# the tests write thousands of small files: into memory, if there is enough (Docker gives 64 MB by default)
test coverage: export PYTEST_DEBUG_TEMPROOT := $(shell df -kP /dev/shm 2>/dev/null | awk '$$4 + 0 > 2000000 {print $$6}')

test: install lint  ## linter, formatter, types and the default tests: about 3 minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist worksteal

heavy: install  ## the tests that the default run leaves out: several processes, compiled networks; some minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m heavy

coverage: install  ## the default tests with the lines that they leave out
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term-missing:skip-covered

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: export NO_MKDOCS_2_WARNING := 1
docs: install  ## the documentation as a site in site/; broken links are errors
	$(BIN)/mkdocs build --strict

check-python:  ## install and try another Python: make check-python PYTHON=python3.12
	tools/check_python.sh $(PYTHON)

clean:  ## remove the virtual environment, caches and the demo's data
	rm -rf $(VENV) $(DEMO) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build site *.egg-info
