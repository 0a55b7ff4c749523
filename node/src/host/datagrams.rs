//! A UDP socket that answers from the address that was asked.
//!
//! A socket that is bound to all addresses of a machine (0.0.0.0 or `[::]`) would answer from the one that the system
//! prefers, and a client that asked another one takes such an answer for a forgery. So the address is noted with each
//! datagram, and used again.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::runtime::Handle;

/// The socket.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    /// Whether it is bound to all addresses.
    is_everywhere: bool,
}

/// Where a datagram came from, and to which address.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The sender.
    pub caller: SocketAddr,
    local: Local,
}

/// An address of this machine.
#[derive(Debug, Clone, Copy)]
enum Local {
    /// The socket's own.
    Bound,
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl Datagrams {
    /// A socket for the threads of a runtime.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn new(bound: std::net::UdpSocket, runtime: &Handle) -> io::Result<Self> {
        let address = bound.local_addr()?;
        let is_everywhere = address.ip().is_unspecified();
        if is_everywhere {
            match address {
                SocketAddr::V4(_) => setsockopt(&bound, Ipv4PacketInfo, &true)?,
                SocketAddr::V6(_) => setsockopt(&bound, Ipv6RecvPacketInfo, &true)?,
            }
        }
        let _entered = runtime.enter();
        Ok(Self { socket: UdpSocket::from_std(bound)?, is_everywhere })
    }

    /// Receives a datagram; what does not fit into the buffer is lost.
    ///
    /// # Errors
    /// The system's.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Source)> {
        if !self.is_everywhere {
            let (length, caller) = self.socket.recv_from(buffer).await?;
            return Ok((length, Source { caller, local: Local::Bound }));
        }
        self.socket.async_io(Interest::READABLE, || self.receive_now(buffer)).await
    }

    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<(usize, Source)> {
        let mut control = nix::cmsg_space!(in_pktinfo, in6_pktinfo);
        let mut buffers = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::empty();
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut buffers,
            Some(&mut control),
            flags,
        )?;
        let caller = received.address.and_then(socket_addr);
        let caller = caller.ok_or_else(|| io::Error::other("a datagram from nowhere"))?;
        let local = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(Local::V4(info)),
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Local::V6(info)),
            _ => None,
        });
        Ok((received.bytes, Source { caller, local: local.unwrap_or(Local::Bound) }))
    }

    /// Answers a datagram, from the address that it was sent to.
    ///
    /// # Errors
    /// The system's.
    pub async fn answer(&self, bytes: &[u8], to: Source) -> io::Result<()> {
        let sent = match to.local {
            Local::Bound => self.socket.send_to(bytes, to.caller).await,
            Local::V4(mut info) => {
                // By whatever interface leads there.
                info.ipi_ifindex = 0;
                self.send_from(bytes, to.caller, &ControlMessage::Ipv4PacketInfo(&info)).await
            }
            Local::V6(info) => {
                self.send_from(bytes, to.caller, &ControlMessage::Ipv6PacketInfo(&info)).await
            }
        };
        sent.map(drop)
    }

    async fn send_from(
        &self,
        bytes: &[u8],
        to: SocketAddr,
        from: &ControlMessage<'_>,
    ) -> io::Result<usize> {
        let to = SockaddrStorage::from(to);
        let send = || {
            let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
            let sent =
                sendmsg(fd, &[IoSlice::new(bytes)], std::slice::from_ref(from), flags, Some(&to));
            Ok(sent?)
        };
        self.socket.async_io(Interest::WRITABLE, send).await
    }
}

fn socket_addr(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || address.as_sockaddr_in().map(|address| SocketAddrV4::from(*address).into());
    let v6 = || address.as_sockaddr_in6().map(|address| SocketAddrV6::from(*address).into());
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a datagram to `host` at the port of a socket that is bound to `everywhere`, and expects the answer from
    /// there.
    async fn asked_at(everywhere: &str, host: &str) {
        let bound = std::net::UdpSocket::bind((everywhere, 0)).unwrap();
        bound.set_nonblocking(true).unwrap();
        let port = bound.local_addr().unwrap().port();
        let datagrams = Datagrams::new(bound, &Handle::current()).unwrap();
        let client = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        client.send_to(b"question", (host, port)).await.unwrap();
        let mut buffer = [0; 16];
        let (length, source) = datagrams.receive(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"question");
        datagrams.answer(b"answer", source).await.unwrap();
        let (length, from) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"answer");
        assert_eq!(from, (host.parse::<std::net::IpAddr>().unwrap(), port).into());
    }

    #[tokio::test]
    async fn an_answer_comes_from_the_address_that_was_asked() {
        asked_at("0.0.0.0", "127.0.0.7").await;
        asked_at("127.0.0.7", "127.0.0.7").await;
        if std::net::UdpSocket::bind("[::]:0").is_ok() {
            asked_at("::", "127.0.0.7").await;
        }
    }
}
