"""One suite for each capability. A backend's test file binds them to it, in a few lines:

    class TestLog(LogConformance):
        features = Features(durable=True, shared=True, manual_clock=True)

        def open(self, place: Path, clock: Clock) -> AbstractAsyncContextManager[Log]:
            return MyBackend(place / "file.db", clock)

Run it with pytest; the suites need no plugin. A case that needs a feature which the binding does
not declare is skipped.
"""

from eventmill.testing.conformance.log import LogConformance
from eventmill.testing.conformance.publisher import PublisherConformance
from eventmill.testing.conformance.store import StoreConformance
from eventmill.testing.conformance.suite import Backend, Conformance, Features

__all__ = [
    "Backend",
    "Conformance",
    "Features",
    "LogConformance",
    "PublisherConformance",
    "StoreConformance",
]
