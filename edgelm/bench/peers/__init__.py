"""What edgelm is measured against, each run as a script of its own; nothing else in edgelm imports a peer."""
