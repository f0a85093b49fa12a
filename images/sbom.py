"""List what an image holds, as a CycloneDX document: Python's packages, Debian's, and the interpreter itself."""

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["debian_packages", "write"]

DPKG = Path("/var/lib/dpkg/status")


def write(python: Path, file: Path) -> None:
    """List the environment of `python`, and what it stands on, in `file`. Raises CalledProcessError."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    subprocess.run([tool, "environment", "--output-reproducible", "--output-file", file, python], check=True)
    listed = json.loads(file.read_text())
    listed["components"] += [interpreter(), *(debian_packages(DPKG.read_text()) if DPKG.is_file() else [])]
    file.write_text(json.dumps(listed, indent=1) + "\n")


def interpreter() -> dict[str, str]:
    """Python, which is a package of Debian's in some base images and of nobody's in others."""
    version = platform.python_version()
    return {
        "type": "platform",
        "bom-ref": f"cpython@{version}",
        "name": "cpython",
        "version": version,
        "purl": f"pkg:generic/cpython@{version}",
    }


def debian_packages(status: str) -> Iterator[dict[str, str]]:
    """The packages installed by dpkg's own record of them, with names by the package URL specification."""
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{name}@{version.replace(':', '%3A')}?arch={fields['Architecture']}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
