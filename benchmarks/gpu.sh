#!/usr/bin/env bash
# Every measurement that needs a GPU, most valuable first, within a time budget. `benchmarks/gpu.sh --help` lists the
# options. What was measured is written after every step: to $OUT where it is set, else to benchmarks/out/.
#
#     benchmarks/gpu.sh --budget 540
#     benchmarks/gpu.sh --wheels DIR --budget 540     # on a machine without a package index; comes first
#     benchmarks/gpu.sh --device cpu                  # a rehearsal with a tiny model
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
# Nothing changes the folder, so that paths in the options mean what they mean in the caller's.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
if [ "${1:-}" = --wheels ]; then
    site=$root/benchmarks/out/site
    "$python" -m pip install --quiet --no-index --no-deps --upgrade --target "$site" "$2"/*.whl
    export PYTHONPATH="$site:$PYTHONPATH"
    shift 2
fi
exec "$python" "$root/benchmarks/gpu.py" "$@"
