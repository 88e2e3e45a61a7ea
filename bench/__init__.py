"""Measurements: `python -m bench` runs all of them, `python -m bench --help` says which there are."""
