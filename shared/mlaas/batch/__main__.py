"""The program of the job."""

from ..jobs import exit_with
from .job import predict

exit_with(predict)
