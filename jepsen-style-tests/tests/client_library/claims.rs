//! Claims: exclusive use of an instance, also when a server goes while somebody waits in line.

use std::time::Duration;

use jepsen_style_tests::{Cluster, Failure, Limit, Result};
use quorate_client::types::heartbeat::Heartbeat;
use quorate_client::{Claim, Client, Query};

/// What happens by itself shows within this.
const LIMIT: Duration = Duration::from_secs(30);
const SERVICE: &str = "rdb";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_nobody_elses_and_keeps_its_place_in_line() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let addresses: Vec<_> =
        cluster.ids().into_iter().map(|id| cluster.http(id).base().to_owned()).collect();
    let client = Client::new(addresses.clone()).unwrap();
    wait_for_level(&client).await.unwrap();
    register(&client).await.unwrap();
    let (one, two) = (claim(&client).await.unwrap(), claim(&client).await.unwrap());
    assert!(two.fence() > one.fence() && two.grant().instance.id != one.grant().instance.id);
    let busy = client.claim(SERVICE).wait(Duration::ZERO).acquire().await.unwrap();
    assert!(busy.is_none(), "both are busy");
    let pool = client.claims().pool(SERVICE, &Query::new()).await.unwrap().value;
    assert_eq!((pool.instances.len(), pool.waiting), (2, 0));
    assert!(!client.claims().pools(&Query::new()).await.unwrap().value.is_empty());

    // It waits at the first server of its list, which is killed.
    let mut order = addresses;
    order.rotate_left(1);
    let waiting = Client::new(order).unwrap();
    let third = tokio::spawn(async move { waiting.claim(SERVICE).wait(LIMIT).acquire().await });
    wait_for_waiters(&client, 1).await.unwrap();
    cluster.kill(2).unwrap();
    one.release().await.unwrap();
    let third = third.await.unwrap().unwrap().expect("one was released");
    assert!(third.fence() > two.fence() && third.is_held());
    cluster.start_node(2).unwrap();
    cluster.wait_all_ready().await.unwrap();

    // Whose instance goes is told why.
    client.agent().deregister(&third.grant().instance.id).await.unwrap();
    let why = tokio::time::timeout(LIMIT, third.lost()).await.expect("the instance is gone");
    assert!(why.contains("instance lost"), "{why}");
    // A claim that is dropped is released.
    drop(two);
    let fourth = client.claim(SERVICE).wait(LIMIT).acquire().await.unwrap();
    assert!(fourth.is_some_and(|claim| claim.is_held()));
    let unknown = "8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b11";
    let status = client.claims().status(unknown, &Query::new()).await;
    assert!(status.is_err_and(|error| error.is_not_found()));
    let none = client.claim("none").wait(Duration::ZERO).acquire().await;
    assert!(none.is_err_and(|error| error.is_not_found()));
    client.shutdown().await;
    cluster.finish().await.unwrap();
}

async fn wait_for_level(client: &Client) -> Result<()> {
    const CLAIMS_LEVEL: u32 = 8;
    let limit = Limit::new(LIMIT);
    while client.status().state_hash().await?.level < CLAIMS_LEVEL {
        limit.pause(|| "the rules of claims".to_owned()).await?;
    }
    Ok(())
}

async fn register(client: &Client) -> Result<()> {
    let beat = |number: u32| Heartbeat {
        service: SERVICE.to_owned(),
        id: format!("rdb-{number}"),
        meta: Some([("slots".to_owned(), "1".to_owned())].into()),
        critical_after: Some("1h".to_owned()),
        ..Heartbeat::default()
    };
    let answer = client.heartbeat(&[beat(1), beat(2)]).await?;
    if answer.registered == 2 { Ok(()) } else { Err(Failure::new(format!("{answer:?}"))) }
}

async fn claim(client: &Client) -> Result<Claim> {
    let claim = client.claim(SERVICE).holder("test").wait(LIMIT).acquire().await?;
    claim.ok_or_else(|| Failure::new("an idle instance"))
}

async fn wait_for_waiters(client: &Client, count: u64) -> Result<()> {
    let limit = Limit::new(LIMIT);
    while client.claims().pool(SERVICE, &Query::new()).await?.value.waiting < count {
        limit.pause(|| format!("{count} in line")).await?;
    }
    Ok(())
}
