//! Tests of the responder's sockets.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn both_sockets_answer() {
    let responder = responder();
    present(&responder, &["value"]).await;
    let sockets = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = sockets.address;
    let taken = bind(address).unwrap_err().to_string();
    assert!(taken.contains(&address.to_string()) && taken.contains("systemd-resolved"), "{taken}");
    let server = tokio::spawn(serve(responder, sockets));
    let asked = query(CHALLENGE, RecordType::TXT).to_vec().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    // Bytes that are no query get no answer and do not stop the service.
    socket.send(b"x").await.unwrap();
    socket.send(&asked).await.unwrap();
    let mut bytes = [0; 2000];
    let length = socket.recv(&mut bytes).await.unwrap();
    assert!(bytes[..length].ends_with(b"\x05value"));
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        // The query comes in pieces.
        stream.write_all(&[0]).await.unwrap();
        stream.write_all(&[asked.len() as u8]).await.unwrap();
        stream.write_all(&asked).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(answer.ends_with(b"\x05value"));
    }
    // A length beyond the longest query ends the connection.
    stream.write_all(&[255, 255, 0]).await.unwrap();
    assert!(matches!(stream.read(&mut bytes).await, Ok(0) | Err(_)));
    server.abort();
}

/// Asks over UDP. The socket accepts an answer only from the address that was asked.
async fn ask_udp(address: SocketAddr, asked: &[u8]) -> Message {
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let socket = UdpSocket::bind(any).await.unwrap();
    socket.connect(address).await.unwrap();
    let mut bytes = [0; 2000];
    loop {
        socket.send(asked).await.unwrap();
        if let Ok(length) = timeout(Duration::from_secs(1), socket.recv(&mut bytes)).await {
            return Message::from_vec(&bytes[..length.unwrap()]).unwrap();
        }
    }
}

async fn ask_tcp(stream: &mut TcpStream, asked: &[u8]) -> std::io::Result<Message> {
    stream.write_u16(asked.len() as u16).await?;
    stream.write_all(asked).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(Message::from_vec(&answer).unwrap())
}

#[tokio::test]
async fn the_asked_address_answers() {
    let responder = responder();
    present(&responder, &["value"]).await;
    let asked = query(CHALLENGE, RecordType::TXT).to_vec().unwrap();
    for (listen, asked_at) in [("0.0.0.0:0", ["127.0.0.1", "127.7.7.7"]), ("[::]:0", ["127.7.7.7", "::1"])] {
        let sockets = bind(listen.parse().unwrap()).unwrap();
        let port = sockets.address.port();
        let server = tokio::spawn(serve(responder.clone(), sockets));
        for ip in asked_at {
            let address = (ip.parse::<std::net::IpAddr>().unwrap(), port).into();
            let answer = timeout(DEADLINE, ask_udp(address, &asked)).await.expect("an answer from the address asked");
            assert_eq!(answer.answers.len(), 1);
        }
        server.abort();
    }
}

#[tokio::test]
async fn a_network_that_asks_too_often_is_sent_to_tcp() {
    let responder = responder();
    present(&responder, &["value"]).await;
    // Sockets that were bound elsewhere.
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, over_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let server = tokio::spawn(serve(responder, Sockets::from_std(udp, tcp).unwrap()));
    let asked = query(CHALLENGE, RecordType::TXT).to_vec().unwrap();
    let flood = async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(address).await.unwrap();
        let (mut bytes, mut whole) = ([0; 2000], 0);
        loop {
            // Several at once, since one at a time may be slower than the limit.
            for _ in 0..50 {
                socket.send(&asked).await.unwrap();
            }
            while let Ok(length) = timeout(Duration::from_millis(100), socket.recv(&mut bytes)).await {
                let answer = Message::from_vec(&bytes[..length.unwrap()]).unwrap();
                assert_eq!(answer.queries.len(), 1);
                if answer.truncation {
                    assert!(answer.answers.is_empty());
                    return whole;
                }
                whole += 1;
                socket.send(&asked).await.unwrap();
            }
        }
    };
    let whole = timeout(DEADLINE, flood).await.expect("there is a limit");
    assert!(whole >= 200, "{whole}");
    let mut stream = TcpStream::connect(over_tcp).await.unwrap();
    assert_eq!(ask_tcp(&mut stream, &asked).await.unwrap().answers.len(), 1);
    // A refusal has no records, so it is never truncated.
    let elsewhere = query("example.org.", RecordType::TXT).to_vec().unwrap();
    assert!(!ask_udp(address, &elsewhere).await.truncation);
    server.abort();
}

#[tokio::test]
async fn one_network_cannot_take_all_connections() {
    let responder = responder();
    present(&responder, &["value"]).await;
    let sockets = bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let port = sockets.address.port();
    let server = tokio::spawn(serve(responder, sockets));
    let asked = query(CHALLENGE, RecordType::TXT).to_vec().unwrap();
    let from = |ip: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((ip, 0).into()).unwrap();
        socket.connect(([127, 0, 0, 1], port).into())
    };
    let ask = async |stream: &mut TcpStream| timeout(DEADLINE, ask_tcp(stream, &asked)).await.expect("in time");
    let mut other = from([127, 9, 9, 9]).await.unwrap();
    ask(&mut other).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = from([127, 0, 0, 1]).await.unwrap();
        ask(&mut stream).await.unwrap();
        streams.push(stream);
    }
    // The first is no longer the oldest. The oldest now makes room for one more of its network alone.
    ask(&mut streams[0]).await.unwrap();
    let mut newcomer = from([127, 0, 0, 1]).await.unwrap();
    ask(&mut newcomer).await.unwrap();
    let mut open = Vec::new();
    for stream in &mut streams {
        open.push(ask(stream).await.is_ok());
    }
    let mut expected = [true; 16];
    expected[1] = false;
    assert_eq!(open, expected);
    ask(&mut other).await.unwrap();
    // If all networks together have too many, a connection that has been idle makes room.
    let mut many = Vec::new();
    for network in 1..8 {
        for _ in 0..16 {
            let mut stream = from([127, network, 0, 1]).await.unwrap();
            ask(&mut stream).await.unwrap();
            many.push(stream);
        }
    }
    assert!(ask(&mut streams[0]).await.is_err());
    server.abort();
}
