"""The application: YAML files and the command line."""
