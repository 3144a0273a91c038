#!/bin/sh
# Print every image that the Dockerfile and the compose file begin with, and its digest now: "python:3.13-slim-bookworm python@sha256:...".
# Needs docker with buildx, and the registries.  sh deploy/resolve_images.sh > images.lock
set -eu
cd "$(dirname "$0")/.."
version="$(sed -n 's/^ARG PYTHON_VERSION=//p' Dockerfile)"
{
    sed -n "s/^ARG PYTHON_IMAGE=//p" Dockerfile | sed "s/\${PYTHON_VERSION}/$version/"
    sed -n 's/^ *image: *//p' docker-compose.yml | grep -v '^coppice-'
} | sort -u | while read -r image; do
    digest="$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')"
    case "$digest" in
    sha256:????????????????????????????????????????????????????????????????) echo "$image ${image%:*}@$digest" ;;
    *) echo "no digest of $image: $digest" >&2; exit 1 ;;
    esac
done
