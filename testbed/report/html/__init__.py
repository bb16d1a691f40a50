"""One HTML page that holds everything: no other file, nothing from the network."""
