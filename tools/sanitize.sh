#!/usr/bin/env bash
# Build the compiled core and the emulated CUDA kernels under sanitizers and run their tests with them:
#     tools/sanitize.sh address,undefined
#     tools/sanitize.sh thread
# Needs the test extra, cmake, ninja and pybind11 in the Python that runs it.
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizers=${1:?which: address,undefined or thread}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake -S . -B "$work/build" -G Ninja -DPYMIMIC_SANITIZE="$sanitizers" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -Dpybind11_DIR="$(python -m pybind11 --cmakedir)" -DPython_EXECUTABLE="$(command -v python)" >"$work/cmake.log" || { cat "$work/cmake.log"; exit 1; }
cmake --build "$work/build"
cp -r pymimic "$work/pymimic"
rm -f "$work"/pymimic/_core*.so
cp "$work"/build/_core*.so "$work/pymimic/"

case $sanitizers in
  *address*) runtime=$(c++ -print-file-name=libasan.so) ;;
  *thread*) runtime=$(c++ -print-file-name=libtsan.so) ;;
esac
# Python itself is not instrumented: its own leaks are no concern here, and the sanitizer's runtime must be loaded before it. So must
# libstdc++: the runtime looks for the function that throws exceptions when it starts.
runtime="$runtime $(c++ -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
# BLAS threads are not instrumented either, and would look like races.
export OPENBLAS_NUM_THREADS=1
# glibc frees what an ended thread had of thread_local, when a later thread begins or ends, behind a lock that the sanitizer does not know.
echo race:_dl_deallocate_tls >"$work/suppressions"
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=$work/suppressions
LD_PRELOAD="$runtime" python tools/exercise_core.py "$work"

# Wrong calls by the thousand, and the CUDA kernels in the emulator, whose fibers are beyond ThreadSanitizer.
case $sanitizers in
  *address*)
    fuzz=(--target core --target ops --runs "${PYMIMIC_FUZZ_RUNS:-5000}" --plain --package "$work" --seconds 300)
    LD_PRELOAD="$runtime" python tools/fuzz "${fuzz[@]}"
    PYMIMIC_SIMT_SANITIZE="$sanitizers" LD_PRELOAD="$runtime" python -m pytest -q tests/simt
    ;;
esac
