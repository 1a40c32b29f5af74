"""The operators that are read: one rule each, on the network's terms, which the readers of torch and ONNX map their operators onto."""
