"""Importing this ties a process to its parent: for the server that forks the workers.

It is named to `multiprocessing.set_forkserver_preload` and imported nowhere else.
"""

from difftract_bids.cli.tether import end_with_parent

end_with_parent()
