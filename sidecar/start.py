"""Entry of the worker: `python -I -S -E -B …/sidecar/start.py`, started by `dormant`.

Isolated Python has nothing but the standard library on its path: the folder above
this one, which holds `sidecar` and `nightcap`, is put there first. This file is
compiled at each start, so it holds nothing else.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0])

if __name__ == "__main__":
    from sidecar.worker import main

    sys.exit(main())
