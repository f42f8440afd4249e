# What the batch scripts share: one world over all nodes of a job, its signals, and its end.
# shellcheck shell=bash

JOB=${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
JOB=${JOB:-$SLURM_JOB_ID}
STARTS=${SLURM_RESTART_COUNT:-0}
ENDING=''
STOP=USR1 # what makes the workers save and stop; TERM where all that they have done is saved at any time
SRUN=(srun --export=ALL --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"})
NODES=("${SRUN[@]}" --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1) # one task on each

say() { echo "lens_hpc job $JOB: $*" >&2; }
give_up() { say "$2"; exit "$1"; }

# ---- before ----------------------------------------------------------------------------------------------------

prepare() { # the folder that sbatch was called in, the site's environment, a folder for logs
    trap 'STATUS=85; finish' USR1 TERM # before there is work: nothing to save
    cd "$SLURM_SUBMIT_DIR" 2>/dev/null || give_up 2 "the folder $SLURM_SUBMIT_DIR is not there on $SLURMD_NODENAME"
    LOGS=$LENS_HPC_LOGS/$JOB
    mkdir -p "$LOGS" || give_up 2 "cannot make the folder $LOGS for logs"
    LOGS=$(cd "$LOGS" && pwd)
    if ((STARTS == 0)); then rm -f "$LOGS/finished"; fi
    [[ ! -e $LOGS/finished ]] || give_up 0 "has finished already"
    ((STARTS <= LENS_HPC_RESTARTS)) || give_up 1 "gives up: started anew $STARTS times, LENS_HPC_RESTARTS=$LENS_HPC_RESTARTS"
    set +u # modules and conda do not expect it
    lens_hpc_environment
    set -u
    say "start $STARTS on $SLURM_JOB_NODELIST, logs in $LOGS"
}

python_here() { "${LENS_HPC_CONTAINER[@]}" python "$@"; }

roll_call() { # here NODE GPUS, of each node that answers
    # shellcheck disable=SC2016
    timeout -k 5 120 "${NODES[@]}" bash -c \
        'echo "here $SLURMD_NODENAME ${SLURM_GPUS_ON_NODE:-$(nvidia-smi -L 2>/dev/null | grep -c ^GPU)}"' || true
}

silent() { # the nodes that are not in a roll call
    local node
    for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
        grep -q "here $node " <<<"$1" || echo -n " $node"
    done
}

meet() { # WORLD_SIZE, where its processes meet, and threads for each
    local present missing gpus
    present=$(roll_call)
    missing=$(silent "$present")
    if [[ $missing ]]; then
        ((STARTS == 0)) || requeue "no answer from$missing"
        give_up 1 "no answer from$missing"
    fi
    present=$(grep -o 'here .*' <<<"$present" | cut -d ' ' -f 2- | sort)
    gpus=$(cut -d ' ' -f 2 <<<"$present" | sort -u)
    [[ $gpus != *$'\n'* ]] || give_up 2 "as many GPUs on each node, please (--gpus-per-node): ${present//$'\n'/, }"
    if ((gpus == 0)); then say "no GPUs: on the CPU"; export ACCELERATE_USE_CPU=true; fi
    PER_NODE=${LENS_HPC_PROCESSES:-$((gpus > 0 ? gpus : 1))}
    WORLD_SIZE=$((PER_NODE * SLURM_JOB_NUM_NODES))
    OMP_NUM_THREADS=$((${SLURM_CPUS_PER_TASK:-$PER_NODE} / PER_NODE))
    ((OMP_NUM_THREADS > 0)) || OMP_NUM_THREADS=1
    HOSTS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | xargs)
    MASTER_ADDR=${HOSTS%% *}
    MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
    while (exec 3<>"/dev/tcp/$MASTER_ADDR/$MASTER_PORT") 2>/dev/null; do
        say "port $MASTER_PORT of $MASTER_ADDR is taken, tries the next"
        MASTER_PORT=$((MASTER_PORT + 1))
    done
    export PER_NODE OMP_NUM_THREADS HOSTS MASTER_ADDR MASTER_PORT
    if [[ $LENS_HPC_INTERFACE ]]; then
        export NCCL_SOCKET_IFNAME=$LENS_HPC_INTERFACE GLOO_SOCKET_IFNAME=$LENS_HPC_INTERFACE
    fi
    say "$SLURM_JOB_NUM_NODES nodes x $PER_NODE processes x $OMP_NUM_THREADS threads, which meet at $MASTER_ADDR:$MASTER_PORT"
}

preflight() { # do all nodes reach each other, and how fast? A node that is lost meanwhile is treated as in training
    STATUS=0
    timeout -k 10 150 "${NODES[@]}" "${LENS_HPC_CONTAINER[@]}" python "$HERE/preflight.py" || STATUS=$?
    ((STATUS == 0)) || { say "is not started: see above"; STATUS=1; finish; }
}

# ---- the work --------------------------------------------------------------------------------------------------

launch() { # VERB TARGET key=value...: in WORLD_SIZE processes of one world
    local launcher=(python)
    if ((WORLD_SIZE > 1)); then
        launcher=(python -m accelerate.commands.launch --num_machines "$SLURM_JOB_NUM_NODES" --num_processes "$WORLD_SIZE"
            --machine_rank @NODE@ --main_process_ip "$MASTER_ADDR" --main_process_port "$MASTER_PORT")
        if [[ ${LENS_HPC_ACCELERATE-} ]]; then
            launcher+=(--config_file "$LENS_HPC_ACCELERATE")
        else
            launcher+=(--multi_gpu --mixed_precision no --dynamo_backend no)
        fi
    fi
    # Each node knows its own number. USR1 is for the workers: what started them must not die of it.
    # shellcheck disable=SC2016
    work "${NODES[@]}" --output="$LOGS/%N-$STARTS.log" --open-mode=append "${LENS_HPC_CONTAINER[@]}" \
        bash -c 'trap "" USR1; exec "${@/@NODE@/$SLURM_NODEID}"' launch "${launcher[@]}" -m lens_hpc "$@"
    # The first rank says so when all results are on the disk and no other needs it: a launcher that Slurm ends after
    # that, as it does late on a node that was down, takes nothing away.
    if [[ $WORD == 0 ]]; then STATUS=0; fi
}

work() { # COMMAND...: STATUS is what it ends with, WORD what its processes say
    WORD=''
    export LENS_HPC_STATUS=$LOGS/status
    rm -f "$LENS_HPC_STATUS"
    "$@" &
    local step=$!
    trap 'say "USR1: the workers save and stop"; [[ $STOP == USR1 ]] || ENDING=1
        scancel --signal="$STOP" "$JOB" || say "$STOP was not passed on"' USR1
    trap 'ENDING=1; say "TERM: the workers have it, too"' TERM
    while kill -0 "$step" 2>/dev/null; do wait "$step" || true; done # a signal ends wait, not the step
    STATUS=0
    wait "$step" || STATUS=$?
    trap '' USR1
    # The workers leave word: the launcher makes 1 of what they end with, and srun 0 of being torn down with its node.
    if [[ -s $LENS_HPC_STATUS ]]; then WORD=$(<"$LENS_HPC_STATUS"); fi
    if [[ -z $WORD ]]; then
        ((STATUS)) || STATUS=1
    elif ((WORD)); then
        STATUS=$WORD
    fi
}

# ---- the end ---------------------------------------------------------------------------------------------------

finish() { # back to the queue when the work was stopped or a node was lost; else with its status
    local log missing
    case $STATUS in
        0) touch "$LOGS/finished" || true; give_up 0 "done" ;;
        85) requeue "saved" ;;
        2 | 3) ;;
        *) if [[ $ENDING ]]; then requeue "interrupted"; fi
            missing=$(silent "$(roll_call)")
            if [[ $missing && " $missing " != *" $SLURMD_NODENAME "* ]]; then
                say "lost$missing; waits for Slurm to notice"
                trap '' TERM
                sleep "${LENS_HPC_LOST_SECONDS:-900}"
                requeue "lost$missing"
            fi ;;
    esac
    for log in "$LOGS"/*-"$STARTS".log; do
        if [[ -e $log ]]; then say "the end of $log:"; tail -n 40 "$log" >&2; fi
    done
    give_up "$STATUS" "ended with status $STATUS"
}

requeue() { # WHY
    local answer status=0
    trap '' TERM
    # Slurm itself ends it (scancel, a lost node) or has queued it again already: not ours to say
    [[ $(squeue -h -j "$JOB" -o %T) == RUNNING ]] || { say "$1; Slurm decides"; sleep 60; exit 85; }
    ((STARTS < LENS_HPC_RESTARTS)) || give_up 85 "$1; not queued again, as it was already started anew $STARTS times"
    say "$1; goes back to the queue"
    answer=$(scontrol requeue "$JOB" 2>&1) || status=$?
    if ((status == 0 || status > 128)); then sleep 60; fi # the requeue ends this script, and perhaps scontrol, too
    say "$answer"
    give_up 85 "this site does not queue jobs again; submit the same line, and it goes on"
}
