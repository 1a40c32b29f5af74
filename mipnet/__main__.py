"""``python -m mipnet`` is the command line."""

import sys

from mipnet.cli import main

sys.exit(main())
