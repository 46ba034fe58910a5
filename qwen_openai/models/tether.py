"""Run a module as ``python -m`` would, and die when the parent does.

Started as a script, ``python -P tether.py MODULE ARG…``, also by interpreters that lack this
package, so it imports nothing but the standard library. Its standard input is a pipe that the
parent holds open and never writes to: it ends when the parent ends, however that comes about.
Without it, a killed pull would leave pip or modelscope writing into the folder that the next pull
resumes from.
"""

import os
import runpy
import sys
import threading


def _die_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def main() -> None:
    """Take the module's name and its arguments from sys.argv."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
