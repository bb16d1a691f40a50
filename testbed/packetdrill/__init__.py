"""Packet scripts: packetdrill's language against the userspace stack and the kernel's."""
