"""What every Store must do. The cases are in `units`, `documents`, `groups`, `jobs`, `claiming`, `limiting`, `trimming`, `looking`."""

from __future__ import annotations

from eventmill.testing.conformance.claiming import ClaimingCases
from eventmill.testing.conformance.documents import DocumentCases
from eventmill.testing.conformance.groups import GroupCases
from eventmill.testing.conformance.jobs import JobCases
from eventmill.testing.conformance.limiting import HoldingCases
from eventmill.testing.conformance.looking import LookCases
from eventmill.testing.conformance.trimming import TrimCases
from eventmill.testing.conformance.units import UnitCases


class StoreConformance(
    UnitCases, DocumentCases, GroupCases, JobCases, ClaimingCases, HoldingCases, TrimCases, LookCases
):
    """Units of work, groups, jobs, trimming, and looks at all of them. Bind it to a backend that is Log and Store in one."""
