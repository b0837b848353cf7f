use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Method, Response};
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::authority::Authority;

/// What the server received: path, fields `authorization` and `content-type`, and body.
type Asked = Arc<Mutex<Vec<(String, String, String, String)>>>;

/// A server that gives the same answer to every request until the runtime ends. With a certificate it uses TLS.
async fn server(status: u16, body: &'static str, tls: Option<TlsAcceptor>) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Asked::default());
    let kept = asked.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (asked, tls) = (kept.clone(), tls.clone());
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let asked = asked.clone();
                async move {
                    assert_eq!(request.method(), Method::POST);
                    let field =
                        |name| request.headers().get(name).map_or("", |value: &HeaderValue| value.to_str().unwrap());
                    let (authorization, kind) = (field("authorization").to_owned(), field("content-type").to_owned());
                    let path = request.uri().to_string();
                    let sent = request.into_body().collect().await.unwrap().to_bytes();
                    asked.lock().unwrap().push((path, authorization, kind, String::from_utf8(sent.to_vec()).unwrap()));
                    Ok::<_, hyper::Error>(Response::builder().status(status).body(Full::<Bytes>::from(body)).unwrap())
                }
            });
            tokio::spawn(async move {
                let builder = hyper::server::conn::http1::Builder::new();
                // A client that does not trust the certificate disconnects.
                let _gone = match tls {
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
                        Err(_) => return,
                    },
                    None => builder.serve_connection(TokioIo::new(stream), service).await,
                };
            });
        }
    });
    (address, asked)
}

fn solver(url: &str) -> HttpReq {
    let settings = Settings {
        url: url.to_owned(),
        username: Some("cokd".to_owned()),
        password: Some("pass:word".to_owned()),
        ca_file: None,
    };
    HttpReq::new("tunnel.example.com", settings).unwrap()
}

#[tokio::test]
async fn it_asks_as_lego_does() {
    let (address, asked) = server(200, "", None).await;
    let solver = solver(&format!("http://{address}/a/hook/"));
    solver.present("-va\"lue").await.unwrap();
    solver.cleanup("-va\"lue").await.unwrap();
    let body = r#"{"fqdn":"_acme-challenge.tunnel.example.com.","value":"-va\"lue"}"#;
    // The base64 form of `cokd:pass:word`.
    let expected = ["/a/hook/present", "/a/hook/cleanup"].map(|path| {
        let parts = (path, "Basic Y29rZDpwYXNzOndvcmQ=", "application/json", body);
        (parts.0.to_owned(), parts.1.to_owned(), parts.2.to_owned(), parts.3.to_owned())
    });
    assert_eq!(*asked.lock().unwrap(), expected);
    let open = Settings { url: format!("http://{address}"), ..Settings::default() };
    HttpReq::new("tunnel.example.com", open).unwrap().present("x").await.unwrap();
    let last = asked.lock().unwrap().pop().unwrap();
    assert_eq!((last.0.as_str(), last.1.as_str()), ("/present", ""));
}

#[tokio::test]
async fn it_trusts_the_configured_authority() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(folder.path()).unwrap();
    let key = Arc::unwrap_or_clone(authority.issue(&["127.0.0.1"]).unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    let (address, asked) = server(204, "", Some(TlsAcceptor::from(Arc::new(config)))).await;
    let url = format!("https://{address}/hook");
    let settings = Settings { url: url.clone(), ca_file: Some(authority.ca_file().to_owned()), ..Settings::default() };
    let trusting = HttpReq::new("tunnel.example.com", settings).unwrap();
    trusting.present("value").await.unwrap();
    assert_eq!(asked.lock().unwrap()[0].0, "/hook/present");
    let error = solver(&url).present("value").await.unwrap_err();
    assert!(matches!(&error, SolverError::Unavailable(why) if why.contains("certificate")), "{error}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn each_failure_says_who_has_to_act() {
    for (status, setup, advice) in [
        (401, true, "look at username and password"),
        (403, true, "look at username and password"),
        (404, true, "look at the URL"),
        (302, true, "set the URL that it leads to"),
        (400, false, "(no such zone)"),
        (503, false, "(no such zone)"),
    ] {
        let (address, _) = server(status, "no such\n zone\n", None).await;
        let error = solver(&format!("http://{address}")).present("value").await.unwrap_err();
        let (is_setup, why) = match error {
            SolverError::Setup(why) => (true, why),
            SolverError::Unavailable(why) => (false, why),
        };
        assert_eq!(is_setup, setup, "{why}");
        assert!(why.starts_with(&format!("http://{address}/present answers {status}")), "{why}");
        assert!(why.contains(advice) && !why.contains("pass:word"), "{why}");
    }
    // No server listens.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = solver(&format!("http://{address}")).present("value").await.unwrap_err();
    assert!(matches!(&error, SolverError::Unavailable(why) if why.contains(&address.to_string())), "{error}");
}

#[test]
fn wrong_settings_are_named_and_show_no_secret() {
    let new = |url: &str| {
        let settings = Settings { url: url.to_owned(), password: Some("s3cret".to_owned()), ..Settings::default() };
        assert!(!format!("{settings:?}").contains("s3cret"));
        HttpReq::new("tunnel.example.com", settings)
    };
    assert!(!format!("{:?}", solver("http://hook.example.com")).contains("pass"));
    for (url, part) in [
        ("hook", "http:// or https://"),
        ("ftp://hook.example.com", "http:// or https://"),
        ("http://", "no URL"),
        ("http://a b", "no URL"),
        ("http://user:s3cret@hook.example.com/x", "settings of their own"),
        ("user:s3cret@hook.example.com", "settings of their own"),
        ("http://hook.example.com/?x=1", "`?`"),
    ] {
        let why = new(url).unwrap_err().to_string();
        assert!(why.contains(part) && !why.contains("s3cret"), "{url}: {why}");
    }
    let ca_file = Some(PathBuf::from("/nowhere/ca.pem"));
    let settings = Settings { url: "https://hook.example.com".to_owned(), ca_file, ..Settings::default() };
    let why = HttpReq::new("tunnel.example.com", settings).unwrap_err().to_string();
    assert!(why.contains("/nowhere/ca.pem"), "{why}");
}
