#!/usr/bin/env bash
# Run pytest in both environments, BIN and BEAM_BIN, as `make test` does: what is in tests/beam in
# the one that has Apache Beam, everything else in the other, by TEST_WORKERS processes. Arguments
# go to pytest; those that name tests choose the environments, too. A selection may match nothing
# in one of the two.
set -uo pipefail
unset TERRAFORM_RUNNER # its tests take minutes, and are a part of `make check-terraform`

here=() beam=() options=()
for argument in "$@"; do
    case $argument in
        tests/beam | tests/beam/*) beam+=("$argument") ;;
        tests | tests/) here+=("$argument") beam+=(tests/beam) ;;
        tests/*) here+=("$argument") ;;
        *) options+=("$argument") ;;
    esac
done
((${#here[@]} + ${#beam[@]})) || here=(tests) beam=(tests/beam)

# Both run at the same time; the output of the second is kept until the first has ended.
output=$(mktemp) running=()
trap 'rm -f "$output"' EXIT
trap 'kill -TERM "${running[@]}" 2>/dev/null; wait; exit 143' TERM INT
if ((${#beam[@]})); then
    "$BEAM_BIN/pytest" "${beam[@]}" "${options[@]}" >"$output" 2>&1 &
    running+=($!)
fi
if ((${#here[@]})); then
    workers=(-n "${TEST_WORKERS:-3}" --dist loadfile --no-loadscope-reorder)
    "$BIN/pytest" "${workers[@]}" "${here[@]}" "${options[@]}" &
    running=($! "${running[@]}")
fi

nothing=5 # pytest's status when no test was collected
result=$nothing
for process in "${running[@]}"; do
    wait "$process"
    status=$?
    if ((status != nothing && (status || result == nothing))); then result=$status; fi
done
cat "$output"
exit $result
