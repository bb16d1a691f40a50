"""DSS checksums: asked for by both ends, by one, by none (net.mptcp.checksum_enabled)."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab, mib

CHECKSUMS = "{net.mptcp.checksum_enabled: 1}"


def _transfer_with_checksums(lab: CaseLab) -> None:
    with lab.measure() as run:
        transfer = lab.transfer(mib(1))
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()
    run.client.must_count(DataCsumErr=0)
    run.server.must_count(DataCsumErr=0)


@case(topology="four-links", groups=("checksum", "connect"))
def checksum_0_0(lab: CaseLab) -> None:
    """Neither end asks for checksums."""
    _transfer_with_checksums(lab)


@case(
    topology="four-links",
    groups=("checksum", "connect"),
    variables={"client_sysctls": CHECKSUMS, "server_sysctls": CHECKSUMS},
)
def checksum_1_1(lab: CaseLab) -> None:
    """Both ends ask for checksums."""
    _transfer_with_checksums(lab)


@case(topology="four-links", groups=("checksum", "connect"), variables={"client_sysctls": CHECKSUMS})
def checksum_0_1(lab: CaseLab) -> None:
    """Only the client asks for checksums: both use them (RFC 8684 §3.1)."""
    _transfer_with_checksums(lab)


@case(topology="four-links", groups=("checksum", "connect"), variables={"server_sysctls": CHECKSUMS})
def checksum_1_0(lab: CaseLab) -> None:
    """Only the server asks for checksums: both use them (RFC 8684 §3.1)."""
    _transfer_with_checksums(lab)
