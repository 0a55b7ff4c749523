//! The dashboard: `GET /ui/`, the files of `node/ui/` as they are in the binary.
//!
//! The page uses nothing but the public API. What a browser may do for it is said by [`policy`]: it loads
//! scripts and styles from this server only, none of them inline, never turns text into markup, and
//! connects to the servers of the cluster alone, so that it can go on at another one when this one ends.
//!
//! Client agents pass `/ui/` on like any request.

use std::io::{self, Write as _};
use std::sync::LazyLock;

use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG,
    HeaderName, IF_NONE_MATCH, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::call::Call;
use super::compress;
use super::endpoint::{Answer, Endpoint};
use super::error::ApiError;
use super::reply::Reply;
use super::rights::Rule;
use crate::host::hexadecimal::hexadecimal;

/// Where the page is.
const PATH: &str = "/ui/";
/// The file that is served at [`PATH`] itself.
const INDEX: &str = "index.html";
/// A tag has so many bytes of the hash of what it names.
const TAG_BYTES: usize = 12;

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// Browsers keep the files, and ask each time whether they are still those of the server.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// Names files of `node/ui/`, and takes their bytes into the binary.
macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../../ui/", $name)))),*]
    };
}

/// All files of the page.
const FILES: &[(&str, &[u8])] = files! {
    "index.html" "style.css" "icon.svg"
    "claims.js" "cluster.js" "dialog.js" "dom.js" "events.js" "format.js" "header.js" "instance_panel.js"
    "instances.js" "key_panel.js" "kv.js" "level.js" "main.js" "members.js" "nodes.js" "panel.js"
    "rows.js" "services.js" "sessions.js" "store.js" "stream.js" "token.js" "toolbar.js"
};

/// The same, ready to be sent; made when the first of them is asked for.
static ASSETS: LazyLock<Vec<Asset>> =
    LazyLock::new(|| FILES.iter().map(|(name, plain)| Asset::new(name, plain)).collect());

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/")
            .get(Rule::Open, |call| Box::pin(std::future::ready(root(&call))))
            .head(Rule::Open, |call| Box::pin(std::future::ready(root(&call)))),
        Endpoint::new(PATH)
            .get(Rule::Open, |call| Box::pin(std::future::ready(file(&call))))
            .head(Rule::Open, |call| Box::pin(std::future::ready(file(&call)))),
    ]
}

/// Browsers are led to the page; for others there is Consul's text.
fn root(call: &Call) -> Answer {
    let is_browser = call.header(&ACCEPT).is_some_and(|types| types.contains("text/html"));
    if !is_browser {
        return Ok(Reply::text("Consul Agent"));
    }
    Ok(Reply::empty()
        .status(StatusCode::FOUND)
        .with(LOCATION, HeaderValue::from_static(PATH))
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

fn file(call: &Call) -> Answer {
    let name = match call.rest()? {
        "" => INDEX,
        name => name,
    };
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return Err(ApiError::not_found("the dashboard has no such file"));
    };
    let takes_gzip = call.header(&ACCEPT_ENCODING).is_some_and(compress::names_gzip);
    let form = if takes_gzip { &asset.gzip } else { &asset.plain };
    let is_known = call.header(&IF_NONE_MATCH).is_some_and(|tags| lists(tags, &form.tag));
    let reply = match is_known {
        true => Reply::empty().status(StatusCode::NOT_MODIFIED),
        false if takes_gzip => {
            Reply::bytes(form.bytes.clone(), asset.kind()).with(CONTENT_ENCODING, GZIP)
        }
        false => Reply::bytes(form.bytes.clone(), asset.kind()),
    };
    let membership = &call.node.published().membership;
    let servers = membership.nodes().map(|(_, peer)| peer.http_addr.as_str());
    Ok(reply
        .with(ETAG, form.tag.clone())
        .with(CACHE_CONTROL, ASK_AGAIN)
        .with(X_CONTENT_TYPE_OPTIONS, NOSNIFF)
        .with(REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
        .with(
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        )
        .with(CONTENT_SECURITY_POLICY, policy(servers)?))
}

/// Whether `If-None-Match` names this tag.
fn lists(tags: &str, tag: &HeaderValue) -> bool {
    let mut tags = tags.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|listed| listed == "*" || listed.as_bytes() == tag.as_bytes())
}

/// What the page may do: `servers` are the HTTP addresses of the cluster's servers.
fn policy<'a>(servers: impl Iterator<Item = &'a str>) -> Result<HeaderValue, ApiError> {
    let mut policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'; connect-src 'self'"
        .to_owned();
    for server in servers {
        policy.push_str(" http://");
        policy.push_str(server);
    }
    HeaderValue::try_from(policy).map_err(|error| ApiError::internal(error.to_string()))
}

/// A file, ready to be sent.
#[derive(Debug)]
struct Asset {
    name: &'static str,
    plain: Form,
    gzip: Form,
}

/// One form of a file, and the tag by which browsers know it again.
#[derive(Debug)]
struct Form {
    bytes: Bytes,
    tag: HeaderValue,
}

impl Form {
    fn new(bytes: Bytes) -> Self {
        let hash = hexadecimal(&Sha256::digest(&bytes)[..TAG_BYTES]);
        let tag = HeaderValue::try_from(format!("\"{hash}\""));
        Self { bytes, tag: tag.expect("hexadecimal digits in quotes are a header's value") }
    }
}

impl Asset {
    fn new(name: &'static str, plain: &'static [u8]) -> Self {
        let compressed = best_gzip(plain).expect("compressing into memory cannot fail");
        let (plain, gzip) = (Form::new(Bytes::from_static(plain)), Form::new(compressed.into()));
        Self { name, plain, gzip }
    }

    fn kind(&self) -> HeaderValue {
        let extension = self.name.rsplit_once('.').map_or("", |(_, extension)| extension);
        HeaderValue::from_static(match extension {
            "html" => "text/html; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "application/octet-stream",
        })
    }
}

fn best_gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// All files together, before compression.
    const BYTES_MAX: usize = 150 * 1024;

    #[test]
    fn every_file_of_the_page_is_served_and_together_they_are_small() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
        let names = fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        // The picture is for the README.
        let there: BTreeSet<_> = names.filter(|name| !name.ends_with(".png")).collect();
        let served: BTreeSet<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(there, served);
        let bytes: usize = FILES.iter().map(|(_, plain)| plain.len()).sum();
        assert!(bytes <= BYTES_MAX, "{bytes} bytes");
        for asset in &*ASSETS {
            assert_ne!(asset.kind(), "application/octet-stream", "{}", asset.name);
            assert!(asset.gzip.tag != asset.plain.tag, "{}", asset.name);
        }
    }

    /// Text of users must not become markup, whatever they wrote.
    #[test]
    fn no_script_makes_markup_or_code_of_text() {
        let banned = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
        ];
        for (name, plain) in FILES {
            let text = String::from_utf8_lossy(plain);
            for word in banned {
                assert!(!text.contains(word), "{name}: {word}");
            }
            assert!(!text.contains("style=") && !text.contains("onclick="), "{name}");
        }
    }

    #[test]
    fn the_policy_names_the_servers_and_allows_nothing_inline() {
        let policy = policy(["10.0.0.1:8500", "[::1]:8500"].into_iter()).unwrap();
        let policy = policy.to_str().unwrap();
        assert!(policy.ends_with("connect-src 'self' http://10.0.0.1:8500 http://[::1]:8500"));
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"));
    }

    #[test]
    fn a_tag_is_found_in_a_list() {
        let tag = HeaderValue::from_static("\"ab\"");
        assert!(lists("\"cd\", W/\"ab\"", &tag) && lists("*", &tag));
        assert!(!lists("\"abc\"", &tag) && !lists("", &tag));
    }
}
