"""The command line. Exit codes: 0 done, 1 failed, 2 usage, 69 the backend does not answer, 78 configuration."""
