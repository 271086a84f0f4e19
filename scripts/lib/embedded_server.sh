# Starts and stops the embedded server of scripts/run.
#
# Owns the server's process, its address and its log under the data directory. Knows nothing of the
# node. Sourced by scripts/run after bootstrap.sh; sets `server_url`.

server_url=""
_server_pid=""

# Prints a loopback port: the one remembered in file $1, or a free one, which is then remembered, so
# that the nodes that are enrolled find the server again.
_loopback_port() {
    local file="$1"
    if [ ! -s "$file" ]; then
        "$ATOLL_VENV/bin/python" - >"$file.new" <<'PYTHON'
import socket

with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1])
PYTHON
        mv "$file.new" "$file"
    fi
    cat "$file"
}

# Whether a server answers at HOST:PORT $1. Only that it listens: it says itself when it is ready.
_listens() { (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }

# Starts the server with its data in $1/server, listening at $2 (empty: the remembered loopback port).
start_server() {
    local data="$1" listen="${2:-}" log="$1/server.log"
    if [ -z "$listen" ]; then
        listen="127.0.0.1:$(_loopback_port "$data/server-port")"
        server_url="http://$listen"
    fi
    if [ -n "$server_url" ] && _listens "$listen"; then
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
        # Off loopback the server prints its URL with the pin of its certificate.
        [ -n "$server_url" ] || server_url="$(grep -o -m1 'https://[^ ]*#sha256=[0-9A-Za-z_=-]*' "$log" || true)"
        if [ -n "$server_url" ] && _listens "${listen/#0.0.0.0:/127.0.0.1:}"; then
            return 0
        fi
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
