"""The link emulator: forwards frames between two interfaces under a link model, in real time."""
