"""One timed job, in a process of its own; see the ``JOBS`` of each part. Prints a line of JSON.

Compilation and loading are done before the clock starts; how long the first call took is told
apart. Memory is the peak during the timed call, less what was in use when it began.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

import torch

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    jobs = import_module(f"{asked['part']}.jobs")
    print(json.dumps(jobs.JOBS[asked["name"]](jobs.Job.load(asked))))  # noqa: T201
