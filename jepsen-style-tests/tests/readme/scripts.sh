# Each script of cluster-scripts once as it should be used, and with what people get wrong. The directory's
# name has a blank in it, as names of directories do.
S=cluster-scripts D="$PWD/a cluster"
HINT="--dir $(printf %q "$D")"

# Runs a command: its exit code must be $1, and its output must contain $2.
check() {
  local code=$1 part=$2 said status
  shift 2
  said=$("$@" 2>&1)
  status=$?
  printf -- '--- %s\n%s\n' "$*" "$said"
  [ "$status" = "$code" ] || fail "exit code $status instead of $code: $*"
  case $said in *"$part"*) ;; *) fail "does not say '$part': $*" ;; esac
}

# Nothing there yet.
for script in status url "kill 1" "start 1" "pause 1" "resume 1"; do
  # shellcheck disable=SC2086
  check 1 "$S/up $HINT" $S/$script --dir "$D"
done
check 0 'No cluster' $S/down --dir "$D"
check 2 'a cluster has 3 or 5 nodes' $S/up --nodes 4
check 2 'is not a port' $S/up --http-port http
check 2 'ports are 1 to 65535' $S/up --http-port 99999 --dir "$D"
check 2 'two listeners would need port 24110' $S/up --http-port 24100 --rpc-port 24110 --dir "$D"
check 1 'no cluster' $S/status --dir "$D"
for script in up status down kill start pause resume url demo; do
  check 2 'needs a value' $S/$script --dir
  check 0 'Usage:' $S/$script --help
done
check 2 'unknown' $S/status --verbose

check 0 "$S/status $HINT, stop it with $S/down $HINT" $S/up --dir "$D"
check 0 'QUORATE_HTTP_ADDR=http://127.0.0.1:8500,http://127.0.0.1:8510,http://127.0.0.1:8520' $S/up --dir "$D"
check 0 'leader' $S/status --dir "$D"
check 1 'Start over' $S/up --http-port 9500 --dir "$D"
check 1 "up --http-port 9500 --dir $(printf %q "$PWD/other")" $S/up --dir other
check 1 'has nodes 1 to 3' $S/kill 4 --dir "$D"
check 2 'name a node' $S/kill --dir "$D"
check 2 'one node at a time' $S/kill 1 2 --dir "$D"
check 2 'name a node' $S/start leader --dir "$D"
check 2 'name a node' $S/resume leader --dir "$D"
check 1 'running already' $S/start 1 --dir "$D"

# The leader is killed: what is printed works while it is down, and brings it back.
leader=$($S/url leader --dir "$D") || fail "no leader"
check 0 "$S/url $HINT" $S/kill leader --dir "$D"
check 1 "$S/up $HINT" $S/status --dir "$D"
url=$($S/url --dir "$D") || fail "no node serves"
[ "$url" != "$leader" ] || fail "$url is the address of the node that was killed"
check 0 true curl -X PUT "$url/v1/kv/written/after" -d it
n=$(((${leader##*:} - 8500) / 10 + 1))
check 0 "$leader" $S/url "$n" --dir "$D"
check 1 'is not running' $S/kill "$n" --dir "$D"
check 1 'is not running' $S/pause "$n" --dir "$D"
check 0 'up and ready' $S/start "$n" --dir "$D"
check 0 it curl "$leader/v1/kv/written/after?raw"

check 0 "$S/resume 1 $HINT" $S/pause 1 --dir "$D"
check 1 paused $S/status --dir "$D"
check 0 'http://127.0.0.1:85' $S/url --dir "$D"
[ "$($S/url --dir "$D")" != http://127.0.0.1:8500 ] || fail "a paused node does not serve"
check 0 'Resumed' $S/resume 1 --dir "$D"
wait_for $S/status --dir "$D"

# Without a majority nothing serves; `up` starts what is down, with its data.
for n in 1 2 3; do check 0 "start $n $HINT" $S/kill "$n" --dir "$D"; done
check 0 'as soon as a majority' $S/start 1 --dir "$D"
check 1 "$S/up $HINT" $S/url --dir "$D"
check 0 'leader' $S/up --dir "$D"
check 0 it curl 'http://127.0.0.1:8510/v1/kv/written/after?raw'

# A node whose disk is lost comes back as another server, and the scripts say how.
check 0 'Killed' $S/kill 2 --dir "$D"
check 1 "start 2 $HINT" $S/start 2 --replace --dir "$D"
rm -r "$D/n2"
check 1 "start 2 --replace $HINT" $S/start 2 --dir "$D"
check 1 "start 2 --replace $HINT" $S/up --dir "$D"
check 0 'It is server 4 now' $S/start 2 --replace --dir "$D"
check 0 it curl 'http://127.0.0.1:8510/v1/kv/written/after?raw'
members() { curl "$($S/url --dir "$D")/v1/operator/raft/configuration"; }
three_vote() { [ "$(members | grep -o '"Voter":true' | wc -l)" = 3 ]; }
wait_for three_vote
case $(members) in *'"ID":"2"'*) fail 'server 2 is still a member' ;; esac
# It keeps its new id, and a second loss gives it yet another one.
check 0 'Killed' $S/kill 2 --dir "$D"
check 0 'up and ready' $S/start 2 --dir "$D"
check 0 'Killed' $S/kill 3 --dir "$D"
rm -r "$D/n3"
check 0 'It is server 5 now' $S/start 3 --replace --dir "$D"
wait_for three_vote
check 0 'leader' $S/up --dir "$D"
check 0 'is down' $S/down --dir "$D"
rm -r "$D/n1" "$D/n2"
check 1 "up --fresh $HINT" $S/up --dir "$D"
check 0 'deleted its data' $S/up --fresh --dir "$D"

check 0 "$S/down $HINT" $S/demo --dir "$D"
check 0 'deleted its data' $S/up --fresh --dir "$D"
check 22 404 curl 'http://127.0.0.1:8510/v1/kv/written/after?raw'
check 0 "$S/up $HINT" $S/down --dir "$D"
check 0 'is down' $S/down --dir "$D"
check 1 "$S/up $HINT" $S/status --dir "$D"

# With certificates at both ports. The cluster stays what it is.
check 0 'QUORATE_HTTP_ADDR=https://127.0.0.1:8501,https://127.0.0.1:8511,' $S/up --tls --fresh --dir "$D"
tls() { curl --cacert "$D/tls/quorate-ca.pem" "$@"; }
check 0 true tls -X PUT https://127.0.0.1:8501/v1/kv/written/tls -d it
check 0 it tls 'https://127.0.0.1:8521/v1/kv/written/tls?raw'
check 60 'certificate' curl -S https://127.0.0.1:8501/v1/status/leader
check 0 'Killed' $S/kill 2 --dir "$D"
check 0 'QUORATE_CA_FILE=' $S/up --dir "$D"
check 0 'up and ready' sh -c "$S/kill 2 --dir '$D' && $S/start 2 --dir '$D'"
check 0 'is down' $S/down --dir "$D"
