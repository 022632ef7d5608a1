"""What a swarm gains, what liars take from it, and what its updates tell; see ``__main__``."""
