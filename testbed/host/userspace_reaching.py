"""Echo requests of a host of the bundled stack."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import parse_address
from testbed.host.host_stack import HostStackError

_DATA = bytes(range(56))
"""As much as ping(8) sends unless it is told otherwise."""
_SHORTEST_S = 1e-6


async def reach(stack: Stack, wake: Callable[[], None], address: str, timeout_us: int) -> int | None:
    """See :meth:`testbed.host.host_stack.HostStack.reach`. Raises HostStackError without a way there."""
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_reply(now_us: int) -> None:
        if not answered.done():
            answered.set_result(now_us)

    # Time passes for a stack only when it is served.
    wake()
    await asyncio.sleep(_SHORTEST_S)
    sent_us = stack.environment.timers.clock_us
    try:
        stack.ip.echo_requests.send(
            parse_address(address),
            identifier=stack.environment.random_number(16),
            sequence=1,
            data=_DATA,
            on_reply=on_reply,
            now_us=sent_us,
        )
    except (OSError, ConfigurationError) as error:
        raise HostStackError(f"{address}: {error}") from None
    wake()
    try:
        async with asyncio.timeout(timeout_us / 1_000_000):
            return await answered - sent_us
    except TimeoutError:
        return None
