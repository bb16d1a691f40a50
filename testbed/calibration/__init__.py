"""What the links of a lab really do, measured, next to what was asked of them."""
