"""Typed errors of the stack.

Local misuse raises one of these; a fault of the peer never does: it becomes a counted drop or a reset.
"""


class StackError(Exception):
    """Base of every error that this package raises on purpose."""


class MalformedPacketError(StackError):
    """Bytes that no legal packet contains. The stack counts and drops them; only codecs raise this."""


class ConfigurationError(StackError):
    """A setting that makes no sense; the message says which, and what would."""


class DeviceError(StackError):
    """A network device could not be opened or stopped working."""
