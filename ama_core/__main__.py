"""`python -m ama_core`."""

import sys

from ama_core.cli import main

sys.exit(main())
