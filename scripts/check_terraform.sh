#!/usr/bin/env bash
# Check the format, validity and tests of tf/, with terraform and the providers from its registry.
# If either is not available, print so and exit with status SKIPPED, by default 0.
# TERRAFORM_RUNNER may name a program to run instead, as `RUNNER fmt|validate|test DIR`. With one,
# what repeated plans show is tested too.
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
    local output readonly=
    [ ! -e "$1/.terraform.lock.hcl" ] || readonly=-lockfile=readonly # make lock-terraform writes it
    output=$(terraform -chdir="$1" init $readonly -backend=false -input=false -no-color 2>&1) && return
    if grep -qE 'could not connect|request discovery document|does not offer a Terraform provider registry' <<<"$output"; then
        skip 'the Terraform registry cannot be reached'
    fi
    echo "$output" >&2
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
[ -z "${TERRAFORM_RUNNER:-}" ] || .venv/bin/pytest --quiet tests/deploy/test_terraform_plans.py
