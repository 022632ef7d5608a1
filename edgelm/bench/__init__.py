"""What this machine can do, what a model does on it, and what peers do."""
