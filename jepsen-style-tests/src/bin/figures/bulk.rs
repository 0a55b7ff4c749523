//! Heartbeats in bulk: many instances in one request.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::Failure;
use crate::connection::{Connection, Prepared};
use crate::workload::{Workload, spread};

const PATH: &str = "/v1/quorate/heartbeat";
/// As many as a request may have.
const PER_REQUEST_MAX: usize = 10_000;
/// Instances of a service.
const PER_SERVICE: usize = 100;

/// Registers the instances, and returns the workloads that renew them: heartbeats with a counter as JSON, and ids
/// alone. Each generator renews its own part of them, over a connection of its own.
///
/// # Errors
/// When the cluster does not take all of them.
pub(crate) async fn workloads(
    nodes: &[SocketAddr],
    generators: usize,
    instances: usize,
) -> Result<[Workload; 2], Failure> {
    let parts = parts(instances, generators);
    eprintln!("registering {instances} instances in bulk");
    let mut registrar = Connection::open_alone(nodes[0]).await?;
    for numbers in parts.iter().flatten() {
        for request in [in_full(numbers, 1)?, in_full(numbers, 2)?, ids(numbers)?] {
            accepted(&mut registrar, &request, numbers.len()).await?;
        }
    }
    let requests: usize = parts.iter().map(Vec::len).sum();
    let per_request = instances as f64 / requests.max(1) as f64;
    let workload = |what: &str, scripts: Vec<Vec<Prepared>>| {
        let name = format!(
            "bulk renewals, {what}: {instances} instances, {per_request:.0} a request, {generators} generators"
        );
        Workload { per_request, ..spread(name, nodes.len(), scripts.into_iter()) }
    };
    Ok([
        workload("JSON", scripts(&parts, |numbers| in_full(numbers, 2))?),
        workload("ids", scripts(&parts, ids)?),
    ])
}

fn scripts(
    parts: &[Vec<Vec<usize>>],
    request: impl Fn(&[usize]) -> Result<Prepared, Failure>,
) -> Result<Vec<Vec<Prepared>>, Failure> {
    parts.iter().map(|part| part.iter().map(|numbers| request(numbers)).collect()).collect()
}

/// The numbers of the instances, of each request of each generator.
fn parts(instances: usize, generators: usize) -> Vec<Vec<Vec<usize>>> {
    let all: Vec<usize> = (0..instances).collect();
    let of_generator = |part: &[usize]| {
        let requests = part.len().div_ceil(PER_REQUEST_MAX).max(1);
        part.chunks(part.len().div_ceil(requests)).map(<[_]>::to_vec).collect()
    };
    all.chunks(instances.div_ceil(generators.max(1)).max(1)).map(of_generator).collect()
}

fn id(number: usize) -> String {
    format!("figures-bulk-{number}")
}

/// Heartbeats as a process sends them: the first of them registers it.
fn in_full(numbers: &[usize], counter: u64) -> Result<Prepared, Failure> {
    let beats = numbers.iter().map(|number| {
        json!({
            "Service": format!("figures-bulk-{}", number / PER_SERVICE),
            "ID": id(*number),
            "Pid": number + 1,
            "Counter": counter,
            "WarnAfter": "0s",
            "CriticalAfter": "24h",
        })
    });
    Prepared::put(PATH, Value::from_iter(beats).to_string())
}

fn ids(numbers: &[usize]) -> Result<Prepared, Failure> {
    let lines: Vec<_> = numbers.iter().map(|number| id(*number)).collect();
    Prepared::put_text(PATH, lines.join("\n"))
}

/// Sends a request all of whose heartbeats have to take effect.
async fn accepted(
    connection: &mut Connection,
    request: &Prepared,
    count: usize,
) -> Result<(), Failure> {
    let (_, body) = connection.fetch(request).await?;
    let answer: Value = serde_json::from_slice(&body)?;
    if answer["Accepted"] == count {
        return Ok(());
    }
    let text: String = answer.to_string().chars().take(500).collect();
    Err(format!("not all of {count} heartbeats were accepted: {text}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instance_is_renewed_by_one_generator_in_requests_of_about_one_size() {
        for (instances, generators, sizes) in [
            (25_000, 2, vec![vec![6_250, 6_250], vec![6_250, 6_250]]),
            (5, 2, vec![vec![3], vec![2]]),
            (10_000, 1, vec![vec![10_000]]),
        ] {
            let parts = parts(instances, generators);
            let of_part = |part: &Vec<Vec<usize>>| part.iter().map(Vec::len).collect::<Vec<_>>();
            assert_eq!(parts.iter().map(of_part).collect::<Vec<_>>(), sizes);
            let all: Vec<usize> = parts.into_iter().flatten().flatten().collect();
            assert_eq!(all, (0..instances).collect::<Vec<_>>());
        }
    }
}
