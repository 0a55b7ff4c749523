//! Calls a service, whichever of its instances are there.
//!
//!     QUORATE_HTTP_ADDR=http://127.0.0.1:8500,http://127.0.0.1:8510 cargo run --example web_caller -- web 20

use std::time::Duration;

use quorate_client::{Client, Policy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "web".to_owned());
    let calls: u32 = arguments.next().unwrap_or_else(|| "20".to_owned()).parse()?;

    let client = Client::from_env()?;
    let balancer = client.balancer(&name).policy(Policy::LeastRecentlyUsed).start()?;
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
    for _ in 0..calls {
        let answer = loop {
            let endpoint = balancer.ready().await?;
            match http.get(format!("http://{endpoint}/")).send().await {
                Ok(answer) => break answer.text().await?,
                Err(error) => {
                    // Not there any more; the cluster will say so in a moment.
                    eprintln!("{} does not answer: {error}", endpoint.id);
                    balancer.failed(&endpoint);
                }
            }
        };
        print!("{answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.shutdown().await;
    Ok(())
}
