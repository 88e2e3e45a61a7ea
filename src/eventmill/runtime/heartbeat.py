"""Keeping leases alive from a thread of its own, which a blocked event loop cannot stop."""

from __future__ import annotations

import logging
import threading

from eventmill.core.capabilities import Store

log = logging.getLogger("eventmill")


class Heartbeat:
    """Renews what this process's members hold, every third of a lease."""

    def __init__(self, store: Store, lease: float) -> None:
        self._store = store
        self._lease = lease
        self._members: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, member: str) -> None:
        with self._lock:
            self._members.add(member)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="eventmill-heartbeat", daemon=True)
                self._thread.start()

    def remove(self, member: str) -> None:
        with self._lock:
            self._members.discard(member)

    def _run(self) -> None:
        while not self._stop.wait(self._lease / 3):
            with self._lock:
                members = sorted(self._members)
            if not members:
                continue
            try:
                self._store.beat(members, self._lease)
            except Exception as error:
                # Nothing to do but try again: if it goes on, the leases end and others take over.
                log.warning("heartbeat failed, trying again: %s", error)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
