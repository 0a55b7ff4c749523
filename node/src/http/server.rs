//! stub
use std::sync::Arc;
/// stub
pub async fn serve(
    _l: tokio::net::TcpListener,
    _n: Arc<crate::node::Node>,
    _s: tokio_util::sync::CancellationToken,
) {
}
