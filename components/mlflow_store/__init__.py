"""MLflow: how it is reached, runs that are logged to, the registry."""
