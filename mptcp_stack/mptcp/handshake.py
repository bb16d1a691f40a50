"""The handshakes of RFC 8684: MP_CAPABLE (§3.1) and MP_JOIN (§3.2), in both roles, and falling back there."""

from __future__ import annotations

from errno import ECONNREFUSED
from typing import TYPE_CHECKING, TypeVar

from mptcp_stack.mptcp import crypto, fallback
from mptcp_stack.mptcp.join_ports import invites_acknowledgement
from mptcp_stack.mptcp.states import Mode, ResetReason
from mptcp_stack.wire.mptcp_options import MpCapable, MpJoinAck, MpJoinSyn, MpJoinSynAck, MptcpOption
from mptcp_stack.wire.tcp_segment import TcpSegment

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.crypto import Key
    from mptcp_stack.mptcp.subflow import MptcpSubflow
    from mptcp_stack.settings import StackSettings
    from mptcp_stack.tcp.environment import FourTuple

VERSION = 1
CHECKSUM_REQUIRED = 0x80
EXTENSIBILITY = 0x40
DENY_JOIN_INITIAL = 0x20
HMAC_SHA256 = 0x01
SYN_HMAC_BYTES = 8
ACK_HMAC_BYTES = 20

OptionType = TypeVar("OptionType", bound=MptcpOption)


def find_option(segment: TcpSegment, kind: type[OptionType]) -> OptionType | None:
    return find_among(segment.options.mptcp, kind)


def find_among(options: tuple[MptcpOption, ...], kind: type[OptionType]) -> OptionType | None:
    for option in options:
        if isinstance(option, kind):
            return option
    return None


def capable_flags(connection: Connection) -> int:
    return flags_for(connection.environment.settings, connection.checksum_enabled)


def flags_for(settings: StackSettings, checksum_enabled: bool) -> int:
    """Of an MP_CAPABLE that this host sends."""
    flags = HMAC_SHA256
    if checksum_enabled:
        flags |= CHECKSUM_REQUIRED
    if not settings.allow_join_initial_addr_port:
        flags |= DENY_JOIN_INITIAL
    return flags


def is_acceptable_capable(option: MpCapable | None) -> bool:
    """Version 1 with the one algorithm there is; the B flag must be zero (RFC 8684 §3.1)."""
    return (
        option is not None
        and option.version == VERSION
        and bool(option.flags & HMAC_SHA256)
        and not option.flags & EXTENSIBILITY
    )


def take_capable_flags(connection: Connection, option: MpCapable) -> None:
    if option.flags & CHECKSUM_REQUIRED:
        connection.checksum_enabled = True
    connection.peer_denies_join_initial = bool(option.flags & DENY_JOIN_INITIAL)


def syn_options(subflow: MptcpSubflow) -> tuple[MptcpOption, ...]:
    """For SYN and SYN/ACK."""
    from mptcp_stack.mptcp.subflow import Role

    connection = subflow.connection
    if connection.mode is Mode.PLAIN_TCP:
        return ()
    flags = capable_flags(connection)
    if subflow.role is Role.INITIAL_ACTIVE:
        if not _still_tries_mptcp(subflow):
            return ()
        return (MpCapable(VERSION, flags, None, None, None, None),)
    if subflow.role is Role.INITIAL_PASSIVE:
        return (MpCapable(VERSION, flags, connection.local_key.value, None, None, None),)
    token = connection.require_remote_key().token
    return (MpJoinSyn(subflow.is_backup, subflow.local_id, token, subflow.local_nonce),)


def capable_answer(settings: StackSettings, key: Key) -> MpCapable:
    """For a SYN/ACK: what we require. What the peer requires, its third packet says again."""
    return MpCapable(VERSION, flags_for(settings, settings.checksum_enabled), key.value, None, None, None)


def join_answer(connection: Connection, four_tuple: FourTuple, request: MpJoinSyn) -> MpJoinSynAck:
    """For the SYN/ACK of a join, with a nonce of its own."""
    nonce = connection.environment.random_number(32)
    local_key, remote_key = connection.local_key.value, connection.require_remote_key().value
    digest = crypto.join_hmac(local_key, remote_key, nonce, request.nonce)
    local_id = connection.path_manager.local_id_for(connection, *four_tuple[:2])
    is_backup = connection.path_manager.is_backup(*four_tuple[:2])
    return MpJoinSynAck(is_backup, local_id, digest[:SYN_HMAC_BYTES], nonce)


def _still_tries_mptcp(subflow: MptcpSubflow) -> bool:
    """After a few lost SYNs the path may be one that drops the option (RFC 8684 §3.7)."""
    limit = subflow.environment.settings.syn_retrans_before_tcp_fallback
    if subflow.syn_retransmissions <= limit:
        return True
    if subflow.sends_mp_capable:
        subflow.sends_mp_capable = False
        subflow.environment.counters.increment("MPTcpExtMPCapableSYNTXDrop")
    return False


def acknowledgement_option(subflow: MptcpSubflow) -> MptcpOption | None:
    """What the third packet carries, as long as the peer has not shown that it has it."""
    from mptcp_stack.mptcp.subflow import Role

    connection = subflow.connection
    if subflow.is_confirmed:
        return None
    if (
        subflow.role is Role.INITIAL_ACTIVE
        and subflow.snd_nxt == subflow.data_iss + 1
        and not (connection.data_fin_is_due and subflow.data_fin_wanted)
    ):
        return full_capable(connection, None, None)
    if subflow.role is Role.JOIN_ACTIVE:
        digest = crypto.join_hmac(
            connection.local_key.value,
            connection.require_remote_key().value,
            subflow.local_nonce,
            subflow.remote_nonce,
        )
        return MpJoinAck(digest[:ACK_HMAC_BYTES])
    return None


def full_capable(connection: Connection, data_length: int | None, checksum: int | None) -> MpCapable:
    """MP_CAPABLE with both keys, the sender's first."""
    return MpCapable(
        VERSION,
        capable_flags(connection),
        connection.local_key.value,
        connection.require_remote_key().value,
        data_length,
        checksum,
    )


def on_syn_acknowledgement(subflow: MptcpSubflow, segment: TcpSegment, now_us: int) -> bool:
    """The active side's view of the SYN/ACK."""
    from mptcp_stack.mptcp.subflow import Role

    if subflow.role is Role.JOIN_ACTIVE:
        return _on_join_syn_acknowledgement(subflow, segment, now_us)
    connection = subflow.connection
    counters = subflow.environment.counters
    if connection.mode is Mode.PLAIN_TCP:
        return True
    option = find_option(segment, MpCapable)
    if (
        subflow.sends_mp_capable
        and option is not None
        and is_acceptable_capable(option)
        and option.sender_key is not None
    ):
        counters.increment("MPTcpExtMPCapableSYNACKRX")
        take_capable_flags(connection, option)
        connection.take_remote_key(option.sender_key)
        if not subflow.environment.ip.is_local(subflow.remote):
            connection.host.blackholes.forget()
        return True
    if subflow.sends_mp_capable:
        fallback.fall_back(connection, "MPTcpExtMPCapableFallbackSYNACK")
        return True
    settings = subflow.environment.settings
    if subflow.syn_retransmissions == settings.syn_retrans_before_tcp_fallback + 1:
        # The first SYN without the option was answered, those with it were not.
        connection.host.blackholes.on_detected(settings.blackhole_timeout_us, now_us, counters)
    fallback.fall_back(connection, None)
    return True


def _on_join_syn_acknowledgement(subflow: MptcpSubflow, segment: TcpSegment, now_us: int) -> bool:
    connection = subflow.connection
    counters = subflow.environment.counters
    option = find_option(segment, MpJoinSynAck)
    if option is None:
        return _give_up_join(subflow, ResetReason.MPTCP_SPECIFIC, now_us)
    expected = crypto.join_hmac(
        connection.require_remote_key().value, connection.local_key.value, option.nonce, subflow.local_nonce
    )
    if not crypto.equal(expected[:SYN_HMAC_BYTES], option.truncated_hmac):
        counters.increment("MPTcpExtMPJoinSynAckHMacFailure")
        return _give_up_join(subflow, ResetReason.MPTCP_SPECIFIC, now_us)
    if connection.forbids_joins:
        # MP_FAIL went out, or came in, behind the SYN: now the stream has one subflow (RFC 8684 §3.7).
        return _give_up_join(subflow, ResetReason.UNSPECIFIED, now_us)
    connection.join_was_answered = True
    counters.increment("MPTcpExtMPJoinSynAckRx")
    if subflow.remote_port != connection.remote[1]:
        counters.increment("MPTcpExtMPJoinPortSynAckRx")
    if option.backup:
        counters.increment("MPTcpExtMPJoinSynAckBackupRx")
    subflow.remote_id = option.address_id
    subflow.remote_nonce = option.nonce
    subflow.peer_backup = option.backup
    subflow.start_confirmation(now_us)
    return True


def _give_up_join(subflow: MptcpSubflow, reason: int, now_us: int) -> bool:
    """With the SYN/ACK that was not good enough TCP is established, so this RST is counted."""
    subflow.environment.counters.increment("MPTcpExtMPRstTx")
    subflow.reset_with_reason(reason, ECONNREFUSED, now_us)
    return False


def on_handshake_acknowledgement(subflow: MptcpSubflow, segment: TcpSegment, now_us: int) -> bool:
    """The passive side's view of the third packet."""
    from mptcp_stack.mptcp.subflow import Role

    if subflow.role is Role.JOIN_PASSIVE:
        return _on_join_acknowledgement(subflow, segment, now_us)
    connection = subflow.connection
    if connection.mode is Mode.PLAIN_TCP:
        return True
    option = find_option(segment, MpCapable)
    if (
        option is not None
        and is_acceptable_capable(option)
        and option.sender_key is not None
        and option.receiver_key is not None
        and crypto.equal(option.receiver_key, connection.local_key.value)
    ):
        take_capable_flags(connection, option)
        connection.take_remote_key(option.sender_key)
        return True
    fallback.fall_back(connection, "MPTcpExtMPCapableFallbackACK")
    return True


def _on_join_acknowledgement(subflow: MptcpSubflow, segment: TcpSegment, now_us: int) -> bool:
    connection = subflow.connection
    counters = subflow.environment.counters
    option = find_option(segment, MpJoinAck)
    if option is None:
        subflow.reset_with_reason(ResetReason.MPTCP_SPECIFIC, None, now_us)
        return False
    expected = crypto.join_hmac(
        connection.require_remote_key().value,
        connection.local_key.value,
        subflow.remote_nonce,
        subflow.local_nonce,
    )
    if not crypto.equal(expected[:ACK_HMAC_BYTES], option.hmac):
        counters.increment("MPTcpExtMPJoinAckHMacFailure")
        subflow.reset_with_reason(ResetReason.MPTCP_SPECIFIC, None, now_us)
        return False
    if not connection.is_open_for_joins or not connection.path_manager.allow_join(connection, subflow):
        counters.increment("MPTcpExtMPJoinRejected")
        subflow.reset_with_reason(ResetReason.PROHIBITED, None, now_us)
        return False
    if not invites_acknowledgement(connection, subflow.local, subflow.local_port):
        subflow.reset_with_reason(ResetReason.PROHIBITED, None, now_us)
        return False
    counters.increment("MPTcpExtMPJoinAckRx")
    return True


def on_simultaneous_open(subflow: MptcpSubflow, now_us: int) -> None:
    """MPTCP does not survive crossing SYNs (RFC 8684 §3.1): the SYN/ACK goes out without it."""
    if subflow.is_join:
        # There is no join without a passive side to check it.
        subflow.reset_with_reason(ResetReason.MPTCP_SPECIFIC, ECONNREFUSED, now_us)
    elif subflow.connection.mode is Mode.NEGOTIATING:
        fallback.fall_back(subflow.connection, "MPTcpExtSimultConnectFallback")
