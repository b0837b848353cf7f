//! The race between QUIC and WebSocket. It knows no sockets: its entrants are futures that end with a proven connection.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::debug;

use super::failure::Cause;

/// How long QUIC runs alone. It needs two round trips to prove itself, so with up to 125 ms each no WebSocket is opened.
/// Where UDP is blocked, a user hardly notices the wait.
const HEAD_START: Duration = Duration::from_millis(250);
/// How long QUIC may go on once the WebSocket has failed. Most often no daemon is running, which only TCP shows at once.
/// But a lost first packet costs QUIC 1 s.
const LAST_CHANCE: Duration = Duration::from_millis(1500);

/// The connection that came first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Winner<Q, W> {
    /// QUIC.
    Quic(Q),
    /// The WebSocket, and why not QUIC.
    Ws(W, Cause),
}

/// Starts QUIC: a handshake, then the proof that data passes. After a head start, or once QUIC has failed, it starts the
/// WebSocket as well. The first to be ready wins, and QUIC wins a tie. The loser is dropped.
pub(crate) async fn race<L, Q, W, P>(
    handshake: impl Future<Output = Result<L, Cause>>,
    prove: impl FnOnce(L) -> P,
    ws: impl Future<Output = Result<W, Cause>>,
) -> Result<Winner<Q, W>, Cause>
where
    P: Future<Output = Result<Q, Cause>>,
{
    let (began, shaken) = (Instant::now(), AtomicBool::new(false));
    let mut quic = pin!(async {
        let link = handshake.await?;
        shaken.store(true, Ordering::Relaxed);
        prove(link).await
    });
    let unproven = || {
        let within = began.elapsed();
        if shaken.load(Ordering::Relaxed) { Cause::NoData(within) } else { Cause::NoAnswer { from: None, within } }
    };
    let mut ws = pin!(ws);
    let quic_error = match timeout(HEAD_START, &mut quic).await {
        Ok(Ok(quic)) => return Ok(Winner::Quic(quic)),
        Ok(Err(error)) => error,
        Err(_) => tokio::select! {
            biased;
            quic = &mut quic => match quic {
                Ok(quic) => return Ok(Winner::Quic(quic)),
                Err(error) => error,
            },
            ws = &mut ws => match ws {
                Ok(ws) => return Ok(Winner::Ws(ws, unproven())),
                Err(ws_error) => return match timeout(LAST_CHANCE, &mut quic).await {
                    Ok(Ok(quic)) => Ok(Winner::Quic(quic)),
                    Ok(Err(error)) => Err(both(error, ws_error)),
                    Err(_) => Err(both(unproven(), ws_error)),
                },
            },
        },
    };
    match ws.await {
        Ok(ws) => Ok(Winner::Ws(ws, quic_error)),
        Err(ws_error) => Err(both(quic_error, ws_error)),
    }
}

/// Why both failed. The user sees one cause, the log both.
fn both(quic: Cause, ws: Cause) -> Cause {
    debug!("neither way leads to the server. QUIC: {quic}. WebSocket: {ws}");
    Cause::telling(quic, ws)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::sleep;

    use super::*;

    /// Succeeds after `ms` milliseconds.
    async fn after(ms: u64) -> Result<(), Cause> {
        sleep(Duration::from_millis(ms)).await;
        Ok(())
    }

    async fn fails_after(ms: u64, cause: Cause) -> Result<(), Cause> {
        after(ms).await?;
        Err(cause)
    }

    fn refused() -> Cause {
        Cause::Refused("192.0.2.1:443".parse().unwrap())
    }

    fn no_answer(ms: u64) -> Cause {
        Cause::NoAnswer { from: None, within: Duration::from_millis(ms) }
    }

    /// Races a QUIC `handshake` with its `echo` against `ws`. Returns who wins, and after how many milliseconds.
    async fn run(
        handshake: impl Future<Output = Result<(), Cause>>,
        echo: impl Future<Output = Result<(), Cause>>,
        ws: impl Future<Output = Result<(), Cause>>,
    ) -> (Result<Winner<(), ()>, Cause>, u64) {
        let began = Instant::now();
        let winner = race(handshake, |()| echo, ws).await;
        (winner, began.elapsed().as_millis() as u64)
    }

    fn ws(why: Cause) -> Winner<(), ()> {
        Winner::Ws((), why)
    }

    #[tokio::test(start_paused = true)]
    async fn quic_wins_alone() {
        let never = async { panic!("within its head start, QUIC is alone") };
        assert_eq!(run(after(50), after(50), never).await, (Ok(Winner::Quic(())), 100));
    }

    #[tokio::test(start_paused = true)]
    async fn quic_wins_against_a_slower_websocket_and_in_a_tie() {
        assert_eq!(run(after(200), after(200), after(400)).await, (Ok(Winner::Quic(())), 400));
        assert_eq!(run(after(200), after(200), after(150)).await, (Ok(Winner::Quic(())), 400));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_quic_loses() {
        let lost = run(after(600), after(600), after(100)).await;
        assert_eq!(lost, (Ok(ws(no_answer(350))), 350));
        assert_eq!(run(pending(), after(0), after(800)).await, (Ok(ws(no_answer(1050))), 1050));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quic_that_fails_lets_the_websocket_start_at_once() {
        assert_eq!(
            run(fails_after(10, Cause::OtherProtocol), after(0), after(100)).await,
            (Ok(ws(Cause::OtherProtocol)), 110)
        );
        // Also when it fails while the WebSocket is on its way.
        assert_eq!(
            run(fails_after(300, Cause::OtherProtocol), after(0), after(100)).await,
            (Ok(ws(Cause::OtherProtocol)), 350)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_without_an_echo_is_no_success() {
        let silent = run(after(20), pending(), after(100)).await;
        assert_eq!(silent, (Ok(ws(Cause::NoData(Duration::from_millis(350)))), 350));
        assert_eq!(
            run(after(20), fails_after(50, Cause::Broken("no echo".to_owned())), after(100)).await,
            (Ok(ws(Cause::Broken("no echo".to_owned()))), 170)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn quic_wins_late_when_the_websocket_has_failed() {
        let won = run(after(900), after(300), ready(Err(refused()))).await;
        assert_eq!(won, (Ok(Winner::Quic(())), 1200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_has_one_cause() {
        let ws = || fails_after(1, refused());
        assert_eq!(run(fails_after(1, Cause::OtherProtocol), after(0), ws()).await, (Err(Cause::OtherProtocol), 2));
        assert_eq!(run(pending(), after(0), ws()).await, (Err(refused()), 1751));
        assert_eq!(
            run(fails_after(500, Cause::UnknownAuthority(None)), after(0), ws()).await,
            (Err(Cause::UnknownAuthority(None)), 500)
        );
        let silent = run(pending(), after(0), fails_after(1, no_answer(1))).await;
        assert_eq!(silent, (Err(no_answer(1)), 1751), "as the WebSocket has it");
    }

    /// Sets its flag when it is dropped.
    struct Loser<'a>(&'a AtomicBool);

    impl Drop for Loser<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_loser_is_dropped() {
        let dropped = AtomicBool::new(false);
        let loser = Loser(&dropped);
        let link = async {
            let _loser = loser;
            pending().await
        };
        assert!(matches!(run(link, after(0), after(10)).await.0, Ok(Winner::Ws(..))));
        assert!(dropped.load(Ordering::Relaxed));
    }
}
