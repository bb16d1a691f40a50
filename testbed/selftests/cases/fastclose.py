"""Abrupt ends: MP_FASTCLOSE from either side."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab, mib


@case(topology="one-path", groups=("fastclose",))
def fastclose_by_client(lab: CaseLab) -> None:
    """The client gives up in the middle of a transfer; the server learns it from one reset."""
    with lab.measure() as run:
        transfer = lab.aborted_transfer(mib(4), by=lab.client)
    transfer.must_be_cut_off(by=lab.client)
    run.must_be_one_mptcp_connection()
    run.must_join(0)
    run.must_fastclose(by=lab.client)


@case(topology="one-path", groups=("fastclose",))
def fastclose_by_server(lab: CaseLab) -> None:
    """The server gives up in the middle of a transfer; the client learns it from one reset."""
    with lab.measure() as run:
        transfer = lab.aborted_transfer(mib(4), by=lab.server)
    transfer.must_be_cut_off(by=lab.server)
    run.must_be_one_mptcp_connection()
    run.must_join(0)
    run.must_fastclose(by=lab.server)
