#!/usr/bin/env bash
# Print the path of the first Python that is installed in one of the given versions, the preferred
# version first. PYTHON, if set, is the only candidate.
set -euo pipefail

is_version() {
    "$1" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$2" 2>/dev/null
}

for version in "$@"; do
    candidates=("${PYTHON:-}")
    if [ -z "${PYTHON:-}" ]; then # uv knows of interpreters that are not on PATH
        candidates=(python3 "python$version" "$(uv python find "$version" 2>/dev/null || true)")
    fi
    for candidate in "${candidates[@]}"; do
        if is_version "$candidate" "$version"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            exit
        fi
    done
done

if [ -n "${PYTHON:-}" ]; then
    echo "PYTHON=$PYTHON is not a Python of version $(printf "%s or " "$@" | sed "s/ or $//"): set it to one that is" >&2
else
    echo "Python $1 is not installed: install it from https://www.python.org/downloads/," \
        "or with \"uv python install $1\"" >&2
fi
exit 1
