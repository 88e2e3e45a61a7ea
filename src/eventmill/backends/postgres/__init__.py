"""PostgreSQL: one writer connection per process, pipelined; readers that never skip."""
