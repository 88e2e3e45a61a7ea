"""Sagas: local transactions one after another, and what undoes them."""
