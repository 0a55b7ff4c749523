# Shared by the scripts in this directory: where a cluster on this machine lives, and how its processes are
# found, started and ended. Sourced, never run. Needs bash, curl and the quorate binary, nothing else.
#
# Exit codes of every script: 0 done, 1 failed, 2 the command line is wrong.
#
# A cluster is a directory:
#   DIR/cluster   how it was brought up (number of nodes, ports)
#   DIR/n1        data of node 1           DIR/n1.pid   its process id         DIR/n1.log   its log
#   DIR/tls       with --tls: the cluster's CA, and each node's certificate and key
#   DIR/token     with --acl: the secret of the cluster's management token
#   DIR/n1.id     its id in the cluster, once it has been ready: 1, or another one since it lost its data
#
# A process id alone proves nothing: the machine may have been restarted and the id given to somebody
# else. So no signal is sent before the process's command line names this very data directory.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
HOST=127.0.0.1
PORT_STEP=10        # node i listens on port + PORT_STEP * (i - 1)
READY_LIMIT_S=30    # how long `up` and `start` wait for a node to serve
STOP_LIMIT_S=12     # a server promises to stop within 10 s of SIGTERM

DEFAULT_DIR=$ROOT/.quorate
DIR=$DEFAULT_DIR
NODES=3 HTTP_PORT=8500 RPC_PORT=8300 DNS_PORT=8600 TLS=no ACL=off

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
usage_error() { printf '%s: %s\n\n%s\n' "${0##*/}" "$1" "$USAGE" >&2; exit 2; }

# A command to type next, as this user would: command_hint NAME-AND-ARGUMENTS. Called by the same path as this
# script, and with the same --dir, because without it the command would be about another cluster.
command_hint() {
  printf '%s/%s' "$(dirname "$0")" "$1"
  [ "$DIR" = "$DEFAULT_DIR" ] || printf ' --dir %q' "$DIR"
}

# The value of a flag: flag_value NAME VALUE-IF-ANY.
flag_value() { [ -n "${2-}" ] || usage_error "$1 needs a value"; printf '%s' "$2"; }

# Makes DIR absolute, so that it can be compared with a command line.
use_dir() {
  case $1 in /*) DIR=$1 ;; *) DIR=$PWD/$1 ;; esac
  DIR=${DIR%/}
}

# Reads how the cluster in DIR was brought up. Fails if there is none.
load_cluster() {
  [ -f "$DIR/cluster" ] || return 1
  # shellcheck disable=SC1091
  . "$DIR/cluster"
}
need_cluster() { load_cluster || die "no cluster in $DIR. Bring one up with: $(command_hint up)"; }
save_cluster() {
  mkdir -p "$DIR"
  printf 'NODES=%s\nHTTP_PORT=%s\nRPC_PORT=%s\nDNS_PORT=%s\nTLS=%s\nACL=%s\n' \
    "$NODES" "$HTTP_PORT" "$RPC_PORT" "$DNS_PORT" "$TLS" "$ACL" >"$DIR/cluster"
}

node_numbers() { local i; for ((i = 1; i <= NODES; i++)); do printf '%s ' "$i"; done; }
port_of() { printf '%s' "$(($1 + PORT_STEP * ($2 - 1)))"; }
http_of() { printf 'http://%s:%s' "$HOST" "$(port_of "$HTTP_PORT" "$1")"; }
# With --tls, clients are served over TLS at the next port; these scripts keep to the other one.
https_of() { printf 'https://%s:%s' "$HOST" "$(($(port_of "$HTTP_PORT" "$1") + 1))"; }
rpc_of() { printf '%s:%s' "$HOST" "$(port_of "$RPC_PORT" "$1")"; }

# Refuses ports that no socket has, and such as two listeners of this cluster would share.
check_ports() {
  local i base seen=' ' https=()
  [ "$TLS" = no ] || https=("$((HTTP_PORT + 1))")
  for i in $(node_numbers); do
    for base in "$HTTP_PORT" "$RPC_PORT" "$DNS_PORT" ${https[@]+"${https[@]}"}; do
      base=$(port_of "$base" "$i")
      ((base >= 1 && base <= 65535)) || usage_error "node $i would need port $base; ports are 1 to 65535"
      case $seen in *" $base "*) usage_error "two listeners would need port $base: node i takes each port + $PORT_STEP * (i - 1)" ;; esac
      seen="$seen$base "
    done
  done
}

# --- processes ---------------------------------------------------------------------------------

command_line() {
  # It may end between the look and the reading.
  if [ -r "/proc/$1/cmdline" ]; then { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null || true; else ps -o args= -p "$1" 2>/dev/null; fi
}

# Prints the process id of node $1 if it runs; fails otherwise.
pid_of() {
  local pid
  pid=$(cat "$DIR/n$1.pid" 2>/dev/null) || return 1
  [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
  # The blanks around it keep n1 from meaning n10, and one directory from meaning another.
  case "$(command_line "$pid") " in *" server "*" --data-dir $DIR/n$1 "*) printf '%s' "$pid" ;; *) return 1 ;; esac
}

is_running() { pid_of "$1" >/dev/null; }

is_paused() {
  local pid
  pid=$(pid_of "$1") || return 1
  case "$(ps -o stat= -p "$pid" 2>/dev/null)" in T*) return 0 ;; *) return 1 ;; esac
}

# Signals node $2 with $1, if it is ours and runs.
signal_node() {
  local pid
  pid=$(pid_of "$2") || return 1
  kill -s "$1" "$pid"
}

# Waits until node $1 has ended, at most $2 seconds.
wait_ended() {
  local tries=$(($2 * 10))
  while is_running "$1"; do
    ((tries-- > 0)) || return 1
    sleep 0.1
  done
  rm -f "$DIR/n$1.pid"
}

join_list() {
  local i list=
  for i in $(node_numbers); do list=$list,$(rpc_of "$i"); done
  printf '%s' "${list#,}"
}

# The id of node $1 in the cluster.
id_of() { cat "$DIR/n$1.id" 2>/dev/null || printf '%s' "$1"; }

# Whether the cluster knows node $1 and its data are gone. Under that id it is not taken back: it has
# forgotten its votes and what it acknowledged.
has_lost_data() { [ -f "$DIR/n$1.id" ] && [ ! -f "$DIR/n$1/identity" ]; }

# Stops with advice for node $1, which has lost its data.
die_lost() {
  die "node $1 has lost its data ($DIR/n$1), so the cluster does not take it back as server $(id_of "$1").
  Remove that server, and start the node as a new one that gets all data from the others, with: $(command_hint "start $1 --replace")"
}

# Removes what the cluster knows of node $1, and gives the node an id that no server ever had.
replace_server() {
  local i old new=0 by answer
  old=$(id_of "$1")
  by=$(serving_number) || die "no node is ready, so server $old cannot be removed. Start the others first with: $(command_hint up)"
  if curl -fs -K <(token_for_curl) --max-time 5 "$(http_of "$by")/v1/operator/raft/configuration" | grep -q "\"ID\":\"$old\""; then
    answer=$(curl -s -K <(token_for_curl) --max-time 15 -w '\n%{http_code}' -X DELETE "$(http_of "$by")/v1/operator/raft/peer?id=$old") || true
    [ "${answer##*$'\n'}" = 200 ] || die "node $by did not remove server $old: ${answer%$'\n'*}"
  fi
  for i in $(node_numbers); do if (($(id_of "$i") > new)); then new=$(id_of "$i"); fi; done
  printf '%s\n' "$((new + 1))" >"$DIR/n$1.id"
}

# Makes the CA of this cluster and its nodes' certificates, as far as they are not there.
make_certificates() {
  local tls=$DIR/tls i
  mkdir -p -m 700 "$tls"
  [ -f "$tls/quorate-ca.pem" ] || "$(quorate_bin)" tls ca --dir "$tls" >/dev/null || die "cannot make a CA in $tls"
  for i in $(node_numbers); do
    [ ! -f "$tls/dc1-server-n$i.pem" ] || continue
    "$(quorate_bin)" tls cert --server "n$i" --dir "$tls" --ca "$tls/quorate-ca.pem" --ca-key "$tls/quorate-ca-key.pem" \
      >/dev/null || die "cannot make the certificate of node $i in $tls"
  done
}

# Starts node $1 and returns as soon as the process is the server's, or has ended.
launch() {
  local i=$1 id expect=$NODES tries=500 tls=() acl=()
  [ "$ACL" = off ] || acl=(--acl "$ACL")
  id=$(id_of "$i")
  # A server that takes another's place joins; it founds nothing.
  [ "$id" = "$i" ] || expect=0
  mkdir -p -m 700 "$DIR/n$i"
  if [ "$TLS" = yes ]; then
    local own=$DIR/tls/dc1-server-n$i https
    https=$(https_of "$i")
    tls=(--rpc-tls-ca "$DIR/tls/quorate-ca.pem" --rpc-tls-cert "$own.pem" --rpc-tls-key "$own-key.pem"
      --https-addr "${https#https://}" --https-cert "$own.pem" --https-key "$own-key.pem")
  fi
  # Its own session: a Ctrl-C in the terminal that ran this script is not meant for the server.
  nohup "$(quorate_bin)" server --node-id "$id" --name "n$i" --data-dir "$DIR/n$i" \
    --http-addr "$HOST:$(port_of "$HTTP_PORT" "$i")" --rpc-addr "$(rpc_of "$i")" \
    --dns-addr "$HOST:$(port_of "$DNS_PORT" "$i")" \
    --bootstrap-expect "$expect" --join "$(join_list)" ${tls[@]+"${tls[@]}"} ${acl[@]+"${acl[@]}"} \
    </dev/null >>"$DIR/n$i.log" 2>&1 &
  printf '%s\n' "$!" >"$DIR/n$i.pid"
  # Until the new process runs the server, its command line is this script's, and is_running would say no.
  until is_running "$i" || ! kill -0 "$!" 2>/dev/null || ((tries-- == 0)); do sleep 0.01; done
  disown "$!" 2>/dev/null || true
}

# Makes the first token of a cluster with access control, once, and keeps its secret for its owner alone.
keep_token() {
  local made deadline=$((SECONDS + READY_LIMIT_S))
  [ ! -s "$DIR/token" ] || return 0
  until made=$(curl -fs --max-time 10 -X PUT "$(http_of 1)/v1/acl/bootstrap"); do
    ((SECONDS < deadline)) || die "the cluster did not make a token; was it bootstrapped by hand? Write the secret into $DIR/token"
    sleep 0.2
  done
  (umask 077 && sed 's/.*"SecretID":"\([^"]*\)".*/\1/' <<<"$made" >"$DIR/token")
}

# A token for curl, if the cluster asks for one: not on its command line, where others see it.
token_for_curl() { [ ! -s "$DIR/token" ] || printf 'header = "X-Consul-Token: %s"\n' "$(<"$DIR/token")"; }

# Waits until node $1 is ready; says why if it is not.
wait_ready() {
  local deadline=$((SECONDS + READY_LIMIT_S))
  until is_ready "$1"; do
    is_running "$1" || { log_tail "$1"; die "node $1 ended while starting; its log is $DIR/n$1.log"; }
    ((SECONDS < deadline)) || { log_tail "$1"; die "node $1 was not ready within $READY_LIMIT_S s; its log is $DIR/n$1.log"; }
    sleep 0.1
  done
  # From now on a node without data is one that lost them.
  [ -f "$DIR/n$1.id" ] || printf '%s\n' "$1" >"$DIR/n$1.id"
}

log_tail() { say "--- the last lines of $DIR/n$1.log" >&2; tail -n 8 "$DIR/n$1.log" >&2 || true; say "---" >&2; }

# --- the binary --------------------------------------------------------------------------------

quorate_bin() { printf '%s' "${QUORATE_BIN:-${CARGO_TARGET_DIR:-$ROOT/target}/release/quorate}"; }

# Builds the release binary if it is missing or older than a source. QUORATE_BIN names another one.
ensure_binary() {
  local bin
  bin=$(quorate_bin)
  if [ -n "${QUORATE_BIN:-}" ]; then
    [ -x "$bin" ] || die "QUORATE_BIN is $bin, which cannot be run"
    return
  fi
  if [ ! -x "$bin" ] || [ -n "$(find "$ROOT"/{node,storage,client} "$ROOT"/Cargo.{toml,lock} \
    -type f \( -name '*.rs' -o -name 'Cargo.*' \) -newer "$bin" -print 2>/dev/null | head -n 1)" ]; then
    command -v cargo >/dev/null || die "cargo is needed to build the server: see https://rustup.rs"
    say "Building the release binary (a first build takes some minutes) ..."
    (cd "$ROOT" && cargo build --release -p quorate) || die "the build failed"
    touch "$bin"
  fi
}

# --- ports -------------------------------------------------------------------------------------

port_taken() { (exec 3<>"/dev/tcp/$HOST/$1") 2>/dev/null; }

# Which program listens on port $1, if this machine shows it.
port_user() {
  local who=
  if command -v ss >/dev/null; then
    who=$(ss -Hltnp "sport = :$1" 2>/dev/null | sed -n 's/.*users:((\("[^"]*"\),pid=\([0-9]*\).*/\1, process \2/p' | head -n 1)
  elif command -v lsof >/dev/null; then
    who=$(lsof -nP -iTCP:"$1" -sTCP:LISTEN -Fcp 2>/dev/null | tr '\n' ' ' | sed 's/p\([0-9]*\) c\([^ ]*\).*/"\2", process \1/')
  fi
  printf '%s' "${who:-another program}"
}

# Stops with advice if a port that node $1 needs is taken: need_port NODE FLAG BASE-PORT WHAT.
need_port() {
  local port fresh=
  port=$(port_of "$3" "$1")
  port_taken "$port" || return 0
  # A cluster keeps its ports: its nodes know each other by them.
  [ ! -f "$DIR/cluster" ] || fresh='--fresh '
  die "port $port, which node $1 needs for $4, is in use by $(port_user "$port").
  Stop that program, or choose other ports with $2${fresh:+ and start over without data}, for example: $(command_hint "up $fresh$2 $(($3 + 1000))")"
}
need_ports() {
  need_port "$1" --http-port "$HTTP_PORT" "its HTTP API"
  need_port "$1" --rpc-port "$RPC_PORT" "the other nodes"
  [ "$TLS" = no ] || need_port "$1" --http-port "$((HTTP_PORT + 1))" "HTTPS"
}

# --- what the cluster says ---------------------------------------------------------------------

# The member $1 of a flat JSON object on standard input, text or number.
json_member() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\)\"\{0,1\}.*/\1/p" | head -n 1; }

# Prints the number of the leader, as a running node sees it; waits up to $1 (default 5) seconds.
leader_number() {
  local deadline=$((SECONDS + ${1:-5})) i j address
  while :; do
    for i in $(node_numbers); do
      is_running "$i" && ! is_paused "$i" || continue
      address=$(curl -fs --max-time 1 "$(http_of "$i")/v1/status/leader" 2>/dev/null | tr -d '"') || continue
      for j in $(node_numbers); do
        # A survivor may name a leader that has just died: then ask again.
        if [ "$address" = "$(rpc_of "$j")" ] && is_running "$j"; then printf '%s' "$j"; return 0; fi
      done
    done
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

is_ready() { curl -fs -o /dev/null --max-time 2 "$(http_of "$1")/readyz" 2>/dev/null; }

# Prints the number of a node that serves clients; fails if there is none.
serving_number() {
  local i
  for i in $(node_numbers); do
    if is_running "$i" && ! is_paused "$i" && is_ready "$i"; then printf '%s' "$i"; return 0; fi
  done
  return 1
}

# Turns "2" or "leader" into a node's number.
which_node() {
  case ${1-} in
    leader) leader_number || die "no leader is known to any running node" ;;
    [1-9]) ((10#$1 <= NODES)) || die "this cluster has nodes 1 to $NODES"; printf '%s' "$1" ;;
    *) usage_error "name a node: 1 to $NODES${2:-}" ;;
  esac
}

table() {
  local i pid state role ready hash leader
  leader=$(leader_number 0) || leader=
  printf '%-5s %-8s %-8s %-9s %-6s %-23s %-10s %s\n' NODE PID STATE ROLE READY HTTP APPLIED 'STATE HASH'
  for i in $(node_numbers); do
    pid=- state=down role=- ready=- hash=
    if pid=$(pid_of "$i"); then
      state=running role=follower ready=no
      [ "$i" = "$leader" ] && role=leader
      if is_paused "$i"; then state=paused role=-; else
        is_ready "$i" && ready=yes
        hash=$(curl -fs -K <(token_for_curl) --max-time 2 "$(http_of "$i")/v1/quorate/state-hash") || hash=
      fi
    else
      pid=-
    fi
    printf '%-5s %-8s %-8s %-9s %-6s %-23s %-10s %.16s\n' "n$i" "$pid" "$state" "$role" "$ready" "$(http_of "$i")" \
      "$(json_member AppliedIndex <<<"$hash")" "$(json_member Hash <<<"$hash")"
  done
}

# The scripts that take one node: parse_node_args "$@" sets NODE_ARGUMENT and DIR.
parse_node_args() {
  NODE_ARGUMENT=
  while (($#)); do
    case $1 in
      --dir) value=$(flag_value "$1" "${2-}"); use_dir "$value"; shift 2 ;;
      -h | --help) say "$USAGE"; exit 0 ;;
      -*) usage_error "unknown flag $1" ;;
      *) [ -z "$NODE_ARGUMENT" ] || usage_error "one node at a time"; NODE_ARGUMENT=$1; shift ;;
    esac
  done
  need_cluster
}
