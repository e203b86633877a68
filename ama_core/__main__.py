"""`python -m ama_core`."""

import signal
import sys

from ama_core.cli.main import main

signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a command as Ctrl-C does
sys.exit(main())
