"""What every Store must do. The cases are in `units`, `groups` and `jobs`."""

from __future__ import annotations

from eventmill.testing.conformance.groups import GroupCases
from eventmill.testing.conformance.jobs import JobCases
from eventmill.testing.conformance.units import UnitCases


class StoreConformance(UnitCases, GroupCases, JobCases):
    """Units of work, groups and jobs. Bind it to a backend that is Log and Store in one."""
