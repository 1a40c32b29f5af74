"""The scores of rivals, one file per rival: a file that is added here is found by `mipnet.pruning.rivals.registry`."""
