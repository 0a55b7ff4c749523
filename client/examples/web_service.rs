//! An HTTP service that registers itself, and leaves when it is told to end.
//!
//!     QUORATE_HTTP_ADDR=http://127.0.0.1:8500,http://127.0.0.1:8510 cargo run --example web_service -- web 8080
//!
//! `cargo run --example web_caller -- web` calls it.

use axum::Router;
use axum::routing::get;
use quorate_client::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "web".to_owned());
    let port: u16 = arguments.next().unwrap_or_else(|| "0".to_owned()).parse()?;

    // Listen first, register then: whoever finds the service can call it.
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let port = listener.local_addr()?.port();
    let client = Client::from_env()?;
    let registration = client
        .register(&name)
        .address("127.0.0.1")
        .port(port)
        .version(env!("CARGO_PKG_VERSION"))
        .by_presence()
        .await?;
    println!("registered {} at 127.0.0.1:{port}", registration.id());

    let id = registration.id().to_owned();
    let hello = get(move || std::future::ready(format!("hello from {id}\n")));
    let mut end = signal(SignalKind::terminate())?;
    axum::serve(listener, Router::new().route("/", hello))
        .with_graceful_shutdown(async move {
            end.recv().await;
            // First out of the catalogue, then no more connections: so no caller meets a closed door.
            match registration.shutdown().await {
                Ok(()) => println!("deregistered"),
                Err(error) => eprintln!("not deregistered: {}", error.with_causes()),
            }
        })
        .await?;
    Ok(())
}
