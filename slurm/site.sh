# The one file that a site edits. Jobs read it on each node; read it yourself before sbatch: source slurm/site.sh
# What is set in the environment already wins; write your own values behind the :- signs.
# shellcheck shell=bash

# Who pays, and where jobs run; empty: the site's default.
export SBATCH_ACCOUNT=${SBATCH_ACCOUNT:-}
export SBATCH_PARTITION=${SBATCH_PARTITION:-}
[[ $SBATCH_ACCOUNT ]] || unset SBATCH_ACCOUNT
[[ $SBATCH_PARTITION ]] || unset SBATCH_PARTITION

# Makes `python` the one that lens_hpc is installed for: modules, a virtual environment, or both.
lens_hpc_environment() {
    # module load python/3.12 cuda/12.8
    # source "$HOME/lens_hpc/.venv/bin/activate"
    :
}

# Runs everything inside a container instead: LENS_HPC_CONTAINER=(apptainer exec --nv "$HOME/lens_hpc.sif")
# It must show the checkout, the data and the folder that you work in.
# shellcheck disable=SC2034
LENS_HPC_CONTAINER=()

# Processes a node; empty: one a GPU, or one on nodes without. Set ACCELERATE_USE_CPU=true to leave GPUs alone.
export LENS_HPC_PROCESSES=${LENS_HPC_PROCESSES:-}

# Folder on a disk of each node that training copies its shards to, such as '$SLURM_TMPDIR'; empty: read them in place.
export LENS_HPC_STAGE=${LENS_HPC_STAGE:-}

# Network interface between the nodes, such as ib0 or hsn0; empty: let NCCL and gloo choose.
export LENS_HPC_INTERFACE=${LENS_HPC_INTERFACE:-}

# A job is given up when Slurm has started it anew so often.
export LENS_HPC_RESTARTS=${LENS_HPC_RESTARTS:-20}

# Folder of the jobs' logs, for each job one: a file a node and start.
export LENS_HPC_LOGS=${LENS_HPC_LOGS:-logs}
