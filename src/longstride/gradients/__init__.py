"""Ways back through a run."""
