"""Importing this ties a process to its parent: for the server that forks the workers.

It is named to `multiprocessing.set_forkserver_preload` and imported nowhere else.
"""

import os

from difftract_bids.cli.tether import end_with_parent

#: The server; workers, which have this from it, find whether it is still there.
SERVER = os.getpid()

end_with_parent()
