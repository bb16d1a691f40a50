"""Network devices: what carries frames between the stack and a wire."""
