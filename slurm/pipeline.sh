#!/usr/bin/env bash
# Pack, audit, train and evaluate, each when the one before has succeeded; a failure, or a leak, cancels the rest.
#
#   slurm/pipeline.sh [sbatch options for training, such as -N 4 --] RECIPE SOURCE DATASET CONFIG RUN [key=value ...]
#
# SOURCE is packed to DATASET as RECIPE says; CONFIG trains on it, with its key=value, into RUN.
set -eEuo pipefail

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

jobs=()
submit() { # sbatch's options and script, after the job before
    jobs+=("$(sbatch --parsable --kill-on-invalid-dep=yes ${jobs[@]+--dependency="afterok:${jobs[-1]}"} "$@")")
}
trap '((${#jobs[@]} == 0)) || scancel "${jobs[@]}"' ERR # all of them or none
submit "$HERE/pack.sbatch" "$recipe" source="$source" output="$dataset"
submit "$HERE/audit.sbatch" "$dataset"
submit ${options[@]+"${options[@]}"} "$HERE/train.sbatch" "$config" data.dataset="$dataset" run="$run" "$@"
submit "$HERE/evaluate.sbatch" "$run"
echo "pack ${jobs[0]}, audit ${jobs[1]}, train ${jobs[2]}, evaluate ${jobs[3]}: squeue --me"
echo "report: $run/evaluation/test/report.html"
