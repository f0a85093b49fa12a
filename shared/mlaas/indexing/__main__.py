"""The job as JobSink starts it: the task's own process, or one of its shards."""

import sys

from .. import jobs
from ..settings import current
from . import shard_process
from .job import build

if __name__ == "__main__":
    sys.exit(shard_process.main(current()) if current().completion_index else jobs.main(build))
