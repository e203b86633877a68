"""`python -m ama_core`."""

import signal
import sys

signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a command as Ctrl-C does, its imports as well
try:
    from ama_core.cli.main import main
except KeyboardInterrupt:
    sys.exit(130)

sys.exit(main())
