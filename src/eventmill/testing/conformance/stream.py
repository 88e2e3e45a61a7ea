"""What every Store must do with streams. The cases are in `streams`, `stream_reads` and `tags`."""

from __future__ import annotations

from eventmill.testing.conformance.stream_reads import StreamReadCases
from eventmill.testing.conformance.streams import AppendCases
from eventmill.testing.conformance.tags import TagCases


class StreamConformance(AppendCases, StreamReadCases, TagCases):
    """Appends under expected versions and conditions, and reads by stream. Bind it to a backend that is a Store."""
