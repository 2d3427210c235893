#!/usr/bin/env bash
# Runs the checks that need a machine with an NVIDIA GPU: the whole suite, compute-sanitizer on the tests of the CUDA
# backend, and the benchmark. Prints one table, and the benchmark's own. Logs go to the given folder, by default
# runs/gpu-check. Fails where any of them fails.
set -uo pipefail
cd "$(dirname "$0")/.."
logs=${1:-runs/gpu-check}
mkdir -p "$logs"
export REQUIRE_CUDA=1 ROOT_OPTIMIZER_AUTO_CUDA=1

export PATH=$PATH:/usr/local/cuda/bin
rows=()
failed=0
# stage NAME COMMAND… runs a command and adds a row with the last line of figures in its output
stage() {
  local name=$1 log=$logs/$1.log start=$SECONDS result
  shift
  if "$@" >"$log" 2>&1; then result=passed; else result="FAILED ($?)" failed=1; fi
  local figures
  figures=$(grep -E '^Tests:|ERROR SUMMARY|RACECHECK SUMMARY' "$log" | tail -n 1 | sed 's/^=* *//')
  rows+=("| $name | $result | $((SECONDS - start)) s | $figures |")
}

# These tests launch every kernel, at sizes that a checker can follow.
sanitized='train alike|split alike|is replayed|data that are written|orthogonalise alike: [a-zA-Z-]*, (1 × 33|65 × 200|200 × 65|129 × 257)$'
sanitize() {
  compute-sanitizer --tool "$1" --target-processes all --error-exitcode 9 \
    node node_modules/jest/bin/jest.js --runInBand --selectProjects addon --testPathPatterns 'test/native/cuda(-memory)?.test' --testNamePattern "$sanitized" --testTimeout 3600000
}

# Without a toolkit on this machine, an addon that was built elsewhere must not be replaced by one for the CPU alone.
built=$PWD/build/Release/root_optimizer.node
if [ -z "${CUDACXX:-}" ] && ! command -v nvcc >/dev/null && [ -f "$built" ]; then
  export ROOT_OPTIMIZER_ADDON=${ROOT_OPTIMIZER_ADDON:-$built}
fi
node scripts/setup.mjs || exit 1
# The files of tests run one at a time, because they share the GPU's memory.
stage suite npx jest --selectProjects addon --runInBand
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck synccheck; do stage "$tool" sanitize "$tool"; done
else
  rows+=('| compute-sanitizer | NOT INSTALLED | | |')
  failed=1
fi
stage benchmark npx tsx scripts/bench/cuda.ts --precision float16,bfloat16

echo
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
git log -1 --format='commit %h, %cs' 2>/dev/null
printf '%s\n' '| stage | result | time | figures |' '|---|---|---|---|' "${rows[@]}"
echo
cat "$logs/benchmark.log"
exit $failed
