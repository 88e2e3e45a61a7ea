"""Asynchronous tasks: jobs of the store, run by workers, planned by schedules."""
