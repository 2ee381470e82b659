-- users and permissions lie beside MLflow's tables, not among them: each has migrations of its own
CREATE DATABASE mlflow_auth;
