//! The PROXY protocol, versions 1 and 2: the first bytes of a connection say whose it is, before TLS.
//!
//! Source: "The PROXY protocol" of HAProxy Technologies (proxy-protocol.txt).

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The longest header of version 1, with its line break.
const LONGEST_LINE: usize = 107;
/// The beginning of version 2, up to the length of the rest.
const BEGINNING: usize = 16;
/// The longest rest of version 2. Addresses have at most 216 bytes; what follows says more about the connection.
const LONGEST_REST: usize = 4096;

/// Reads the header, and not one byte more. Returns the visitor's address, or `None` if the proxy speaks for itself or
/// knows none.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; 1];
    stream.read_exact(&mut header).await?;
    if header == [b'P'] {
        read_line(stream, &mut header).await?;
        let header = v1::Header::try_from(&header[..]).map_err(invalid)?;
        return Ok(match header.addresses {
            v1::Addresses::Tcp4(both) => Some((both.source_address, both.source_port).into()),
            v1::Addresses::Tcp6(both) => Some((both.source_address, both.source_port).into()),
            v1::Addresses::Unknown => None,
        });
    }
    header.resize(BEGINNING, 0);
    stream.read_exact(&mut header[1..]).await?;
    let rest = usize::from(u16::from_be_bytes([header[BEGINNING - 2], header[BEGINNING - 1]]));
    if !header.starts_with(v2::PROTOCOL_PREFIX) || rest > LONGEST_REST {
        return Err(invalid("it begins otherwise, or is too long"));
    }
    header.resize(BEGINNING + rest, 0);
    stream.read_exact(&mut header[BEGINNING..]).await?;
    let header = v2::Header::try_from(&header[..]).map_err(invalid)?;
    Ok(match (header.command, header.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(both)) => Some((both.source_address, both.source_port).into()),
        (v2::Command::Proxy, v2::Addresses::IPv6(both)) => Some((both.source_address, both.source_port).into()),
        _ => None,
    })
}

/// Reads up to a line feed. Bytes are looked at before they are taken, since TLS follows them.
async fn read_line(stream: &mut TcpStream, line: &mut Vec<u8>) -> io::Result<()> {
    let mut next = [0; LONGEST_LINE];
    while line.last() != Some(&b'\n') {
        let left = LONGEST_LINE.saturating_sub(line.len());
        if left == 0 {
            return Err(invalid("the line is too long"));
        }
        let seen = stream.peek(&mut next[..left]).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = next[..seen].iter().position(|byte| *byte == b'\n').map_or(seen, |end| end + 1);
        stream.read_exact(&mut next[..taken]).await?;
        line.extend_from_slice(&next[..taken]);
    }
    Ok(())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// Sends bytes in pieces of this size. Returns what was read of them, and what follows.
    async fn read_of(bytes: &[u8], piece: usize) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut proxy = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        proxy.set_nodelay(true).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let bytes = bytes.to_vec();
        let writing = tokio::spawn(async move {
            for piece in bytes.chunks(piece) {
                let _ = proxy.write_all(piece).await;
                tokio::task::yield_now().await;
            }
        });
        let read = read(&mut stream).await;
        writing.await.unwrap();
        let mut rest = Vec::new();
        if read.is_ok() {
            stream.read_to_end(&mut rest).await.unwrap();
        }
        (read, rest)
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, rest, b"\x16TLS"].concat()
    }

    #[tokio::test]
    async fn headers_are_read_to_their_end() {
        let four = [&[192, 0, 2, 7, 127, 0, 0, 1][..], &[0x30, 0x39, 0x01, 0xbb]].concat();
        let six = [&std::net::Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0, 80, 1, 187]].concat();
        let more = [&four[..], &[4, 0, 3, 0, 0, 0]].concat();
        let line = |text: &str| [text.as_bytes(), b"\r\n\x16TLS"].concat();
        for (bytes, expected) in [
            (line("PROXY TCP4 192.0.2.7 127.0.0.1 12345 443"), Some("192.0.2.7:12345")),
            (line("PROXY TCP6 2001:db8::7 ::1 12345 443"), Some("[2001:db8::7]:12345")),
            (line("PROXY UNKNOWN"), None),
            (version_2(1, 0x11, &four), Some("192.0.2.7:12345")),
            (version_2(1, 0x11, &more), Some("192.0.2.7:12345")),
            (version_2(1, 0x21, &six), Some("[::1]:80")),
            (version_2(0, 0x00, &[]), None),
            (version_2(0, 0x11, &four), None),
        ] {
            for piece in [1, 7, 1000] {
                let (address, rest) = read_of(&bytes, piece).await;
                assert_eq!(address.unwrap(), expected.map(|address| address.parse().unwrap()), "{bytes:?}");
                assert_eq!(rest, b"\x16TLS", "{bytes:?}");
            }
        }
    }

    #[tokio::test]
    async fn other_bytes_are_refused() {
        let long = [b"PROXY TCP4 192.0.2.7 ", &[b'1'; 200][..], b"\r\n"].concat();
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaa"[..],
            b"POST / HTTP/1.1\r\n",
            b"PROXY TCP4 somewhere 127.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 1 ",
            &long,
            &version_2(1, 0x11, &[1, 2, 3]),
            &version_2(1, 0x11, &[0; 5000]),
            &version_2(7, 0x11, &[0; 12]),
            &v2::PROTOCOL_PREFIX[..8],
            b"",
        ] {
            assert!(read_of(bytes, 1000).await.0.is_err(), "{bytes:?}");
        }
    }
}
