"""Look at everything that a release needs before anything long begins, and open its MLflow run."""
