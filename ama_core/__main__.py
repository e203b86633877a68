"""`python -m ama_core`."""

import sys

from ama_core.cli.main import main

sys.exit(main())
