//! Sends one message to one DNS server: over UDP, and over TCP if the answer is too long. A key signs it.
//!
//! It has no cache, follows no records and asks no other server; see `lookup` for that.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType, TSigVerifier, TSigner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use crate::clock::unix_now;

/// How long each datagram waits for its answer. Most answers take less than 0.2 s. The second is for losses.
const UDP_TRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// The longest that a connection may take for its query and answer.
const TCP_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest datagram that we ask for: it passes every path unfragmented.
const LONGEST_DATAGRAM: u16 = 1232;
/// The largest possible datagram. An answer that is longer than we asked for is read as well.
const BUFFER: usize = 65_535;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// No answer came, or not in time.
    #[error("the DNS server {server} cannot be reached: {why}")]
    Unreachable {
        /// The server.
        server: SocketAddr,
        /// The reason.
        why: String,
    },
    /// An answer came that cannot be used.
    #[error("the DNS server {server} sends an unusable answer: {why}")]
    Unusable {
        /// The server.
        server: SocketAddr,
        /// The fault in the answer.
        why: String,
    },
    /// The message cannot be encoded.
    #[error("a DNS message cannot be written: {0}")]
    Request(String),
}

/// A question that allows a long answer. `recursive` asks the server to ask others.
pub(super) fn question(name: &Name, kind: RecordType, recursive: bool) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = recursive;
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(LONGEST_DATAGRAM);
    message.set_edns(edns);
    message
}

/// Sends a message and returns the answer, with any response code. With a key the message is signed (RFC 8945), and an
/// answer of success must be signed, too.
pub(super) async fn ask(server: SocketAddr, message: Message, key: Option<&TSigner>) -> Result<Message, Failure> {
    let mut exchange = Exchange::new(server, message, key)?;
    match exchange.udp().await {
        Ok(Some(answer)) if !answer.truncation => Ok(answer),
        // A path that drops datagrams may pass connections.
        Ok(_) | Err(Failure::Unreachable { .. }) => exchange.tcp().await,
        Err(failure) => Err(failure),
    }
}

/// A request and its way of checking answers.
struct Exchange {
    server: SocketAddr,
    request: Message,
    bytes: Vec<u8>,
    verifier: Option<TSigVerifier>,
}

impl Exchange {
    fn new(server: SocketAddr, mut request: Message, key: Option<&TSigner>) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Request(error.to_string());
        let mut verifier = None;
        if let Some(key) = key {
            let now = unix_now().unsigned_abs();
            verifier = request.finalize(key, now).map_err(|error| failed(&error))?;
        }
        let bytes = request.to_vec().map_err(|error| failed(&error))?;
        Ok(Self { server, request, bytes, verifier })
    }

    /// `None` if no answer came in time.
    async fn udp(&mut self) -> Result<Option<Message>, Failure> {
        let server = self.server;
        let unreachable = |error: io::Error| Failure::Unreachable { server, why: error.to_string() };
        let any: SocketAddr =
            if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any).await.map_err(unreachable)?;
        // A connected socket drops other senders' datagrams and reports a closed port.
        socket.connect(server).await.map_err(unreachable)?;
        let mut buffer = vec![0; BUFFER];
        for wait in UDP_TRIES {
            socket.send(&self.bytes).await.map_err(unreachable)?;
            let deadline = Instant::now() + wait;
            while let Ok(received) = timeout_at(deadline, socket.recv(&mut buffer)).await {
                let length = received.map_err(unreachable)?;
                // Another datagram may be forged, and the true answer may follow.
                if let Ok(Some(answer)) = self.check(&buffer[..length]) {
                    return Ok(Some(answer));
                }
            }
        }
        Ok(None)
    }

    async fn tcp(&mut self) -> Result<Message, Failure> {
        let server = self.server;
        let exchange = async {
            let mut stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            let length = u16::try_from(self.bytes.len()).map_err(io::Error::other)?;
            // Length and message in one write (RFC 7766, section 8).
            stream.write_all(&[&length.to_be_bytes(), self.bytes.as_slice()].concat()).await?;
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let unreachable = |why: String| Failure::Unreachable { server, why };
        let bytes = match timeout(TCP_TIMEOUT, exchange).await {
            Ok(bytes) => bytes.map_err(|error| unreachable(error.to_string()))?,
            Err(_) => return Err(unreachable("no answer in time by UDP or TCP".to_owned())),
        };
        self.check(&bytes)?.ok_or_else(|| Failure::Unusable { server, why: "it answers another question".to_owned() })
    }

    /// `None` if it does not answer our request.
    fn check(&mut self, bytes: &[u8]) -> Result<Option<Message>, Failure> {
        let server = self.server;
        let unusable = |why: String| Failure::Unusable { server, why };
        let answer = Message::from_vec(bytes).map_err(|error| unusable(error.to_string()))?;
        // Some servers omit the question in a refusal, or in any answer to an update (RFC 2136, section 3.8).
        let may_lack_question = answer.response_code != ResponseCode::NoError || answer.op_code == OpCode::Update;
        let same_question = answer.queries == self.request.queries || (answer.queries.is_empty() && may_lack_question);
        if answer.id != self.request.id
            || answer.message_type != MessageType::Response
            || answer.op_code != self.request.op_code
            || !same_question
        {
            return Ok(None);
        }
        // An unsigned refusal does no harm, and some refusals have no signed form (RFC 8945, section 5.3.2).
        if let Some(verifier) = &mut self.verifier
            && answer.response_code == ResponseCode::NoError
        {
            if answer.signature.is_none() {
                return Err(unusable("it is not signed with our key".to_owned()));
            }
            verifier.verify(bytes).map_err(|error| unusable(format!("its signature is not ours: {error}")))?;
        }
        Ok(Some(answer))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hickory_proto::rr::rdata::tsig::TsigAlgorithm;

    use super::*;
    use crate::dns::embedded::{Embedded, Zone, bind, serve};
    use crate::dns::{Solver as _, parse_name};

    fn key() -> TSigner {
        let secret = b"a secret of thirty-two bytes, ok".to_vec();
        TSigner::new(secret, TsigAlgorithm::HmacSha256, parse_name("cokd").unwrap(), 300).unwrap()
    }

    /// A server that replies to each query with the datagrams that `answer` returns.
    async fn server(answer: impl Fn(&Message) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                for bytes in answer(&Message::from_vec(&buffer[..length]).unwrap()) {
                    socket.send_to(&bytes, from).await.unwrap();
                }
            }
        });
        address
    }

    fn reply(query: &Message, code: ResponseCode) -> Message {
        let mut reply = Message::response(query.id, query.op_code);
        reply.metadata.response_code = code;
        reply.add_queries(query.queries.clone());
        reply
    }

    #[tokio::test]
    async fn a_long_answer_comes_by_tcp() {
        let responder = Embedded::new(Zone::challenge("tunnel.example.com", None, None).unwrap());
        for number in 0..32 {
            responder.present(&format!("{number:043}")).await.unwrap();
        }
        let sockets = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = sockets.address;
        let server = tokio::spawn(serve(Arc::clone(&responder), sockets));
        let name = parse_name("_ACME-challenge.tunnel.example.com").unwrap();
        let answer = ask(address, question(&name, RecordType::TXT, false), None).await.unwrap();
        assert_eq!(answer.answers.len(), 32);
        // The responder knows no keys, and says so without a signature.
        let answer = ask(address, question(&name, RecordType::TXT, false), Some(&key())).await.unwrap();
        assert_eq!(answer.response_code, ResponseCode::NotAuth);
        server.abort();
    }

    #[tokio::test]
    async fn datagrams_that_answer_another_question_are_ignored() {
        let address = server(|query| {
            let right = reply(query, ResponseCode::NXDomain);
            let mut other_id = reply(query, ResponseCode::NoError);
            other_id.metadata.id = !query.id;
            let mut other_name = reply(query, ResponseCode::NoError);
            other_name.queries[0].set_name(parse_name("other.example").unwrap());
            let mut no_question = reply(query, ResponseCode::NoError);
            no_question.queries.clear();
            let mut all = vec![b"x".to_vec(), query.to_vec().unwrap()];
            all.extend([other_id, other_name, no_question, right].map(|message| message.to_vec().unwrap()));
            all
        });
        let name = parse_name("tunnel.example.com").unwrap();
        let answer = ask(address.await, question(&name, RecordType::TXT, false), None).await.unwrap();
        assert_eq!(answer.response_code, ResponseCode::NXDomain);
    }

    #[tokio::test]
    async fn an_unsigned_success_is_not_accepted() {
        let strangers = TSigner::new(vec![7; 32], TsigAlgorithm::HmacSha256, parse_name("cokd").unwrap(), 300).unwrap();
        let address = server(move |query| {
            let now = unix_now().unsigned_abs();
            let mut forged = reply(query, ResponseCode::NoError);
            let unsigned = forged.to_vec().unwrap();
            forged.finalize(&strangers, now).unwrap();
            vec![unsigned, forged.to_vec().unwrap()]
        });
        let name = parse_name("tunnel.example.com").unwrap();
        let failure = ask(address.await, question(&name, RecordType::SOA, false), Some(&key())).await.unwrap_err();
        // The next try is by TCP, where no server listens.
        assert!(matches!(failure, Failure::Unreachable { .. }), "{failure}");
    }
}
