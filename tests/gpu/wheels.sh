#!/usr/bin/env bash
# Download what a machine with torch, but without a network, lacks for lens_hpc, as wheels:
#
#     tests/gpu/wheels.sh FOLDER
#
# They are for Python 3.12 on x86-64, in the versions of constraints.txt. DeepSpeed comes as source,
# of which a wheel without compiled ops is built here; where that fails, accept.py leaves out ZeRO.
set -euo pipefail

folder=${1:?"usage: $0 FOLDER"}
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3
mkdir -p "$folder"

# What pack, train and evaluate import, and what DeepSpeed does.
missing=(pydantic pydantic_core annotated-types typing-inspection fitsio hjson)
wanted=()
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
    wanted+=(--platform "${platform}_x86_64")
done

pinned() {
    local name
    for name in "$@"; do
        grep --ignore-case --max-count=1 "^$name==" "$root/constraints.txt"
    done
}

mapfile -t packages < <(pinned "${missing[@]}")
[[ ${#packages[@]} = "${#missing[@]}" ]] || { echo "constraints.txt lacks some" >&2; exit 1; }

"$python" -m pip download --quiet --no-deps --only-binary=:all: --dest "$folder" \
    --python-version 3.12 --implementation cp "${wanted[@]}" "${packages[@]}"

# The setup script asks the torch beside it which ops it could compile: none.
DS_BUILD_OPS=0 "$python" -m pip wheel --quiet --no-deps --no-build-isolation \
    --wheel-dir "$folder" "$(pinned deepspeed)" ||
    echo "no wheel of DeepSpeed: ZeRO will be left out" >&2

du --apparent-size --human-readable --total "$folder"/*.whl
