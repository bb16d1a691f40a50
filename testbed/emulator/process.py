"""The process of a link emulator, from its start in the links' namespace to its end."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

from testbed.emulator.configuration import read_links
from testbed.emulator.control import ControlServer
from testbed.emulator.loop import Emulator
from testbed.errors import HostError
from testbed.host.processes import enter_network_namespace, set_process_name
from testbed.host.protocol import AgentConfiguration

_NICENESS: Final = -15
_log = logging.getLogger(__name__)


def run_emulator(configuration: AgentConfiguration, on_ready: Callable[[], None]) -> None:
    """Forward frames until SIGTERM. Raises OSError, HostError or ValueError when it cannot begin."""
    set_process_name("mptcp-links")
    if configuration.links_file is None:
        raise HostError("a link emulator needs its links")
    links = read_links(Path(configuration.links_file))
    enter_network_namespace(configuration.namespace_path)
    emulator = Emulator()
    path = Path(configuration.control_socket)
    try:
        for link in links:
            emulator.add(link)
        server = ControlServer(emulator, path)
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        emulator.watch(reader, emulator.stop)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _note)
        hurry()
        gc.collect()
        # Frames make no cycles; a collection would hold up those that are due.
        gc.disable()
        on_ready()
        emulator.run()
        server.close()
    finally:
        emulator.close()
        path.unlink(missing_ok=True)


def hurry() -> None:
    """A link is hardware: hosts that are busy do not hold it up, as far as the user may say so."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)


def _note(number: int, frame: FrameType | None) -> None:
    """The signal has been written to the wake-up descriptor."""
