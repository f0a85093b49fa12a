#!/bin/sh
# A base image from Debian's packages alone, for a machine that reaches no image registry: `sh images/base.sh`, as root.
# Needs mmdebstrap and buildah (or podman, or docker with its daemon). Makes localhost/mlaas-base:bookworm.
set -eu
name=${1:-localhost/mlaas-base:bookworm}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# usr-is-merged instead of usrmerge, which would bring all of Perl.
mmdebstrap --variant=minbase --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include=ca-certificates,python3,python3-venv,usr-is-merged \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' bookworm "$folder/base.tar"
printf 'FROM scratch\nADD base.tar /\nCMD ["python3"]\n' > "$folder/Containerfile"
if command -v buildah > /dev/null; then
    buildah bud --quiet --tag "$name" "$folder"
elif command -v podman > /dev/null; then
    podman build --quiet --tag "$name" "$folder"
else
    docker build --quiet --tag "$name" --file "$folder/Containerfile" "$folder"
fi
echo "$name"
