"""A network in a user's linopy model: its inputs by label, their bounds, and the output over the user's dimensions."""
