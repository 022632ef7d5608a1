"""The command line. Click lives here alone; no logic does."""
