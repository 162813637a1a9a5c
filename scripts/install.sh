#!/bin/sh
# Installs the server for this account: chooses the program for this machine, verifies its checksum,
# and puts it in place as a whole.
#
#   scripts/install.sh FROM [FOLDER]
#
# FROM is where the programs and SHA256SUMS are: a folder, such as dist/, or an https address, for
# which curl is needed. The checksum comes from there as well: it tells a damaged program from a whole
# one, and only TLS tells a forged one. FOLDER is where it goes, ~/.local/bin if left out.
# Exit codes: 0 done, 1 it could not be done, 2 wrong call.
set -eu

fail() {
  echo "Cannot install: $1" >&2
  exit "${2:-1}"
}

[ $# -ge 1 ] && [ $# -le 2 ] || fail "call it as scripts/install.sh FROM [FOLDER]" 2
from=${1%/}
folder=${2:-$HOME/.local/bin}

case $(uname -s) in
Linux) system=linux ;;
Darwin) system=darwin ;;
*) fail "there is no program for $(uname -s)" ;;
esac
case $(uname -m) in
x86_64 | amd64) cpu=x64 ;;
aarch64 | arm64) cpu=arm64 ;;
*) fail "there is no program for $(uname -m)" ;;
esac
libc=
# As Alpine has it: the loader of musl, and none of glibc.
if [ "$system" = linux ] && ls /lib/ld-musl-* >/dev/null 2>&1 && ! ls /lib*/ld-linux-* /lib/*/ld-linux-* >/dev/null 2>&1; then
  libc=-musl
fi
program=pocket-agent-$system-$cpu$libc

case $from in
http://*@*) fail "$from is an address without TLS; take it by https" ;;
http://localhost | http://localhost[:/]* | http://127.0.0.1 | http://127.0.0.1[:/]*) ;;
http://*) fail "$from is an address without TLS; take it by https" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# download NAME OPTION...: gets a file by curl, which can be held to a protocol on its way.
download() {
  name=$1
  shift
  command -v curl >/dev/null || fail "curl is not here"
  curl --fail --silent --show-error "$@" --output "$work/$name" "$from/$name" || fail "$from/$name cannot be had"
}

# fetch NAME: gets a file from where the programs are.
fetch() {
  case $from in
  https://*) download "$1" --proto '=https' --location ;;
  http://*) download "$1" --proto '=http' ;;
  *) cp "$from/$1" "$work/$1" 2>/dev/null || fail "there is no $from/$1" ;;
  esac
}

fetch SHA256SUMS
expected=$(awk -v name="$program" '$2 == name || $2 == "*" name { print $1 }' "$work/SHA256SUMS")
[ -n "$expected" ] || fail "$from/SHA256SUMS does not name $program"
echo "Getting $program"
fetch "$program"
if command -v sha256sum >/dev/null; then
  actual=$(sha256sum "$work/$program" | awk '{ print $1 }')
else
  actual=$(shasum -a 256 "$work/$program" | awk '{ print $1 }')
fi
[ "$actual" = "$expected" ] || fail "the checksum of $program is $actual and should be $expected; nothing was changed"

mkdir -p "$folder"
target=$folder/pocket-agent-server
draft=$target.$$.new
trap 'rm -rf "$work" "$draft"' EXIT
cp "$work/$program" "$draft"
chmod 755 "$draft"
"$draft" --version >/dev/null || fail "$program does not run on this machine; nothing was changed"
# A rename replaces it at once, also while the old one runs.
mv -f "$draft" "$target"
echo "Installed $("$target" --version) as $target"
case ":$PATH:" in
*":$folder:"*) ;;
*) echo "$folder is not in your PATH" ;;
esac
echo "Start it with: $target"
