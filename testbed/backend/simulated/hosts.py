"""Userspace hosts of a simulated lab: the agents of real labs, asked without a socket in between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from mptcp_stack.device.interface import LARGEST_GSO_PAYLOAD
from mptcp_stack.ip.interface import Interface
from mptcp_stack.simulator import SimulationError, Simulator
from mptcp_stack.stack import Stack
from testbed.backend.simulated.event_loop import VirtualTimeLoop
from testbed.errors import HostError
from testbed.host.client import REQUEST_TIMEOUT_S, HostClient
from testbed.host.messages import MessageError
from testbed.host.protocol import AgentConfiguration
from testbed.host.requests import RequestHandler
from testbed.host.rpc_server import RequestError
from testbed.host.userspace import UserspaceHost
from testbed.host.userspace_set_up import InterfaceFields, add_interface, make_stack


class SimulatedDriver:
    """See :class:`testbed.host.userspace.StackDriver`: the simulator serves the stack before every step."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def start(self) -> None:
        """The simulator runs already."""

    def wake(self) -> None:
        """It looks by itself."""

    def close(self) -> None:
        """Nothing is held open."""


def simulated_host(configuration: AgentConfiguration, simulator: Simulator) -> UserspaceHost:
    """The host of a configuration, its stack on ``simulator``. Raises HostStackError."""

    def attach(stack: Stack, fields: InterfaceFields) -> Interface:
        return add_interface(stack, fields, checksum_offload=True, gso_max_size=LARGEST_GSO_PAYLOAD)

    stack = make_stack(configuration, attach)
    simulator.add_stack(configuration.host, stack)
    return UserspaceHost(stack, SimulatedDriver(stack), configuration)


class SimulatedClient(HostClient):
    """Asks an agent's request handler directly; what has to be waited for passes in virtual time."""

    def __init__(self, host: UserspaceHost, name: str, loop: VirtualTimeLoop) -> None:
        super().__init__(name, Path(), "userspace")
        self.host = host
        self._handler = RequestHandler(host, name)
        self._loop = loop

    def request(
        self, method: str, parameters: dict[str, Any] | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> Any:
        """Raises HostError."""
        asked = self._handler.handle(method, parameters or {})
        try:
            return self._loop.result_of(asyncio.wait_for(asked, timeout_s))
        except (RequestError, MessageError) as error:
            problem = str(error)
        except TimeoutError:
            problem = f"no answer within {timeout_s:g} s"
        except SimulationError as error:
            problem = f"no answer: {error}"
        raise HostError(f"{self.name}: {method}: {problem}")

    def close(self) -> None:
        """Stop every workload."""
        self._loop.result_of(self._handler.close())
