"""Projections: events folded into tables of their own, once each, and built anew while they are read."""
