#!/bin/sh
# daemon @version@ for @built_for@. Behind this script lies the program, as a gzipped tar archive: its first start
# unpacks it for this user, and every start becomes it. The place's name is the SHA-256 of what belongs there.
id=@id@
start=@start@
megabytes=@megabytes@
newline='
'

fail() {
  echo "error: $1" >&2
  exit 1
}

case $0 in
  /*) file=$0 ;;
  *) file=$PWD/$0 ;;
esac

places=${DAEMON_UNPACK_DIR:-}
if [ -z "$places" ]; then
  data=${XDG_DATA_HOME:-}
  if [ -z "$data" ]; then
    home=${HOME:-}
    if [ -z "$home" ]; then
      user=$(command -p id -un)
      case $user in
        '' | *[!A-Za-z0-9._-]*) fail "HOME is not set: name a directory for the program in DAEMON_UNPACK_DIR" ;;
      esac
      eval "home=~$user"
    fi
    data=$home/@data@
  fi
  places=$data/agent-daemon-program
fi
case $places in
  /*) ;;
  *) fail "$places is no absolute path: name another directory in DAEMON_UNPACK_DIR" ;;
esac
place=$places/$id

# A process of its own, so that its umask and its traps end with it.
unpack() (
  umask 077
  reason=$(command -p mkdir -p "$places" 2>&1) || fail "$reason: name another directory in DAEMON_UNPACK_DIR"
  [ -O "$places" ] || fail "$places belongs to another user: name a directory of yours in DAEMON_UNPACK_DIR"
  work=$(command -p mktemp -d "$places/.unpacking.XXXXXXXX" 2>/dev/null) ||
    fail "nothing can be written to $places: name another directory in DAEMON_UNPACK_DIR"
  trap 'command -p rm -rf "$work"' EXIT
  trap 'exit 130' HUP INT TERM
  reason=$({
    command -p tail -c "+$start" "$file" | command -p gzip -dc | command -p tar -xf - -C "$work" &&
      DAEMON_SETTLE_AT=$place LD_LIBRARY_PATH=$work/_internal "$work/daemon" </dev/null
  } 2>&1) && exit 0
  fail "$file cannot be unpacked in $places (${reason%%"$newline"*}): it must be whole, wants $megabytes MB there, where programs may be executed, and @built_for@; DAEMON_UNPACK_DIR names another directory"
)

[ -x "$place/daemon" ] || unpack || exit
[ -O "$place/daemon" ] || fail "$place belongs to another user: name a directory of yours in DAEMON_UNPACK_DIR"

# The program gets these back, for the commands that it starts: PyInstaller forgets the one and sets the other, without
# which it would load a zlib of the system.
export DAEMON_GIVEN_VIRTUAL_ENV="${VIRTUAL_ENV:-}" DAEMON_GIVEN_LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"
export DAEMON_STARTED_AS="$file" LD_LIBRARY_PATH="$place/_internal"
exec "$place/daemon" "$@"
