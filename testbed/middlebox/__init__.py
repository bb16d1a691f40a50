"""What boxes on a link do to the packets of TCP: pure functions of packets, for every kind of lab."""
