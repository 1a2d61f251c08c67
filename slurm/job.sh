# Sourced by the jobs: enters the repository, sets up the node, and stops and resumes DVC.
set -eo pipefail
root=$SLURM_SUBMIT_DIR
# The last task of an array has the array's number as its own, which would name all tasks.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
cd "$root"
# SIGTERM while the node is set up is remembered, and not the end of the job.
stopped=
trap 'stopped=yes' TERM
. slurm/cluster.env
setup  # modules read variables that are not set
set -u

# A clone of the repository at a commit, to work in: at SCRATCH, and whole or not there. It shares
# DVC's cache. DVC can't tell whether a process of another node is alive, so that no two nodes may
# work in one clone.
enter_clone() {
  local place=$1 commit=$2 cache source
  if [[ ! -e $place ]]; then
    rm -rf -- "$place.incoming"
    git clone --quiet --no-checkout -- "$root" "$place.incoming"
    cache=$(dvc cache dir)
    cd "$place.incoming"
    git fetch --quiet origin "$commit"
    git checkout --quiet --detach FETCH_HEAD
    cp -- "$root/dvc.lock" . # it may name features that no commit has yet
    mkdir -p data/raw
    for source in "$root"/data/raw/*; do # what DVC does not have in its cache
      ln -s -- "$source" data/raw
    done
    if [[ -e $root/.dvc/config.local ]]; then cp -- "$root/.dvc/config.local" .dvc; fi
    dvc config --local cache.dir "$cache"
    dvc config --local cache.type symlink # features are not copied
    dvc checkout --quiet --allow-missing
    mv -- "$place.incoming" "$place"
  fi
  cd "$place"
}

# Runs a command that can be resumed. SIGTERM to the job stops the command between two trials or
# epochs; if the job was not cancelled, SLURM queues it again.
resumable() {
  local status=0 command
  # The job is not the first to run here, and was killed with its node: DVC's lock names processes
  # by their numbers, which mean others on this node.
  if ((${SLURM_RESTART_COUNT:-0} > 0)); then rm -f .dvc/tmp/rwlock; fi
  set -m # a process group of its own, in which Ctrl-C is not ignored
  # SLURM also signals every process of a job that it stops. DVC must survive that: it releases its
  # lock when its stage has ended.
  (trap '' TERM && exec "$@") &
  command=$!
  set +m
  while [[ -z $stopped ]] && kill -0 "$command" 2>/dev/null; do
    wait "$command" && status=0 || status=$? # SIGTERM ends wait, not the command
  done
  if [[ -n $stopped ]]; then
    # More than once, since a stage that has just begun does not listen yet.
    while kill -0 "$command" 2>/dev/null; do
      kill -TERM -- "-$command" || true # the stage keeps what is complete
      kill -INT "$command" || true      # DVC, if it is between two stages
      sleep 2 || true # it may be signalled too
    done
    wait "$command" && status=0 || status=$?
  fi
  trap - TERM
  if [[ -z $stopped ]] || ((status == 0)); then return "$status"; fi
  echo "job $job was stopped: $*"
  if [[ $(squeue --noheader --job="$job" --format=%T) == RUNNING ]]; then
    scontrol requeue "$job"
  fi
  exit 143
}
