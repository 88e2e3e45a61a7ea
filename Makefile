# The whole set of commands. Each takes more arguments in ARGS: make demo ARGS="--seconds 5 --chaos"

.PHONY: help demo test bench lint

help:
	@echo 'make demo    a shop of five services on made-up orders, and the verdict'
	@echo 'make test    the whole test suite'
	@echo 'make lint    style, formatting and types'
	@echo 'make bench   measurements, one line of JSON each'
	@echo 'Further arguments go into ARGS: make demo ARGS="--seconds 5 --chaos"'

demo:
	@scripts/install
	.venv/bin/eventmill demo $(ARGS)

test:
	@scripts/install dev
	scripts/test $(ARGS)

bench:
	@scripts/install dev
	.venv/bin/python -m bench $(ARGS)

lint:
	@scripts/install dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
