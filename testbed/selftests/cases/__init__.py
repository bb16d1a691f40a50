"""The selftest cases, one module per subject. Each case says topology, what runs, and what must hold."""
