"""Install into /opt/mlaas what a project needs, or the project itself; leave out what no image needs, compile, and list what is there.

    python install.py packages cpu,tracing   # what mlaas needs with these extras, without mlaas; lists it in /opt/mlaas/sbom.json
    python install.py own                    # mlaas alone

Python files are compiled ahead of time, and trusted by the source's hash and not by its time: a process imports faster, and a
second build gives the same bytes. The list is CycloneDX.
"""

import compileall
import os
import py_compile
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import sbom
import slim

ENVIRONMENT = Path("/opt/mlaas")
PYTHON = ENVIRONMENT / "bin" / "python"
IMPORTS = {  # by extra, "" for every image; the names are looked up lazily, so that each must be asked for
    "": "from numpy import *; import boto3, faiss, flask, kafka, onnxruntime, parliament, pymongo, tokenizers, waitress; "
    "import jwt.algorithms, pyarrow.ipc, pyarrow.parquet; assert jwt.algorithms.has_crypto",
    "train": "from optimum.exporters.onnx import main_export; from transformers import AutoModel, Trainer; "
    "import accelerate, ftfy, optuna, peft, skl2onnx, sklearn.linear_model, onnxruntime.quantization",
}


def main(what: str, extras: str = "") -> None:
    """Install the packages or the project, slim, compile, list."""
    for name in [name for name, value in os.environ.items() if name.startswith("PIP_") and not value]:
        del os.environ[name]  # a build argument that was not given
    os.environ["PIP_CONSTRAINT"] = str(Path("constraints.txt").absolute())  # unlike --constraint it holds for what builds packages, too
    pip(PYTHON, "install", "--no-compile", *([".", "--no-deps"] if what == "own" else [f".[{extras}]"]))
    (packages,) = ENVIRONMENT.glob("lib/python3*/site-packages")
    if what == "packages":
        pip(Path(sys.executable), "install", "cyclonedx-bom")
        sbom.write(PYTHON, ENVIRONMENT / "sbom.json")
        pip(PYTHON, "uninstall", "--yes", "mlaas")  # it was there for its list of what it needs, and to be listed
        slim.slim(packages, serving="train" not in extras.split(","))
        for extra, statements in IMPORTS.items():
            if extra in ("", *extras.split(",")):
                subprocess.run([PYTHON, "-c", statements], check=True)  # nothing that is needed was left out
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(packages, quiet=2, workers=os.cpu_count() or 1, invalidation_mode=mode)


def pip(python: Path, *words: str) -> None:
    """Let pip do something in the environment of `python`, which has no pip of its own. Raises CalledProcessError."""
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "--quiet", *words], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
