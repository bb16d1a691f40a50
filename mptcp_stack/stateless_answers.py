"""Answers to SYNs of which nothing is kept (RFC 4987 §3.6), so that MPTCP stays alive.

The key in the SYN/ACK's MP_CAPABLE is a keyed hash, so the one that the third packet echoes can be checked
and the connection be made only then. A join cannot be told from its third packet; of joins a bounded number
is remembered, and only of those that name a connection. Linux does both alike, but trusts the echoed key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mptcp_stack.mptcp import crypto, handshake
from mptcp_stack.mptcp.crypto import Key
from mptcp_stack.tcp import syn_cookies
from mptcp_stack.tcp.initial_sequence import SEQUENCE_MASK, packed
from mptcp_stack.tcp.output import send_header
from mptcp_stack.tcp.request import answer_to
from mptcp_stack.wire.mptcp_options import MpCapable, MpJoinSyn, MptcpOption
from mptcp_stack.wire.tcp_options import TcpOptions
from mptcp_stack.wire.tcp_segment import ACK, SYN, TcpSegment

if TYPE_CHECKING:
    from mptcp_stack.listener import Listener
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.tcp.environment import Environment, FourTuple
    from mptcp_stack.tcp.socket_options import SocketOptions

MAXIMUM_JOINS = 1024
"""Linux's COOKIE_JOIN_SLOTS. A newer join takes the slot of an older one."""


@dataclass(slots=True)
class Handshake:
    """A SYN and our answer to it; of first subflows as far as the third packet tells of them."""

    four_tuple: FourTuple
    syn: TcpSegment
    answer: TcpSegment
    key: Key | None = None
    """Our key, if the third packet shows it."""


class StatelessAnswers:
    """Of one host."""

    __slots__ = ("_environment", "_joins")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._joins: dict[int, Handshake] = {}

    @property
    def remembered_joins(self) -> int:
        return len(self._joins)

    # --- the first two packets ---

    def answer(self, listener: Listener, four_tuple: FourTuple, syn: TcpSegment, now_us: int) -> None:
        """For a first subflow; with MP_CAPABLE when the SYN has it and the listener wants it."""
        cookie = self._cookie(listener, four_tuple, syn, now_us)
        option = handshake.find_option(syn, MpCapable)
        mptcp: tuple[MptcpOption, ...] = ()
        if listener.is_mptcp and option is not None and handshake.is_acceptable_capable(option):
            self._environment.counters.increment("MPTcpExtMPCapableSYNRX")
            key = self._key(four_tuple, cookie)
            mptcp = (handshake.capable_answer(self._environment.settings, key),)
        answer = self._answer(listener.socket_options, four_tuple, syn, cookie, mptcp, now_us)
        traffic_class = listener.socket_options.class_of_packets(four_tuple[0])
        send_header(self._environment, four_tuple, answer, now_us, traffic_class)

    def answer_join(
        self,
        listener: Listener,
        four_tuple: FourTuple,
        syn: TcpSegment,
        request: MpJoinSyn,
        connection: Connection,
        now_us: int,
    ) -> None:
        """For a further subflow of a connection that is open for it."""
        cookie = self._cookie(listener, four_tuple, syn, now_us)
        mptcp = (handshake.join_answer(connection, four_tuple, request),)
        answer = self._answer(connection.socket_options, four_tuple, syn, cookie, mptcp, now_us)
        syn.payload = b""
        self._joins[self._slot(four_tuple)] = Handshake(four_tuple, syn, answer)
        traffic_class = listener.socket_options.class_of_packets(four_tuple[0])
        send_header(self._environment, four_tuple, answer, now_us, traffic_class)

    def _cookie(self, listener: Listener, four_tuple: FourTuple, syn: TcpSegment, now_us: int) -> int:
        listener.cookies_until_us = now_us + syn_cookies.VALID_US
        self._environment.counters.increment("TcpExtSyncookiesSent")
        mss = syn.options.maximum_segment_size
        if mss is None:
            mss = syn_cookies.ABSENT_MSS[len(four_tuple[0])]
        return syn_cookies.make_cookie(self._environment.numbers, four_tuple, syn.sequence, mss, now_us)

    def _key(self, four_tuple: FourTuple, cookie: int) -> Key:
        """The cookie dates it."""
        message = packed(four_tuple) + cookie.to_bytes(4, "big")
        return crypto.derive(self._environment.numbers.digest(b"mptcpkey", message, crypto.KEY_BYTES))

    def _slot(self, four_tuple: FourTuple) -> int:
        digest = self._environment.numbers.digest(b"joinslot", packed(four_tuple))
        return int.from_bytes(digest, "big") % MAXIMUM_JOINS

    def _answer(
        self,
        socket_options: SocketOptions,
        four_tuple: FourTuple,
        syn: TcpSegment,
        cookie: int,
        mptcp: tuple[MptcpOption, ...],
        now_us: int,
    ) -> TcpSegment:
        """Without timestamps nothing would bring back window scale and SACK, so they are not negotiated."""
        answer = answer_to(self._environment, socket_options, four_tuple, syn, cookie, mptcp)
        answer.flags, agreed = SYN | ACK, answer.options
        if agreed.timestamp_value is None:
            agreed.sack_permitted, agreed.window_scale = False, None
        else:
            scale = None if agreed.window_scale is None else syn.options.window_scale
            stamp = syn_cookies.encode_timestamp(now_us // 1000, scale, agreed.sack_permitted)
            offset = self._environment.numbers.timestamp_offset(four_tuple[0], four_tuple[2])
            agreed.timestamp_value = (stamp + offset) & SEQUENCE_MASK
        return answer

    # --- the third packet ---

    def check(
        self, listener: Listener, four_tuple: FourTuple, segment: TcpSegment, now_us: int
    ) -> Handshake | None:
        """None for what acknowledges no cookie of ours, or when none was sent lately."""
        environment = self._environment
        if now_us >= listener.cookies_until_us or not environment.settings.tcp_syncookies:
            return None
        cookie = (segment.acknowledgement - 1) & SEQUENCE_MASK
        irs = (segment.sequence - 1) & SEQUENCE_MASK
        mss = syn_cookies.check_cookie(environment.numbers, four_tuple, irs, cookie, now_us)
        if mss is None:
            environment.counters.increment("TcpExtSyncookiesFailed")
            return None
        environment.counters.increment("TcpExtSyncookiesRecv")
        options = TcpOptions(maximum_segment_size=mss)
        stamp = segment.options.timestamp_value
        if stamp is not None and environment.settings.tcp_timestamps:
            local, _, remote, _ = four_tuple
            offset = environment.numbers.timestamp_offset(local, remote)
            echo = (segment.options.timestamp_echo - offset) & SEQUENCE_MASK
            negotiated = syn_cookies.decode_timestamp(echo)
            options = replace(
                options,
                timestamp_value=stamp,
                window_scale=negotiated.window_scale,
                sack_permitted=negotiated.sack_permitted,
            )
        ports = segment.source_port, segment.destination_port
        syn = TcpSegment(*ports, irs, 0, SYN, segment.window, options)
        join = self._take_join(four_tuple, cookie)
        if join is not None:
            return join
        answer = self._answer(listener.socket_options, four_tuple, syn, cookie, (), now_us)
        key = self._echoed_key(four_tuple, cookie, segment) if listener.is_mptcp else None
        return Handshake(four_tuple, syn, answer, key)

    def _take_join(self, four_tuple: FourTuple, cookie: int) -> Handshake | None:
        """The join that was answered with this cookie; once."""
        slot = self._slot(four_tuple)
        remembered = self._joins.get(slot)
        if remembered is None or remembered.four_tuple != four_tuple or remembered.answer.sequence != cookie:
            return None
        del self._joins[slot]
        return remembered

    def _echoed_key(self, four_tuple: FourTuple, cookie: int, segment: TcpSegment) -> Key | None:
        """The key of ours that the third packet shows; None when it has none, or another."""
        option = handshake.find_option(segment, MpCapable)
        if option is None or option.receiver_key is None:
            return None
        key = self._key(four_tuple, cookie)
        return key if crypto.equal(option.receiver_key, key.value) else None
