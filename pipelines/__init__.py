"""The release pipeline, its local run, and the beear command."""
