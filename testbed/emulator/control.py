"""What can be asked of a running emulator: one JSON message a packet over a sequenced-packet Unix socket.

* ``{"method": "names"}`` lists the links.
* ``{"method": "show", "link": NAME}`` answers with both directions' settings and counters, and its boxes.
* ``{"method": "set", "link": NAME, "direction": "->", "settings": {…}}`` exchanges settings (with ``seed``,
  the randomness begins anew), ``{"method": "set_boxes", "link": NAME, "boxes": […]}`` its boxes.
* ``{"method": "capture", "link": NAME, "path": FILE, "interface": TEXT}`` begins a capture; without a path it
  ends the one that is running.

An answer is ``{"result": …}`` or ``{"error": text}``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mptcp_stack.errors import ConfigurationError
from testbed.emulator.capture import LinkCapture
from testbed.emulator.configuration import settings_from_object, settings_to_object
from testbed.emulator.direction import LinkDirection
from testbed.emulator.loop import EmulatedLink, Emulator
from testbed.errors import HostError
from testbed.host.processes import peer_user, unix_address
from testbed.middlebox.settings import boxes_from_objects, boxes_to_objects

MAXIMUM_MESSAGE_BYTES: Final = 64 * 1024
MAXIMUM_CLIENTS: Final = 16
_ANSWER_TIMEOUT_S: Final = 5.0


class RefusedError(Exception):
    """A request that makes no sense; the text says why."""


class ControlServer:
    """Answers within the emulator's loop. Nothing that a client sends ends it."""

    def __init__(self, emulator: Emulator, path: Path) -> None:
        """Raises OSError."""
        self._emulator = emulator
        self._clients: dict[int, socket.socket] = {}
        self._captures: dict[str, LinkCapture] = {}
        self._listening = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        previous_mask = os.umask(0o177)
        try:
            with unix_address(path) as address:
                self._listening.bind(address)
        finally:
            os.umask(previous_mask)
        self._listening.listen(MAXIMUM_CLIENTS)
        emulator.watch(self._listening.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            client, _address = self._listening.accept()
        except OSError:
            return
        client.setblocking(False)
        if len(self._clients) >= MAXIMUM_CLIENTS or peer_user(client) not in (0, os.geteuid()):
            client.close()
            return
        self._clients[client.fileno()] = client
        self._emulator.watch(client.fileno(), lambda: self._serve(client))

    def _serve(self, client: socket.socket) -> None:
        try:
            message = client.recv(MAXIMUM_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._emulator.forget(client.fileno())
            del self._clients[client.fileno()]
            client.close()
            return
        answer = self._answer(message)
        # A client that does not read its answers gets none.
        with suppress(OSError):
            client.send(json.dumps(answer).encode())

    def _answer(self, message: bytes) -> dict[str, Any]:
        try:
            request = json.loads(message)
            if not isinstance(request, dict):
                raise RefusedError("a request is an object")
            return {"result": self._carry_out(request)}
        except (RefusedError, ConfigurationError, HostError) as error:
            return {"error": str(error)}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            return {"error": f"a damaged request: {type(error).__name__}: {error}"}

    def _carry_out(self, request: dict[str, Any]) -> object:
        method = request.get("method")
        if method == "names":
            return list(self._emulator.links)
        if method not in ("show", "set", "set_boxes", "capture"):
            raise RefusedError(f"unknown method {method!r}")
        link = self._emulator.links.get(request["link"])
        if link is None:
            raise RefusedError(f"no link {request['link']!r}")
        if method == "set":
            _set(link, request)
        elif method == "capture":
            self._capture(link, request)
        elif method == "set_boxes":
            link.put_boxes(boxes_from_objects(request["boxes"]))
        return _shown(link)

    def _capture(self, link: EmulatedLink, request: dict[str, Any]) -> None:
        running = self._captures.pop(link.name, None)
        if running is not None:
            running.close()
        if (path := request.get("path")) is not None:
            self._captures[link.name] = LinkCapture(link, Path(path), str(request["interface"]))

    def close(self) -> None:
        for capture in self._captures.values():
            # Nobody is left who could be told.
            with suppress(HostError):
                capture.close()
        for client in self._clients.values():
            client.close()
        self._listening.close()


def _set(link: EmulatedLink, request: dict[str, Any]) -> None:
    if request["direction"] not in ("->", "<-"):
        raise RefusedError(f"no direction {request['direction']!r}")
    settings = settings_from_object(request["settings"])
    direction = link.direction(request["direction"])
    direction.settings = settings
    if (seed := request.get("seed")) is not None:
        direction.reseed(int(seed))


def _shown(link: EmulatedLink) -> dict[str, object]:
    return {
        "name": link.name,
        "middlebox": boxes_to_objects(link.boxes),
        "box_counters": [dataclasses.asdict(counters) for counters in link.box_counters],
        "->": _direction(link.forward) | {"overrun": link.near.overflowed()},
        "<-": _direction(link.backward) | {"overrun": link.far.overflowed()},
    }


def _direction(direction: LinkDirection) -> dict[str, Any]:
    return {
        "settings": settings_to_object(direction.settings),
        "counters": dataclasses.asdict(direction.counters),
        "in_flight": direction.frames_in_flight,
    }


class EmulatorClient:
    """The other side: used by commands and labs. Every method raises HostError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._socket.settimeout(_ANSWER_TIMEOUT_S)
        try:
            with unix_address(path) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise HostError(f"the link emulator does not answer at {path}: {error.strerror}") from error

    def request(self, **request: object) -> Any:
        """The result of one request."""
        try:
            self._socket.send(json.dumps(request).encode())
            message = self._socket.recv(MAXIMUM_MESSAGE_BYTES)
        except OSError as error:
            raise HostError(f"the link emulator does not answer: {error.strerror or error}") from error
        if not message:
            raise HostError("the link emulator has ended")
        answer = json.loads(message)
        if "error" in answer:
            raise HostError(f"the link emulator refuses: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        self._socket.close()
