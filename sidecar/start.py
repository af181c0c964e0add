"""Entry of the worker: `python -I -S -E -B …/sidecar/start.py [TASK ARGUMENT]`, from `dormant`.

Without a task it is the worker that follows orders; `stream` and `export` are what people run
in a container with their own right to `pods/exec`.

Isolated Python has nothing but the standard library on its path: the folder above
this one, which holds `sidecar` and `nightcap`, is put there first. This file is
compiled at each start, so it holds little else.
"""

import gc
import os
import sys

if __name__ == "__main__":
    # Until the captures are open there is nothing to collect; the worker turns it on again.
    gc.disable()
    sys.path.insert(0, __file__.rsplit("/", 2)[0])

    task = sys.argv[1] if len(sys.argv) > 1 else ""
    if task == "stream":
        from sidecar.attached import main
    elif task == "export":
        from sidecar.export import main
    else:
        from sidecar.worker import main

    # Without taking Python down: the shipping thread may be inside TLS at this moment, and what
    # OpenSSL cleans up is then missing to it. Whatever must be on disk is there.
    os._exit(main())
