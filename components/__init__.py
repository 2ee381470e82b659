"""Kubeflow components: one folder a component, each a face, a step and a command."""
