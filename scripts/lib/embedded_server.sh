# shellcheck shell=bash
# Starts and stops the embedded server of scripts/run.
#
# Owns the server's process, its address and its log under the data directory. Knows nothing of the
# node. Sourced by scripts/run after bootstrap.sh; sets `server_url`.

server_url=""
_server_pid=""

# Prints where the server listens: the address remembered in file $1, else $2, else a free loopback port.
# It is remembered because devices that are enrolled look for the server there.
_listen_address() {
    local file="$1" wanted="$2"
    if [ ! -s "$file" ]; then
        [ -n "$wanted" ] || wanted="127.0.0.1:$(_free_port)"
        printf '%s\n' "$wanted" >"$file.new"
        mv "$file.new" "$file"
    elif [ -n "$wanted" ] && [ "$wanted" != "$(cat "$file")" ]; then
        fail "devices are enrolled with this server at $(cat "$file"), and would not find it at $wanted;" \
            "leave ATOLL_LISTEN out, or write the new address into $file and enrol them again"
    fi
    cat "$file"
}

_free_port() {
    "$ATOLL_VENV/bin/python" - <<'PYTHON'
import socket

with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1])
PYTHON
}

# Prints the server's URL when it listens at $1 and writes to log $2; nothing when it is not known yet.
_server_url() {
    case "$1" in
    127.*:* | localhost:* | '[::1]:'*) printf 'http://%s\n' "$1" ;;
    # Off loopback the server prints its URL with the pin of its certificate.
    *) grep -o -m1 'https://[^ ]*#sha256=[0-9A-Za-z_=-]*' "$2" 2>/dev/null || true ;;
    esac
}

# Whether anything listens at HOST:PORT $1. When it listens it is ready.
_listens() {
    local address="${1/#0.0.0.0:/127.0.0.1:}"
    address="${address/#\[::\]:/::1:}"
    (exec 3<>"/dev/tcp/${address%:*}/${address##*:}") 2>/dev/null
}

# Starts the server with its data in $1/server, listening at $2 (empty: the remembered address).
start_server() {
    local data="$1" log="$1/server.log" listen
    listen="$(_listen_address "$data/server-listen" "${2:-}")" || exit 1
    if _listens "$listen"; then
        server_url="$(_server_url "$listen" "$log")"
        [ -n "$server_url" ] || fail "another program listens at $listen; end it, or choose another ATOLL_LISTEN"
        say "using the server that already runs at $server_url (another scripts/run)"
        return 0
    fi
    : >"$log"
    # Its own session: Ctrl-C in this terminal reaches the node first, and the server is ended after it.
    setsid "$ATOLL_VENV/bin/atoll" server run --data "$data/server" --listen "$listen" \
        >"$log" 2>&1 </dev/null &
    _server_pid=$!
    # Twenty seconds: a slow disk, or a certificate to make.
    for _ in $(seq 200); do
        server_url="$(_server_url "$listen" "$log")"
        [ -n "$server_url" ] && _listens "$listen" && return 0
        kill -0 "$_server_pid" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 5 "$log" >&2
    fail "the server did not start; all that it said is in $log"
}

# Ends the server that start_server started, and waits for it.
stop_server() {
    [ -n "$_server_pid" ] || return 0
    kill -TERM "$_server_pid" 2>/dev/null || true
    wait "$_server_pid" 2>/dev/null || true
    _server_pid=""
}
