use std::future::poll_fn;
use std::task::{Context, Waker};

use bytes::Bytes;
use cok_transport::ExchangeHalves;
use tokio::time::{advance, sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::test_halves::TestHalf;

const SECOND: Duration = Duration::from_secs(1);

fn exchanges(config: Config) -> Arc<Exchanges> {
    let exchanges = Exchanges::new(config);
    tokio::spawn(exchanges.clone().watch());
    exchanges
}

fn leash() -> Leash {
    Leash::of_stream(&CancellationToken::new())
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn enter(exchanges: &Exchanges, places: &Arc<Places>, from: u8, most: u32) -> Result<Arc<Exchange>, Full> {
    exchanges.enter(places, address(from), (most, true), leash(), 1024)
}

/// An exchange whose service has sent a part of its response.
fn answered(exchange: &Arc<Exchange>) -> ExchangeHalves {
    let recv = TestHalf { parts: [Bytes::from_static(b"part")].into(), ..TestHalf::default() };
    let halves = exchange.attach(ExchangeHalves { send: Box::<TestHalf>::default(), recv: Box::new(recv) });
    exchange.set_answered();
    halves
}

fn poll(halves: &mut ExchangeHalves) -> bool {
    halves.recv.poll_recv(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_takes_nothing_has_a_time() {
    let exchanges = exchanges(Config::default());
    let exchange = enter(&exchanges, &exchanges.places(), 1, 10).unwrap();
    let mut halves = answered(&exchange);
    assert!(poll(&mut halves));
    let part = exchange.wait(4);
    sleep(58 * SECOND).await;
    drop(part);
    assert!(!poll(&mut halves), "all is taken, and the service pauses");
    sleep(600 * SECOND).await;
    assert_eq!(exchange.ended(), None);
    let _part = exchange.wait(4);
    sleep(58 * SECOND).await;
    assert_eq!(exchange.ended(), None);
    sleep(4 * SECOND).await;
    assert_eq!(exchange.ended(), Some(End::Stalled));
    assert!(exchange.leash().hold(std::future::pending::<()>()).await.is_none(), "the visitor's side is dropped");
    assert!(poll_fn(|cx| halves.recv.poll_recv(cx)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stops_has_a_time() {
    let exchanges = exchanges(Config::default());
    let exchange = enter(&exchanges, &exchanges.places(), 1, 10).unwrap();
    let mut halves =
        exchange.attach(ExchangeHalves { send: Box::<TestHalf>::default(), recv: Box::<TestHalf>::default() });
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..5 {
        assert!(halves.send.poll_ready(&mut cx).is_ready() && halves.send.poll_broken(&mut cx).is_pending());
        sleep(50 * SECOND).await;
        assert_eq!(exchange.ended(), None);
        halves.send.send_data(Bytes::from_static(b"x"), false);
    }
    assert!(halves.send.poll_broken(&mut cx).is_pending());
    sleep(62 * SECOND).await;
    assert_eq!(exchange.ended(), Some(End::Stalled));
}

#[tokio::test(start_paused = true)]
async fn a_quarter_of_the_time_is_left_under_pressure_and_long_lived_ones_have_all_of_it() {
    let config = Config { max_buffered: 1 << 20, ..Config::default() };
    let exchanges = exchanges(config);
    let places = exchanges.places();
    let [short, long, other] = [1, 2, 3].map(|from| enter(&exchanges, &places, from, 10).unwrap());
    let _halves = [answered(&short), answered(&long)];
    long.set_long_lived();
    let _parts = [short.wait(4), long.wait(4)];
    sleep(14 * SECOND).await;
    other.holding.add(200 << 10);
    let _more = enter(&exchanges, &places, 4, 10).map(|more| (more.holding.add(100 << 10), more));
    sleep(3 * SECOND).await;
    assert_eq!((short.ended(), long.ended()), (Some(End::Stalled), None));
    sleep(46 * SECOND).await;
    assert_eq!(long.ended(), Some(End::Stalled));
}

#[tokio::test(start_paused = true)]
async fn an_address_has_a_share_and_others_get_in() {
    let exchanges = exchanges(Config::default());
    let places = exchanges.places();
    let first: Vec<_> = (0..5).map(|_| enter(&exchanges, &places, 1, 10).unwrap()).collect();
    assert_eq!(enter(&exchanges, &places, 1, 10).unwrap_err(), Full::Share);
    let proxied = exchanges.enter(&places, address(1), (10, false), leash(), 0);
    assert!(proxied.is_ok(), "a proxy that names nobody may have all");
    drop(proxied);
    let mut held = Vec::new();
    for exchange in &first {
        held.push(answered(exchange));
        advance(SECOND).await;
    }
    let newcomer = enter(&exchanges, &places, 2, 10).unwrap();
    assert!(newcomer.make_room());
    assert_eq!(first[0].ended(), Some(End::Evicted), "it stands still longest");
    first[1..].iter().for_each(|exchange| exchange.set_long_lived());
    assert!(!newcomer.make_room(), "its address has no more than its share");
    assert!(enter(&exchanges, &places, 1, 10).is_ok(), "the place of what has ended is free");
    drop((first, held));
    assert!((0..5).all(|_| enter(&exchanges, &places, 1, 10).is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_full_account_ends_what_stands_still_longest_of_whom_holds_most() {
    let exchanges = exchanges(Config { max_buffered: 1600, ..Config::default() });
    let places = exchanges.places();
    let [old, new] = [(); 2].map(|()| enter(&exchanges, &places, 1, 10).unwrap());
    let other = enter(&exchanges, &places, 2, 10).unwrap();
    let halves = [answered(&old), answered(&new), answered(&other)];
    other.holding.add(100);
    old.holding.add(200);
    sleep(SECOND).await;
    let part = new.wait(190);
    drop(new.wait(1));
    assert_eq!(new.ended(), None);
    new.holding.add(20);
    sleep(SECOND).await;
    assert_eq!((old.ended(), new.ended(), other.ended()), (Some(End::Evicted), None, None));
    assert_eq!(enter(&exchanges, &places, 1, 10).unwrap_err(), Full::Bytes, "until it gives the bytes back");
    drop((old, halves));
    assert!(enter(&exchanges, &places, 1, 10).is_ok());
    drop((new, part, other));
    assert_eq!((exchanges.process.held(), places.account.held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_blocked_upload_is_charged_while_it_is() {
    let exchanges = exchanges(Config::default());
    let exchange = enter(&exchanges, &exchanges.places(), 1, 10).unwrap();
    let send = TestHalf { blocked: true, ..TestHalf::default() };
    let mut halves = exchange.attach(ExchangeHalves { send: Box::new(send), recv: Box::<TestHalf>::default() });
    assert!(halves.send.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(exchanges.process.held(), 1024);
    sleep(600 * SECOND).await;
    assert_eq!(exchange.ended(), None, "the service's pauses do not count");
    drop(halves);
    assert_eq!(exchanges.process.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_has_its_most_exchanges() {
    let exchanges = exchanges(Config::default());
    let (places, key) = (exchanges.places(), exchanges.key(&"key".into()));
    let [first, second] = [(); 2].map(|()| enter(&exchanges, &places, 1, 10).unwrap());
    assert!(first.count_for(&key, Some(1)) && first.count_for(&key, Some(1)), "it counts once");
    assert!(!second.count_for(&exchanges.key(&"key".into()), Some(1)));
    drop(first);
    assert!(second.count_for(&key, Some(1)));
}
