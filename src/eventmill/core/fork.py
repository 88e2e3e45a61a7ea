"""Whether this process is a forked child, asked often and therefore without a system call."""

from __future__ import annotations

import os

count = 0
"""How many forks lie between the process that imported this and the one that reads it."""


def _forked() -> None:
    global count
    count += 1


os.register_at_fork(after_in_child=_forked)
