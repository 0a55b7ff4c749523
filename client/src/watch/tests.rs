//! Against a server of scripted answers.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// An answer: status, index (0: no such header), body.
type Scripted = (u16, u64, &'static str);

/// A server that gives its answers one after the other, and then is silent; and the targets that it was asked for.
async fn scripted(answers: Vec<Scripted>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let line = String::from_utf8_lossy(&request[..read]).into_owned();
            let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            if target == "/readyz" {
                let ready = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(ready.as_bytes()).await;
                continue;
            }
            noted.lock().unwrap().push(target);
            let Some((status, index, body)) = answers.next() else {
                silent.push(stream);
                continue;
            };
            let header =
                if index > 0 { format!("X-Consul-Index: {index}\r\n") } else { String::new() };
            let length = body.len();
            let text = format!(
                "HTTP/1.1 {status} X\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    (Client::new([address]).unwrap(), asked)
}

const ONE: &str = r#"{"one":[]}"#;
const TWO: &str = r#"{"two":[]}"#;

/// The first names that a watch of the services yields.
async fn names(client: &Client, count: usize) -> Vec<String> {
    let mut watch = client.watch_services().pause_min(Duration::ZERO).start().unwrap();
    let mut names = Vec::new();
    for _ in 0..count {
        let services = watch.changed().await.unwrap();
        names.push(services.keys().next().cloned().unwrap_or_default());
    }
    names
}

#[tokio::test]
async fn a_failure_is_no_value_and_the_last_good_one_is_kept() {
    let answers = vec![
        (200, 5, ONE),
        (500, 6, "a fault"),
        (404, 7, "no such path"),
        (200, 0, "{}"),
        (200, 8, "not JSON"),
        (200, 9, TWO),
    ];
    let (client, asked) = scripted(answers).await;
    assert_eq!(names(&client, 2).await, ["one", "two"]);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked[0], "/v1/catalog/services");
    assert_eq!(asked[1], "/v1/catalog/services?wait=60000ms&index=5");
    // What could not be read is not asked for again and again.
    assert!(asked[5].ends_with("index=8"), "{asked:?}");
}

#[tokio::test]
async fn a_falling_index_begins_again_and_repeats_nothing() {
    let answers = vec![(200, 9, ONE), (200, 4, TWO), (200, 4, ONE), (200, 6, TWO)];
    let (client, asked) = scripted(answers).await;
    assert_eq!(names(&client, 2).await, ["one", "two"]);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked[2], "/v1/catalog/services");
    assert!(asked[3].ends_with("index=4"), "{asked:?}");
}

#[tokio::test]
async fn a_wait_that_is_over_is_no_change() {
    let (client, _) =
        scripted(vec![(200, 5, ONE), (200, 5, ONE), (200, 6, ONE), (200, 7, TWO)]).await;
    assert_eq!(names(&client, 2).await, ["one", "two"]);
}

#[tokio::test]
async fn a_key_that_does_not_exist_is_a_value_and_unfit_json_is_none() {
    let pair = r#"[{"Key":"k","Value":"NQ==","ModifyIndex":6}]"#;
    let unfit = r#"[{"Key":"k","Value":"ew==","ModifyIndex":7}]"#;
    let (client, _) = scripted(vec![(404, 5, ""), (200, 6, pair), (200, 7, unfit)]).await;
    let mut watch = client.watch_json::<u32>("k").start().unwrap();
    assert_eq!(*watch.changed().await.unwrap(), None);
    assert_eq!(*watch.changed().await.unwrap(), Some(5));
    while watch.trouble().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(watch.latest().as_deref(), Some(&Some(5)));
}

#[tokio::test]
async fn a_watch_ends_with_its_client() {
    let (client, _) = scripted(vec![(200, 5, ONE)]).await;
    let mut watch = client.watch_services().start().unwrap();
    assert!(watch.changed().await.is_some());
    client.shutdown().await;
    assert!(watch.changed().await.is_none());
    assert!(watch.latest().is_some());
    assert!(matches!(client.watch_services().start(), Err(Error::ShutDown)));
}
