//! Claims on a real cluster: an idle instance for one client alone, first come first served, and everybody is told
//! the truth whoever dies: a user that waits, a gateway that holds, the instance at work, a node or the leader.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use jepsen_style_tests::Cluster;
use jepsen_style_tests::http::{Answer, AnswerExt as _, Error, Http, HttpExt as _};
use jepsen_style_tests::presence::Client as Presence;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// What happens by itself shows within this.
const LIMIT: Duration = Duration::from_secs(25);
/// From this level of the cluster's rules on there are claims.
const CLAIMS_LEVEL: u64 = 8;
/// No instance idles for longer than an offer lasts while somebody waits.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// How much later that may show on a machine that is busy with other things, and while a leader is elected.
const LATE_MAX: Duration = Duration::from_secs(5);
/// How long a request of these tests waits.
const WAIT: Duration = Duration::from_secs(40);

async fn started() -> Cluster {
    let cluster = Cluster::start(3).await.unwrap();
    for node in cluster.https(&cluster.ids()) {
        let knows = |hash: &Value| hash["Level"].as_u64() >= Some(CLAIMS_LEVEL);
        node.wait_for("/v1/quorate/state-hash", LIMIT, knows).await.unwrap();
    }
    cluster
}

fn patient(node: &Http) -> Http {
    Http::with_timeout(node.base(), WAIT + Duration::from_secs(20)).unwrap()
}

async fn register(node: &Http, service: &str, number: u32, meta: Value) {
    let body = json!({
        "Name": service, "ID": format!("{service}-{number}"), "Port": 5_000 + number, "Meta": meta,
    });
    node.must_put("/v1/agent/service/register", body.to_string()).await.unwrap();
}

/// A random UUID.
fn new_id() -> String {
    let hex = format!("{:032x}", rand::random::<u128>());
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// A claim that does not wait.
async fn claim(node: &Http, service: &str, body: &Value) -> Answer {
    node.put(&format!("/v1/quorate/claims/{service}"), body.to_string()).await.unwrap()
}

async fn release(node: &Http, id: &str) -> Answer {
    node.put(&format!("/v1/quorate/claim/{id}/release"), "").await.unwrap()
}

async fn renew(node: &Http, id: &str) -> Answer {
    node.put(&format!("/v1/quorate/claim/{id}/renew"), "").await.unwrap()
}

/// A claim that waits, and when it was answered.
struct Waiter {
    id: String,
    task: JoinHandle<(Result<Answer, Error>, Instant)>,
}

impl Waiter {
    /// Begins to wait; returns when the cluster has it.
    async fn begin(at: &Http, service: &str, holder: &str, look_at: &Http) -> Self {
        let waiter = Self::ask(at, service, holder, &new_id());
        let path = format!("/v1/quorate/claim/{}", waiter.id);
        look_at.wait_for(&path, LIMIT, |shown| shown["State"] != "ended").await.unwrap();
        waiter
    }

    fn ask(at: &Http, service: &str, holder: &str, id: &str) -> Self {
        let path = format!("/v1/quorate/claims/{service}?wait={}s", WAIT.as_secs());
        let body = json!({"ID": id, "Holder": holder, "TTL": "60s"}).to_string();
        let node = patient(at);
        let task = tokio::spawn(async move { (node.put(&path, body).await, Instant::now()) });
        Self { id: id.to_owned(), task }
    }

    /// Its answer, and when it came.
    async fn answer(self) -> (Result<Answer, Error>, Instant) {
        self.task.await.unwrap()
    }

    /// The same where it is to be a grant.
    async fn grant(self) -> (Value, Instant) {
        let (answer, at) = self.answer().await;
        (answer.unwrap().value().unwrap(), at)
    }
}

/// A request that waits on a connection of its own, which is closed when this is dropped.
struct User {
    id: String,
    _socket: TcpStream,
}

impl User {
    async fn begin(at: &Http, service: &str, look_at: &Http) -> Self {
        let id = new_id();
        let mut socket = TcpStream::connect(at.base().trim_start_matches("http://")).await.unwrap();
        let body = json!({"ID": id, "Holder": "user"}).to_string();
        let request = format!(
            "PUT /v1/quorate/claims/{service}?wait=60s HTTP/1.1\r\nHost: q\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let path = format!("/v1/quorate/claim/{id}");
        look_at.wait_for(&path, LIMIT, |shown| shown["State"] == "queued").await.unwrap();
        Self { id, _socket: socket }
    }
}

fn text(answer: &Answer) -> (u16, String) {
    (answer.status, answer.text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_goes_from_hand_to_hand_in_the_order_of_the_requests() {
    let cluster = started().await;
    let [one, two, three] = [1, 2, 3].map(|id| cluster.http(id));
    let nobody = claim(&one, "rdb", &json!({})).await;
    assert_eq!(text(&nobody), (404, "no instance of \"rdb\" is in a pool".to_owned()));
    register(&one, "rdb", 1, json!({"slots": "1", "region": "eu"})).await;
    register(&one, "rdb", 9, json!({})).await;

    let id = new_id();
    let body = json!({"ID": id, "Holder": "gateway-1", "TTL": "20s"});
    let first = claim(&two, "rdb", &body).await.value().unwrap();
    assert_eq!((&first["ID"], &first["Instance"]["ID"]), (&json!(id), &json!("rdb-1")));
    assert_eq!(
        (&first["Seq"], &first["TTL"], &first["Holder"]),
        (&json!(1), &json!("20s"), &json!("gateway-1"))
    );
    // The same again is the same claim, through any node; for another holder it is another's.
    let again = claim(&three, "rdb", &body).await.value().unwrap();
    assert_eq!(again["Fence"], first["Fence"]);
    let other = claim(&three, "rdb", &json!({"ID": id, "Holder": "gateway-2"})).await;
    assert_eq!(other.status, 409, "{}", other.text());
    let busy = claim(&one, "rdb", &json!({})).await;
    let all = "all 1 instances of \"rdb\" are busy, 0 requests are waiting";
    assert_eq!(text(&busy), (409, all.to_owned()));

    let mut waiters = Vec::new();
    for (number, node) in [&three, &one, &two].into_iter().enumerate() {
        waiters.push(Waiter::begin(node, "rdb", &format!("w{number}"), &one).await);
    }
    let shown = two.must_get("/v1/quorate/claims/rdb").await.unwrap();
    assert_eq!(shown["Instances"][0]["Busy"][0]["Holder"], "gateway-1");
    assert_eq!((&shown["Waiting"], &shown["Queue"][2]["Holder"]), (&json!(3), &json!("w2")));
    assert!(!shown.to_string().contains(&waiters[0].id), "{shown}");
    let pools = three.must_get("/v1/quorate/claims").await.unwrap();
    assert_eq!((&pools[0]["Service"], &pools[0]["Busy"]), (&json!("rdb"), &json!(1)));
    let last = one.must_get(&format!("/v1/quorate/claim/{}", waiters[2].id)).await.unwrap();
    assert_eq!((&last["State"], &last["Ahead"]), (&json!("queued"), &json!(2)));

    // A wait that ends is told so, and the place is free.
    let short = one.put("/v1/quorate/claims/rdb?wait=300ms", "{}").await.unwrap();
    let all = "all 1 instances of \"rdb\" are busy, 3 requests are waiting";
    assert_eq!(text(&short), (409, all.to_owned()));

    assert_eq!(renew(&three, &id).await.status, 200);
    assert_eq!(release(&three, &id).await.status, 200);
    assert_eq!(release(&one, &id).await.status, 200, "twice is once");
    assert_eq!(text(&renew(&one, &id).await).0, 409);
    let mut fence = first["Fence"].as_u64().unwrap();
    for (number, waiter) in waiters.into_iter().enumerate() {
        let (granted, _) = waiter.grant().await;
        assert_eq!(granted["Holder"], json!(format!("w{number}")));
        assert_eq!(granted["Seq"], json!(number + 2));
        let next = granted["Fence"].as_u64().unwrap();
        assert!(next > fence, "fence {next} after {fence}");
        fence = next;
        assert_eq!(release(&two, granted["ID"].as_str().unwrap()).await.status, 200);
    }

    an_operator_sees_it(&cluster, &id).await;
    cluster.finish().await.unwrap();
}

/// An operator releases by the fence, and everybody can read what happened.
async fn an_operator_sees_it(cluster: &Cluster, id: &str) {
    let [one, two, three] = [1, 2, 3].map(|id| cluster.http(id));
    let held = claim(&one, "rdb", &json!({"Require": {"region": "eu"}})).await.value().unwrap();
    let path = format!("/v1/quorate/claims/rdb/force?fence={}", held["Fence"]);
    assert_eq!(two.put(&path, "").await.unwrap().status, 200);
    let told = renew(&three, held["ID"].as_str().unwrap()).await;
    assert!(told.status == 409 && told.text().contains("is over: forced"), "{told:?}");
    let history = three.must_get("/v1/quorate/history?kind=claim.&service=rdb").await.unwrap();
    let kinds: Vec<&str> =
        history.as_array().unwrap().iter().map(|row| row["Kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "claim.granted").count(), 5, "{kinds:?}");
    assert!(!history.to_string().contains(id), "no list shows an ID");
    assert_eq!(three.figure("quorate_claim_grants_total").await.unwrap(), 5);
    assert_eq!(three.figure("quorate_claims_waiting").await.unwrap(), 0);
    let mut handed_over = 0;
    for node in [&one, &two, &three] {
        let count = "quorate_claim_hand_over_duration_seconds_count";
        handed_over += node.figure(count).await.unwrap();
    }
    assert!(handed_over >= 5, "{handed_over} hand-overs were measured");
    let path = format!("/v1/quorate/explain/claim/{id}");
    let explained = two.must_get(&path).await.unwrap();
    let why = explained["Why"].as_str().unwrap();
    assert!(why.contains("ended at"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_leaves_the_line_a_holder_that_dies_and_an_instance_that_goes() {
    let cluster = started().await;
    let [one, two, three] = [1, 2, 3].map(|id| cluster.http(id));
    register(&one, "rdb", 1, json!({"slots": "1"})).await;
    let holder = claim(&one, "rdb", &json!({"TTL": "60s"})).await.value().unwrap();

    // A user that is gone is passed over at once, and its place is free after 10 s.
    let user = User::begin(&two, "rdb", &one).await;
    let waiter = Waiter::begin(&three, "rdb", "next", &one).await;
    let left = user.id.clone();
    drop(user);
    let gone = |shown: &Value| shown["Attached"] == false;
    one.wait_for(&format!("/v1/quorate/claim/{left}"), LIMIT, gone).await.unwrap();
    let released = Instant::now();
    assert_eq!(release(&one, holder["ID"].as_str().unwrap()).await.status, 200);
    let (granted, at) = waiter.grant().await;
    assert!(at - released < IDLE_MAX, "it idled for {:?}", at - released);
    let withdrawn = |shown: &Value| shown["Reason"] == "withdrawn";
    one.wait_for(&format!("/v1/quorate/claim/{left}"), LIMIT, withdrawn).await.unwrap();
    assert_eq!(release(&one, granted["ID"].as_str().unwrap()).await.status, 200);

    // A holder that is silent loses its claim, and the next one gets it when the slot opens again.
    let silent = claim(&two, "rdb", &json!({"TTL": "2s"})).await.value().unwrap();
    let since = Instant::now();
    let waiter = Waiter::begin(&three, "rdb", "next", &one).await;
    let (granted, at) = waiter.grant().await;
    assert!(at - since >= Duration::from_millis(2_500), "it waited {:?} only", at - since);
    assert!(at - since < Duration::from_secs(3) + IDLE_MAX, "it idled for {:?}", at - since);
    assert!(granted["Fence"].as_u64() > silent["Fence"].as_u64());
    for told in [
        renew(&two, silent["ID"].as_str().unwrap()).await,
        release(&one, silent["ID"].as_str().unwrap()).await,
    ] {
        assert!(told.status == 409 && told.text().ends_with("is over: expired"), "{told:?}");
    }

    // The instance is critical: its holder is told so, and who waits gets it when it passes again.
    let working = granted["ID"].as_str().unwrap();
    let waiter = Waiter::begin(&two, "rdb", "next", &one).await;
    one.must_put("/v1/agent/service/maintenance/rdb-1?enable=true", "").await.unwrap();
    let told = renew(&three, working).await;
    assert!(told.status == 409 && told.text().ends_with("is over: instance lost"), "{told:?}");
    one.must_put("/v1/agent/service/maintenance/rdb-1?enable=false", "").await.unwrap();
    let passes = Instant::now();
    let (granted, at) = waiter.grant().await;
    assert!(at - passes < IDLE_MAX, "it idled for {:?}", at - passes);

    // It goes for good: nobody waits for nothing.
    let waiter = Waiter::begin(&three, "rdb", "next", &one).await;
    one.must_put("/v1/agent/service/deregister/rdb-1", "").await.unwrap();
    let (told, _) = waiter.answer().await;
    assert_eq!(text(&told.unwrap()), (404, "no instance of \"rdb\" is in a pool".to_owned()));
    let told = release(&one, granted["ID"].as_str().unwrap()).await;
    assert!(told.status == 409 && told.text().ends_with("is over: instance lost"), "{told:?}");
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_dies_at_work_and_a_gateway_whose_session_ends() {
    let cluster = started().await;
    let [one, two, three] = [1, 2, 3].map(|id| cluster.http(id));
    let process = |number: u32| {
        let body = json!({
            "Name": "rdb", "ID": "rdb-1", "Port": 5_010, "Owner": new_id(),
            "Meta": {"slots": "1", "claim-delay": "500ms"},
        });
        let base = [&one, &two, &three][number as usize % 3].base().to_owned();
        async move { Presence::open(&base, "linger=0s", &body).await.unwrap() }
    };
    // Its connection ends with it: the holder is told while it waits for the answer, and so is nobody in line.
    let service = process(0).await;
    let held = claim(&two, "rdb", &json!({"TTL": "60s"})).await.value().unwrap();
    let next = Waiter::begin(&three, "rdb", "next", &one).await;
    let path = format!("/v1/quorate/claim/{}", held["ID"].as_str().unwrap());
    let index = two.get(&path).await.unwrap().require_index().unwrap();
    let blocking = patient(&two);
    let told = tokio::spawn(async move {
        let told = blocking.must_get(&format!("{path}?index={index}&wait=30s")).await.unwrap();
        (told, Instant::now())
    });
    drop(service);
    let died = Instant::now();
    let (told, at) = told.await.unwrap();
    assert_eq!((&told["State"], &told["Reason"]), (&json!("ended"), &json!("instance lost")));
    assert!(at - died < LATE_MAX, "it was told after {:?}", at - died);
    // Another process in its place serves who still waits.
    let _service = process(1).await;
    let back = Instant::now();
    let (granted, at) = next.grant().await;
    assert!(at - back < IDLE_MAX + LATE_MAX, "it idled for {:?}", at - back);
    assert_eq!(release(&one, granted["ID"].as_str().unwrap()).await.status, 200);

    // A gateway that holds by a session, which ends.
    let session = one.must_put("/v1/session/create", r#"{"TTL": "1h"}"#).await.unwrap();
    let session: Value = serde_json::from_str(&session).unwrap();
    let session = session["ID"].as_str().unwrap();
    let body = json!({"TTL": "0", "Session": session});
    let held = claim(&two, "rdb", &body).await.value().unwrap();
    let next = Waiter::begin(&three, "rdb", "next", &one).await;
    two.must_put(&format!("/v1/session/destroy/{session}"), "").await.unwrap();
    let ended = Instant::now();
    let (_, at) = next.grant().await;
    assert!(at - ended >= Duration::from_millis(400), "the slot is closed for its delay");
    assert!(at - ended < IDLE_MAX + LATE_MAX, "it idled for {:?}", at - ended);
    let told = renew(&three, held["ID"].as_str().unwrap()).await;
    assert!(told.status == 409 && told.text().ends_with("is over: session ended"), "{told:?}");
    cluster.finish().await.unwrap();
}

/// Three nodes of which one is to die: its own requests, and those at a node that stays.
struct Scene {
    victim: u64,
    dying: Http,
    staying: Http,
    /// A service of which one instance exists.
    service: String,
}

impl Scene {
    async fn set(cluster: &Cluster, victim: u64, phase: &str) -> Self {
        let stays = cluster.others(victim)[0];
        let scene = Self {
            victim,
            dying: cluster.http(victim),
            staying: patient(&cluster.http(stays)),
            service: format!("rdb-{phase}-{victim}"),
        };
        register(&scene.staying, &scene.service, 1, json!({"slots": "1"})).await;
        scene
    }

    async fn hold(&self, at: &Http, holder: &str) -> Value {
        let body = json!({"Holder": holder, "TTL": "60s"});
        claim(at, &self.service, &body).await.value().unwrap()
    }

    async fn back(self, cluster: &mut Cluster) {
        let path = format!("/v1/quorate/claims/{}", self.service);
        let shown = self.staying.must_get(&path).await.unwrap();
        let busy = shown["Instances"][0]["Busy"].as_array().unwrap().len();
        assert!(busy <= 1, "one slot has {busy} claims: {shown}");
        cluster.start_node(self.victim).unwrap();
        cluster.wait_all_caught_up().await.unwrap();
    }

    /// Nobody is in between a claim that is free from `since` on and its next holder for too long.
    fn soon(&self, since: Instant, at: Instant) {
        let idle = at - since;
        assert!(idle < IDLE_MAX + LATE_MAX, "{} idled for {idle:?}", self.service);
    }
}

/// Whoever asks again with the same ID has one claim.
async fn asking(cluster: &mut Cluster, victim: u64) {
    let scene = Scene::set(cluster, victim, "asking").await;
    let asks = Waiter::ask(&scene.dying, &scene.service, "gw", &new_id());
    tokio::time::sleep(Duration::from_millis(3)).await;
    cluster.kill(victim).unwrap();
    let id = asks.id.clone();
    let told = asks.answer().await.0.ok().map(|answer| answer.value().unwrap());
    let since = Instant::now();
    let (again, at) = Waiter::ask(&scene.staying, &scene.service, "gw", &id).grant().await;
    scene.soon(since, at);
    assert_eq!(again["ID"], json!(id));
    if let Some(told) = told {
        assert_eq!(told["Fence"], again["Fence"], "it was told of another grant");
    }
    assert_eq!(release(&scene.staying, &id).await.status, 200);
    scene.back(cluster).await;
}

/// The place in line is kept, and nobody behind it gets ahead.
async fn queued(cluster: &mut Cluster, victim: u64) {
    let scene = Scene::set(cluster, victim, "queued").await;
    let held = scene.hold(&scene.staying, "gw").await;
    let first = Waiter::begin(&scene.dying, &scene.service, "first", &scene.staying).await;
    let second = Waiter::begin(&scene.staying, &scene.service, "second", &scene.staying).await;
    cluster.kill(victim).unwrap();
    let id = first.id.clone();
    assert!(first.answer().await.0.is_err(), "its node has died");
    let first = Waiter::ask(&scene.staying, &scene.service, "first", &id);
    let joined = |shown: &Value| shown["State"] == "queued" && shown["Attached"] == true;
    scene.staying.wait_for(&format!("/v1/quorate/claim/{id}"), LIMIT, joined).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let since = Instant::now();
    assert_eq!(release(&scene.staying, held["ID"].as_str().unwrap()).await.status, 200);
    let (granted, at) = first.grant().await;
    scene.soon(since, at);
    assert_eq!(release(&scene.staying, &id).await.status, 200);
    let (next, _) = second.grant().await;
    assert!(next["Fence"].as_u64() > granted["Fence"].as_u64());
    scene.back(cluster).await;
}

/// Its node dies with the offer, or has just handed it over. Either it holds, or the next one does.
async fn offered(cluster: &mut Cluster, victim: u64) {
    let scene = Scene::set(cluster, victim, "offered").await;
    let held = scene.hold(&scene.staying, "gw").await;
    let first = Waiter::begin(&scene.dying, &scene.service, "first", &scene.staying).await;
    let second = Waiter::begin(&scene.staying, &scene.service, "second", &scene.staying).await;
    let since = Instant::now();
    let (released, _) =
        tokio::join!(release(&scene.staying, held["ID"].as_str().unwrap()), async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            cluster.kill(victim).unwrap();
        });
    assert_eq!(released.status, 200, "{}", released.text());
    let id = first.id.clone();
    let told = first.answer().await.0.ok().filter(|answer| answer.status == 200);
    let renewed = renew(&scene.staying, &id).await;
    if told.is_none() && renewed.status != 200 {
        let (_, at) = second.grant().await;
        scene.soon(since, at);
    } else {
        assert_eq!(renewed.status, 200, "{}", renewed.text());
        assert_eq!(release(&scene.staying, &id).await.status, 200);
        second.grant().await;
    }
    scene.back(cluster).await;
}

/// Its node has answered, and dies before it can say so: the holder does.
async fn collected(cluster: &mut Cluster, victim: u64) {
    let scene = Scene::set(cluster, victim, "collected").await;
    let held = scene.hold(&scene.dying, "gw").await;
    cluster.kill(victim).unwrap();
    let id = held["ID"].as_str().unwrap();
    let next = Waiter::begin(&scene.staying, &scene.service, "next", &scene.staying).await;
    assert_eq!(renew(&scene.staying, id).await.status, 200);
    let shown = scene.staying.must_get(&format!("/v1/quorate/claim/{id}")).await.unwrap();
    assert_eq!((&shown["State"], &shown["Fence"]), (&json!("granted"), &held["Fence"]));
    let since = Instant::now();
    assert_eq!(release(&scene.staying, id).await.status, 200);
    let (granted, at) = next.grant().await;
    scene.soon(since, at);
    assert!(granted["Fence"].as_u64() > held["Fence"].as_u64());
    scene.back(cluster).await;
}

/// What the node did is the cluster's.
async fn holding(cluster: &mut Cluster, victim: u64) {
    let scene = Scene::set(cluster, victim, "holding").await;
    let held = scene.hold(&scene.dying, "gw").await;
    let id = held["ID"].as_str().unwrap();
    let next = Waiter::begin(&scene.staying, &scene.service, "next", &scene.staying).await;
    // Collected: an offer that was taken does not run out.
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.kill(victim).unwrap();
    tokio::time::sleep(IDLE_MAX + Duration::from_secs(1)).await;
    let shown = scene.staying.must_get(&format!("/v1/quorate/claim/{id}")).await.unwrap();
    assert_eq!((&shown["State"], &shown["Fence"]), (&json!("granted"), &held["Fence"]));
    assert_eq!(renew(&scene.staying, id).await.status, 200);
    let since = Instant::now();
    assert_eq!(release(&scene.staying, id).await.status, 200);
    let (_, at) = next.grant().await;
    scene.soon(since, at);
    scene.back(cluster).await;
}

/// Asked again at another node it is released, and the next one has it.
async fn releasing(cluster: &mut Cluster, victim: u64) {
    let scene = Scene::set(cluster, victim, "releasing").await;
    let held = scene.hold(&scene.staying, "gw").await;
    let id = held["ID"].as_str().unwrap().to_owned();
    let next = Waiter::begin(&scene.staying, &scene.service, "next", &scene.staying).await;
    let since = Instant::now();
    let path = format!("/v1/quorate/claim/{id}/release");
    let (told, ()) = tokio::join!(scene.dying.put(&path, ""), async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        cluster.kill(victim).unwrap();
    });
    // It says that it is released, or nothing.
    assert!(told.ok().is_none_or(|answer| answer.status == 200));
    assert_eq!(release(&scene.staying, &id).await.status, 200);
    let (_, at) = next.grant().await;
    scene.soon(since, at);
    scene.back(cluster).await;
}

async fn dies_in_every_phase(cluster: &mut Cluster, victim: u64) {
    asking(cluster, victim).await;
    queued(cluster, victim).await;
    offered(cluster, victim).await;
    collected(cluster, victim).await;
    holding(cluster, victim).await;
    releasing(cluster, victim).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_in_every_phase_of_a_claim() {
    let mut cluster = started().await;
    let leader = cluster.leader().await.unwrap();
    let victim = cluster.others(leader)[1];
    dies_in_every_phase(&mut cluster, victim).await;
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_in_every_phase_of_a_claim() {
    let mut cluster = started().await;
    let leader = cluster.leader().await.unwrap();
    dies_in_every_phase(&mut cluster, leader).await;
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_sends_its_waiters_elsewhere_and_they_keep_their_place() {
    let mut cluster = started().await;
    let (dying, staying) = (cluster.http(2), patient(&cluster.http(1)));
    register(&staying, "rdb", 1, json!({"slots": "1"})).await;
    let held = claim(&staying, "rdb", &json!({"TTL": "60s"})).await.value().unwrap();
    let first = Waiter::begin(&dying, "rdb", "first", &staying).await;
    let second = Waiter::begin(&staying, "rdb", "second", &staying).await;
    let id = first.id.clone();
    cluster.terminate(2).unwrap();
    let told = first.answer().await.0.unwrap();
    assert!(told.status == 503 && told.text().contains(&id), "{told:?}");
    let first = Waiter::ask(&staying, "rdb", "first", &id);
    let joined = |shown: &Value| shown["State"] == "queued" && shown["Attached"] == true;
    staying.wait_for(&format!("/v1/quorate/claim/{id}"), LIMIT, joined).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(release(&staying, held["ID"].as_str().unwrap()).await.status, 200);
    let (granted, _) = first.grant().await;
    assert_eq!(release(&staying, granted["ID"].as_str().unwrap()).await.status, 200);
    second.grant().await;
    cluster.wait_stopped(2).unwrap();
    cluster.start_node(2).unwrap();
    cluster.wait_all_ready().await.unwrap();
    cluster.finish().await.unwrap();
}
