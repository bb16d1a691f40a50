"""Seeded runs of two bundled stacks over bad networks in virtual time."""
