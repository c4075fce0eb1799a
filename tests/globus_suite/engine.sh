#!/usr/bin/env bash
# Emulated endpoints with the engine of real ones, in a virtual environment of their own: the package of the endpoint pins
# versions of much else. GLOBUS_COMPUTE=4.x.y chooses its version and that of the SDK.
set -euo pipefail
exec </dev/null
root=$(cd "$(dirname "$0")/../.." && pwd)
version=${GLOBUS_COMPUTE:-4.19.0}
venv=$root/.venv-engine
stamp=$venv/.ready-$version

if [ ! -e "$stamp" ] || [ "$root/pyproject.toml" -nt "$stamp" ]; then
  "$root/.ci/venv" "$venv"
  echo "Installing globus-compute-endpoint $version and what the tests need ..."
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root[globus-engine]" \
    "globus-compute-endpoint==$version" "globus-compute-sdk==$version" \
    "pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.100"
  rm -f "$venv"/.ready-*
  touch "$stamp"
fi

cd "$root"
export PATH="$venv/bin:$PATH" # Parsl starts its programs by name
echo "globus-compute-endpoint $version:"
exec timeout 600 python -m pytest -p no:cacheprovider -q tests/unit/testing/globus/engines/test_hosted.py
