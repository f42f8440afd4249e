#!/usr/bin/env bash
# Pack, audit, train and evaluate, each when the one before has succeeded; a failure, or a leak, cancels the rest.
#
#   slurm/pipeline.sh [sbatch options for training, such as -N 4 --] RECIPE SOURCE DATASET CONFIG RUN [key=value ...]
#
# SOURCE is packed to DATASET as RECIPE says; CONFIG trains on it, with its key=value, into RUN.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$HERE/site.sh"

options=()
if [[ " $* " == *" -- "* ]]; then
    while [[ $1 != -- ]]; do options+=("$1"); shift; done
    shift
fi
if (($# < 5)); then
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
recipe=$1 source=$2 dataset=$3 config=$4 run=$5
shift 5
for file in "$recipe" "$source" "$config"; do
    [[ -e $file ]] || { echo "pipeline: $file: there is no such file or folder" >&2; exit 2; }
done

submit() { sbatch --parsable --kill-on-invalid-dep=yes "$@"; }
pack=$(submit "$HERE/pack.sbatch" "$recipe" source="$source" output="$dataset")
audit=$(submit --dependency="afterok:$pack" "$HERE/audit.sbatch" "$dataset")
train=$(submit --dependency="afterok:$audit" ${options[@]+"${options[@]}"} \
    "$HERE/train.sbatch" "$config" data.dataset="$dataset" run="$run" "$@")
evaluate=$(submit --dependency="afterok:$train" "$HERE/evaluate.sbatch" "$run")
echo "pack $pack, audit $audit, train $train, evaluate $evaluate: squeue --me"
echo "report: $run/evaluation/test/report.html"
