"""The runs: from a YAML file to its result and its run folder."""
