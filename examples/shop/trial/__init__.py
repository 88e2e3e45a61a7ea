"""The shop on trial: orders fed in, workers killed, and a verdict read from the services' own databases."""
