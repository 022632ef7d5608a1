"""What Flower's secure aggregation (SecAgg+) hides from a server, measured; see ``__main__``."""

# Before any other part of Flower is imported: it keeps Flower silent.
import edgelm.swarm.flower  # noqa: F401
