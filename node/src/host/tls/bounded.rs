//! How much a connection may send before it has proved itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that the other side of a handshake may send. A chain of three certificates takes less than a quarter.
pub const HANDSHAKE_BYTES_MAX: usize = 16 << 10;

/// A stream of which at most [`HANDSHAKE_BYTES_MAX`] bytes can be read until the limit is lifted.
#[derive(Debug)]
pub struct Bounded<S> {
    stream: S,
    /// What may still be read; `None`: everything.
    left: Option<usize>,
}

impl<S> Bounded<S> {
    /// A connection on which the handshake begins.
    #[must_use]
    pub const fn new(stream: S) -> Self {
        Self { stream, left: Some(HANDSHAKE_BYTES_MAX) }
    }

    /// The other side has proved itself.
    pub const fn lift(&mut self) {
        self.left = None;
    }

    /// The stream itself.
    pub const fn inner_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(left) = self.left else {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        };
        if left == 0 {
            let text =
                format!("more than {HANDSHAKE_BYTES_MAX} bytes before the handshake was complete");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        let mut allowed = ReadBuf::new(buffer.initialize_unfilled_to(left.min(buffer.remaining())));
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut allowed))?;
        let read = allowed.filled().len();
        buffer.advance(read);
        self.left = Some(left - read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_handshake_ends_at_its_limit_and_what_follows_it_has_none() {
        let sent = vec![7; 3 * HANDSHAKE_BYTES_MAX];
        let mut read = vec![0; HANDSHAKE_BYTES_MAX];
        let mut stream = Bounded::new(sent.as_slice());
        stream.read_exact(&mut read).await.unwrap();
        let error = stream.read(&mut [0; 1]).await.unwrap_err();
        assert!(error.to_string().contains("more than 16384 bytes"), "{error}");
        stream.lift();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest.len(), 2 * HANDSHAKE_BYTES_MAX);
    }
}
