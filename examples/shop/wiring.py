"""The only file that names backends: one database a service, and the broker between them.

The folder is taken from EVENTMILL_SHOP (default: where the process runs), the lease in seconds
from EVENTMILL_SHOP_LEASE. To move the shop elsewhere, change the two URLs.
"""

from __future__ import annotations

import os
from pathlib import Path

from eventmill import App
from eventmill.settings import Settings

FOLDER = Path(os.environ.get("EVENTMILL_SHOP", ".")).absolute()
SETTINGS = Settings(lease=float(os.environ.get("EVENTMILL_SHOP_LEASE", "10")))


def service(name: str) -> App:
    """The application of one service, with its own store, on the common broker."""
    return App(
        f"sqlite:///{FOLDER / name}.db", broker=f"sqlite:///{FOLDER / 'broker'}.db", name=name, settings=SETTINGS
    )
