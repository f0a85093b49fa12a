"""Install mlaas with the extras named into /opt/mlaas, leave out what no image needs, compile, and list what is there.

    python install.py cpu,tracing

Python files are compiled ahead of time, and trusted by the source's hash and not by its time: a process imports faster, and a
second build gives the same bytes. The list is /opt/mlaas/sbom.json, CycloneDX.
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


def main(extras: str) -> None:
    """Install, slim, compile, list."""
    for name in [name for name, value in os.environ.items() if name.startswith("PIP_") and not value]:
        del os.environ[name]  # a build argument that was not given
    os.environ["PIP_CONSTRAINT"] = str(Path("constraints.txt").absolute())  # unlike --constraint it holds for what builds packages, too
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    here = [sys.executable, "-m", "pip", "--python", str(PYTHON), *pip[3:]]
    subprocess.run([*here, "--no-compile", f".[{extras}]"], check=True)
    subprocess.run([*pip, "cyclonedx-bom"], check=True)
    (packages,) = ENVIRONMENT.glob("lib/python3*/site-packages")
    slim.slim(packages, serving="train" not in extras.split(","))
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(packages, quiet=2, workers=os.cpu_count() or 1, invalidation_mode=mode)
    sbom.write(PYTHON, ENVIRONMENT / "sbom.json")


if __name__ == "__main__":
    main(sys.argv[1])
