#!/usr/bin/env bash
# Run pytest in both environments, BIN and BEAM_BIN, as `make test` does: what is in tests/beam in
# the one that has Apache Beam, everything else in the other. Arguments go to pytest; those that
# name tests choose the environments, too. A selection may match nothing in one of the two.
set -uo pipefail

here=() beam=() options=()
for argument in "$@"; do
    case $argument in
        tests/beam | tests/beam/*) beam+=("$argument") ;;
        tests | tests/) here+=("$argument") beam+=(tests/beam) ;;
        tests/*) here+=("$argument") ;;
        *) options+=("$argument") ;;
    esac
done
named=$((${#here[@]} + ${#beam[@]}))
((named)) || beam=(tests/beam)

nothing=5 # pytest's status when no test was collected
result=$nothing
run() {
    "$@"
    local status=$?
    ((status == 0 || status == nothing)) || exit $status
    ((status == nothing)) || result=0
}

((named && !${#here[@]})) || run "$BIN/pytest" "${here[@]}" "${options[@]}"
((!${#beam[@]})) || run "$BEAM_BIN/pytest" "${beam[@]}" "${options[@]}"
exit $result
