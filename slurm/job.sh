# Sourced by the jobs: enters the repository, sets up the node, and stops and resumes DVC.
set -euo pipefail
root=$SLURM_SUBMIT_DIR
cd "$root"
. slurm/cluster.env
setup

# Runs a command that can be resumed. SIGTERM to the job stops the command between two trials or
# epochs; if the job was not cancelled, SLURM queues it again.
resumable() {
  local status=0
  # The job is not the first to run here, and was killed with its node: DVC's lock names processes
  # by their numbers, which mean others on this node.
  if ((${SLURM_RESTART_COUNT:-0} > 0)); then rm -f .dvc/tmp/rwlock; fi
  stopped=
  trap stop TERM
  set -m # a process group of its own, in which Ctrl-C is not ignored
  # SLURM also signals every process of a job that it stops. DVC must survive that: it releases its
  # lock when its stage has ended.
  (trap '' TERM && exec "$@") &
  command=$!
  set +m
  # A signal ends wait, not the command.
  while kill -0 "$command" 2>/dev/null; do
    wait "$command" && status=0 || status=$?
  done
  trap - TERM
  if [[ -z $stopped ]]; then return "$status"; fi
  echo "job $SLURM_JOB_ID was stopped: $*"
  if [[ $(squeue --noheader --job="$SLURM_JOB_ID" --format=%T) == RUNNING ]]; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit 143
}

stop() {
  stopped=yes
  kill -TERM -- "-$command" 2>/dev/null || true # to the stage, which keeps what is complete
  kill -INT "$command" 2>/dev/null || true      # to DVC, if it is between two stages
}
