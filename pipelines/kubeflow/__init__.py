"""The release pipeline on a cluster: submitted, scheduled and followed through Kubeflow Pipelines' own client."""
