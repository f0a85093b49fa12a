"""Make a folder that `func deploy` builds by itself: one function with the package, its pins and how it is started.

    python3 images/function_source.py classify              # build/functions/classify
    func deploy --path build/functions/classify --registry registry.example.org/mlaas

A function's folder in functions/ holds what is its own, and shares the package `mlaas` with the others; func sends one folder to its
builder, so everything must be in it. The Procfile's `web` is what runs. Its second line, parliament's own server, is also what tells func
(1.23 or later) that this is a `main(context)`; without it the builder would look for an ASGI application.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = "cpu,tracing"
PROCFILE = "web: python -m mlaas.serve .\nparliament: python -m parliament .\n"


def wheel(folder: Path) -> str:
    """Build the package into `folder`: its file's name. Raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run([str(part) for part in command], check=True)
    return next(folder.glob("mlaas-*.whl")).name


def write(function: str, target: Path, package: str) -> None:
    """Write the folder of `function`, which has the wheel `package` already."""
    for name in ("func.py", "func.yaml", "README.md"):
        shutil.copy(ROOT / "functions" / function / name, target / name)
    shutil.copy(ROOT / "constraints.txt", target / "constraints.txt")
    (target / "requirements.txt").write_text(f"-c constraints.txt\n./{package}[{EXTRAS}]\n")
    (target / "Procfile").write_text(PROCFILE)


def main() -> None:
    """One folder for each function named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.parent.name for path in (ROOT / "functions").glob("*/func.py"))
    parser.add_argument("function", nargs="+", choices=known, metavar="FUNCTION", help=f"one of {', '.join(known)}")
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "functions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as built:
        package = wheel(Path(built))
        for function in options.function:
            target = options.to / function
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            shutil.copy(Path(built, package), target)
            write(function, target, package)
            print(target)


if __name__ == "__main__":
    main()
