"""Many devices that learn from each other: what they send of what they learned, and what is made of it."""
