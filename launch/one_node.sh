#!/usr/bin/env bash
# Train on this machine: one process for each GPU.
#
#   launch/one_node.sh                                        the 124M run; goes on where an earlier start stopped
#   launch/one_node.sh --preset gpt2-350m                     any flags of gpt2edu_train in place of the defaults
#   launch/one_node.sh --preset gpt2-124m --dry_run           print the plan and the line, start nothing
#   NPROC=2 launch/one_node.sh --preset tiny --max_steps 20   two processes on the processor, as a test
#
# NPROC     processes; by default the number of GPUs
# RESTARTS  how often torchrun starts all processes again after one has died (3)
# PYTHON    of the environment (.venv/bin/python if it is there, else python3)
# A start goes on with the run of that --name, or of that preset, where there is one, and so does a start after a crash;
# another --name begins another run. To stop, press Ctrl-C or send SIGTERM to this script: it finishes the step and saves.
set -euo pipefail

[[ -x .venv/bin/python ]] && venv=.venv/bin/python || venv=python3
PYTHON=${PYTHON:-$venv}
if [[ -z ${NPROC:-} ]]; then
    NPROC=$(nvidia-smi --list-gpus 2> /dev/null | wc -l) || NPROC=0
    if [[ $NPROC == 0 ]]; then
        echo "one_node.sh: no NVIDIA GPU here; for a test on the processor set the number of processes: NPROC=2" >&2
        exit 2
    fi
fi
[[ $# -gt 0 ]] || set -- --preset gpt2-124m
flags=() dry=
for flag in "$@"; do
    if [[ $flag == --dry[-_]run ]]; then dry=yes; else flags+=("$flag"); fi
done
[[ " ${flags[*]}" == *" --resume"* ]] || flags+=(--resume auto) # torchrun starts the same line again after a crash

# What is wrong ends here, once, with exit code 2; torchrun would start the processes again and again.
"$PYTHON" -m gpt2edu.cli train "${flags[@]}" --dry_run --ranks "$NPROC"

line=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node="$NPROC" --max-restarts="${RESTARTS:-3}"
    -m gpt2edu.cli train "${flags[@]}")
if [[ $dry ]]; then
    printf '%q ' "${line[@]}"
    echo
    exit
fi
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > NPROC ? cores / NPROC : 1))}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240} # seconds for a last step and a save
exec "${line[@]}"
