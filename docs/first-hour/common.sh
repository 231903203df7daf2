# What the three scripts share. Each works in a directory that is empty at its start and gone at its end, and uses this checkout where somebody else would take the crates from crates.io.
set -euo pipefail
crates=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# One target directory for all three: the second builds in a moment.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$crates/target/first-hour}

work=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
cd "$work"

say() { printf '\n# %s\n' "$*"; }
try() { printf '$ %s\n' "$*"; "$@"; }

# Starts a server and waits for the line with its address.
serve() {
  printf '$ %s &\n' "$*"
  # Not left to the background job, which may be late: the line of the server before would be taken for this one's.
  : >server.log
  "$@" >>server.log 2>&1 &
  server=$!
  until grep -q 'http://' server.log; do
    kill -0 "$server" 2>/dev/null || { cat server.log; exit 1; }
    sleep 0.1
  done
  url=$(grep -o 'http://[^ ]*' server.log | head -1)
}

# Ends it.
stop() {
  kill "$server"
  wait "$server" 2>/dev/null || true
  server=
}

# Asks for a path, and fails if the answer is another one.
expect() {
  local answer=$1 path=$2
  shift 2
  printf '$ curl %s%s\n' "$url$path" "${*:+ $*}"
  local got
  got=$(curl -sS "$@" "$url$path")
  printf '%s\n' "$got"
  [ "$got" = "$answer" ] || { printf 'expected: %s\n' "$answer"; exit 1; }
}
