#!/usr/bin/env bash
# Run the tests as scripts/run_tests.sh does, and measure which lines run in any of their processes:
# pytest's, the commands', the function's and its gunicorn workers'. Fails if the whole suite covers
# less than `fail_under` in pyproject.toml; a selection of tests is only reported. The data is
# written to COVERAGE_FOLDER, by default .work/coverage. If a test fails, the rest is reported all the
# same, and the exit status is that of the tests.
set -uo pipefail
cd "$(dirname "$0")/.."

floor=()
for argument in "$@"; do
    case $argument in tests*) floor=(--fail-under=0) ;; esac
done

folder=${COVERAGE_FOLDER:-$PWD/.work/coverage}
rm -rf "$folder"
mkdir -p "$folder"
export COVERAGE_FILE=$folder/data
# Every Python of the environments starts coverage when this is set: see a1_coverage.pth there.
COVERAGE_PROCESS_START=$PWD/pyproject.toml scripts/run_tests.sh "$@"
tests=$?
"$BIN/coverage" combine --quiet && "$BIN/coverage" report "${floor[@]}"
report=$?
exit $((tests ? tests : report))
