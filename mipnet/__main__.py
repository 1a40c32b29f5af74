"""``python -m mipnet`` is the command line."""

from mipnet.app.cli.main import run_and_exit

run_and_exit()
