"""Build the images with docker, podman or buildah, whichever is there and works: `make images`.

    python3 images/build.py                                # serve and train, named mlaas-serve:latest and mlaas-train:latest
    python3 images/build.py --target serve-gpu --tag 1.2   # the other one
    python3 images/build.py --prefix dev.local/ --archive  # archives in build/images, for a cluster without a registry
    python3 images/build.py --target serve-models          # serve with models: mlaas catalog stage NAME --to build/models
    python3 images/build.py --base localhost/mlaas-base    # on a machine without a registry, after images/base.sh

Prints each image's size and how many packages are in it, and writes its list of packages (CycloneDX) to build/images.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "build" / "images"
TOOLS = ("docker", "podman", "buildah")
TARGETS = ("serve", "serve-gpu", "train", "serve-models", "models")


def works(tool: str) -> bool:
    """Whether the tool is there and can build: docker's command alone cannot, without its daemon."""
    if not shutil.which(tool):
        return False
    return subprocess.run([tool, "info"], capture_output=True, timeout=60, check=False).returncode == 0


def run(*command: object) -> str:
    """What a command prints; it ends the program where it fails."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(str(part) for part in command)} failed")
    return done.stdout


def build(tool: str, target: str, name: str, base: str | None) -> None:
    """Build one stage. Where packages come from is taken from the environment, by pip's own names, and kept in no image."""
    arguments = [f"--build-arg=BASE={base}"] if base else []
    if index := os.environ.get("PIP_INDEX_URL"):
        arguments.append(f"--build-arg=PIP_INDEX_URL={index}")
    # Every layer gets the time of the last commit, so that a second build of it gives the same image.
    moment = run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()
    if tool == "docker":
        arguments.append(f"--build-arg=SOURCE_DATE_EPOCH={moment}")
    else:
        arguments.append(f"--timestamp={moment}")
    words = ["bud", "--layers"] if tool == "buildah" else ["build"]
    certificates = os.environ.get("PIP_CERT")
    if certificates and tool != "docker":  # those of a proxy: trusted while building, not in the image
        arguments += [f"--volume={certificates}:/certificates.pem:ro", "--build-arg=PIP_CERT=/certificates.pem"]
    print(f"building {name} with {tool}", file=sys.stderr)
    run(tool, *words, *arguments, "--target", target, "--tag", name, "--file", ROOT / "Dockerfile", ROOT)


def models(target: str) -> list[str]:
    """The versions of models that go into an image. Ends the program where one is asked for and there are none."""
    if not target.endswith("models"):
        return []
    found = sorted(path.parent.name for path in (ROOT / "build" / "models").glob("*/manifest.json"))
    return found or sys.exit("build/models holds no model: `mlaas catalog stage NAME --to build/models` puts some there.")


def sbom(tool: str, name: str) -> dict:
    """The list of packages that an image holds."""
    if tool != "buildah":
        return json.loads(run(tool, "run", "--rm", "--network=none", name, "python", "-c", "print(open('/opt/mlaas/sbom.json').read())"))
    container = run("buildah", "from", name).strip()
    try:
        return json.loads((Path(run("buildah", "mount", container).strip()) / "opt/mlaas/sbom.json").read_text())
    finally:
        run("buildah", "rm", container)


def listing(tool: str, name: str, image: str, baked: list[str]) -> list[str]:
    """Write what an image holds to build/images; words about it."""
    if image == "mlaas-models":  # no file system to list packages of
        return [f"models {' '.join(baked)}"]
    listed = sbom(tool, name)
    (OUTPUT / f"{image}.cdx.json").write_text(json.dumps(listed, indent=1) + "\n")
    words = [f"{len(listed['components'])} packages, listed in build/images/{image}.cdx.json"]
    return [*words, f"models {' '.join(baked)}"] if baked else words


def size(tool: str, name: str) -> str:
    """How large an image's layers are, unpacked."""
    if tool == "buildah":
        return str(json.loads(run("buildah", "images", "--json", name))[0]["size"])
    return f"{int(run(tool, 'image', 'inspect', '--format', '{{.Size}}', name)) / 1e6:.0f} MB"


def archive(tool: str, name: str, file: Path) -> None:
    """Write an image as an archive that `ctr images import`, `docker load` and `kind load image-archive` read."""
    file.unlink(missing_ok=True)
    if tool == "buildah":
        run("buildah", "push", "--quiet", name, f"docker-archive:{file}:{name}")
    else:
        run(tool, "save", "--output", file, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", default=["serve", "train"], choices=TARGETS)
    parser.add_argument("--base", help="an image with Python 3.11; python:3.11-slim-bookworm by default")
    parser.add_argument("--prefix", default="", help="before the images' names, e.g. registry.example.org/mlaas/")
    parser.add_argument("--tag", default="latest")
    parser.add_argument("--tool", choices=TOOLS, help="docker, podman or buildah; the first that works by default")
    parser.add_argument("--archive", action="store_true", help="write each image to build/images/NAME.tar, too")
    options = parser.parse_args()
    tool = options.tool or next((tool for tool in TOOLS if works(tool)), None)
    if not tool:
        sys.exit("None of docker, podman and buildah works here. Install one of them, e.g. `apt-get install buildah`.")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for target in options.target:
        image = f"mlaas-{target}"
        name = f"{options.prefix}{image}:{options.tag}"
        baked = models(target)
        build(tool, target, name, options.base)
        if options.archive:
            archive(tool, name, OUTPUT / f"{image}.tar")
        print(f"{name}: {', '.join([size(tool, name), *listing(tool, name, image, baked)])}")


if __name__ == "__main__":
    main()
