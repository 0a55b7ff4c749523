//! HAProxy with the configurations of `client/examples/haproxy`: one finds instances by DNS alone, of the other `quorate
//! template` writes the configuration. Instances join, are drained and leave, and the cluster's leader dies: no request
//! of ten thousand fails. When an instance is killed, no more fail than it had in hand.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod clients;
mod fleet;
mod proxy;

use std::process::Command;

use jepsen_style_tests::skip::skipped;
use jepsen_style_tests::{Cluster, Result};

use clients::{AT_ONCE, Clients, wait_for};
use fleet::Instance;
use proxy::Proxy;

/// Requests through each proxy while instances come and go.
const REQUESTS: usize = 10_000;

/// Whether HAProxy is here. CI installs it, so it must be there.
fn is_skipped(test: &str) -> bool {
    if Command::new("haproxy").arg("-v").output().is_ok_and(|ran| ran.status.success()) {
        return false;
    }
    assert!(std::env::var_os("CI").is_none(), "there is no haproxy here");
    skipped(test, "there is no haproxy here");
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_follows_by_dns_and_by_template_and_no_request_fails() {
    if is_skipped("haproxy_follows_by_dns_and_by_template_and_no_request_fails") {
        return;
    }
    let mut cluster = Cluster::start(3).await.unwrap();
    let (one, two) = (Instance::start(1).await, Instance::start(2).await);
    one.register(&cluster.http(1)).await.unwrap();
    two.register(&cluster.http(2)).await.unwrap();
    let proxies = [Proxy::by_dns(&cluster).unwrap(), Proxy::by_template(&cluster).unwrap()];
    let until = async |wanted: &[usize]| {
        for proxy in &proxies {
            wait_for(proxy.address, wanted).await;
        }
    };
    until(&[1, 2]).await;
    let clients = proxies.each_ref().map(|proxy| Clients::start(proxy.address));
    let (one, three) = coming_and_going(&mut cluster, one, two, &until).await.unwrap();
    for clients in clients {
        clients.wait_asked(REQUESTS).await;
        let (asked, failed) = clients.finish().await;
        println!("{asked} requests, {} failed", failed.len());
        assert!(failed.is_empty(), "{failed:?}");
    }
    let clients = proxies.each_ref().map(|proxy| Clients::start(proxy.address));
    for clients in &clients {
        clients.wait_asked(AT_ONCE).await;
    }
    three.die();
    until(&[1]).await;
    for clients in clients {
        let (asked, failed) = clients.finish().await;
        println!("{asked} requests while an instance was killed, {} failed", failed.len());
        assert!(failed.len() <= AT_ONCE, "{failed:?}");
    }
    drop((proxies, one));
    cluster.finish().await.unwrap();
}

/// Every way to come and go but death. Returns the instances that are left: 1 and 3.
async fn coming_and_going(
    cluster: &mut Cluster,
    one: Instance,
    two: Instance,
    until: &impl AsyncFn(&[usize]),
) -> Result<(Instance, Instance)> {
    let three = Instance::start(3).await;
    three.register(&cluster.http(3)).await?;
    until(&[1, 2, 3]).await;
    two.drain(&cluster.http(1), true).await?;
    until(&[1, 3]).await;
    two.drain(&cluster.http(3), false).await?;
    until(&[1, 2, 3]).await;
    one.deregister(&cluster.http(2)).await?;
    until(&[2, 3]).await;
    one.end().await;
    let leader = cluster.leader().await?;
    cluster.kill(leader)?;
    let survivor = cluster.http(cluster.others(leader)[0]);
    two.deregister(&survivor).await?;
    until(&[3]).await;
    two.end().await;
    let one = Instance::start(1).await;
    one.register(&survivor).await?;
    until(&[1, 3]).await;
    // It comes back at another port, and goes properly.
    cluster.start_node(leader)?;
    let two = Instance::start(2).await;
    two.register(&survivor).await?;
    until(&[1, 2, 3]).await;
    two.deregister(&survivor).await?;
    until(&[1, 3]).await;
    two.end().await;
    Ok((one, three))
}
