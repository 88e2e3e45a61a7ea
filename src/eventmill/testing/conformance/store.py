"""What every Store must do. The cases are in `units`, `groups`, `jobs`, `claiming`, `limiting` and `trimming`."""

from __future__ import annotations

from eventmill.testing.conformance.claiming import ClaimingCases
from eventmill.testing.conformance.groups import GroupCases
from eventmill.testing.conformance.jobs import JobCases
from eventmill.testing.conformance.limiting import HoldingCases
from eventmill.testing.conformance.trimming import TrimCases
from eventmill.testing.conformance.units import UnitCases


class StoreConformance(UnitCases, GroupCases, JobCases, ClaimingCases, HoldingCases, TrimCases):
    """Units of work, groups, jobs and trimming. Bind it to a backend that is Log and Store in one."""
