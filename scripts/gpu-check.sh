#!/usr/bin/env bash
# Checks and measures a machine with an NVIDIA GPU, in nine minutes at most. Prints the result of each stage as it ends,
# and leaves its log in the given folder, by default runs/gpu-check. Fails where a stage fails.
#
#   scripts/gpu-check.sh [FOLDER [STAGE…]]
#
# The stages, all of them by default:
#   smoke       every kernel against the CPU
#   benchmark   npm run bench:cuda, beside PyTorch where python3 has it
#   tests       all tests of the addon
#   sanitizers  compute-sanitizer on the smoke test, also with every tile of the products forced
#   accuracy    the errors of 2048 × 8192 matrices
#
# It needs no network and no toolkit: ROOT_OPTIMIZER_ADDON may name an addon that was built elsewhere.
set -uo pipefail
cd "$(dirname "$0")/.."
logs=${1:-runs/gpu-check}
stages=${*:2}
stages=${stages:-smoke benchmark tests sanitizers accuracy}
mkdir -p "$logs"
export REQUIRE_CUDA=1 PATH=$PATH:/usr/local/cuda/bin:/opt/nvidia/nsight-compute
failed=0

# An addon that was built elsewhere must not be replaced by one for the CPU alone.
built=$PWD/build/Release/root_optimizer.node
if ! command -v nvcc >/dev/null && [ -f "$built" ]; then export ROOT_OPTIMIZER_ADDON=${ROOT_OPTIMIZER_ADDON:-$built}; fi
node scripts/setup.mjs || exit 1

# run SECONDS NAME COMMAND… prints a row for a command that may take so long.
run() {
  local limit=$1 name=$2 start=$SECONDS result figures
  shift 2
  if timeout "$limit" "$@" >"$logs/$name.log" 2>&1; then result=passed; else result="FAILED ($?)" failed=1; fi
  figures=$(grep -aE '^Tests:|ERROR SUMMARY|RACECHECK SUMMARY' "$logs/$name.log" | tail -n 1 | sed 's/^=* *//')
  echo "| $name | $result | $((SECONDS - start)) s | $figures |"
  return 0
}

sanitizer() {
  local tile=$1 tool=$2 shapes=()
  failed=0
  # It takes minutes for the others.
  if [ "$tool" = racecheck ]; then shapes=(--shapes 72x72,40x200,150x300); fi
  ROOT_OPTIMIZER_GEMM=${tile#any} run 100 "$tool-$tile" compute-sanitizer --tool "$tool" --target-processes all \
    --error-exitcode 9 node --import tsx scripts/gpu-smoke.ts "${shapes[@]}"
  # `failed` is of this process, which may run beside others.
  exit $failed
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
git log -1 --format='commit %h, %cs' 2>/dev/null
printf '%s\n' '| stage | result | time | figures |' '|---|---|---|---|'
for stage in $stages; do
  case $stage in
    smoke) run 30 smoke node --import tsx scripts/gpu-smoke.ts ;;
    benchmark) run 120 benchmark node --import tsx scripts/bench/cuda.ts --compensated on,off --rounds 20 ;;
    tests)
      run 200 tests node node_modules/jest/bin/jest.js --selectProjects addon --maxWorkers 12
      ;;
    sanitizers)
      if command -v compute-sanitizer >/dev/null; then
        jobs=()
        for job in any:memcheck any:racecheck any:initcheck any:synccheck w256x128x64:memcheck w128x128x64:memcheck \
          128x128x32:memcheck 64x64x32:memcheck f128x128x16:memcheck w256x128x64:racecheck \
          w128x128x64:racecheck 128x128x32:racecheck; do
          (sanitizer "${job%:*}" "${job#*:}") &
          jobs+=($!)
        done
        for job in "${jobs[@]}"; do wait "$job" || failed=1; done
      else
        echo '| compute-sanitizer | NOT INSTALLED | | |'
        failed=1
      fi
      ;;
    accuracy)
      run 60 accuracy node --import tsx scripts/accuracy.ts --device cuda --shapes 2048x8192 \
        --presets adaptive,muon,polar-express
      ;;
    *)
      echo "There is no stage $stage" >&2
      exit 2
      ;;
  esac
done
for log in smoke benchmark accuracy; do
  case " $stages " in *" $log "*) printf '\n%s\n' "$log" && cat "$logs/$log.log" ;; esac
done
exit $failed
