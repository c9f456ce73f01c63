"""What takes steps that are chosen as the run goes."""
