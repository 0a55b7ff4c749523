//! What is served at one path: a handler per method, and the rules that hold for all of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, HeaderName, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::future::BoxFuture;
use quorate_storage::record::DefaultPolicy;

use super::asker::Asker;
use super::call::{Call, Received, Shared};
use super::compress;
use super::error::ApiError;
use super::hold::Connection;
use super::metrics::{Answered, RouteDurations};
use super::params::{Params, Undecodable};
use super::path::DecodedPath;
use super::reply::Reply;
use super::rights::{self, Rule};
use super::sending;

const DEFAULT_ACL_POLICY: HeaderName = HeaderName::from_static("x-consul-default-acl-policy");

/// All of Consul's endpoints are below this path.
const VERSION: &str = "/v1/";

/// Where Consul's paid edition keeps things apart: query parameter, header, and how its error messages call
/// that.
const PLACES: [(&str, &str, &str); 2] =
    [("ns", "X-Consul-Namespace", "Namespaces"), ("partition", "X-Consul-Partition", "Partitions")];

/// Parameters that every endpoint of this server's own API takes, or that clients of Consul add to every request.
const COMMON: [&str; 15] = [
    "agent",
    "cached",
    "consistent",
    "datacenter",
    "dc",
    "filter",
    "index",
    "max_stale",
    "min-index",
    "ns",
    "partition",
    "pretty",
    "stale",
    "token",
    "wait",
];

/// What a handler comes to.
pub(super) type Answer = Result<Reply, ApiError>;

/// Answers the calls of one method.
pub(super) type Handler = fn(Call) -> BoxFuture<'static, Answer>;

/// What is served at one path, or below it if it ends with a slash.
#[derive(Debug)]
pub(super) struct Endpoint {
    path: &'static str,
    /// In the order in which `Allow` names them.
    handlers: Vec<Served>,
    /// How long requests with other methods took.
    others: RouteDurations,
    /// The parameters that it takes beside [`COMMON`]; `None`: whatever it does not know is ignored, as by Consul.
    parameters: Option<&'static [&'static str]>,
}

/// One method of an endpoint.
#[derive(Debug)]
struct Served {
    method: Method,
    rule: Rule,
    handler: Handler,
    durations: RouteDurations,
}

impl Endpoint {
    pub(super) fn new(path: &'static str) -> Self {
        Self { path, handlers: Vec::new(), others: RouteDurations::default(), parameters: None }
    }

    /// Refuses parameters that are neither among these nor among [`COMMON`]: a mistyped filter would find everything.
    pub(super) fn only_with(mut self, parameters: &'static [&'static str]) -> Self {
        self.parameters = Some(parameters);
        self
    }

    fn refuse_unknown(&self, params: &Params) -> Result<(), ApiError> {
        let Some(own) = self.parameters else { return Ok(()) };
        let is_unknown = |name: &&str| !own.contains(name) && !COMMON.contains(name);
        match params.names().find(is_unknown) {
            Some(name) => Err(ApiError::bad_request(format!(
                "Unknown parameter {name:?}: {} takes {}",
                self.path,
                own.join(", ")
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn get(self, rule: Rule, handler: Handler) -> Self {
        self.on(Method::GET, rule, handler)
    }

    pub(super) fn put(self, rule: Rule, handler: Handler) -> Self {
        self.on(Method::PUT, rule, handler)
    }

    pub(super) fn post(self, rule: Rule, handler: Handler) -> Self {
        self.on(Method::POST, rule, handler)
    }

    pub(super) fn delete(self, rule: Rule, handler: Handler) -> Self {
        self.on(Method::DELETE, rule, handler)
    }

    /// For probes, which like to use it; Consul's endpoints refuse `HEAD`.
    pub(super) fn head(self, rule: Rule, handler: Handler) -> Self {
        self.on(Method::HEAD, rule, handler)
    }

    fn on(mut self, method: Method, rule: Rule, handler: Handler) -> Self {
        let durations = RouteDurations::default();
        self.handlers.push(Served { method, rule, handler, durations });
        self
    }

    pub(super) const fn path(&self) -> &'static str {
        self.path
    }

    /// The methods that it has.
    #[cfg(test)]
    pub(super) fn methods(&self) -> impl Iterator<Item = &Method> {
        self.handlers.iter().map(|served| &served.method)
    }

    /// What is served for a method.
    fn served(&self, method: &Method) -> Option<&Served> {
        self.handlers.iter().find(|served| served.method == *method)
    }

    /// Answers a request to this path.
    pub(super) async fn answer(&self, shared: &Shared, request: Request) -> Response {
        let began = shared.node.clock().now();
        let (version, wants_gzip) = (request.version(), compress::is_wanted(request.headers()));
        let params = Params::parse(request.uri().query().unwrap_or(""));
        let is_query = params.as_ref().is_ok_and(Params::is_blocking);
        let method = request.method().clone();
        let mut response = self.judge(shared, params, request).await;
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(DEFAULT_ACL_POLICY, HeaderValue::from_static(default_policy(shared)));
        let response = if wants_gzip { compress::compressed(response).await } else { response };
        let response = sending::counted(response, version).await;
        let took = shared.node.clock().now().since(began);
        let durations = self.served(&method).map_or(&self.others, |served| &served.durations);
        let (route, method, status) = (self.path, &method, response.status());
        tracing::debug!(%method, route, status = status.as_u16(), ?took, "answered");
        shared.metrics.answered(&Answered { durations, route, method, is_query, status }, took);
        response
    }

    async fn judge(
        &self,
        shared: &Shared,
        params: Result<Params, Undecodable>,
        request: Request,
    ) -> Response {
        let Ok(params) = params else { return Self::undecodable() };
        let method = request.method();
        match self.served(method) {
            Some(Served { rule, handler, .. }) => {
                if self.path.starts_with(VERSION)
                    && let Err(error) = refuse_places(&params, request.headers())
                {
                    return error.into_response();
                }
                if let Err(error) = self.refuse_unknown(&params) {
                    return error.into_response();
                }
                if let Err(error) = reach_index(shared, &params).await {
                    return error.into_response();
                }
                let is_read = method == Method::GET;
                let answer = self.ask(shared, params, request, (*rule, *handler), is_read).await;
                answer.map_or_else(ApiError::into_response, Reply::into_response)
            }
            None if method == Method::OPTIONS => self.with_allow(Response::new(Body::empty())),
            None => {
                let text = format!("method {method} not allowed");
                let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text);
                self.with_allow(error.into_response())
            }
        }
    }

    fn undecodable() -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }

    fn with_allow(&self, mut response: Response) -> Response {
        let methods = self.handlers.iter().map(|served| served.method.as_str());
        let allow = methods.fold("OPTIONS".to_owned(), |allow, method| format!("{allow},{method}"));
        if let Ok(allow) = HeaderValue::from_str(&allow) {
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }

    /// Has the handler answer, if who asks may ask.
    async fn ask(
        &self,
        shared: &Shared,
        params: Params,
        request: Request,
        (rule, handler): (Rule, Handler),
        is_read: bool,
    ) -> Answer {
        let call = self.call(shared, params, request)?;
        let need = rights::identify(&call, rule).await?;
        let asker = call.asker().filter(|_| rule.is_left_to_handler()).cloned();
        let answer = handler(call).await;
        if let (Some(need), true) = (need, is_read) {
            // It may have waited for long.
            need.still_holds(&shared.node.published().state)?;
        }
        match (&answer, asker) {
            // Nothing is shown, and nothing was done, that was not asked for with somebody's rights.
            (Ok(_), Some(asker)) if !asker.was_asked() => {
                tracing::error!(path = self.path, "an endpoint did not ask who may ask it");
                Err(ApiError::internal("this endpoint has no rule for tokens"))
            }
            (Ok(_) | Err(_), _) => answer,
        }
    }

    fn call(&self, shared: &Shared, params: Params, request: Request) -> Result<Call, ApiError> {
        let (mut parts, body) = request.into_parts();
        let DecodedPath(mut path) =
            parts.extensions.remove().unwrap_or_else(|| DecodedPath(Vec::new()));
        let rest = path.split_off(self.path.len().min(path.len()));
        // Without an address the request came from inside, as in tests.
        let caller = parts
            .extensions
            .remove::<SocketAddr>()
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let connection = parts.extensions.remove::<Connection>().unwrap_or_default();
        let asker = shared.process.acl.as_ref();
        let asker = asker.map(|control| Asker::of(control, &params, &parts.headers));
        let asker = asker.transpose()?.map(Arc::new);
        let request = Received {
            headers: parts.headers,
            version: parts.version,
            caller,
            connection,
            path: self.path,
            rest,
        };
        Ok(Call::new(shared, params, request, asker, body))
    }
}

/// What is allowed without a rule.
fn default_policy(shared: &Shared) -> &'static str {
    shared.process.acl.map_or(DefaultPolicy::Allow, |control| control.default).as_str()
}

/// Waits until this node has what `?min-index=` names, the `X-Quorate-Index` of an earlier answer.
///
/// # Errors
/// 503: it does not come in time. Older data is never served.
async fn reach_index(shared: &Shared, params: &Params) -> Result<(), ApiError> {
    let Some(text) = params.filled("min-index") else { return Ok(()) };
    let index = text.parse().map_err(|_| {
        ApiError::bad_request(format!("Invalid min-index: {text:?} is not a number"))
    })?;
    shared.node.wait_for_index(index).await.map_err(|_| {
        let applied = shared.node.applied_index();
        let text = format!(
            "this server has applied the log up to {applied}, not to {index}: try again later"
        );
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })
}

/// Refuses a request that names a namespace or partition, `default` included, as Consul's free edition does:
/// otherwise what it stores would lie where others look for theirs. Consul lets it pass at the few endpoints
/// that store and list nothing; here the rule is the same for all.
fn refuse_places(params: &Params, headers: &HeaderMap) -> Result<(), ApiError> {
    for (parameter, header, feature) in PLACES {
        let refusal = |what: &str, name: &str| {
            let text =
                format!("Invalid {what}: {name:?} - {feature} are a Consul Enterprise feature");
            Err(ApiError::bad_request(text))
        };
        if headers.get(header).is_some_and(|value| !value.is_empty()) {
            return refusal("header", header);
        }
        if params.filled(parameter).is_some() {
            return refusal("query parameter", parameter);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_parameter_is_refused_where_parameters_are_listed() {
        let endpoint = Endpoint::new("/v1/quorate/x").only_with(&["kind", "service"]);
        let refused = |query: &str| {
            let refused = endpoint.refuse_unknown(&Params::parse(query).unwrap());
            refused.map_err(|error| (error.status.as_u16(), error.text))
        };
        assert_eq!(refused("service=a&kind=b&pretty&stale"), Ok(()));
        let text = "Unknown parameter \"servce\": /v1/quorate/x takes kind, service";
        assert_eq!(refused("servce=a"), Err((400, text.to_owned())));
        let lenient = Endpoint::new("/v1/kv/");
        assert!(lenient.refuse_unknown(&Params::parse("servce=a").unwrap()).is_ok());
    }

    #[test]
    fn a_namespace_or_partition_is_refused_however_it_is_named() {
        let refused = |query: &str, header: Option<(&'static str, &'static str)>| {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(name, HeaderValue::from_static(value));
            }
            let refused = refuse_places(&Params::parse(query).unwrap(), &headers);
            refused.map_err(|error| (error.status.as_u16(), error.text))
        };
        let text = |text: &str| Err((400, format!("{text} are a Consul Enterprise feature")));
        assert_eq!(
            refused("a=1&ns=default", None),
            text("Invalid query parameter: \"ns\" - Namespaces")
        );
        assert_eq!(
            refused("partition=p", None),
            text("Invalid query parameter: \"partition\" - Partitions")
        );
        assert_eq!(
            refused("", Some(("x-consul-namespace", "a"))),
            text("Invalid header: \"X-Consul-Namespace\" - Namespaces")
        );
        assert_eq!(
            refused("", Some(("x-consul-partition", "a"))),
            text("Invalid header: \"X-Consul-Partition\" - Partitions")
        );
        assert_eq!(refused("ns=&partition", Some(("x-consul-namespace", ""))), Ok(()));
    }
}
