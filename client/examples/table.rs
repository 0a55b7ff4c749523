//! The table of a service's instances, with what their processes say of themselves.
//!
//!     cargo run --example table -- feed

use quorate_client::{Client, Query};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = std::env::args().nth(1).unwrap_or_else(|| "feed".to_owned());
    let client = Client::from_env()?;
    let query = Query::new().with("service", service);
    println!(
        "{:<16} {:<9} {:<8} {:>8} {:>10} {:>7}",
        "ID", "STATUS", "VERSION", "PID", "COUNTER", "AGE"
    );
    for row in client.instances(&query).await?.value {
        let number =
            |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        println!(
            "{:<16} {:<9} {:<8} {:>8} {:>10} {:>7}",
            row.id,
            row.status,
            row.version,
            number(row.pid),
            number(row.counter),
            number(row.age_ms)
        );
    }
    Ok(())
}
