"""A network written as a linopy model, its explanation, its losses, and its conversion to a program."""
