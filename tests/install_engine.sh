#!/bin/sh
# Build the environment of one engine: install_engine.sh NAME FOLDER PYTHON [LIST]. What is there already is brought up to date.
# LIST has other environments, in the form of tests/engines.txt.
set -eu
name=$1 folder=$2 python=$3
here=$(cd "$(dirname "$0")" && pwd)
list=${4:-$here/engines.txt}
wanted=$(sed -n "s/^$name //p" "$list")
[ -n "$wanted" ] || { echo "no $name in $list" >&2; exit 2; }
[ -x "$folder/$name/bin/python" ] || "$python" -m venv "$folder/$name"
pip="$folder/$name/bin/python -m pip --disable-pip-version-check"
echo "$name: $wanted"
# shellcheck disable=SC2086 # words of pip
$pip install --quiet $wanted
if [ "$name" = vllm ]; then
	$pip uninstall --quiet --yes torchvision torchaudio torchcodec # made for another torch
	$pip install --quiet --no-deps --editable "$here/.." # our plug-in
fi
