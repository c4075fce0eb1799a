#!/usr/bin/env bash
# Parsl's own test suite, as its wheel ships it, with pools as the configuration. PARSL=2026.x.y chooses the version.
set -euo pipefail
exec </dev/null
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
version=${PARSL:-2026.10.26}
venv=$root/.venv-suite
stamp=$venv/.ready-$version

if [ ! -e "$stamp" ] || [ "$root/pyproject.toml" -nt "$stamp" ]; then
  "$root/.ci/venv" "$venv"
  echo "Installing parsl $version and what its tests need ..."
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root" "parsl==$version" \
    "pytest>=7.4,<8" pytest-random-order pandas mock "sqlalchemy>=2,<2.1"
  touch "$stamp"
fi

suite=$("$venv/bin/python" -c 'import pathlib, parsl; print(pathlib.Path(parsl.__file__).parent / "tests")')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '[pytest]\naddopts = -rs\n' >"$work/pytest.ini"
export PATH="$venv/bin:$PATH" # Parsl starts its interchange and its workers by name
status=0

# suite CONFIGURATION EXPRESSION: one run; some tests reach the network or need file permissions that root has not.
run() {
  mkdir "$work/$1"
  echo "Parsl's own suite, configuration $1"
  (cd "$work/$1" && timeout 600 python -m pytest "$suite" -c "$work/pytest.ini" --rootdir="$suite" \
    --config "$here/$1.py" -p no:cacheprovider -q -k "$2") || status=1
}

run pool_htex 'not cleannet and not unix_filesystem_permissions_required and not issue_3620'
run pool_htex_alternate 'not cleannet and not unix_filesystem_permissions_required'
exit "$status"
