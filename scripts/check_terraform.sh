#!/usr/bin/env bash
# Check tf/: format, validity, tests. TERRAFORM_RUNNER may name another runner, which is called as
# `RUNNER fmt|validate|test DIR`. By default it is terraform, with the providers of its registry;
# where they cannot be had, this says so and passes, or ends with the status that SKIPPED names.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "tf/ was not checked: $1"
    exit "${SKIPPED:-0}"
}

terraform_here() {
    local verb=$1 dir=$2
    case $verb in
        fmt) terraform -chdir="$dir" fmt -check -diff -recursive ;;
        validate) initialise "$dir" && terraform -chdir="$dir" validate ;;
        test) initialise "$dir" && terraform -chdir="$dir" test ;;
    esac
}

initialise() {
    local said readonly=
    [ ! -e "$1/.terraform.lock.hcl" ] || readonly=-lockfile=readonly # make lock-terraform writes it
    said=$(terraform -chdir="$1" init $readonly -backend=false -input=false -no-color 2>&1) && return
    if grep -qE 'could not connect|request discovery document|does not offer a Terraform provider registry' <<<"$said"; then
        skip 'the registry of its providers cannot be reached'
    fi
    echo "$said" >&2
    exit 1
}

command -v terraform >/dev/null || skip 'terraform is not installed'

export DCM2BQ_PYTHON=$PWD/.venv/bin/python # for tf/tests/archive
export TF_DATA_DIR=$PWD/.work/terraform CHECKPOINT_DISABLE=1
mockable=$(mktemp -d) # a copy in which what mock providers lack is replaced
trap 'rm -rf "$mockable"' EXIT
"$DCM2BQ_PYTHON" tests/support/terraform.py "$mockable" >/dev/null
runner=${TERRAFORM_RUNNER:-terraform_here}
"$runner" fmt tf
"$runner" validate "$([ -n "${TERRAFORM_RUNNER:-}" ] && echo "$mockable/tf" || echo tf)"
"$runner" test "$mockable/tf"
