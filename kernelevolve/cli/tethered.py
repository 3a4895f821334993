"""A command line that ends with whoever started it: once its standard input is closed it is interrupted, as by Ctrl-C.

An owner that dies, however it dies, closes its end of the pipe; so no search outlives the server that runs it, and
each is left as Ctrl-C would leave it, ready to be resumed.
"""

import os
import signal
import sys
import threading

from kernelevolve.cli.app import main


def tether() -> None:
    """Watch standard input from now on."""
    threading.Thread(target=_watch, args=(threading.main_thread().ident,), daemon=True, name="tether").start()


def _watch(main_thread: int) -> None:
    while os.read(0, 1024):
        pass
    signal.pthread_kill(main_thread, signal.SIGINT)


if __name__ == "__main__":
    # Whoever starts us may itself have been started with the signal ignored, as a shell does for what it puts into
    # the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tether()
    sys.exit(main())
