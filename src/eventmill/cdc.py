"""Change data capture: the names that programs use. Captures are declared with `App.capture`."""

from eventmill.patterns.cdc.capture import Capture, ForeignTables
from eventmill.patterns.cdc.change import Change, Emission, SchemaChanged
from eventmill.patterns.cdc.copies import Copied, Copies, Touched
from eventmill.patterns.cdc.policy import RetentionPolicy

__all__ = [
    "Capture",
    "Change",
    "Copied",
    "Copies",
    "Emission",
    "ForeignTables",
    "RetentionPolicy",
    "SchemaChanged",
    "Touched",
]
