#!/usr/bin/env bash
# The contract test of what is private of Parsl, against the oldest Parsl that pyproject.toml allows.
set -euo pipefail
exec </dev/null
root=$(cd "$(dirname "$0")/../.." && pwd)
version=${PARSL:-$(sed -n 's/^ *"parsl>=\([0-9.]*\)".*/\1/p' "$root/pyproject.toml")}
venv=$root/.venv-oldest
stamp=$venv/.ready-$version

if [ ! -e "$stamp" ] || [ "$root/pyproject.toml" -nt "$stamp" ]; then
  "$root/.ci/venv" "$venv"
  echo "Installing parsl $version ..."
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root" "parsl==$version" \
    "pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.100"
  touch "$stamp"
fi

cd "$root"
export PATH="$venv/bin:$PATH" # Parsl starts its interchange and its workers by name
echo "parsl $version:"
exec timeout 300 python -m pytest -p no:cacheprovider tests/contract/test_parsl_adapter.py
