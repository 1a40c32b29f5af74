"""``python -m mipnet`` is the command line."""

import sys

from mipnet.app.cli.main import main

sys.exit(main())
