# "Hosts may be names, which each new connection resolves anew": three servers that know each other by names,
# one of which comes to mean another address, and a fourth that was started while the name by which it joins
# still led nowhere.

# Nobody else sees this file: the mounts are the script's own. It is changed in place.
name() {
  printf '%s\n' '127.0.0.1 localhost' '10.0.0.1 n1.test' "$1 n2.test" '10.0.0.3 n3.test' "$2 seed.test" >hosts
}
name 10.0.0.2 10.0.0.99
mount --bind hosts /etc/hosts || fail mount
for host in 1 2 3 4 12; do ip addr add "10.0.0.$host/32" dev lo || fail address; done

server=()
start() {
  local id=$1
  quorate server --node-id "$id" --name "n$id" --data-dir "data$id" \
    --http-addr "n$id.test:8500" --rpc-addr "n$id.test:8300" \
    --insecure-rpc --bootstrap-expect 3 --join n1.test:8300,n2.test:8300,n3.test:8300 >>"n$id.log" 2>&1 &
  server[id]=$!
}
ready() { curl "http://$1:8500/readyz"; }
for id in 1 2 3; do start "$id"; done
for id in 1 2 3; do wait_for ready "10.0.0.$id"; done

# The second server moves.
kill -s TERM "${server[2]}"
wait "${server[2]}" || fail 'it did not end in order'
name 10.0.0.12 10.0.0.99
start 2
wait_for ready 10.0.0.12
# Without the third it is half of the quorum: the first must find it.
kill -s KILL "${server[3]}"
put() { [ "$(curl -X PUT http://10.0.0.1:8500/v1/kv/moved -d there)" = true ]; }
wait_for put
there() { [ "$(curl 'http://10.0.0.12:8500/v1/kv/moved?raw')" = there ]; }
wait_for there
start 3
wait_for ready 10.0.0.3

# The fourth looks for a cluster until the name leads to one.
quorate server --node-id 4 --data-dir data4 --http-addr 10.0.0.4:8500 --rpc-addr 10.0.0.4:8300 \
  --insecure-rpc --join seed.test:8300 >n4.log 2>&1 &
waits() { grep 'looking for a cluster to join' n4.log; }
wait_for waits
name 10.0.0.12 10.0.0.1
four_vote() { [ "$(curl http://10.0.0.1:8500/v1/operator/raft/configuration | grep -o '"Voter":true' | wc -l)" = 4 ]; }
wait_for four_vote
