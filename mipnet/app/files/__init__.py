"""YAML files as typed, frozen objects."""
