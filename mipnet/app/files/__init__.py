"""YAML files as typed objects."""
