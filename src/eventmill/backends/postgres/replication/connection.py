"""The connection that a source's questions are asked on."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.AsyncConnection[Any]
