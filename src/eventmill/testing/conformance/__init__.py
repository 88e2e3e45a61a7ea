"""One suite for each capability. A backend's test file binds them to it, in a few lines:

    class TestLog(LogConformance):
        features = Features(durable=True, shared=True, manual_clock=True)

        def open(self, place: Path, clock: Clock) -> AbstractAsyncContextManager[Log]:
            return MyBackend(place / "file.db", clock)

Run it with pytest; the suites need no plugin. A case that needs a feature which the binding does
not declare is skipped.
"""

import pytest

# A failing case then shows the values it compared, as it would in a test file.
_PARTS = (
    "apps claiming documents failing groups jobs limiting log looking members mishaps publisher samples scheduling stream stream_reads"
    " streams subscriber suite tags taskflow tasks trimming units"
)
pytest.register_assert_rewrite(*(f"eventmill.testing.conformance.{part}" for part in _PARTS.split()))

from eventmill.testing.conformance.log import LogConformance  # noqa: E402
from eventmill.testing.conformance.publisher import PublisherConformance  # noqa: E402
from eventmill.testing.conformance.scheduling import TaskConformance  # noqa: E402
from eventmill.testing.conformance.store import StoreConformance  # noqa: E402
from eventmill.testing.conformance.stream import StreamConformance  # noqa: E402
from eventmill.testing.conformance.subscriber import SubscriberConformance  # noqa: E402
from eventmill.testing.conformance.suite import Backend, Conformance, Features  # noqa: E402

__all__ = [
    "Backend",
    "Conformance",
    "Features",
    "LogConformance",
    "PublisherConformance",
    "StoreConformance",
    "StreamConformance",
    "SubscriberConformance",
    "TaskConformance",
]
