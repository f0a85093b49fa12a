"""Leave out of an image what no process of the platform reads."""

import shutil
from pathlib import Path

__all__ = ["slim"]

EVERYWHERE = (
    "numpy/_core/include",
    "numpy/_core/tests/data",
    "pyarrow/_flight*",  # Arrow's own network protocol, but not libarrow_substrait, which pyarrow.lib is linked to
    "pyarrow/libarrow_flight*",
    "pyarrow/_s3fs*",  # boto3 is what speaks to S3 here
    "pyarrow/libarrow_s3*",
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/tests",
    "torch/include",
    "torch/share",
    "zstandard/_cffi*",  # for PyPy
)
SERVING = (  # a training exports and quantizes, serving does not
    "onnxruntime/capi/libonnxruntime.so*",  # Python's extension has all of it in itself
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
)


def slim(packages: Path, *, serving: bool) -> None:
    """Remove from site-packages: headers, tests, libraries of what is not used; with `serving` the tools of trainings."""
    for pattern in (*EVERYWHERE, *(SERVING if serving else ())):
        for found in packages.glob(pattern):
            shutil.rmtree(found) if found.is_dir() else found.unlink()
    for pattern in ("*.pyx", "*.pxd", "*.pxi"):
        for file in packages.rglob(pattern):
            file.unlink()
