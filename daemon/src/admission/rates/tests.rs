use super::*;
use crate::admission::KeyLimits;
use crate::names::KeyDigest;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn key(limits: KeyLimits) -> KeyRecord {
    let (id, name) = ("k".into(), "k".into());
    KeyRecord { id, name, digest: KeyDigest::of("secret"), subdomains: Vec::new(), limits, expires: None }
}

fn rates(config: Config) -> Arc<Rates> {
    Rates::new(config, vec!["10.0.0.0/8".parse().unwrap()], 2)
}

#[tokio::test(start_paused = true)]
async fn visitors_count_by_address_and_by_64() {
    let rates = rates(Config { requests_per_address: Some(Rate::new(1, 2)), ..Config::default() });
    let ask = |text| rates.visitor(address(text)).is_ok();
    assert!(ask("192.0.2.1") && ask("::ffff:192.0.2.1") && !ask("192.0.2.1"));
    assert!(ask("2001:db8::1") && ask("2001:db8::2") && !ask("2001:db8::3") && ask("2001:db8:0:1::1"));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(ask("192.0.2.1") && !ask("192.0.2.1"));
}

#[tokio::test(start_paused = true)]
async fn tunnels_and_keys_have_their_rates() {
    let config = Config {
        requests_per_tunnel: Some(Rate::new(10, 3)),
        requests_per_key: Some(Rate::new(10, 4)),
        ..Config::default()
    };
    let rates = rates(config);
    let number = |name| rates.number(&Subdomain::parse(name).unwrap());
    let (a, b) = (number("a"), number("b"));
    let usual = key(KeyLimits::default());
    let whose = |outcome: Result<(), Exceeded>| outcome.unwrap_err().whose;
    for _ in 0..3 {
        assert_eq!(rates.tunnel(a, Some(&usual)), Ok(()));
    }
    assert_eq!(whose(rates.tunnel(a, Some(&usual))), Whose::Tunnel);
    assert_eq!(rates.tunnel(b, Some(&usual)), Ok(()));
    assert_eq!(whose(rates.tunnel(b, Some(&usual))), Whose::Key);
    let own =
        KeyRecord { id: "own".into(), ..key(KeyLimits { requests: Some(Rate::new(5, 1)), ..KeyLimits::default() }) };
    assert_eq!(rates.tunnel(number("c"), Some(&own)), Ok(()));
    let exceeded = rates.tunnel(number("d"), Some(&own)).unwrap_err();
    assert_eq!(exceeded, Exceeded { whose: Whose::Key, rate: Rate::new(5, 1), wait: Duration::from_millis(200) });
}

#[tokio::test(start_paused = true)]
async fn a_client_sets_a_rate_for_its_visitors() {
    let rates = rates(Config::default());
    let (name, other) = (TunnelNumber(1), TunnelNumber(2));
    let ask = |name, text| rates.visitor_of_tunnel(name, address(text), Rate::new(1, 1)).is_ok();
    assert!(ask(name, "192.0.2.1") && !ask(name, "192.0.2.1"));
    assert!(ask(name, "192.0.2.2") && ask(other, "192.0.2.1"));
}

#[tokio::test(start_paused = true)]
async fn bytes_wait_for_both_rates() {
    let rates = rates(Config { bytes_per_tunnel: Some(Rate::new(1 << 20, 1 << 20)), ..Config::default() });
    let limits = KeyLimits { bytes: Some(Rate::new(1 << 19, 1 << 20)), ..KeyLimits::default() };
    let mut bytes = rates.bytes(rates.number(&Subdomain::parse("a").unwrap()), &key(limits)).unwrap();
    assert_eq!(bytes.passed(1 << 20), Duration::ZERO);
    assert_eq!(bytes.passed(1000), Duration::ZERO);
    let wait = bytes.clone().passed(1 << 19);
    assert!(wait.abs_diff(Duration::from_secs(1)) < Duration::from_millis(5), "{wait:?}");
    let none = Config { bytes_per_tunnel: None, ..Config::default() };
    rates.reload(none, Vec::new());
    assert!(rates.bytes(TunnelNumber(1), &key(KeyLimits::default())).is_none());
}

#[tokio::test(start_paused = true)]
async fn arrivals_have_rates_and_proxies_have_none() {
    let config = Config {
        connections_per_address: Some(Rate::new(1, 1)),
        handshakes_per_address: Some(Rate::new(1, 1)),
        ..Config::default()
    };
    let rates = rates(config);
    let (visitor, proxy) = (address("192.0.2.1"), address("10.1.2.3"));
    assert_eq!((rates.connection(visitor), rates.connection(visitor)), (Ok(()), Err(TooFast)));
    assert_eq!((rates.unproved_handshake(visitor), rates.unproved_handshake(visitor)), (Ok(()), Err(TooFast)));
    let limit = Duration::from_secs(1);
    let handshake = || rates.handshake(visitor, limit);
    assert_eq!([handshake(), handshake(), handshake()], [Ok(Duration::ZERO), Ok(limit), Err(TooFast)]);
    for _ in 0..3 {
        assert_eq!((rates.connection(proxy), rates.handshake(proxy, limit)), (Ok(()), Ok(Duration::ZERO)));
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_wrong_keys_take_a_minute() {
    let rates = rates(Config::default());
    let visitor = address("192.0.2.1");
    let at_once: Vec<_> = (0..200).map(|_| rates.failed_key(visitor).unwrap()).collect();
    assert_eq!(at_once[0], Duration::ZERO);
    assert!(at_once[199] >= Duration::from_secs(60));
    assert_eq!(rates.failed_key(address("192.0.2.2")), Some(Duration::ZERO));
    assert_eq!((200..300).filter_map(|_| rates.failed_key(visitor)).count(), 57);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_wrong_keys_one_after_the_other_take_a_minute() {
    let (rates, began) = (rates(Config::default()), tokio::time::Instant::now());
    for _ in 0..200 {
        tokio::time::sleep(rates.failed_key(address("192.0.2.1")).unwrap()).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(60));
}
