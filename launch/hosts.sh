#!/usr/bin/env bash
# Train on several machines: one torchrun on each, started from here over ssh.
#
#   launch/hosts.sh "node1 node2"                                       the 124M run; goes on where an earlier start stopped
#   launch/hosts.sh "node1 node2" --preset gpt2-350m                    any flags of gpt2edu_train in place of the defaults
#   launch/hosts.sh "node1 node2" --preset gpt2-124m --dry_run          print the plan and the lines, start nothing
#
# What the machines need: this folder, at the same path and shared (rank 0 writes checkpoints, and all read them);
# ssh without a password; names that all of them can resolve; an open port between them.
#
# NPROC         processes on each machine (gpu: as many as it has GPUs)
# PORT          where the processes meet, on the first machine (29500)
# RESTARTS      how often torchrun starts all processes again after one has died (3)
# PYTHON        of the environment, as seen from this folder (.venv/bin/python)
# REMOTE_SHELL  runs a command on a host: $REMOTE_SHELL HOST COMMAND (ssh). For a test on one machine, a script that runs COMMAND here
# A start goes on with the run of that --name, or of that preset, where there is one, and so does a start after a crash.
# To stop, press Ctrl-C or send SIGTERM to this script: all machines finish the step, and rank 0 saves.
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
    echo 'hosts.sh: name the machines first, in one word: launch/hosts.sh "node1 node2" [flags of gpt2edu_train]' >&2
    exit 2
fi
read -ra hosts <<< "$1"
shift
[[ $# -gt 0 ]] || set -- --preset gpt2-124m
flags=() dry=
for flag in "$@"; do
    if [[ $flag == --dry[-_]run ]]; then dry=yes; else flags+=("$flag"); fi
done
[[ " ${flags[*]}" == *" --resume"* ]] || flags+=(--resume auto) # torchrun starts the same line again after a crash
PYTHON=${PYTHON:-.venv/bin/python}
read -ra remote <<< "${REMOTE_SHELL:-ssh}"
job=gpt2edu-$(od -An -N8 -tx8 /dev/urandom | tr -d ' ') # in /tmp all may write: nobody can guess this name

# What is wrong ends here, once, with exit code 2; torchrun would start the processes again and again.
[[ ${NPROC:-gpu} == gpu ]] && ranks=1 || ranks=$((${#hosts[@]} * NPROC)) # how many GPUs the machines have is not known here
"$PYTHON" -m gpt2edu.cli train "${flags[@]}" --dry_run --ranks "$ranks"

command_for() { # host, its number
    local line=("$PYTHON" -m torch.distributed.run --nnodes="${#hosts[@]}" --nproc_per_node="${NPROC:-gpu}"
        --rdzv_id="$job" --rdzv_backend=c10d --rdzv_endpoint="${hosts[0]}:${PORT:-29500}" --local-addr="$1"
        --max-restarts="${RESTARTS:-3}" -m gpt2edu.cli train "${flags[@]}")
    printf 'cd %q && set -C && echo $$ > /tmp/%q && export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240 && exec' "$PWD" "$job-$2.pid"
    printf ' %q' "${line[@]}"
}

pids=()
for i in "${!hosts[@]}"; do
    if [[ $dry ]]; then
        echo "${remote[*]} ${hosts[i]} '$(command_for "${hosts[i]}" "$i")'"
    else
        "${remote[@]}" "${hosts[i]}" "$(command_for "${hosts[i]}" "$i")" &
        pids+=($!)
    fi
done

# shellcheck disable=SC2329  # the trap calls it
stop_all() {
    for i in "${!hosts[@]}"; do
        "${remote[@]}" "${hosts[i]}" "kill -TERM \$(cat /tmp/$job-$i.pid)" || true # it may have ended by itself
    done
}
trap stop_all INT TERM

code=0
for pid in "${pids[@]}"; do
    while wait "$pid" && ended=0 || ended=$?; kill -0 "$pid" 2> /dev/null; do :; done # a signal interrupts `wait`: wait again
    [[ $ended == 0 ]] || code=$ended
done
for i in "${!pids[@]}"; do
    "${remote[@]}" "${hosts[i]}" "rm -f /tmp/$job-$i.pid" || true
done
exit "$code"
