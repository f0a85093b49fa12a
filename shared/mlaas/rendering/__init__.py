"""What a training becomes on a cluster beyond the Job of a JobSink: a Katib Experiment, a Kubeflow TrainJob, an Indexed Job.

Each is a request together with the pod of `eventing/base/train.jobsink.yaml`, which stays the one place that says how a training runs.
"""

from .experiment import experiment
from .indexed_job import indexed_job
from .pod import Wanted, training_job
from .train_job import train_job

__all__ = ["Wanted", "experiment", "indexed_job", "train_job", "training_job"]
