//! Servers that join, leave, and lose their disks: the product's own commands for it, and how the harness keeps
//! track of the members.

use std::time::Duration;

use jepsen_style_tests::http::Method;
use jepsen_style_tests::{Cluster, Result};

/// How long a server may take to find that the cluster knows its id with other data.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_its_data_is_refused_under_its_old_id_and_comes_back_under_a_new_one() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    cluster.http(1).must_put("/v1/kv/kept", "before").await.unwrap();
    cluster.kill(2).unwrap();
    cluster.wipe(2).unwrap();

    cluster.start_node(2).unwrap();
    let status = cluster.wait_ended(2, REFUSAL_LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let log = cluster.log(2).unwrap();
    assert!(log.contains("-X DELETE http://HOST:PORT/v1/operator/raft/peer?id=2`"), "{log}");

    cluster.remove_from_raft(2, 3).await.unwrap();
    assert_eq!(raft_ids(&cluster).await.unwrap(), [1, 3]);
    cluster.wipe(2).unwrap();
    assert_eq!(cluster.renew_raft_id(2), 4);
    cluster.start_node(2).unwrap();
    cluster.wait_votes(2).await.unwrap();
    cluster.wait_ready(2).await.unwrap();
    assert_eq!(raft_ids(&cluster).await.unwrap(), [1, 3, 4]);
    let kept = cluster.http(2).must_get("/v1/kv/kept").await.unwrap();
    assert_eq!(kept[0]["Value"], "YmVmb3Jl");

    // With its new id it is a member like any other, through a restart too.
    cluster.restart(2).unwrap();
    cluster.wait_all_ready().await.unwrap();
    assert_eq!(cluster.ids(), [1, 2, 3]);
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_joins_may_lead_and_be_removed_while_the_founders_stay_the_cluster() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    let guest = cluster.add_member().unwrap();
    cluster.wait_votes(guest).await.unwrap();
    cluster.transfer_leader(guest, 2).await.unwrap();
    assert_eq!(cluster.leader().await.unwrap(), guest);
    let configuration = cluster.configuration().await.unwrap();
    assert!(configuration.iter().any(|voter| voter.raft_id == guest && voter.leads));
    assert_eq!((cluster.ids(), cluster.guests()), (vec![1, 2, 3], vec![guest]));
    assert_eq!(cluster.running(), [1, 2, 3]);

    // A founder that is started again finds the four of them.
    cluster.restart(3).unwrap();
    cluster.wait_ready(3).await.unwrap();
    assert!(cluster.forget_member(guest).is_err(), "it runs");

    cluster.remove_from_raft(guest, 1).await.unwrap();
    assert_eq!(raft_ids(&cluster).await.unwrap(), [1, 2, 3]);
    cluster.kill(guest).unwrap();
    let data = cluster.data_dir(guest).to_owned();
    cluster.forget_member(guest).unwrap();
    assert!(!data.exists());
    assert!(cluster.guests().is_empty());
    assert!(cluster.ids().contains(&cluster.leader().await.unwrap()));
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_would_leave_no_majority_is_refused_and_that_of_the_dead_server_is_not() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    cluster.kill(3).unwrap();
    for by in [1, 2] {
        let remove = |id: u64| {
            let path = format!("/v1/operator/raft/peer?id={id}");
            let http = cluster.http(by);
            async move { http.send(Method::DELETE, &path, Default::default()).await.unwrap() }
        };
        let answer = remove(2).await;
        assert_eq!(answer.status, 500);
        assert_eq!(
            answer.text(),
            "removing 2 would leave 1 and 3, and 3 does not answer: no majority; nothing was changed"
        );
        let answer = remove(1).await;
        assert!(
            answer.text().starts_with("removing 1 would leave 2 and 3, and 3 does"),
            "{answer:?}"
        );
    }
    assert_eq!(raft_ids(&cluster).await.unwrap(), [1, 2, 3]);
    cluster.http(2).must_put("/v1/kv/still", "1").await.unwrap();

    cluster.remove_from_raft(3, 1).await.unwrap();
    assert_eq!(raft_ids(&cluster).await.unwrap(), [1, 2]);
    // A living member may be removed where the others have a majority without it.
    cluster.remove_from_raft(2, 1).await.unwrap();
    assert_eq!(raft_ids(&cluster).await.unwrap(), [1]);
    let answer = cluster
        .http(1)
        .send(Method::DELETE, "/v1/operator/raft/peer?id=1", Default::default())
        .await;
    assert_eq!(answer.unwrap().status, 500);
    cluster.http(1).must_put("/v1/kv/still", "2").await.unwrap();
    cluster.abandon();
}

/// The ids of all voters, in order.
async fn raft_ids(cluster: &Cluster) -> Result<Vec<u64>> {
    let configuration = cluster.configuration().await?;
    let mut ids: Vec<_> =
        configuration.iter().filter(|voter| voter.votes).map(|voter| voter.raft_id).collect();
    ids.sort_unstable();
    Ok(ids)
}
